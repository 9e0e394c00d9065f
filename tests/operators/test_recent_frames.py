"""Frames kept for relabel requests: how many, how long, within how much memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from camlink.operators.recent_frames import FEWEST_FRAMES, MOST_BYTES, MOST_FRAMES, RecentFrames
from camlink.pipeline.jpeg import JpegPicture
from camlink.pipeline.records import Frame
from camlink.pipeline.testing import make_frames


def sized(index: int, width: int) -> Frame:
    (frame,) = make_frames("hall", 1, first=index)
    return replace(frame, picture=np.broadcast_to(np.uint8(7), (1024, width, 3)))  # nbytes as if it were stored


def kept(frames: list[Frame]) -> list[int]:
    recent = RecentFrames()
    for frame in frames:
        recent.keep(frame)
    return [frame.index for frame in frames if recent.take(frame.index) is not None]


def test_small_frames_are_bounded_by_their_number() -> None:
    assert kept([sized(i, 1) for i in range(40)]) == list(range(40 - MOST_FRAMES, 40))


def test_large_frames_are_bounded_by_their_memory() -> None:
    full_hd = [sized(i, 2025) for i in range(20)]  # as many bytes as 1920 x 1080
    assert kept(full_hd) == [15, 16, 17, 18, 19]


def test_a_frame_that_is_asked_for_right_away_is_there_however_large() -> None:
    assert kept([sized(i, MOST_BYTES // 1024) for i in range(5)]) == [3, 4]
    assert FEWEST_FRAMES == 2


def test_a_frame_is_handed_out_once() -> None:
    recent = RecentFrames()
    recent.keep(sized(0, 1))
    assert recent.take(0) is not None
    assert recent.take(0) is None


def test_a_coded_picture_counts_with_what_it_takes_coded() -> None:
    import cv2

    recent = RecentFrames()
    jpeg = cv2.imencode(".jpg", np.zeros((1080, 1920, 3), np.uint8))[1].tobytes()
    for frame in make_frames("hall", MOST_FRAMES):
        picture = JpegPicture.of(jpeg)
        assert picture.pixels.nbytes > MOST_BYTES / MOST_FRAMES
        recent.keep(replace(frame, picture=picture))
    assert len(recent) == MOST_FRAMES


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 12_000), st.booleans()), max_size=60))
def test_memory_is_bounded_whatever_is_kept_and_taken(steps: list[tuple[int, int, bool]]) -> None:
    recent, frames = RecentFrames(), dict[int, Frame]()
    for index, width, take in steps:
        if take:
            recent.take(index)
            frames.pop(index, None)
        else:
            frames.pop(index, None)
            frames[index] = sized(index, width)
            recent.keep(frames[index])
            while len(frames) > len(recent):
                frames.pop(next(iter(frames)))
        held = sum(np.asarray(frame.picture).nbytes for frame in frames.values())
        assert len(recent) <= MOST_FRAMES
        assert held <= MOST_BYTES or len(recent) <= FEWEST_FRAMES
