"""The loops of links: what sources tell of a target (`pooled`), and learning it (`newton`, `learn_pairs`).

A source is passed as a tuple, of its tables towards the target and what it said (`Heard`), a pool as another one
(`Held`); F features: P0's and the target's own, then three per source (`camlink.operators.link_evidence`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from camlink.operators.belief import Frequencies, Levels
from camlink.operators.compiled import compiled

FADE = 0.998  # of tables, per frame learnt from
TRUST = 4.0  # frames on which a source said the same, before they count for half
SPREAD = 2.0  # frames that say nothing of the difference
REACH = 12  # differences told apart, either way
MOVES = 4  # of a target
SOURCE_MOVES = 3
_ALIKE = 0.1  # frames, for moves never seen
FORGET = 0.98  # of what weights were learnt from, per step: what goes with what changes with the hour
PULL = 0.02  # towards the first weights, per step
LONGEST_STEP = 0.2
HEAVIEST = 2.5  # weight
Array = NDArray[np.float64]
# level (E, source's level, level), apart (E, 2 * REACH + 1), moved (E, source's move, move): `link_evidence.Pair`;
# the source's entry that goes with each of the target's, -1 for their sum (E,); whether both count, whether the
# target's levels are ordered, whether the source's are
PairTables = tuple[Array, Array, Array, Levels, bool, bool, bool]
Heard = tuple[PairTables, Levels, Levels]  # and what the source says, and had said when the target last executed
Held = tuple[Array, Array, Array, Array]  # weights (F,), their curvature (F, F), where they began, how firmly held


@compiled
def pooled(own: Array, usual: Frequencies, last: Levels, heard: tuple[Heard, ...], weights: Array) -> Frequencies:
    """Return P(level) (E, levels) of a target, given at least one source.

    ``own``: the features that are known without (F0, E * levels), ``usual`` (E, levels), ``last`` (E,).
    """
    return mix(weights, features_of(own, usual, last, heard), len(last))


@compiled
def features_of(own: Array, usual: Frequencies, last: Levels, heard: tuple[Heard, ...]) -> Array:
    """Return what `pooled` rests on (F, E * levels): what is known without sources, then three rows of each."""
    known = len(own)
    features = np.empty((known + 3 * len(heard), usual.size))
    for f in range(known):
        for i in range(usual.size):
            features[f, i] = own[f, i]
    first = known
    for source in heard:
        _write_likelier(usual, last, source, features, first)
        first += 3
    return features


@compiled
def learn_pairs(heard: tuple[Heard, ...], last: Levels, said: Levels, weight: float, only_moves: bool) -> bool:
    """Learn what the target ``said`` (E,) beside its sources, and how far all moved since ``last`` (E,).

    The moves count for ``weight``, and are all that is learnt where ``only_moves``. Learns nothing, and returns False,
    where a table has no room for the levels.
    """
    for (level, _, _, channels, _, _, _), now, _ in heard:
        if not only_moves and (_highest(said) >= level.shape[2] or _highest(read(now, channels)) >= level.shape[1]):
            return False
    for (level, apart, moved, channels, _, ordered, source_ordered), now, then in heard:
        beside = read(now, channels)
        if not only_moves:
            _see_levels(level, apart, beside, said)
        moves, fade = _moves(beside, read(then, channels), source_ordered), FADE**weight
        for e in range(len(said)):
            for i in range(moved.shape[1]):
                for j in range(moved.shape[2]):
                    moved[e, i, j] *= fade
            moved[e, moves[e], _move(said[e], last[e], ordered, MOVES)] += weight
    return True


@compiled
def _see_levels(level: Array, apart: Array, beside: Levels, said: Levels) -> None:
    for e in range(len(said)):
        for i in range(level.shape[1]):
            for j in range(level.shape[2]):
                level[e, i, j] *= FADE
        for i in range(apart.shape[1]):
            apart[e, i] *= FADE
        level[e, beside[e], said[e]] += 1.0
        apart[e, _within(said[e] - beside[e], REACH)] += 1.0


@compiled
def _of_source(features: Array, own: int, source: int) -> Array:
    """Return the features (own + 3, E * levels) of one of several sources, beside the target's ``own``."""
    alone = np.empty((own + 3, features.shape[1]))
    for f in range(own + 3):
        row = f if f < own else f + 3 * source
        for i in range(features.shape[1]):
            alone[f, i] = features[row, i]
    return alone


@compiled
def mix(weights: Array, features: Array, entries: int) -> Frequencies:
    """Return P(level) (E, levels) from ``features`` (F, E * levels)."""
    levels = features.shape[1] // entries
    chances = np.zeros((entries, levels))
    for e in range(entries):
        total = 0.0
        for level in range(levels):
            logs = 0.0
            for f in range(len(weights)):
                logs += weights[f] * features[f, e * levels + level]
            chances[e, level] = np.exp(logs)
            total += chances[e, level]
        for level in range(levels):
            chances[e, level] /= total
    return chances


@compiled
def newton(held: Held, features: Array, source: int, said: Levels, weight: float, frames: int) -> None:
    """Take a Newton step on the surprise at what was ``said`` (E,), on a frame that stands for so many.

    ``features`` (F, E * levels); where the pool is of one ``source`` of several (else -1), those of all. Of the
    curvature only the lower triangle is kept up.
    """
    weights, curvature, first, firm = held
    if source >= 0:
        features = _of_source(features, len(weights) - 3, source)
    size = len(weights)
    fade = FORGET**frames
    for f in range(size):
        for g in range(f + 1):
            curvature[f, g] *= fade
    chances = mix(weights, features, len(said))
    slope = _surprise(features, chances, said, frames * weight / len(said), curvature)
    solid, pull = np.empty((size, size)), np.empty(size)
    for f in range(size):
        for g in range(f + 1):
            solid[f, g] = curvature[f, g]
        solid[f, f] += firm[f]
        pull[f] = frames * (weight * slope[f] + PULL * firm[f] * (first[f] - weights[f]))
    step = _solve(solid, pull)
    for f in range(size):
        moved = weights[f] + min(max(step[f], -LONGEST_STEP), LONGEST_STEP)
        weights[f] = min(max(moved, 0.0), HEAVIEST)


@compiled
def _write_likelier(usual: Frequencies, last: Levels, source: Heard, features: Array, first: int) -> None:
    """Write by how much each level has become likelier, in logs, by each of the three tables: a row each.

    Each up to a constant per entry, which changes no chances.
    """
    (level, apart, moved, channels, counts, ordered, source_ordered), now, then = source
    heard = read(now, channels)
    moves = _moves(heard, read(then, channels), source_ordered)
    entries, levels = usual.shape
    trust, spread = np.log(TRUST), np.log(SPREAD)  # most of what could go together never did
    always, targets = np.empty(moved.shape[2]), moved.shape[2]
    for e in range(entries):
        total = 0.0
        for m in range(targets):
            always[m] = _ALIKE
            for s in range(moved.shape[1]):
                always[m] += moved[e, s, m]
            total += always[m]
        for at in range(levels):
            i = e * levels + at
            by_level, by_difference, by_move = trust, spread, trust
            if heard[e] < level.shape[1] and at < level.shape[2] and level[e, heard[e], at] > 0.0:
                by_level = np.log(TRUST + level[e, heard[e], at] / usual[e, at])
            difference = apart[e, _within(at - heard[e], REACH)]
            if counts and difference > 0.0:
                by_difference = np.log(SPREAD + difference / usual[e, at])
            move = _move(at, last[e], ordered, MOVES)
            if moved[e, moves[e], move] > 0.0:
                by_move = np.log(TRUST + moved[e, moves[e], move] * total / always[move])
            features[first, i], features[first + 1, i], features[first + 2, i] = by_level, by_difference, by_move


@compiled
def read(levels: Levels, channels: Levels) -> Levels:
    """Return what of a source goes with each entry of the target (E,)."""
    total, with_each = 0, np.empty_like(channels)
    for level in levels:
        total += level
    for e in range(len(channels)):
        with_each[e] = total if channels[e] < 0 else levels[channels[e]]
    return with_each


@compiled
def _highest(levels: Levels) -> int:
    """Return the highest of the levels (E,)."""
    top: int = levels[0]
    for level in levels:
        top = max(top, level)
    return top


@compiled
def _moves(now: Levels, then: Levels, ordered: bool) -> Levels:
    """Return each entry's row in the table of moves (E,)."""
    moves = np.empty_like(now)
    for e in range(len(now)):
        moves[e] = _move(now[e], then[e], ordered, SOURCE_MOVES)
    return moves


@compiled
def _move(level: int, last: int, ordered: bool, reach: int) -> int:
    """Return the place of a move in a table; of labels, that they changed counts as one upwards."""
    move = level - last if ordered else int(level != last)
    return _within(move, reach)


@compiled
def _within(move: int, reach: int) -> int:
    """Return the place of ``move`` in a table that tells apart up to ``reach`` either way."""
    return min(max(move, -reach), reach) + reach


@compiled
def _surprise(features: Array, chances: Frequencies, said: Levels, share: float, curvature: Array) -> Array:
    """Return the slope (F,) of the log likelihood of what was said, and add its curvature, by ``share``."""
    size, (entries, levels) = len(features), chances.shape
    slope, mean = np.zeros(size), np.zeros(size)
    for e in range(entries):
        for f in range(size):
            mean[f] = 0.0
        for level in range(levels):
            at = e * levels + level
            for f in range(size):
                expected = chances[e, level] * features[f, at]
                mean[f] += expected
                for g in range(f + 1):
                    curvature[f, g] += share * expected * features[g, at]
        for f in range(size):
            slope[f] += (features[f, e * levels + said[e]] - mean[f]) / entries
            for g in range(f + 1):
                curvature[f, g] -= share * mean[f] * mean[g]
    return slope


@compiled
def _solve(lower: Array, right: Array) -> Array:
    """Solve a positive definite system (n, n), of which the lower triangle is used up, by Cholesky's method.

    What numba has for this asks for SciPy and takes seconds to compile.
    """
    size = len(right)
    solved = right.copy()
    for i in range(size):
        for j in range(i + 1):
            left = lower[i, j]
            for k in range(j):
                left -= lower[i, k] * lower[j, k]
            lower[i, j] = np.sqrt(left) if i == j else left / lower[j, j]
        for k in range(i):
            solved[i] -= lower[i, k] * solved[k]
        solved[i] /= lower[i, i]
    for i in range(size - 1, -1, -1):
        for k in range(i + 1, size):
            solved[i] -= lower[k, i] * solved[k]
        solved[i] /= lower[i, i]
    return solved
