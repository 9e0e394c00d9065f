"""Files are wholly there or not at all; what is no file stays what it is."""

import os
import stat
from pathlib import Path
from threading import Thread

import pytest

from camlink.pipeline.durable import write_text
from camlink.pipeline.errors import ResultsError


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe, read = tmp_path / "rows.csv", list[str]()
    os.mkfifo(pipe)
    keeps_open = os.open(pipe, os.O_RDWR)  # so that no reader waits for ever where nothing is written
    writing = Thread(target=write_text, args=(pipe, "a,b\n"), daemon=True)
    writing.start()
    writing.join(10.0)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    read.append(os.read(keeps_open, 100).decode())
    os.close(keeps_open)
    assert read == ["a,b\n"]


def test_a_folder_in_the_place_of_a_file_is_told_and_stays(tmp_path: Path) -> None:
    (tmp_path / "rows.csv" / "kept").mkdir(parents=True)
    with pytest.raises(ResultsError, match=r"rows\.csv: cannot be written: Is a directory"):
        write_text(tmp_path / "rows.csv", "a,b\n")
    assert (tmp_path / "rows.csv" / "kept").is_dir() and len(list(tmp_path.iterdir())) == 1
