"""Decoding processes themselves: killed while they hang, and gone when camlink is."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from camlink.pipeline.ingest.feed import ChildFeed, Ended, Failed, Item, Lost, Sampled
from camlink.pipeline.ingest.nursery import Nursery
from camlink.pipeline.ingest.order import Order

PATIENCE_S = 60.0


OTHERS: set[int] = set()  # processes that tests before have left running: the nursery that all cameras share


@pytest.fixture
def nursery() -> Iterator[Nursery]:
    OTHERS.clear()
    OTHERS.update(process.pid for process in decoders())
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of pictures that differ, 10 a second."""
    import cv2
    import numpy as np

    file = tmp_path_factory.mktemp("clips") / "clip.avi"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (64, 48))
    for shade in range(20):
        writer.write(np.full((48, 64, 3), 10 * shade, np.uint8))
    writer.release()
    return file


def order(address: str, *, is_file: bool = False) -> Order:
    """Patient beyond the test: decoders end when they are killed, not by themselves."""
    return Order(address, fps=None, open_timeout_s=600.0, read_timeout_s=600.0, is_file=is_file)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def items(feed: ChildFeed) -> Iterator[Item]:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        item = feed.next(1.0)
        if item is not None:
            yield item
        if isinstance(item, Failed | Ended):
            return


def decoders() -> list[psutil.Process]:
    """Return the nursery and its decoders."""
    found = [process for process in psutil.Process().children(recursive=True) if "nursery" in command(process)]
    return [process for process in found if process.pid not in OTHERS]


def decoder_of(processes: list[psutil.Process]) -> psutil.Process:
    """Return the decoder among the two: it is the nursery's child (start times may be equal)."""
    return next(process for process in processes if process.ppid() != os.getpid())


def command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # it ended just now
        return ""


@pytest.fixture
def address() -> Iterator[str]:
    """An address at which connections are accepted, by the kernel, and nothing is ever answered."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"rtsp://127.0.0.1:{listener.getsockname()[1]}/s"


def test_pictures_cross_unchanged_and_the_end_is_told(nursery: Nursery, clip: Path) -> None:
    feed = ChildFeed(order(str(clip), is_file=True), nursery)
    taken = list(items(feed))
    feed.close()
    pictures = [item.pixels for item in taken if isinstance(item, Sampled)]
    lost = sum(item.count for item in taken if isinstance(item, Lost))  # some, where this machine is busy
    assert len(pictures) + lost == 20 and len(pictures) >= 2
    assert all(picture.shape == (48, 64, 3) for picture in pictures)
    numbers = [float(picture.mean()) / 10 for picture in pictures]
    assert numbers == pytest.approx([round(number) for number in numbers], abs=0.3)
    assert numbers == sorted(numbers) and isinstance(taken[-1], Ended)
    assert all(item.decode_s is not None and item.decode_s > 0.0 for item in taken if isinstance(item, Sampled))


def test_a_decoder_that_hangs_is_killed_and_its_wait_was_bounded(nursery: Nursery, address: str) -> None:
    feed = ChildFeed(order(address), nursery)
    until(lambda: len(decoders()) == 2)  # the nursery and the decoder
    decoder = decoder_of(decoders())
    os.kill(decoder.pid, signal.SIGSTOP)  # deaf to all but SIGKILL, as a process in a driver is
    assert feed.next(0.0) is None
    feed.close()
    until(lambda: len(decoders()) == 1)


def test_a_decoder_that_is_killed_from_outside_is_a_failed_connection(nursery: Nursery, address: str) -> None:
    feed = ChildFeed(order(address), nursery)
    until(lambda: len(decoders()) == 2)
    os.kill(decoder_of(decoders()).pid, signal.SIGKILL)
    assert list(items(feed)) == [Failed("the decoding process ended")]
    feed.close()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends decoders with their nursery on Linux only")
def test_a_nursery_that_is_killed_takes_its_decoders_along_and_is_replaced(
    nursery: Nursery, clip: Path, address: str
) -> None:
    feed = ChildFeed(order(address), nursery)
    until(lambda: len(decoders()) == 2)
    nursery_process = next(process for process in decoders() if process.ppid() == os.getpid())
    nursery_process.kill()
    assert list(items(feed)) == [Failed("the decoding process ended")]
    again = ChildFeed(order(str(clip), is_file=True), nursery)
    assert any(isinstance(item, Sampled) for item in items(again))
    feed.close()
    again.close()


def test_no_process_outlives_a_camlink_that_is_killed(address: str) -> None:
    program = (
        "from camlink.pipeline.ingest.feed import ChildFeed\n"
        "from camlink.pipeline.ingest.order import Order\n"
        f"feed = ChildFeed(Order({address!r}, None, 600.0, 600.0))\n"
        "print('started', flush=True)\n"
        "feed.next(600)"
    )
    camlink = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert camlink.stdout is not None and camlink.stdout.readline() == b"started\n"
    until(lambda: len(psutil.Process(camlink.pid).children(recursive=True)) == 2)
    children = psutil.Process(camlink.pid).children(recursive=True)
    camlink.kill()
    camlink.wait()
    camlink.stdout.close()
    until(lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children))


def test_an_address_with_its_password_is_in_no_command_line(nursery: Nursery, address: str) -> None:
    feed = ChildFeed(order(address.replace("rtsp://", "rtsp://admin:hunter2@")), nursery)
    until(lambda: len(decoders()) == 2)
    for process in decoders():
        assert "hunter2" not in " ".join(process.cmdline()) + str(process.environ())
    assert "hunter2" not in repr(order("rtsp://admin:hunter2@cam/1"))
    feed.close()
