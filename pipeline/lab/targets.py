"""What an accuracy costs: the least that each policy needs for a target, side by side (`camlink compare --target`).

`camlink` is given the target and finds the cost itself, frame by frame. The others know budgets only: each is played at
a ladder of them, and counts with the least at which it reaches the target, which nobody knows beforehand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from camlink.models.trace_arrays import TraceArrays
from camlink.operators.selection import Budget
from camlink.pipeline.lab.compare import Contest, Result, Rules, Step, binding_budgets
from camlink.pipeline.lab.policies import Candidate, find_policies

LADDER = tuple(rung / 20 for rung in range(1, 21))  # shares of the time of executing everything


def compare_targets(
    trace: TraceArrays,
    rules: Rules,
    targets: Sequence[float],
    note: Callable[[str], None],
    step: Callable[[Step], None] = lambda _: None,
) -> Iterator[Result]:
    """Yield what every policy needs for each of ``targets``, at each memory budget, limit and seed of ``rules``.

    One that does not reach a target counts with what it reaches at the top of the ladder. Raises as `compare` does.
    """
    contest = Contest.of(trace, rules, note)
    timeless = dict.fromkeys(replace(budget, time_share=None) for budget in rules.budgets)
    memories = binding_budgets(trace, contest.cameras, list(timeless), note, rules.load_ms)
    for candidate in find_policies(list(rules.policies), contest.period_s):
        for memory in memories:
            for seed in rules.seeds if candidate.seeded else rules.seeds[:1]:
                play = _aimed if candidate.aims else _climbed
                for found in play(contest, candidate, memory, seed, sorted(targets), step):
                    for named in (seed,) if candidate.seeded else rules.seeds:
                        yield replace(found, seed=named)


def _aimed(
    contest: Contest,
    candidate: Candidate,
    memory: Budget,
    seed: int,
    targets: Sequence[float],
    step: Callable[[Step], None],
) -> Iterator[Result]:
    """Give a policy each target, and no time budget."""
    for place, target in enumerate(targets):
        text = f"{contest.trace.name}: {candidate.name}, target {100 * target:g}%"
        start = Step(text, place * contest.frames, len(targets) * contest.frames)
        yield replace(contest.play(candidate, memory, seed, step, start, target), target=target)


def _climbed(
    contest: Contest,
    candidate: Candidate,
    memory: Budget,
    seed: int,
    targets: Sequence[float],
    step: Callable[[Step], None],
) -> Iterator[Result]:
    """Play a policy at one budget after the other until the targets, which rise, are reached."""
    rungs = LADDER if candidate.bound else LADDER[-1:]
    left = list(targets)
    for place, share in enumerate(rungs):
        text = f"{contest.trace.name}: {candidate.name}, {share:.0%} of the time"
        start = Step(text, place * contest.frames, len(rungs) * contest.frames)
        found = contest.play(candidate, replace(memory, time_share=share), seed, step, start)
        while left and (found.agreement() >= left[0] or share == rungs[-1]):
            yield replace(found, target=left.pop(0))
        if not left:
            return
