"""The link store: nothing half-written is ever read, and names cannot lead out of it."""

from pathlib import Path

import numpy as np
import pytest

from camlink.links.store import LinkStore
from camlink.links.train import train_ensembles
from camlink.models.base import OutputSpec
from camlink.pipeline.errors import LinkError, ResultsError

SPECS = {n: OutputSpec(n, "vector", 1, "count") for n in ("a", "b")}


def payload(seed: int) -> bytes:
    x = np.random.default_rng(seed).poisson(3, (30, 1)).astype(np.float32)
    return train_ensembles(SPECS, {"a": x, "b": x}, seed=seed)["b"].to_bytes()


def test_only_a_promoted_version_is_in_force(tmp_path: Path) -> None:
    store = LinkStore(tmp_path)
    store.save("hall", "b", 1, payload(1))
    assert store.current("hall", "b") is None
    store.promote("hall", "b", 1)
    store.save("hall", "b", 2, payload(2))
    current = store.current("hall", "b")
    assert current is not None
    assert current[0] == store.version("hall", "b") == 1
    assert store.version("hall", "a") is None
    assert store.versions("hall", "b") == [1, 2]


def test_rolling_back_is_promoting_an_older_version(tmp_path: Path) -> None:
    store = LinkStore(tmp_path)
    for version in (1, 2):
        store.save("hall", "b", version, payload(version))
        store.promote("hall", "b", version)
    store.promote("hall", "b", 1)
    current = store.current("hall", "b")
    assert current is not None
    assert current[0] == 1


def test_a_version_that_was_never_saved_cannot_be_promoted(tmp_path: Path) -> None:
    with pytest.raises(LinkError, match="no saved version 3"):
        LinkStore(tmp_path).promote("hall", "b", 3)


def test_a_write_that_fails_leaves_the_old_version_and_no_scraps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LinkStore(tmp_path)
    store.save("hall", "b", 1, payload(1))
    store.promote("hall", "b", 1)

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(ResultsError, match=r"v0002\.npz: cannot be written: No space left"):
        store.save("hall", "b", 2, payload(2))
    assert store.versions("hall", "b") == [1]
    assert store.current("hall", "b") is not None
    assert not list(tmp_path.rglob(".v*"))


@pytest.mark.parametrize("name", ["..", "a/b", "", "x" * 65, ".", "a\0", "hall nord", "h\u00f6he", "%2E%2E"])
def test_any_name_has_a_folder_of_its_own_within_the_store(tmp_path: Path, name: str) -> None:
    root, others = tmp_path / "links", ("hall", "%2E", "a%2Fb")
    store = LinkStore(root)
    for version, camera in enumerate((*others, name), start=1):
        store.save(camera, "b", version, b"links")
        assert store.versions(camera, "b") == [version]
    assert [path.name for path in tmp_path.iterdir()] == ["links"]
    assert len(list(root.iterdir())) == len(others) + 1


def test_a_damaged_pointer_says_which_file(tmp_path: Path) -> None:
    store = LinkStore(tmp_path)
    store.save("hall", "b", 1, payload(1))
    store.promote("hall", "b", 1)
    (tmp_path / "hall" / "b" / "current.json").write_text("{")
    with pytest.raises(LinkError, match=r"current\.json is damaged"):
        store.current("hall", "b")


def test_damaged_links_say_which_file(tmp_path: Path) -> None:
    LinkStore(tmp_path).save("hall", "b", 1, b"links")
    with pytest.raises(LinkError, match=r"b/v0001\.npz: not a saved ensemble: no zip of arrays"):
        LinkStore(tmp_path).load("hall", "b", 1)


def test_links_may_be_read_by_whoever_may_read_the_other_results(tmp_path: Path) -> None:
    (beside := tmp_path / "run.json").write_text("{}")
    file = LinkStore(tmp_path).save("hall", "b", 1, b"links")
    assert file.stat().st_mode == beside.stat().st_mode
