"""What cameras ask of the machine: told at the start, and warned of where it has no time for that."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from camlink.models.pool import ModelPool
from camlink.operators.selection import Costs
from camlink.pipeline.cli import app
from camlink.pipeline.commands import live, running
from camlink.pipeline.config import SiteConfig
from camlink.pipeline.demand import Demand, demand_of, demand_warnings
from camlink.pipeline.testing import TinyModel

COSTS = Costs({"objects": 60.0, "persons": 40.0}, {"objects": 1.0, "persons": 1.0})  # 0.1 s a frame


def site(cameras: int, fps: float = 2.0, **more: Any) -> SiteConfig:
    named = [{"id": f"c{i}", "source": i, "fps": fps} for i in range(cameras)]
    given = {"budgets": {"time_share": 0.4}, "profile": {"fraction": 0.03}, "audit": {"fraction": 0.02}} | more
    return SiteConfig(models="building", cameras=named, **given)


def test_demand_is_what_learning_takes_and_what_the_budget_leaves() -> None:
    demand = demand_of(site(2), COSTS)
    assert (demand.frames_s, demand.full) == (4.0, pytest.approx(0.4))
    assert demand.served == pytest.approx(0.4 * (0.05 + 0.95 * 0.4)), "profile and audit frames come on top"
    assert demand.words == "4 frames a second: models take 0.4 s of each second while cameras learn, 0.17 s after that"
    assert list(demand_warnings(demand)) == []


def test_a_slow_camera_is_profiled_more_often_than_the_fraction_says() -> None:
    demand = demand_of(site(1, fps=1 / 60, profile={"fraction": 0.03, "min_frames": 30}), COSTS)
    assert demand.always == pytest.approx(demand.full * (30 / 60 + 0.02))


def test_frames_that_teach_links_count_where_there_are_links() -> None:
    demand = demand_of(site(2, policy="mlink", adaptation={"interval": "10min", "frames": 60}), COSTS)
    assert demand.always == pytest.approx(demand.full * (0.05 + 60 / 1200))


def test_everything_at_all_times_and_no_time_budget_promise_nothing_for_later() -> None:
    assert demand_of(site(2, policy="all"), COSTS).words == "4 frames a second: models take 0.4 s of each second"
    aimed = demand_of(site(1, fps=1.0, budgets={}, target_agreement=0.9), COSTS)
    assert (aimed.served, aimed.words) == (None, "1 frame a second: models take 0.1 s of each second")


@pytest.mark.parametrize(
    ("policy", "cameras", "key", "said"),
    [
        ("mlink", 5, None, None),
        ("mlink", 6, "cameras", "every model take 1.2 s of each second: while cameras learn, .* be dropped"),
        ("mlink", 20, "time_share", "take 1.8 s of .* be dropped .* lower budgets.time_share to 0.17, look"),
        ("mlink", 200, "cameras", "after cameras have learnt, too: .* as long as this runs; look at fewer"),
        ("periodic", 6, None, None),
        ("periodic", 20, "time_share", "answered without a model for as .*; lower .* to 0.21, look"),
        ("camlink", 6, None, None),
        ("camlink", 20, "time_share", "take 1.7 s .* a budgets.time_share of about 0.18, and no more"),
        ("camlink", 200, "cameras", "be answered without a model for as long as this runs; look at fewer"),
    ],
)
def test_more_than_a_second_of_models_a_second_is_warned_of(
    policy: str, cameras: int, key: str | None, said: str | None
) -> None:
    found = list(demand_warnings(demand_of(site(cameras, policy=policy), COSTS)))
    assert [path[-1] for path, _ in found] == ([key] if key else [])
    assert said is None or re.search(said, found[0][1])


def test_who_asks_for_all_that_there_is_time_for_is_told_what_becomes_of_the_rest_and_not_warned() -> None:
    demand = demand_of(site(20, budgets={"time_share": 1.0}), COSTS)
    assert demand.words.endswith("; some will be answered without a model")
    assert list(demand_warnings(demand)) == []


def test_the_share_that_a_warning_names_is_one_that_fits() -> None:
    demand = demand_of(site(20), COSTS)
    told = Demand(demand.frames_s, demand.full, demand.always, demand.fitting_share)
    assert told.served is not None and 0.88 < told.served <= 0.9


def test_a_start_says_it_before_a_camera_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Opened(Exception):
        pass

    def opened(*given: Any, **more: Any) -> None:
        raise Opened

    pool = ModelPool([TinyModel.count("objects", lambda frame: 1, time_ms=900.0)])
    monkeypatch.setattr(running, "build_pool", lambda config: (pool, {}))
    monkeypatch.setattr(live, "_checked", lambda config, device: site(1, budgets={"time_share": 0.9}))
    monkeypatch.setattr("camlink.pipeline.session.Session.__init__", opened)
    done = CliRunner(env={"COLUMNS": "300"}).invoke(app, ["run", "x", "--no-dashboard", "--out", str(tmp_path / "r")])
    assert isinstance(done.exception, Opened)
    assert "2 frames a second: models take 1.8 s of each second while cameras learn, 1.6 s after that" in done.stderr
    assert "warning: " in done.stderr and "a budgets.time_share of about 0.47" in done.stderr
