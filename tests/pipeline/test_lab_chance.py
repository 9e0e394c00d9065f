"""Which differences between policies count for more than chance."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console
from typer.testing import CliRunner

from camlink.models.trace_writing import write_arrays
from camlink.operators.selection import Budget
from camlink.pipeline.cli import app
from camlink.pipeline.lab.chance import GROUPS, MOST_GROUPS, chance_to_be_best, grouped
from camlink.pipeline.lab.compare import Rules, compare, rows_of
from camlink.pipeline.lab.page import headline, render
from camlink.pipeline.lab.summary import cells
from camlink.pipeline.lab.tally import STRETCHES
from camlink.pipeline.lab.terminal import print_rows
from tests.lab_traces import random_trace

Sums = NDArray[np.float64]


def equally_good(frames: int, lasts: float, seed: int) -> dict[str, Sums]:
    """Seven policies that agree on 88 % of frames each, where disagreement lasts about so many frames."""
    draw = np.random.default_rng(seed)
    keep = np.exp(-1.0 / lasts)
    hidden = draw.standard_normal((frames, 7, 3))
    for t in range(1, frames):
        hidden[t] = keep * hidden[t - 1] + np.sqrt(1.0 - keep * keep) * hidden[t]
    agreed = (hidden > -1.2).sum(axis=2)
    stretch = np.arange(frames) * STRETCHES // frames
    return {f"policy {p}": grouped([np.bincount(stretch, agreed[:, p], STRETCHES)]) for p in range(7)}


def found_worse(frames: int, lasts: float, rounds: int) -> float:
    each = [chance_to_be_best(equally_good(frames, lasts, seed)) for seed in range(rounds)]
    return float(np.mean([[chance < 0.05 for chance in found.values()] for found in each]))


def test_equally_good_policies_are_seldom_found_worse_where_frames_are_many_times_what_disagreement_lasts() -> None:
    assert found_worse(450, 8.0, 100) < 0.1
    assert found_worse(250, 2.0, 100) < 0.1


def test_a_policy_that_is_worse_throughout_is_found_worse_and_the_best_never_is() -> None:
    found = equally_good(450, 8.0, 0)
    found["worse"] = found["policy 0"] - 10.0
    chances = chance_to_be_best(found)
    assert chances["worse"] < 0.05
    assert chances[max(found, key=lambda p: found[p].sum())] >= 0.5


def test_one_stretch_that_went_wrong_may_be_chance() -> None:
    steady = np.full(GROUPS, 50.0)
    unlucky = steady - np.eye(GROUPS)[3] * 40.0
    assert chance_to_be_best({"steady": steady, "unlucky": unlucky})["unlucky"] == 0.5
    assert chance_to_be_best({"steady": steady, "the same": steady.copy()}) == {"steady": 1.0, "the same": 1.0}


@pytest.mark.parametrize("cameras", [1, 2, 3, 5, 7, 8, 14, 40])
def test_groups_of_stretches_keep_every_frame_and_are_few(cameras: int) -> None:
    sums = [np.random.default_rng(c).random(STRETCHES if c % 2 else 18) for c in range(cameras)]
    groups = grouped(sums)
    assert groups.sum() == pytest.approx(sum(s.sum() for s in sums))
    assert GROUPS <= len(groups) <= MOST_GROUPS


def test_stretches_add_up_to_what_was_scored() -> None:
    rules = Rules([Budget(time_share=0.3)], ["camlink", "mlink", "periodic"])
    for result in compare(random_trace(0, 300, 3), rules, lambda said: None):
        for tally in result.cameras.values():
            assert len(tally.stretches) == STRETCHES
            assert tally.stretches.sum() == pytest.approx(tally.agreed.sum())


def test_rows_say_how_likely_each_contestant_is_as_good_as_the_best() -> None:
    rules = Rules([Budget(time_share=0.3), Budget(time_share=0.5)], ["all", "standalone", "periodic"], seeds=(0, 1))
    rows = rows_of(list(compare(random_trace(1, 300, 3), rules, lambda said: None)))
    assert all((row["chance_to_be_best"] is None) == (row["policy"] == "all") for row in rows)
    found = cells(rows)
    for budget in {c.budget for c in found}:
        best = max((c for c in found if c.budget == budget and c.policy != "all"), key=lambda c: c.agreement)
        assert best.may_be_best
    assert "or behind it by no more than may be chance: " in headline(found)
    alone = rows_of(list(compare(random_trace(1, 300, 3), Rules(policies=["periodic"]), lambda said: None)))
    assert [row["chance_to_be_best"] for row in alone] == [None]


def test_what_is_worse_by_more_than_chance_is_grey_on_the_page_and_has_no_sign_in_the_table() -> None:
    rules = Rules([Budget(time_share=0.5)], ["standalone", "periodic", "reducto"])
    rows = rows_of(list(compare(random_trace(1, 300, 3), rules, lambda said: None)))
    for row, agreement, chance in zip(rows, (0.5, 0.8, 0.9), (0.01, 0.2, 0.9), strict=True):
        row |= {"agreement": agreement, "chance_to_be_best": chance}
    page = render(rows)
    assert page.count('<td class="n worse">') == 1 and '<td class="n worse">50.0' in page
    console = Console(file=io.StringIO(), width=100)
    print_rows(rows, console)
    table = console.file.getvalue()  # type: ignore[attr-defined]
    assert re.findall(r"(standalone|periodic|reducto) +([0-9.]+.)", table) == [
        ("standalone", "50.0 "), ("periodic", "80.0~"), ("reducto", "90.0*"),
    ]  # fmt: skip


def test_the_command_states_it_as_json(tmp_path: Path) -> None:
    made = random_trace(1, 200, 3)
    trace = write_arrays(tmp_path / "chance", made.models, made.cameras)
    done = CliRunner().invoke(app, ["compare", str(trace), "--policy", "periodic", "standalone", "--json"])
    assert all(0.0 < row["chance_to_be_best"] <= 1.0 for row in json.loads(done.stdout))
