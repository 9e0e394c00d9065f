"""Which frames were counted already: exact, and one bit each, so that repeated rows fall out of running sums."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

BLOCK = 65_536  # frames
BLOCKS = 64  # kept: over four million frames, eleven days at four a second


class SeenFrames:
    """Frame indexes of one camera, model and how.

    >>> seen = SeenFrames()
    >>> seen.new(np.array([3, 4, 3])).tolist(), seen.new(np.array([4, 5])).tolist()
    ([True, True, False], [False, True])
    """

    def __init__(self) -> None:
        self._blocks: dict[int, NDArray[np.uint8]] = {}

    def new(self, indexes: Ints) -> NDArray[np.bool_]:
        """Return, for each index (n,), whether it comes for the first time; from now on it does not."""
        fresh = np.zeros(len(indexes), np.bool_)
        first = np.unique(indexes, return_index=True)[1]
        for block in np.unique(indexes[first] // BLOCK):
            rows = first[indexes[first] // BLOCK == block]
            bits = self._bits(int(block))
            place = indexes[rows] % BLOCK
            byte, bit = place >> 3, (1 << (place & 7)).astype(np.uint8)
            fresh[rows] = (bits[byte] & bit) == 0
            np.bitwise_or.at(bits, byte, bit)
        return fresh

    def _bits(self, block: int) -> NDArray[np.uint8]:
        if block not in self._blocks:
            self._blocks[block] = np.zeros(BLOCK // 8, np.uint8)
            if len(self._blocks) > BLOCKS:
                del self._blocks[next(iter(self._blocks))]  # the first that came: an index may begin again from 0
        return self._blocks[block]
