"""What an installed camlink consists of."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import camlink

REPOSITORY = Path(__file__).resolve().parent.parent
BRIDGED = ("camera_configs", "links", "models", "operators", "pipeline")
IGNORED = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "runs", "traces", "tests", "docs")


def bridged_files(*suffixes: str) -> Iterator[str]:
    """Yield the names that files of these kinds ought to have in a wheel."""
    for folder in BRIDGED:
        for path in (REPOSITORY / folder).rglob("*"):
            if path.suffix in suffixes:
                yield f"camlink/{path.relative_to(REPOSITORY).as_posix()}"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """A wheel built from a copy of this checkout, with the setuptools that is installed and no network."""
    pytest.importorskip("setuptools", minversion="77", reason="building a wheel needs setuptools 77 or newer")
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(REPOSITORY, folder / "source", symlinks=True, ignore=IGNORED)
    build = "from setuptools.build_meta import build_wheel; build_wheel('..')"
    done = subprocess.run(
        [sys.executable, "-c", build], cwd=folder / "source", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (file,) = folder.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        yield archive


@pytest.mark.slow
def test_the_wheel_carries_every_module_and_data_file_through_the_bridge(wheel: zipfile.ZipFile) -> None:
    wanted = {"camlink/__init__.py", "camlink/py.typed", *bridged_files(".py", ".yaml", ".html", ".css", ".js", ".svg")}
    assert not wanted - set(wheel.namelist())


@pytest.mark.slow
def test_the_wheel_installs_nothing_beside_camlink(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert tops == {"camlink", f"camlink-{camlink.__version__}.dist-info"}


@pytest.mark.slow
def test_the_wheel_names_its_command_and_its_licence(wheel: zipfile.ZipFile) -> None:
    info = f"camlink-{camlink.__version__}.dist-info"
    assert "camlink = camlink.pipeline.cli:main" in wheel.read(f"{info}/entry_points.txt").decode()
    assert "License-Expression: Apache-2.0" in wheel.read(f"{info}/METADATA").decode()
    assert f"{info}/licenses/LICENSE" in wheel.namelist()


def test_the_bridge_holds_relative_links_to_the_code_folders() -> None:
    links = {path.name: path.readlink().as_posix() for path in (REPOSITORY / "camlink").iterdir() if path.is_symlink()}
    assert links == {name: f"../{name}" for name in BRIDGED}


def test_every_requirement_has_a_tested_version() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(name for extra in project["optional-dependencies"].values() for name in extra),
    ]
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pinned = {line.split("==")[0].lower() for line in lines if "==" in line}
    names = {requirement.split("[")[0].split(">")[0].split("<")[0].strip().lower() for requirement in wanted}
    assert not names - pinned - {"camlink"}  # extras that contain others name camlink itself


def test_the_version_is_in_the_changelog() -> None:
    assert f"## [{camlink.__version__}]" in (REPOSITORY / "CHANGELOG.md").read_text()
