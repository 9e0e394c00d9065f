"""Threads of a worker share what is free."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from camlink.pipeline.allocation import ARENAS

THREADS = 6
COUNTED = """
import ctypes, sys, threading
from camlink.pipeline.allocation import share_arenas
if sys.argv[2] == "shared":
    assert share_arenas()
held, together = [], threading.Barrier({threads})
def take():
    together.wait()  # a thread that ends gives its arena to the next
    held.append([bytes(20_000) for _ in range(200)])
    together.wait()
threads = [threading.Thread(target=take) for _ in range({threads})]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(sys.argv[1].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="arenas are glibc's")
@pytest.mark.parametrize(("how", "few"), [("shared", True), ("each its own", False)])
def test_threads_take_memory_from_few_arenas_only_where_they_are_told_to(tmp_path: Path, how: str, few: bool) -> None:
    told = tmp_path / "arenas.xml"
    subprocess.run([sys.executable, "-c", COUNTED.format(threads=THREADS), str(told), how], check=True)
    arenas = len(re.findall(r"<heap nr=", told.read_text()))
    assert (arenas <= ARENAS) is few, f"{arenas} arenas"
