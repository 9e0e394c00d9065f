"""One rule for every command: what is not there, or cannot be written, gives exit code 2 and one plain message."""

from __future__ import annotations

from pathlib import Path

import pytest

from camlink import __version__
from camlink.pipeline.commands.console import WRONG_USE
from tests.pipeline.test_cli import camlink, write_trace

BUS = ("--bus", "kafka://127.0.0.1:1/site")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trace, a finished run of it, and a plain file."""
    folder = tmp_path_factory.mktemp("place")
    write_trace(folder / "trace", frames=60)
    done = camlink("replay", str(folder / "trace"), "--config", "demo", "--out", str(folder / "run"))
    assert done.returncode == 0, done.stderr
    (folder / "file").write_text("plain")
    return folder


@pytest.mark.parametrize(
    "command",
    [
        "report nope",
        "report trace",
        "report file",
        "report run --day 2000-01-01",
        "report run --csv file/x.csv",
        "report run --parquet trace",
        "why nope hall 1 persons",
        "why run hal 1 persons",
        "why run hall 1 person",
        "why run hall 99999 persons",
        "dashboard nope",
        "dashboard file",
        "replay nope",
        "replay trace --config nope",
        "replay trace --config demo --out run",
        "replay trace --config demo --out file/x",
        "replay trace --config demo --out file",
        "replay trace --device cpu",
        "replay trace trace",
        "record nope --out new",
        "record file --out file/x",
        "compare nope",
        "compare run",
        "compare trace --html file/x.html",
        "simulate trace",
        "simulate file/x",
        "simulate file",
        "simulate new --every 1ms --days 100",
        "run nope",
        "run webcam --out file",
        "run webcam --port 99999",
        "run webcam --host 0.0.0.0",
        "config check nope",
        "config schema --out file/x",
        "models pull nope",
        "models profile nope",
        "federate rehearse nope --out new",
        "federate rehearse trace --out file/x",
        "federate rehearse trace --out new --models nope",
        "federate site nope --site a --out new --bus",
        "federate site trace --site a --out new --models nope --bus",
        "federate site run --site a --out new --models nope --bus",
        "federate coordinate nope --out new --bus",
        "federate coordinate trace --out new --targets nope --bus",
        "federate coordinate trace --out new --bus memory://",
        "federate coordinate trace --out new --name a/b --bus",
        "federate site trace --site ../a --out new --bus",
        "worker ingest demo --state nope --bus",
        "worker ingest demo --state redis://127.0.0.1:1 --share 3/2 --bus",
        "worker ingest demo --state redis://127.0.0.1:1 --trace run --bus",
        "worker scheduler demo --state redis://127.0.0.1:1 --health 99999 --bus",
        "worker scheduler demo --state redis://127.0.0.1:1 --bus kafka://127.0.0.1:1/x?partitions=0",
        "worker results demo --out file --bus",
    ],
)
def test_what_is_not_there_or_cannot_be_written_ends_with_code_2_before_anything_is_done(
    place: Path, command: str
) -> None:
    before = sorted(place.rglob("*"))
    words = command.removesuffix(" --bus").split()
    done = camlink(*words, *(BUS if command.endswith("--bus") else ()), cwd=place)
    assert done.returncode == WRONG_USE, done.stderr
    assert "Traceback" not in done.stderr and "Errno" not in done.stderr and done.stderr.strip()
    assert sorted(place.rglob("*")) == before


def test_a_file_is_written_into_a_folder_that_is_made_for_it(place: Path) -> None:
    assert camlink("config", "schema", "--out", str(place / "new" / "schema.json")).returncode == 0
    assert (place / "new" / "schema.json").read_text().startswith("{")


def test_what_camlink_wrote_is_known_where_footage_is_looked_for(place: Path) -> None:
    assert "it is a trace" in camlink("record", str(place / "trace"), "--out", str(place / "new")).stderr
    assert "it holds a run's results" in camlink("replay", str(place / "run")).stderr


def test_the_version_is_told_as_a_command_and_as_an_option() -> None:
    assert camlink("--version").stdout == camlink("version").stdout == f"{__version__}\n"
