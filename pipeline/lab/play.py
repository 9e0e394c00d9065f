"""Plays one policy over one camera's trace: who executes is paid, who answers is judged, nobody sees the future.

The first tenth is warm-up: every model runs, policies learn from it, nothing is charged or scored. From then on the
budgets hold on every frame (`camlink.operators.allowance`); a policy that breaks it is stopped with `PolicyError`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from camlink.models.trace_arrays import CameraTrace
from camlink.operators.allowance import Allowance
from camlink.operators.blocks import BlockAnswer, BlockPolicy
from camlink.operators.policy import (
    Answer,
    FrameFacts,
    FramePolicy,
    MakePolicy,
    PolicySetup,
    ReadsDetections,
)
from camlink.operators.selection import Budget
from camlink.pipeline.errors import PolicyError
from camlink.pipeline.lab.tally import HOWS, Tally
from camlink.pipeline.records import STATISTICS, FrameStats, Value

WARM_UP_SHARE = 0.1
FLUSH_FRAMES = 4096  # frames whose answers are held before they are scored together
BLOCK_FRAMES = 4096  # frames offered to a policy at once
FEWEST_IN_BLOCK = 8  # below, one by one is as fast
TICK_FRAMES = 64  # frames between two words to who watches
Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Split:
    """Where a camera's frames begin to count, and which period each of those belongs to."""

    warm_up: int  # frames
    period: NDArray[np.intp]  # (frames that count,)


def split(camera: CameraTrace, period_s: float) -> Split:
    """Cut the warm-up off, and the rest into periods of event time."""
    warm_up = ceil(WARM_UP_SHARE * len(camera))
    scored = camera.time_s[warm_up:]
    return Split(warm_up, ((scored - scored[0]) // period_s).astype(np.intp))


def play(
    camera: CameraTrace,
    make: MakePolicy,
    setup: PolicySetup,
    cut: Split,
    *,
    name: str,
    bound: bool = True,
    blocks: bool = True,
    tick: Callable[[int], None] = lambda _: None,
) -> Tally:
    """Return what a policy scored and spent on one camera.

    ``bound``: the budget is held against it; ``blocks``: it may take frames by the block, where it can; ``tick`` is
    told now and then how many frames are done.
    Raises `PolicyError` for a policy that exceeds its budget, or answers with what does not fit.
    """
    policy = make(setup)
    in_blocks = policy if blocks and isinstance(policy, BlockPolicy) else None
    player = _Player(camera, policy, in_blocks, setup, cut, name, bound)
    row = told = 0
    while row < len(camera):
        if row >= told:
            tick(row)
            told = row + TICK_FRAMES
        passed = player.block(row)
        if not passed:
            player.frame(row)
        row += passed or 1
    return player.finish()


class _Player:
    """One run: the policy, its purse, and the answers that wait to be scored."""

    def __init__(
        self,
        camera: CameraTrace,
        policy: FramePolicy,
        in_blocks: BlockPolicy | None,
        setup: PolicySetup,
        cut: Split,
        name: str,
        bound: bool,
    ) -> None:
        self._camera, self._policy, self._in_blocks, self._cut = camera, policy, in_blocks, cut
        self._where = f'policy "{name}" on camera "{camera.camera_id}"'
        self._bound = bound
        self._models = tuple(setup.specs)
        self._specs = setup.specs
        self._place = {m: i for i, m in enumerate(self._models)}
        self._purse = Allowance(setup.costs, setup.budget if bound else Budget(setup.budget.memory_gb), setup.load_ms)
        self._tally = Tally.empty(self._models, cut.period)
        self._values = [camera.values[m] for m in self._models]
        self._facts = Facts(camera)
        self._reader = policy if isinstance(policy, ReadsDetections) and camera.detections else None
        self._executed: list[list[int]] = [[] for _ in self._models]  # rows
        self._answers: list[list[tuple[int, Answer]]] = [[] for _ in self._models]
        self._held = self._done = 0  # frames that wait to be scored, and that are

    def frame(self, row: int) -> None:
        """Play one frame."""
        policy = self._policy
        policy.begin(self._facts.at(row))
        if row < self._cut.warm_up:
            self._show_detections(row, self._models)
            policy.learn({m: v[row] for m, v in zip(self._models, self._values, strict=True)}, chosen=False)
            return
        executed = self._execute(row)
        answers = policy.answer(executed)
        self._show_detections(row, executed)
        policy.learn(executed, chosen=True)
        for model, answer in answers.items():
            if model not in executed:
                self._answers[self._place[model]].append((row, answer))
        self._held += 1
        if self._held == FLUSH_FRAMES:
            self._flush()

    def _show_detections(self, row: int, executed: Iterable[str]) -> None:
        if self._reader is not None:
            drawn = self._camera.detections
            self._reader.found({m: drawn[m].at(row) for m in executed if m in drawn})

    def block(self, row: int) -> int:
        """Play as many frames as the policy holds its choice for, and return how many; 0 if it does not."""
        if self._in_blocks is None or row < self._cut.warm_up:
            return 0
        times_s = self._camera.time_s[row : row + BLOCK_FRAMES]
        models, frames = self._in_blocks.hold(times_s)
        if frames < FEWEST_IN_BLOCK:
            return 0
        if self._purse.frames_held(models, frames) < frames:
            raise PolicyError(self._overspent(row, models[0]))
        self._flush()
        self._purse.spend_block(models, frames)
        rows = np.arange(row, row + frames)
        answers = self._in_blocks.pass_block(times_s[:frames], {m: self._camera.values[m][rows] for m in models})
        self._score_block(rows, models, answers)
        return frames

    def _score_block(self, rows: Rows, models: tuple[str, ...], answers: Mapping[str, BlockAnswer]) -> None:
        frames, tally = rows - self._cut.warm_up, self._tally
        tally.spend(frames, self._purse.costs.time(models))
        for place, model in enumerate(self._models):
            spec, recorded = self._specs[model], self._values[place][rows]
            if model in models:
                tally.add_executed(place, frames, spec, recorded)
            elif model in answers:
                answer = answers[model]
                served = self._stacked(model, answer.values, recorded.shape[1])
                how = np.full(len(rows), HOWS.index(answer.how))
                stated = np.full(len(rows), np.nan) if answer.confidence is None else answer.confidence
                tally.add_answered(place, frames, spec, how, served, recorded, stated)
            else:
                tally.add_abstained(place, frames)
        self._done += len(rows)

    def finish(self) -> Tally:
        """Score what waits and return all."""
        self._flush()
        self._tally.loads = self._purse.loads
        return self._tally

    def _execute(self, row: int) -> dict[str, Value]:
        purse, executed, choose = self._purse, dict[str, Value](), self._policy.choose
        purse.next_frame()
        before = purse.spent_ms
        while (model := choose(executed)) is not None:
            if model not in self._place or model in executed:
                wrong = "has executed already" if model in executed else f"is not one of {', '.join(self._models)}"
                raise PolicyError(f'{self._where}: on frame {self._camera.index[row]} chose "{model}", which {wrong}')
            if self._bound and not purse.affords(model):
                raise PolicyError(self._overspent(row, model))
            purse.spend(model)
            place = self._place[model]
            executed[model] = self._values[place][row]
            self._executed[place].append(row)
        if executed:
            self._tally.spent_ms[self._cut.period[row - self._cut.warm_up]] += purse.spent_ms - before
        return executed

    def _overspent(self, row: int, model: str) -> str:
        purse = self._purse
        if not purse.fits(model):
            limit = f"{purse.budget.memory_gb} GB, and it needs {purse.costs.memory_gb[model]} GB"
        elif not purse.has_room(model):
            left = f"of the {purse.budget.latency_ms:g} ms that a frame may take {purse.room_ms:.1f} ms are left"
            limit = f"{left}, and it costs {purse.price(model):.1f} ms"
        else:
            limit = f"{purse.left_ms:.1f} ms are left, and it costs {purse.price(model):.1f} ms"
        return f'{self._where}: on frame {self._camera.index[row]} chose "{model}" beyond its budget: {limit}'

    def _flush(self) -> None:
        """Score the frames that wait, model by model."""
        if not self._held:
            return
        start = self._cut.warm_up
        for place, model in enumerate(self._models):
            spec, recorded = self._specs[model], self._values[place]
            ran = np.array(self._executed[place], np.intp)
            self._tally.add_executed(place, ran - start, spec, recorded[ran])
            rows = np.array([row for row, _ in self._answers[place]], np.intp)
            if len(rows):
                answers = [answer for _, answer in self._answers[place]]
                self._tally.add_answered(
                    place,
                    rows - start,
                    spec,
                    np.array([HOWS.index(a.how) for a in answers], np.intp),
                    self._stacked(model, [a.value for a in answers], recorded.shape[1]),
                    recorded[rows],
                    np.array([np.nan if a.confidence is None else a.confidence for a in answers], np.float64),
                )
            self._abstained(place, ran, rows)
            self._executed[place].clear()
            self._answers[place].clear()
        self._done += self._held
        self._held = 0

    def _abstained(self, place: int, ran: NDArray[np.intp], rows: NDArray[np.intp]) -> None:
        done = self._done
        silent = np.ones(self._held, np.bool_)
        for known in (ran, rows):
            silent[known - self._cut.warm_up - done] = False
        self._tally.add_abstained(place, done + np.flatnonzero(silent))

    def _stacked(self, model: str, answers: Sequence[Value] | NDArray[np.float32], width: int) -> NDArray[np.float32]:
        try:
            served = np.asarray(answers, np.float32)
        except ValueError as error:
            raise PolicyError(f'{self._where}: its answers for "{model}" have different sizes') from error
        if served.shape != (len(answers), width) or not np.isfinite(served).all():
            raise PolicyError(
                f'{self._where}: answers for "{model}" must be {width} finite numbers, got {answers[0]!r}'
            )
        return served


class Facts:
    """What is known of each frame beforehand; statistics that the trace lacks count as unchanging."""

    def __init__(self, camera: CameraTrace) -> None:
        self._index, self._time = camera.index, camera.time_s
        nothing = np.zeros(len(camera), np.float32)
        self._stats: Mapping[str, NDArray[np.float32]] | None = None
        if camera.stats:
            self._stats = {s: camera.stats.get(s, nothing) for s in STATISTICS}

    def at(self, row: int) -> FrameFacts:
        """Return the facts of one row."""
        stats = None if self._stats is None else FrameStats(*(float(c[row]) for c in self._stats.values()))
        return FrameFacts(int(self._index[row]), float(self._time[row]), stats)
