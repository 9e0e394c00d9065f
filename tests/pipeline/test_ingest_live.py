"""Live cameras under a manual clock: the reader is stepped by hand, so nothing here sleeps or starts a process."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from camlink.pipeline.clock import ManualClock
from camlink.pipeline.errors import SourceError
from camlink.pipeline.ingest import Reading, SourceSpec, open_source
from camlink.pipeline.ingest.feed import Item
from camlink.pipeline.ingest.live import LiveSource, ThreadRunner, close_together
from camlink.pipeline.ingest.reader import WAIT_S, LiveLimits, Reader
from camlink.pipeline.records import CameraEvent, Frame, FrameDropped, Pixels
from tests.live_bench import LIMITS, START, URL, Bench, FakeFeed, HandRunner, drops_of, frames_of, kinds, picture


def test_frames_bear_the_time_at_which_they_came() -> None:
    bench = Bench(FakeFeed(map(picture, range(3))))
    readings = bench.play(4)
    assert [(frame.captured_at - START).total_seconds() for frame in frames_of(readings)] == [2, 3, 4]
    assert [frame.index for frame in frames_of(readings)] == [0, 1, 2]
    assert not frames_of(readings)[0].pixels.flags.writeable
    assert bench.opened == [URL]


def test_only_sampled_frames_are_taken() -> None:
    bench = Bench(FakeFeed(picture(n % 250) for n in range(100)), fps=2.0)
    readings = bench.play(41, every_s=0.1)
    assert len(frames_of(readings)) == pytest.approx(8, abs=1)


def test_a_slow_user_gets_the_newest_frame_and_the_others_are_counted() -> None:
    bench = Bench(FakeFeed(map(picture, range(10))))
    bench.step(5)
    readings = bench.drain()
    assert drops_of(readings) == [(0, 3, "overload")]
    assert [(frame.index, int(frame.pixels[0, 0, 0])) for frame in frames_of(readings)] == [(3, 3)]
    assert bench.source.captured == 4


def test_what_was_captured_is_accounted_for_after_every_reading() -> None:
    script: list[Pixels | bool] = [*map(picture, range(5)), True, *[picture(9)] * 20, *map(picture, range(5))]
    bench = Bench(FakeFeed(script), FakeFeed(map(picture, range(5))))
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
    bench = Bench(FakeFeed([picture(1)]))
    bench.step(2)
    bench.clock.advance(LIMITS.stale_after_s + 0.1)
    assert drops_of(bench.drain()) == [(0, 1, "stale")]


def test_a_lost_connection_is_reported_once_and_its_return_too() -> None:
    bench = Bench(
        FakeFeed([picture(1)]),
        FakeFeed([], opens=False),
        OSError("no"),
        FakeFeed([picture(2)], codec="hevc"),
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
    flapping = Bench(*(FakeFeed([picture(n)]) for n in range(5)))
    assert max(rest for rest in flapping.step(15) if rest) > 4
    steady = Bench(*(FakeFeed(picture(n) for n in range(12)) for _ in range(5)))
    assert max(rest for rest in steady.step(70) if rest) <= 1


def test_pictures_that_cannot_be_decoded_are_gaps_and_many_in_a_row_reconnect() -> None:
    bench = Bench(FakeFeed([picture(1), True, picture(2), True, True, True, True]), FakeFeed([picture(3)]))
    readings = bench.play(10)
    assert [frame.index for frame in frames_of(readings)] == [0, 2, 7]
    assert sum(count for _, count, _ in drops_of(readings)) == 5
    assert {reason for _, _, reason in drops_of(readings)} == {"corrupt"}
    assert kinds(readings) == ["down", "recovered"]


def test_a_frozen_picture_is_reported_dropped_and_reported_when_it_moves() -> None:
    bench = Bench(FakeFeed([*[picture(5)] * 15, picture(6), picture(7)]))
    readings = bench.play(18)
    assert kinds(readings) == ["frozen", "thawed"]
    assert {reason for _, _, reason in drops_of(readings)} == {"frozen"}
    # the first at 0 s, one a second up to 10 s, and two that move again
    assert [frame.index for frame in frames_of(readings)] == [*range(11), 15, 16]


def test_a_change_of_resolution_is_reported() -> None:
    bench = Bench(FakeFeed([picture(1), picture(2, size=(16, 12))]))
    assert kinds(bench.play(3)) == ["resolution"]


def test_a_camera_that_falls_silent_is_killed_reported_in_time_and_opened_anew() -> None:
    silent = FakeFeed([picture(1), *[None] * 1000])
    bench = Bench(silent, FakeFeed([picture(3)]), fps=0.5)
    assert len(frames_of(bench.play(2))) == 1
    last = bench.clock.now()
    readings: list[Reading] = []
    while not readings:
        readings = bench.play(1, every_s=WAIT_S)
    (down,) = readings
    assert isinstance(down, CameraEvent) and down.kind == "down" and "no frame for 22" in down.detail
    assert (down.at - last).total_seconds() == pytest.approx(LIMITS.silence_s(0.5), abs=2 * WAIT_S)
    assert silent.is_released and bench.source.hangs == 1
    readings = bench.play(2)
    assert kinds(readings) == ["recovered"] and [int(f.pixels[0, 0, 0]) for f in frames_of(readings)] == [3]


@pytest.mark.parametrize("fps", [25.0, 2.0, 0.1, 1 / 60])
def test_the_limits_keep_the_promise_of_two_frame_intervals_and_five_seconds(fps: float) -> None:
    limits = LiveLimits()
    assert limits.silence_s(fps) + 4 * WAIT_S <= 2 / fps + 5
    assert limits.frozen_after_s + 4 * WAIT_S <= 5


def test_an_opening_that_takes_long_is_reported_before_it_is_given_up() -> None:
    class Opening(FakeFeed):
        def next(self, timeout_s: float) -> Item | None:
            return next(self._script)  # type: ignore[return-value]

    opening = Opening([None] * 1000)
    bench = Bench(opening, FakeFeed(map(picture, range(100))), limits=LiveLimits())
    assert kinds(bench.play(10)) == ["down"] and not opening.is_released
    assert kinds(bench.play(20)) == ["recovered"] and opening.is_released


def test_a_clock_that_is_set_neither_kills_nor_spares_a_camera() -> None:
    bench = Bench(FakeFeed([picture(1), None, picture(2), *[None] * 100]))
    seconds = iter(range(1000))
    reader = bench.runners[0].reader
    reader._seconds = lambda: float(next(seconds))
    bench.play(2)
    bench.clock.advance(3600)
    assert kinds(bench.play(2)) == []
    bench.clock.advance(-7200)
    assert kinds(bench.play(60, every_s=0.0)) == ["down"]


def test_a_camera_that_sends_less_than_is_looked_at_is_reported_and_so_is_its_return() -> None:
    script: list[Pixels | bool | None] = [*map(picture, range(30))]
    for shade in range(10):
        script += [picture(100 + shade), *[None] * 4]
    bench = Bench(FakeFeed([*script, *map(picture, range(200, 240))]), fps=1.0)
    readings = bench.play(115)
    assert kinds(readings) == ["slow", "steady"]
    slow = next(reading for reading in readings if isinstance(reading, CameraEvent))
    assert slow.detail == "0.2 frames/s come, 1 are to be looked at"


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
    bench = Bench(FakeFeed([], opens=False), FakeFeed([], opens=False), FakeFeed([picture(1)]))
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
    bench = Bench(FakeFeed(map(picture, range(100))), fps=1.0)
    before = frames_of(bench.play(5))
    bench.clock.advance(-3600)
    after = frames_of(bench.play(5))
    times = [frame.captured_at for frame in before + after]
    assert len(after) >= 4 and times == sorted(set(times))


def test_passwords_reach_no_event_log_or_error(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        bench = Bench(OSError(f"cannot open {URL}"))
        readings = bench.play(3)
        with pytest.raises(SourceError) as error:
            open_source(SourceSpec("hall-03", (URL,)), live=False)
    told = caplog.text + str(readings) + str(error.value)
    assert "rtsp://***@10.0.0.7/s1" in told
    assert "hunter2" not in told and "admin" not in told


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
        open_feed=lambda order: FakeFeed(map(picture, range(3))).connect(order, clock),
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


def test_a_thread_listens_to_each_camera_until_it_is_closed() -> None:
    feed = FakeFeed(picture(n % 200) for n in range(100_000))
    source = LiveSource(
        SourceSpec("hall", (URL,)),
        URL,
        clock=feed.clock,
        open_feed=lambda order: feed.connect(order, feed.clock),
        run=ThreadRunner,
    )
    readings = iter(source)
    assert any(isinstance(next(readings), Frame) for _ in range(3))
    source.close()
    assert list(readings) == [] and feed.is_released
