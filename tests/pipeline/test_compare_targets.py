"""`camlink compare --target`: what an accuracy costs, and a live site that asks for one without a time budget."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from camlink.models.trace_arrays import open_arrays
from camlink.models.trace_writing import write_arrays
from camlink.operators.selection import Budget
from camlink.pipeline.assembly import targets_of
from camlink.pipeline.config import Budgets, SiteConfig
from camlink.pipeline.lab.compare import Rules, compare
from camlink.pipeline.lab.targets import LADDER
from tests.lab_traces import random_trace
from tests.pipeline.test_compare_command import camlink

ASKED = ("--policy", "camlink", "periodic", "all", "--target", "0.8", "0.95")


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = random_trace(1, 80, 3)
    return write_arrays(tmp_path_factory.mktemp("traces") / "chance", made.models, made.cameras)


def test_every_policy_tells_the_cost_and_the_agreement_of_each_target(trace: Path) -> None:
    done = camlink("compare", str(trace), *ASKED, "--json")
    rows = json.loads(done.stdout)
    assert [(row["policy"], row["target"]) for row in rows] == [
        (policy, target) for policy in ("camlink", "periodic", "all") for target in (0.8, 0.95)
    ]
    assert all(row["target_met"] == (row["agreement"] >= row["target"]) for row in rows)
    by_policy = {row["policy"]: row for row in rows}
    assert [row["budget_time"] for row in rows if row["policy"] == "camlink"] == [None, None]
    assert by_policy["all"]["cost"] == pytest.approx(1.0)
    assert rows[0]["cost"] < rows[1]["cost"] < 1.0


def test_a_baseline_counts_with_the_least_budget_of_the_ladder_that_reaches_the_target(trace: Path) -> None:
    rules = Rules([Budget(time_share=share) for share in LADDER], ["periodic"])
    played = list(compare(open_arrays(trace), rules, lambda said: None))
    done = camlink("compare", str(trace), "--policy", "periodic", "--target", "0.8", "0.9", "--json")
    for row in json.loads(done.stdout):
        reached = next(found for found in played if found.agreement() >= row["target"])
        assert (row["budget_time"], row["agreement"]) == (reached.budget.time_share, reached.agreement())


def test_the_table_has_a_column_for_each_target_and_marks_those_that_are_missed(trace: Path) -> None:
    done = camlink("compare", str(trace), *ASKED)
    lines = done.stdout.splitlines()
    assert "chance: least cost (agreement), in %" in lines
    assert any(line.split() == ["policy", "target", "80%", "target", "95%"] for line in lines)
    (everything,) = (line for line in lines if line.split()[:1] == ["all"])
    assert everything.split() == ["all", "100", "(100.0)", "100", "(100.0)"]
    rows = json.loads(camlink("compare", str(trace), *ASKED, "--json").stdout)
    missed = sum(not row["target_met"] for row in rows)
    assert sum(line.count(")!") for line in lines) == missed


def test_what_is_noted_of_a_budget_is_said_once_for_all_policies(trace: Path) -> None:
    asked = ("--policy", "standalone", "periodic", "--target", "0.8", "--budget-gb", "1000")
    assert camlink("compare", str(trace), *asked).stderr.count("is the same as none") == 1


@pytest.mark.parametrize(
    ("more", "said"),
    [(("--budget-time", "0.3"), "takes the place of --budget-time"), (("--html", "page.html"), "shows budgets")],
)
def test_what_does_not_go_with_a_target_is_refused(
    trace: Path, more: tuple[str, str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = camlink("compare", str(trace), "--target", "0.9", *more)
    assert done.exit_code == 2 and said in done.stderr


def test_a_site_with_targets_and_no_time_budget_gives_them_to_its_policies() -> None:
    asked = SiteConfig(models="building", policy="camlink", target_agreement=0.9, targets={"persons": 0.97})
    models = ("objects", "persons", "action")
    assert targets_of(asked, "hall", models) == {"objects": 0.9, "persons": 0.97, "action": 0.9}
    paid = asked.model_copy(update={"budgets": Budgets(time_share=0.3)})
    assert targets_of(paid, "hall", models) == {}
