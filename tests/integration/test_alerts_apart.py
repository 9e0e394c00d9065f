"""Confirm by execution between processes: results asks, inference executes, linking answers, results tells."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from camlink.pipeline.alerts.delivery import Alerts
from camlink.pipeline.config import SiteConfig
from camlink.pipeline.config.alerts import AlertsConfig
from camlink.pipeline.graph import GRAPH
from camlink.pipeline.records import Frame
from camlink.pipeline.results import RunInfo, RunResults
from camlink.pipeline.results.worker import ResultsWorker
from camlink.pipeline.testing import START, TinyModel, make_frames
from tests.integration.test_in_step import Site

SETTINGS: dict[str, Any] = {
    "models": "building",
    "policy": "mlink",
    "links": {"bootstrap_frames": 130, "min_train_frames": 40},
    "budgets": {"time_share": 0.5},
    "audit": {"fraction": 0.0},
}
RULE: dict[str, Any] = {"name": "crowd", "when": "count_above", "model": "persons", "above": 5, "lasting": "3s"}
RULE |= {"cool_down": "1min", "confirm": True}
LEARNT_BY = "2026-01-05T08:03"  # from then on persons are predicted


class Kept:
    def __init__(self, sent: list[dict[str, Any]]) -> None:
        self._sent = sent

    def send(self, key: str, body: bytes) -> None:
        self._sent.append(json.loads(body))

    def close(self) -> None:
        """Nothing to close."""


class WatchedSite(Site):
    """A site whose results worker watches for alerts; a frame comes only when all is done with the one before."""

    def __init__(self, folder: Path, adaptation: str) -> None:
        models = [TinyModel.count("objects", objects), TinyModel.count("persons", persons, time_ms=50.0)]
        config = SiteConfig.model_validate({**SETTINGS, "adaptation": {"policy": adaptation}})
        super().__init__(config, models, ("hall",))
        self.bus.lose("results")
        specs = {model.spec.model: model.spec for model in models}
        self.sent: list[dict[str, Any]] = []
        rules = AlertsConfig.model_validate(
            {"to": ["https://hooks.example/x"], "rules": [RULE | {"cool_down": "1min"}]}
        )
        self.alerts = Alerts(rules, specs, folder, live=False, open_sender=lambda _: Kept(self.sent))
        told = {name: {"task": spec.task, "kind": spec.kind, "size": spec.size} for name, spec in specs.items()}
        header = RunInfo("run", "0", 0, "mlink", told, {"hall": {}}, START)
        self.results = ResultsWorker(GRAPH[-1], self.bus, folder, specs, header, listeners=[self.alerts.observe])

    def play(self, frames: list[Frame]) -> None:
        for frame in frames:
            self.bus.publish("frames", frame)
            self.settle()
        self.alerts.deliver()

    def settle(self) -> None:
        while sum(worker.once() for worker in (*self.workers.values(), self.results)):
            pass


def objects(frame: Frame) -> int:
    return 9 if frame.index % 100 > 60 else 1


def persons(frame: Frame) -> int:
    """At the end, nobody is there where links still see a crowd."""
    return 0 if frame.index >= 500 else objects(frame)


@pytest.fixture(params=["off", "uncertainty"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[WatchedSite]:
    site = WatchedSite(tmp_path / "run", request.param)
    yield site
    site.alerts.close()


def test_a_predicted_crowd_is_executed_before_it_is_told(site: WatchedSite) -> None:
    site.play(make_frames("hall", 500))
    told = [alert for alert in site.sent if alert["at"] > LEARNT_BY]
    assert len(told) == 3
    assert {(alert["confirmed"], alert["how"], alert["value"]) for alert in told} == {("by execution", "executed", 9.0)}
    assert site.alerts.counts["confirmations"] == 3
    site.results.checkpoint()
    outputs = RunResults(site.results._out).outputs(where="purpose = 'relabel' AND model = 'persons'").to_pylist()
    deciding = [row for row in outputs if row["frame_index"] % 100 == 64]  # three seconds after the crowd came
    assert len(deciding) == 3 and {row["how"] for row in deciding} == {"executed"}


def test_a_predicted_crowd_that_the_model_does_not_see_is_not_told(tmp_path: Path) -> None:
    site = WatchedSite(tmp_path / "run", "off")
    site.play(make_frames("hall", 600))
    asked = site.alerts.counts["confirmations"]
    assert asked > 3, "the links saw a crowd again"
    assert not [alert for alert in site.sent if alert["at"] > "2026-01-05T08:08:20"]
    site.alerts.close()
