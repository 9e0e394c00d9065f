"""What all tests share: where the recorded footage lies, and a skip that says why."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


def footage_folder() -> Path | None:
    """Return the folder of recorded footage, or None where there is none."""
    named = os.environ.get("CAMLINK_FOOTAGE")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "footage"
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session")
def repository() -> Path:
    """The folder of this checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def footage() -> Path:
    """The folder of recorded footage; tests that ask for it bear the mark `footage`."""
    folder = footage_folder()
    if folder is None:
        pytest.fail("asks for footage without the mark: add @pytest.mark.footage")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs footage where there is none, and say so."""
    if footage_folder() is not None:
        return
    reason = "no recorded footage: set CAMLINK_FOOTAGE to its folder, or put it at ../shared/footage"
    for item in items:
        if item.get_closest_marker("footage"):
            item.add_marker(pytest.mark.skip(reason=reason))
