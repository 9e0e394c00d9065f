"""A file is written wholly or not at all; what is there and is no file is never replaced by one."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from camlink.pipeline.commands.compare import compare
from camlink.pipeline.commands.config import schema
from camlink.pipeline.durable import write_text
from camlink.pipeline.errors import ResultsError
from tests.models.tiny import write_trace


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    came: list[str] = []
    reader = threading.Thread(target=lambda: came.append(pipe.read_text()), daemon=True)
    reader.start()
    write_text(pipe, "rows")
    reader.join(10)
    assert came == ["rows"]
    assert pipe.is_fifo()


def test_a_file_that_cannot_be_written_is_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (file := tmp_path / "table.csv").write_text("earlier")
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(ResultsError, match=r"table.csv: cannot be written: No space left"):
        write_text(file, "rows")
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]
    assert file.read_text() == "earlier"


def test_commands_name_the_file_on_a_full_disk(tmp_path: Path) -> None:
    full = Path("/dev/full")
    with pytest.raises(ResultsError, match="/dev/full: cannot be written: No space left on device"):
        schema(full)
    trace = write_trace(tmp_path / "t", frames=40)
    with pytest.raises(ResultsError, match="/dev/full: cannot be written: No space left on device"):
        compare([trace], budget_time=["0.5"], policy=["periodic"], csv=full, load_ms=0.0)


def test_a_folder_in_the_place_of_a_file_is_told_and_stays(tmp_path: Path) -> None:
    (tmp_path / "rows.csv" / "kept").mkdir(parents=True)
    with pytest.raises(ResultsError, match=r"rows\.csv: cannot be written: Is a directory"):
        write_text(tmp_path / "rows.csv", "a,b\n")
    assert (tmp_path / "rows.csv" / "kept").is_dir() and len(list(tmp_path.iterdir())) == 1
