"""Which differences between policies may be chance: would other footage of the same cameras order them alike?

Frames are no independent draws. A scene that stays hard for a minute is one event, not 1,500, and a clip holds few of
them. So each camera's frames are cut into a few long stretches, and a difference counts for as much as stretches agree
on it: if two policies were equally good, the difference on each stretch could as well have had the other sign. With all
signs tried, in how many would some other policy have come out as far ahead as it did?

The test for few, long groups is that of Canay, Romano and Shaikh, "Randomization tests under an approximate symmetry
assumption" (Econometrica 2017), after Ibragimov and Müller, "t-statistic based correlation and heterogeneity robust
inference" (JBES 2010). That of several others the best is taken, which is ahead by luck more easily than any one of
them, follows White, "A reality check for data snooping" (Econometrica 2000).

How often one of seven equally good policies on one camera was found worse, which was to be 5 % at most: 3 to 7 % where
there were 30 times as many frames as disagreement lasts, 15 to 23 % with 2 to 8 times as many (as in
`tests/pipeline/test_lab_chance.py`). Where scenes last that long, differences look surer than they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

GROUPS = 8  # of stretches, at least: 2 ** 8 signs
MOST_GROUPS = 14  # of many cameras several are one group
_ROUNDING = 1e-9
Sums = NDArray[np.float64]


def grouped(cameras: Sequence[Sums]) -> Sums:
    """Return sums over about `GROUPS` groups of frames, from each camera's sums over its stretches, in order.

    One camera's are put together to eight groups, those of two to four each, and so on; eight cameras or more are
    groups themselves, up to `MOST_GROUPS`.
    """
    each = -(-GROUPS // len(cameras))
    parts = [np.bincount(np.arange(len(s)) * each // len(s), s, each) for s in cameras]
    sums: Sums = np.zeros(min(each * len(cameras), MOST_GROUPS))
    for i, part in enumerate(np.concatenate(parts)):
        sums[i % len(sums)] += part
    return sums


def chance_to_be_best(agreed: Mapping[str, Sums]) -> dict[str, float]:
    """Return, for each policy, how likely one that is as good as all others would fall as far behind the best of them.

    ``agreed``: of each policy, its agreement summed over groups of frames (G,), the same for all. Low: that it is
    behind is more than chance.
    """
    names, sums = list(agreed), np.array(list(agreed.values()))
    signs = np.array(list(product((1.0, -1.0), repeat=sums.shape[1]))).T  # (G, 2 ** G)
    return {name: _chance(np.delete(sums, i, axis=0) - sums[i], signs) for i, name in enumerate(names)}


def _chance(ahead: Sums, signs: Sums) -> float:
    """Return the share of ``signs`` (G, S) by which some other policy is as far ahead, given each one's lead (P, G)."""
    size = np.sqrt((ahead**2).sum(axis=1, keepdims=True))
    ahead = ahead[size[:, 0] > _ROUNDING] / size[size[:, 0] > _ROUNDING][:, :1]
    if not len(ahead):
        return 1.0
    farthest = (ahead @ signs).max(axis=0)
    return float((farthest >= farthest[0] - _ROUNDING).mean())
