"""Small pictures of frames, for people to look at."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from camlink.pipeline.commands.running import PICTURE_WIDTH, encode_picture
from camlink.pipeline.jpeg import JpegPicture, coded
from camlink.pipeline.records import Frame
from camlink.pipeline.reports.html import _inline
from camlink.pipeline.testing import START


@pytest.mark.parametrize("size", [(1080, 1920), (720, 1280), (360, 640), (200, 480), (90, 160)])
@pytest.mark.parametrize("came_as", ["pixels", "jpeg"])
def test_a_small_picture_keeps_the_frames_proportions_and_looks_like_it(size: tuple[int, int], came_as: str) -> None:
    height, width = size
    pixels = np.zeros((height, width, 3), np.uint8)
    cv2.circle(pixels, (width // 3, height // 2), height // 4, (40, 200, 250), -1)
    pixels[:, ::9] = 255  # fine lines must become grey, not come and go
    frame = Frame("hall", 0, START, pixels if came_as == "pixels" else JpegPicture.of(coded(pixels)[1]))
    small = cv2.imdecode(np.frombuffer(encode_picture(frame), np.uint8), cv2.IMREAD_COLOR)
    wanted = min(width, PICTURE_WIDTH)
    assert small.shape == (round(height * wanted / width), wanted, 3)
    averaged = cv2.resize(pixels, small.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(int) - averaged).mean() < 16


@pytest.mark.parametrize(
    ("width", "shape"), [(480, (270, 480)), (481, (540, 960)), (2000, (1080, 1920)), (90, (135, 240))]
)
def test_no_more_of_a_jpeg_is_decoded_than_a_small_picture_needs(width: int, shape: tuple[int, int]) -> None:
    picture = JpegPicture.of(coded(np.zeros((1080, 1920, 3), np.uint8))[1])
    assert picture.at_least(width).shape == (*shape, 3)
    assert picture.pixels.shape == (1080, 1920, 3), "a model still gets all of it"
    assert picture.at_least(width) is picture.pixels, "what is decoded already is not decoded again"


def test_a_picture_of_odd_size_is_rounded_up_and_a_damaged_one_is_told() -> None:
    picture = JpegPicture.of(coded(np.zeros((335, 1003, 3), np.uint8))[1])
    assert picture.at_least(480).shape == (168, 502, 3)
    with pytest.raises(ValueError, match="damaged"):
        JpegPicture(picture.jpeg[:200], picture.shape).at_least(480)


@pytest.mark.parametrize("size", [(3, 3840), (1, 1920), (1, 961)])
def test_a_strip_that_was_cut_out_of_a_wide_picture_has_a_small_picture_too(size: tuple[int, int]) -> None:
    small = encode_picture(Frame("hall", 0, START, np.zeros((*size, 3), np.uint8)))
    assert cv2.imdecode(np.frombuffer(small, np.uint8), cv2.IMREAD_COLOR).shape == (1, PICTURE_WIDTH, 3)


def test_a_picture_that_made_room_for_another_while_a_report_is_made_is_left_out(tmp_path: Path) -> None:
    (kept := tmp_path / "1.jpg").write_bytes(b"jpeg")
    assert [_inline(file) for file in (kept, tmp_path / "2.jpg", None)] == ["anBlZw==", None, None]
