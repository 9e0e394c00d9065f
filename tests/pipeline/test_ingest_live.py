"""Live cameras under a manual clock: the reader is stepped by hand, so nothing here sleeps."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from camlink.pipeline.clock import ManualClock
from camlink.pipeline.errors import SourceError
from camlink.pipeline.ingest import Reading, SourceSpec, gather, mask_url, open_source
from camlink.pipeline.ingest.live import LiveSource, ThreadRunner, close_together
from camlink.pipeline.ingest.reader import LiveLimits, Reader
from camlink.pipeline.records import CameraEvent, Frame, FrameDropped, Pixels

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
URL = "rtsp://admin:hunter2@10.0.0.7/s1"
LIMITS = LiveLimits(hung_after_s=20, frozen_after_s=10, stale_after_s=5, stable_after_s=10, undecodable_most=3)


def picture(shade: int, size: tuple[int, int] = (8, 6)) -> Pixels:
    return np.full((size[1], size[0], 3), shade, dtype=np.uint8)


class FakeCapture:
    """Plays a script of grabs (a picture, or True for one that cannot be decoded); then the connection is lost."""

    def __init__(self, script: Iterable[Pixels | bool], opens: bool = True, codec: bytes = b"h264") -> None:
        self._script: Iterator[Pixels | bool] = iter(script)
        self._opens, self._codec = opens, codec
        self._grabbed: Pixels | bool = False
        self.is_released = False

    def isOpened(self) -> bool:
        return self._opens

    def grab(self) -> bool:
        self._grabbed = next(self._script, False)
        return self._grabbed is not False

    def retrieve(self) -> tuple[bool, Pixels | None]:
        return (False, None) if isinstance(self._grabbed, bool) else (True, self._grabbed.copy())

    def get(self, prop: int, /) -> float:
        return float(int.from_bytes(self._codec, "little"))

    def release(self) -> None:
        self.is_released = True


class HandRunner:
    """Runs a reader only when told to; one that hangs is simply stepped no more."""

    def __init__(self, reader: Reader, delay_s: float) -> None:
        self.reader, self.delay_s = reader, delay_s
        self.is_stopped = False
        self.lives = True

    def is_alive(self) -> bool:
        return self.lives

    def stop(self) -> None:
        self.is_stopped = True

    def join(self, timeout_s: float) -> None:
        self.joined_after_s = timeout_s


class Bench:
    """A live source whose connections are scripted: one capture (or error) for each time it is opened."""

    def __init__(self, *captures: FakeCapture | Exception, fps: float | None = None) -> None:
        self.clock = ManualClock(START)
        self.captures = list(captures)
        self.opened: list[str | int] = []
        self.runners: list[HandRunner] = []
        spec = SourceSpec("hall-03", (URL,), fps=fps)
        self.source = LiveSource(
            spec,
            URL,
            clock=self.clock,
            limits=LIMITS,
            capture_factory=self.connect,
            run=self.run,
            wait=self.clock.advance,
        )

    def connect(self, source: str | int) -> FakeCapture:
        self.opened.append(source)
        capture = self.captures.pop(0) if self.captures else FakeCapture([], opens=False)
        if isinstance(capture, Exception):
            raise capture
        return capture

    def run(self, reader: Reader, delay_s: float) -> HandRunner:
        self.runners.append(HandRunner(reader, delay_s))
        return self.runners[-1]

    def step(self, times: int = 1, every_s: float = 1.0) -> list[float | None]:
        rests = []
        for _ in range(times):
            self.clock.advance(every_s)
            rests.append(self.runners[-1].reader.step())
        return rests

    def drain(self) -> list[Reading]:
        return list(iter(self.source.poll, None))

    def play(self, times: int, every_s: float = 1.0) -> list[Reading]:
        readings: list[Reading] = []
        for _ in range(times):
            self.step(every_s=every_s)
            readings += self.drain()
        return readings


def kinds(readings: Iterable[Reading]) -> list[str]:
    return [reading.kind for reading in readings if isinstance(reading, CameraEvent)]


def frames_of(readings: Iterable[Reading]) -> list[Frame]:
    return [reading for reading in readings if isinstance(reading, Frame)]


def drops_of(readings: Iterable[Reading]) -> list[tuple[int, int, str]]:
    return [(r.first_index, r.count, r.reason) for r in readings if isinstance(r, FrameDropped)]


def test_frames_bear_the_time_at_which_they_came() -> None:
    bench = Bench(FakeCapture(map(picture, range(3))))
    readings = bench.play(4)
    assert [(frame.captured_at - START).total_seconds() for frame in frames_of(readings)] == [2, 3, 4]
    assert [frame.index for frame in frames_of(readings)] == [0, 1, 2]
    assert not frames_of(readings)[0].pixels.flags.writeable
    assert bench.opened == [URL]


def test_only_sampled_frames_are_taken() -> None:
    bench = Bench(FakeCapture(picture(n % 250) for n in range(100)), fps=2.0)
    readings = bench.play(41, every_s=0.1)
    assert len(frames_of(readings)) == pytest.approx(8, abs=1)


def test_a_slow_user_gets_the_newest_frame_and_the_others_are_counted() -> None:
    bench = Bench(FakeCapture(map(picture, range(10))))
    bench.step(5)
    readings = bench.drain()
    assert drops_of(readings) == [(0, 3, "overload")]
    assert [(frame.index, int(frame.pixels[0, 0, 0])) for frame in frames_of(readings)] == [(3, 3)]
    assert bench.source.captured == 4


def test_what_was_captured_is_accounted_for_after_every_reading() -> None:
    script: list[Pixels | bool] = [*map(picture, range(5)), True, *[picture(9)] * 20, *map(picture, range(5))]
    bench = Bench(FakeCapture(script), FakeCapture(map(picture, range(5))))
    accounted, indexes = 0, []
    for round_number in range(40):
        bench.step(1 + round_number % 3)
        while (reading := bench.source.poll()) is not None:
            if isinstance(reading, Frame):
                indexes.append(reading.index)
            elif isinstance(reading, FrameDropped):
                indexes += range(reading.first_index, reading.first_index + reading.count)
            accounted = len(indexes)
            assert accounted == bench.source.captured
    assert indexes == list(range(accounted)) and accounted > 20


def test_a_frame_too_old_when_it_is_delivered_is_dropped_as_stale() -> None:
    bench = Bench(FakeCapture([picture(1)]))
    bench.step(2)
    bench.clock.advance(LIMITS.stale_after_s + 0.1)
    assert drops_of(bench.drain()) == [(0, 1, "stale")]


def test_a_lost_connection_is_reported_once_and_its_return_too() -> None:
    bench = Bench(
        FakeCapture([picture(1)]),
        FakeCapture([], opens=False),
        RuntimeError("no"),
        FakeCapture([picture(2)], codec=b"hevc"),
    )
    readings = bench.play(7)
    assert kinds(readings) == ["down", "recovered"]
    assert [frame.index for frame in frames_of(readings)] == [0, 1]
    recovered = [reading for reading in readings if isinstance(reading, CameraEvent)][1]
    assert recovered.detail == "after 4.0 s and 3 attempts; codec changed from h264 to hevc"
    assert bench.source.reconnects == 3


def test_a_camera_that_never_answers_is_retried_for_ever_with_growing_jittered_rests() -> None:
    bench = Bench()
    rests = [rest for rest in bench.step(60) if rest]
    assert len(rests) >= 30
    for attempt, rest in enumerate(rests):
        full = min(LIMITS.backoff_first_s * 2**attempt, LIMITS.backoff_most_s)
        assert full / 2 <= rest <= full
    assert len(set(rests)) == len(rests)
    other = Bench()
    assert [rest for rest in other.step(60) if rest] == rests  # seeded
    assert kinds(bench.drain()) == ["down"]


def test_the_back_off_starts_anew_only_after_a_connection_that_lasted() -> None:
    flapping = Bench(*(FakeCapture([picture(n)]) for n in range(5)))
    assert max(rest for rest in flapping.step(15) if rest) > 4
    steady = Bench(*(FakeCapture(picture(n) for n in range(12)) for _ in range(5)))
    assert max(rest for rest in steady.step(70) if rest) <= 1


def test_pictures_that_cannot_be_decoded_are_gaps_and_many_in_a_row_reconnect() -> None:
    bench = Bench(FakeCapture([picture(1), True, picture(2), True, True, True, True]), FakeCapture([picture(3)]))
    readings = bench.play(10)
    assert [frame.index for frame in frames_of(readings)] == [0, 2, 7]
    assert sum(count for _, count, _ in drops_of(readings)) == 5
    assert {reason for _, _, reason in drops_of(readings)} == {"corrupt"}
    assert kinds(readings) == ["down", "recovered"]


def test_a_frozen_picture_is_reported_dropped_and_reported_when_it_moves() -> None:
    bench = Bench(FakeCapture([*[picture(5)] * 15, picture(6), picture(7)]))
    readings = bench.play(18)
    assert kinds(readings) == ["frozen", "thawed"]
    assert {reason for _, _, reason in drops_of(readings)} == {"frozen"}
    # the first at 0 s, one a second up to 10 s, and two that move again
    assert [frame.index for frame in frames_of(readings)] == [*range(11), 15, 16]


def test_a_change_of_resolution_is_reported() -> None:
    bench = Bench(FakeCapture([picture(1), picture(2, size=(16, 12))]))
    assert kinds(bench.play(3)) == ["resolution"]


def test_a_read_that_hangs_is_given_up_and_the_camera_opened_anew() -> None:
    late = FakeCapture([picture(1), picture(2)])
    bench = Bench(late, FakeCapture([picture(3)]))
    assert len(frames_of(bench.play(2))) == 1
    hung = bench.runners[0].reader
    hung.blocked_since = bench.clock.now()
    bench.clock.advance(LIMITS.hung_after_s + 1)
    (down,) = bench.drain()
    assert isinstance(down, CameraEvent) and down.kind == "down" and "no frame for 21.0 s" in down.detail
    assert len(bench.runners) == 2 and bench.runners[1].delay_s > 0
    assert bench.source.hangs == 1
    hung.step()  # the driver returns at last: nobody listens, and the camera is let go
    assert late.is_released
    readings = bench.play(2)
    assert kinds(readings) == ["recovered"] and [int(f.pixels[0, 0, 0]) for f in frames_of(readings)] == [3]


def test_threads_that_hang_do_not_pile_up(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    for _ in range(10):
        bench.runners[-1].reader.blocked_since = bench.clock.now()
        bench.clock.advance(LIMITS.hung_after_s + 1)
        bench.drain()
    assert len(bench.runners) == 4
    assert [record.levelno for record in caplog.records].count(logging.ERROR) == 1
    bench.runners[0].lives = False  # one returned: there is room for another attempt
    bench.drain()
    assert len(bench.runners) == 5


def test_a_reading_thread_that_dies_is_replaced() -> None:
    bench = Bench()
    bench.runners[0].lives = False
    assert kinds(bench.drain()) == ["down"]
    assert len(bench.runners) == 2


def test_a_file_that_ends_while_its_thread_is_asked_for_is_not_played_again() -> None:
    bench = Bench()
    runner = bench.runners[0]

    def ends_now() -> bool:
        runner.reader.is_finished = True
        return False

    runner.is_alive = ends_now  # type: ignore[method-assign]
    assert bench.drain() == []
    assert len(bench.runners) == 1


def test_cameras_are_all_told_to_end_before_any_is_waited_for() -> None:
    benches = [Bench() for _ in range(5)]
    told: list[list[bool]] = []
    for bench in benches:
        bench.runners[0].join = lambda _: told.append([b.runners[0].is_stopped for b in benches])  # type: ignore[method-assign]
    close_together(bench.source for bench in benches)
    close_together(bench.source for bench in benches)
    assert told == [[True] * 5] * 5


def test_a_camera_that_is_down_and_comes_back_warns_once_each(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(FakeCapture([], opens=False), FakeCapture([], opens=False), FakeCapture([picture(1)]))
    with caplog.at_level(logging.WARNING):
        bench.step(6)
    down, recovered = [record.getMessage() for record in caplog.records][:2]
    assert down.startswith('camera "hall-03": no connection from rtsp://***@10.0.0.7/s1; reconnecting in')
    assert recovered.startswith('camera "hall-03": rtsp://***@10.0.0.7/s1 recovered after')


def test_a_camera_that_cannot_be_reached_prints_nothing_by_itself() -> None:
    """In a process of its own: FFmpeg's level is fixed by the first video that is opened."""
    program = (
        "from camlink.pipeline.ingest.opencv import open_live\n"
        "assert not open_live('http://admin:hunter2@127.0.0.1:9/x.mjpg', 1.0, 1.0).isOpened()"
    )
    result = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60)
    assert result.stdout + result.stderr == ""


def test_a_clock_set_back_neither_stops_sampling_nor_turns_event_time_back() -> None:
    bench = Bench(FakeCapture(map(picture, range(100))), fps=1.0)
    before = frames_of(bench.play(5))
    bench.clock.advance(-3600)
    after = frames_of(bench.play(5))
    times = [frame.captured_at for frame in before + after]
    assert len(after) >= 4 and times == sorted(set(times))


def test_passwords_reach_no_event_log_or_error(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        bench = Bench(RuntimeError(f"cannot open {URL}"))
        readings = bench.play(3)
        with pytest.raises(SourceError) as error:
            open_source(SourceSpec("hall-03", (URL,)), live=False)
    told = caplog.text + str(readings) + str(error.value)
    assert "rtsp://***@10.0.0.7/s1" in told
    assert "hunter2" not in told and "admin" not in told


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://u:p@10.0.0.7:554/s?x=1", "rtsp://***@10.0.0.7:554/s?x=***"),
        ("rtsp://u:p@ss/w@rd@cam/s", "rtsp://***@cam/s"),
        ("http://cam/v.mjpg?user=a&password=b&size=2", "http://cam/v.mjpg?user=***&password=***&size=***"),
        ("https://cam/hls.m3u8?Token=abc", "https://cam/hls.m3u8?Token=***"),
        ("rtsp://cam/user=a_password=b_channel=1", "rtsp://cam/user=a_password=***"),
        ("http://admin:s3cr3t pw@cam/x.mjpg", "http://***@cam/x.mjpg"),
        ("http://cam/v?p=secret&loginpas=a b&c", "http://cam/v?p=***&loginpas=***&***"),
        ("http://u:p?w@cam/v", "http://***"),
        ("http://cam/v?p=x@secret", "http://***"),
        ("rtsp:/u:secret@cam/s", "rtsp:/***@cam/s"),
        ("rtsp://cam/s", "rtsp://cam/s"),
        (2, "device 2"),
    ],
)
def test_addresses_are_masked(url: str | int, shown: str) -> None:
    assert mask_url(url) == shown


def test_a_file_stands_in_for_a_camera_and_ends(tmp_path: Path) -> None:
    clip, clock, runners = tmp_path / "clip.avi", ManualClock(START), []
    clip.touch()

    def run(reader: Reader, delay_s: float) -> HandRunner:
        runners.append(HandRunner(reader, delay_s))
        return runners[-1]

    source = LiveSource(
        SourceSpec("hall", (str(clip),)),
        str(clip),
        clock=clock,
        capture_factory=lambda _: FakeCapture(map(picture, range(3))),
        run=run,
        wait=lambda _: runners[-1].reader.step(),
    )
    readings = list(source)
    assert len(frames_of(readings)) == 3 and kinds(readings) == ["ended"]
    assert source.is_finished


@pytest.mark.parametrize("sources", [("a.mp4", "b.mp4"), ("stills",), ("missing.mp4",)])
def test_what_cannot_be_live_is_refused(sources: tuple[str, ...]) -> None:
    with pytest.raises(SourceError, match='camera "hall"'):
        open_source(SourceSpec("hall", sources), live=True)


def test_cameras_are_gathered_in_turn_and_one_that_is_down_holds_up_no_other() -> None:
    up, down = Bench(FakeCapture(map(picture, range(5)))), Bench()

    def wait(seconds: float) -> None:
        up.step()
        down.step()

    readings = gather([down.source, up.source], wait)
    rounds = filter(None, readings)  # None ends each round
    taken = [next(rounds) for _ in range(6)]
    assert len(frames_of(taken)) == 5 and kinds(taken) == ["down"]
    readings.close()  # type: ignore[attr-defined]
    assert up.runners[-1].is_stopped and down.runners[-1].is_stopped


def test_a_thread_that_hangs_in_the_driver_hangs_neither_the_program_nor_the_camera() -> None:
    entered, release, clock = threading.Event(), threading.Event(), ManualClock(START)

    class HangingCapture(FakeCapture):
        def grab(self) -> bool:
            entered.set()
            release.wait()
            return False

    captures = [HangingCapture([]), FakeCapture(picture(n % 200) for n in range(100_000))]
    source = LiveSource(
        SourceSpec("hall", (URL,)),
        URL,
        clock=clock,
        limits=LiveLimits(hung_after_s=20, backoff_first_s=0.0),
        capture_factory=lambda _: captures.pop(0),
        run=ThreadRunner,
    )
    readings = iter(source)
    assert entered.wait(5)
    clock.advance(21)
    assert [next(readings).__class__, next(readings).kind] == [CameraEvent, "recovered"]  # type: ignore[union-attr]
    assert any(isinstance(next(readings), Frame) for _ in range(3))
    source.close()
    release.set()
    assert list(readings) == []
