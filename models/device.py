"""The machine that models run on: its threads, its memory, and how to tell that the memory ran out."""

from __future__ import annotations

import ctypes
import math
import os
import re
import sys
from pathlib import Path

from camlink.pipeline.errors import ModelError

_SIGNS = (
    "out of memory",
    "failed to allocate",
    "cannot allocate memory",
    "bad_alloc",
    "alloc_failed",
)  # the last: cuBLAS


def ran_out(error: BaseException | None) -> bool:
    """Say whether ``error``, or any cause behind it, is a lack of memory: torch, onnxruntime and Python differ here."""
    while error is not None:
        if isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in _SIGNS):
            return True
        error = error.__cause__
    return False


def resident_gb() -> float:
    """Return this process's resident memory in GB (its peak so far where only that is known)."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e9
    if sys.platform == "win32":
        return 0.0  # the caller falls back to the size of the weights
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak * 1024 / 1e9


def give_back_freed() -> None:
    """Have the C library return freed memory to the system, so that growth is not hidden by it (glibc only)."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def threads() -> int:
    """Return how many CPU threads one model may use: ``CAMLINK_THREADS``, else the cores given to this process.

    A container sees all cores of its host: where its share of them is limited, more threads would only be held up.
    """
    asked = os.environ.get("CAMLINK_THREADS", "").strip()
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, core_limit() or cores)


def core_limit(cgroup: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return how many cores' time the control group of this container gives it, rounded up; None: no limit."""
    try:
        if (told := cgroup / "cpu.max").is_file():  # version 2: "400000 100000", or "max 100000"
            quota, period = told.read_text().split()
        else:
            quota, period = (
                (cgroup / "cpu" / f"cpu.cfs_{what}_us").read_text().strip() for what in ("quota", "period")
            )
        return max(math.ceil(int(quota) / int(period)), 1) if int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # no such files, or "max"
        return None


def cuda_devices() -> int:
    """Return how many CUDA devices torch can use, without importing it (seconds) where there is no driver at all."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return 0
    try:
        import torch
    except ImportError:
        return 0
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def check_name(device: str) -> None:
    """Raise `ModelError` for what can be no device anywhere."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise ModelError(f'"{device}" is no device; write auto, cpu, cuda or cuda:N')


def resolve(device: str) -> str:
    """Turn "auto" into "cuda:0" or "cpu". Raises `ModelError` when a CUDA device is asked for and not there."""
    check_name(device)
    there = 0 if device == "cpu" else cuda_devices()
    if device == "cpu" or (device == "auto" and not there):
        return "cpu"
    if not there:
        raise ModelError(
            f"device {device}: torch sees no CUDA device here; use --device cpu, or install a CUDA build of torch"
        )
    number = int(device.partition(":")[2] or 0)
    if number >= there:
        raise ModelError(
            f"device {device}: torch sees {there} CUDA device{'' if there == 1 else 's'} here, from cuda:0 on"
        )
    return f"cuda:{number}"


def described(place: str) -> str:
    """Return ``place`` with the card's name: a profile of one card says nothing of another."""
    if not place.startswith("cuda"):
        return place
    import torch

    return f"cuda {torch.cuda.get_device_name(place)}"
