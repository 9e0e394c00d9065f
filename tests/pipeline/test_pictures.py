"""Small pictures of frames, for people to look at."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from camlink.pipeline.commands.running import PICTURE_WIDTH, encode_picture
from camlink.pipeline.records import Frame
from camlink.pipeline.testing import START


@pytest.mark.parametrize("size", [(1080, 1920), (720, 1280), (360, 640), (200, 480), (90, 160)])
def test_a_small_picture_keeps_the_frames_proportions_and_looks_like_it(size: tuple[int, int]) -> None:
    height, width = size
    pixels = np.zeros((height, width, 3), np.uint8)
    cv2.circle(pixels, (width // 3, height // 2), height // 4, (40, 200, 250), -1)
    pixels[:, ::9] = 255  # fine lines must become grey, not come and go
    small = cv2.imdecode(np.frombuffer(encode_picture(Frame("hall", 0, START, pixels)), np.uint8), cv2.IMREAD_COLOR)
    wanted = min(width, PICTURE_WIDTH)
    assert small.shape == (round(height * wanted / width), wanted, 3)
    averaged = cv2.resize(pixels, small.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(int) - averaged).mean() < 16
