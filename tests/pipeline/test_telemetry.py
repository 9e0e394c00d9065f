"""Metrics: what is counted, how names are bounded, and that the Grafana dashboard asks for what is there."""

from __future__ import annotations

import json
import re
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from camlink.models.base import OutputSpec
from camlink.models.pool import ModelPool
from camlink.operators.certificates import Ledger
from camlink.operators.throttle import Throttle
from camlink.pipeline.health import Health
from camlink.pipeline.records import CameraEvent, Decision, FrameDropped, FrameResult, LinkPromotion, Record
from camlink.pipeline.telemetry import CAMERAS, OTHER, REASONS, TARGET_STATES, Telemetry
from camlink.pipeline.testing import START, TinyModel, make_frames, outputs, run_frames

GRAFANA = Path(__file__).parents[2] / "deploy" / "grafana" / "dashboards" / "camlink.json"
DOCS = Path(__file__).parents[2] / "docs" / "dashboard.md"
ALERTS = {"camlink_alerts_raised", "camlink_alerts_waiting", "camlink_alert_failures"}  # added where alerts are sent
SPEC = OutputSpec("persons", "vector", 1, "count")


def crowd(frame: Any) -> int:
    return frame.index // 40 % 4


def models() -> list[TinyModel]:
    return [TinyModel.count("objects", crowd), TinyModel.count("persons", crowd, time_ms=50.0)]


@pytest.fixture(scope="module")
def records() -> list[Record]:
    settings = {"links": {"bootstrap_frames": 60, "min_train_frames": 40}, "audit": {"fraction": 0.1}}
    rules = settings | {"policy": "mlink"}  # whose links are counted, too
    return run_frames(make_frames("hall", 600), models(), budgets={"time_share": 0.5}, **rules)


def samples(telemetry: Telemetry) -> dict[tuple[str, tuple[str, ...]], float]:
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in telemetry.registry.collect()
        for sample in family.samples
    }


def told(records: Iterable[Record]) -> Telemetry:
    telemetry = Telemetry({m.spec.model: m.spec for m in models()}, now_s=lambda: START.timestamp() + 600.0)
    telemetry.observe(records)
    return telemetry


def limited(shares: dict[str, float]) -> Throttle:
    throttle = Throttle({"persons": 5.0}, lambda: 0.0, lambda: 0.0)
    throttle.shares = shares
    return throttle


def full(records: Iterable[Record]) -> Telemetry:
    """Everything that any process counts, in one."""
    telemetry = told(records)
    telemetry.observe([FrameDropped("hall", 0, 1, START, "late"), CameraEvent("hall", START, "down", "")])
    telemetry.observe([decided("hall", {"persons": "met"})])
    telemetry.batch("persons", 2, 5.0)
    telemetry.gauge("models_loaded_gb", "", lambda: 1.0)  # as `camlink run` and the inference worker add them
    telemetry.gauge("model_loads", "", lambda: 1.0)
    telemetry.machine(limited({"hall": 0.2}))
    telemetry.worker("linking", lambda: {"taken": 7}, lambda: 0.5)
    return telemetry


def test_every_served_output_is_counted_by_how_it_came_about(records: list[Record]) -> None:
    found = samples(told(records))
    served = Counter((o.camera_id, o.model, o.how) for o in outputs(records))
    assert served == {
        labels: value for (name, labels), value in found.items() if name == "camlink_outputs_total" and value
    }
    assert {how for *_, how in served} >= {"executed", "linked"}


def test_executions_count_audits_and_relabels_too(records: list[Record]) -> None:
    found = samples(told(records))
    made = Counter((o.camera_id, o.model, o.purpose) for o in outputs(records, served=None) if o.how == "executed")
    assert made == {labels: value for (name, labels), value in found.items() if name == "camlink_executions_total"}


def test_agreement_is_stated_with_bounds_only_where_it_was_measured(records: list[Record]) -> None:
    found = samples(told(records))
    everything = ("hall", "all")
    low, mean, high = (found[f"camlink_agreement{part}", everything] for part in ("_low", "", "_high"))
    assert 0.0 <= low < mean <= high <= 1.0
    assert found["camlink_agreement_audits", everything] > 0
    before_any_audit = samples(told(records[:20]))
    assert not [name for name, _ in before_any_audit if name in ("camlink_agreement", "camlink_agreement_low")]


def decided(camera: str, states: dict[str, str]) -> Decision:
    end = START + timedelta(minutes=1)
    return Decision(
        camera, START, end, ("objects",), ("persons",), (), {}, {"time_share": 0.5}, {}, None, "", target_states=states
    )


def target_states(telemetry: Telemetry) -> dict[tuple[str, ...], float]:
    return {labels: value for (name, labels), value in samples(telemetry).items() if name == "camlink_target_state"}


@pytest.mark.parametrize("state", TARGET_STATES)
def test_the_state_of_a_target_is_the_one_that_reads_1_and_others_read_0(state: str) -> None:
    other = next(each for each in TARGET_STATES if each != state)
    found = target_states(told([decided("hall", {"persons": other}), decided("hall", {"persons": state})]))
    assert found == {("hall", "persons", each): float(each == state) for each in TARGET_STATES}


def test_a_target_that_is_no_longer_asked_for_has_no_state() -> None:
    telemetry = told([decided("hall", {"persons": "met", "objects": "not met"})])
    telemetry.observe([decided("hall", {"objects": "met"})])
    assert {model for _, model, _ in target_states(telemetry)} == {"objects"}


def test_targets_get_their_states_from_the_scheduler() -> None:
    settings: dict[str, Any] = {
        "links": {"bootstrap_frames": 60, "min_train_frames": 40},
        "audit": {"fraction": 0.3},
        "period": timedelta(minutes=1),
        "budgets": {"time_share": 0.5},
    }
    frames = make_frames("hall", 600)
    found = target_states(told(run_frames(frames, models(), target_agreement=0.3, **settings)))
    stated = {model: state for (_, model, state), value in found.items() if value}
    assert stated == {"objects": "not known", "persons": "met"}  # the dearer one is predicted
    assert not target_states(told(run_frames(frames, models(), **settings)))


def test_no_frame_is_counted_while_somebody_asks(records: list[Record], monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger folds what it holds when it is read, and a scrape reads it in another thread: audits went missing."""
    telemetry, (result, *_) = told(records), [r for r in records if isinstance(r, FrameResult)]
    counting = threading.Thread(target=telemetry.observe, args=([result],))
    read, observe, reading, overlapped = Ledger.evidence, Ledger.observe, threading.Event(), list[bool]()

    def slowly(ledger: Ledger, **chosen: Any) -> Any:
        reading.set()
        if not counting.ident:
            counting.start()
        counting.join(0.2)  # as long as it takes to see that it waits
        reading.clear()
        return read(ledger, **chosen)

    def noted(ledger: Ledger, result: FrameResult) -> None:
        overlapped.append(reading.is_set())
        observe(ledger, result)

    monkeypatch.setattr(Ledger, "evidence", slowly)
    monkeypatch.setattr(Ledger, "observe", noted)
    telemetry.render()
    counting.join()
    assert overlapped == [False]


def test_decoding_is_timed_as_frames_pass() -> None:
    telemetry = Telemetry({})
    made = zip(make_frames("hall", 3), (0.004, 0.03, None), strict=True)
    frames = [replace(frame, decode_s=seconds) for frame, seconds in made]
    assert list(telemetry.timed([*frames, None])) == [*frames, None]
    found = samples(telemetry)
    assert found["camlink_decode_seconds_count", ()] == 2
    assert found["camlink_decode_seconds_sum", ()] == pytest.approx(0.034)


def test_a_camera_that_gives_frames_is_up_until_it_is_told_otherwise(records: list[Record]) -> None:
    telemetry = told(records[:20])
    assert samples(telemetry)["camlink_camera_up", ("hall",)] == 1.0
    telemetry.observe([CameraEvent("hall", START, "down", "")])
    telemetry.observe(records[20:40])  # frames of before that were on their way
    assert samples(telemetry)["camlink_camera_up", ("hall",)] == 0.0


def test_metrics_are_documented_and_those_documented_exist(records: list[Record]) -> None:
    documented = set(re.findall(r"`(camlink_\w+|_\w+)`", DOCS.read_text().split("## What it costs")[0]))
    for suffix in [m for m in documented if m.startswith("_")]:
        documented.discard(suffix)
        documented.add(f"camlink_agreement{suffix}")
    telemetry = full(records)
    families = {family.name: family.type for family in telemetry.registry.collect()}
    there = {f"{name}_total" if kind == "counter" else name for name, kind in families.items()}
    assert documented - ALERTS == there


def test_a_camera_that_goes_down_and_comes_back_is_seen() -> None:
    telemetry = Telemetry({})
    for kind, up in (("down", 0.0), ("recovered", 1.0)):
        telemetry.observe([CameraEvent("hall", START, kind, "why")])  # type: ignore[arg-type]
        assert samples(telemetry)["camlink_camera_up", ("hall",)] == up


def test_a_camera_that_was_let_go_is_neither_up_nor_late(records: list[Record]) -> None:
    telemetry = told([*records, LinkPromotion("hall", "persons", 2, START, b""), decided("hall", {"persons": "met"})])
    present = (
        *("camera_up", "last_frame", "decision_executes", "decision_budget", "link_version", "target_state"),
        *("agreement", "camera_time_share"),
    )
    telemetry.machine(limited({"hall": 0.2, "yard": 0.6}))

    def told_of_hall() -> set[str]:
        names = {name.removeprefix("camlink_") for name, labels in samples(telemetry) if labels[:1] == ("hall",)}
        return {kind for kind in present for name in names if name.startswith(kind)}

    assert told_of_hall() == set(present)
    telemetry.watched(["yard"])
    late = next(r for r in reversed(records) if isinstance(r, FrameResult))
    telemetry.observe([replace(late, camera_id="yard"), CameraEvent("hall", START, "ended", "let go")])
    assert not told_of_hall()
    assert samples(telemetry)["camlink_frames_total", ("hall", "serve")] > 0
    telemetry.observe([late, LinkPromotion("hall", "persons", 3, START, b"")])  # what it gave before may still come
    assert not told_of_hall()
    telemetry.watched(["hall", "yard"])
    telemetry.observe([late])
    found = samples(telemetry)
    assert found["camlink_camera_up", ("hall",)] == found["camlink_camera_up", ("yard",)] == 1.0
    assert [found["camlink_camera_time_share", (camera,)] for camera in ("hall", "yard")] == [0.2, 0.6]


@pytest.mark.parametrize("event", [False, True])
def test_the_version_of_links_is_there_before_the_next_promotion(records: list[Record], event: bool) -> None:
    """As after a restart: promotions came before this process, and what they put in force is on disk."""
    asked: list[tuple[str, str]] = []

    def promoted(camera_id: str, model: str) -> int | None:
        asked.append((camera_id, model))
        return {("hall", "persons"): 7}.get((camera_id, model))

    telemetry = Telemetry({m.spec.model: m.spec for m in models()}, promoted=promoted)
    assert ("camlink_link_version", ("hall", "persons")) not in samples(telemetry)
    late = [r for r in records if isinstance(r, FrameResult)][-3:]
    telemetry.observe([CameraEvent("hall", START, "down", "why"), *late] if event else late)
    found = samples(telemetry)
    assert found["camlink_link_version", ("hall", "persons")] == 7
    assert ("camlink_link_version", ("hall", "objects")) not in found, "of which none are in force"
    assert sorted(asked) == [("hall", "objects"), ("hall", "persons")], "once"
    telemetry.observe([LinkPromotion("hall", "persons", 8, START, b"")])
    assert samples(telemetry)["camlink_link_version", ("hall", "persons")] == 8


def test_names_that_somebody_else_makes_up_cannot_fill_the_memory() -> None:
    telemetry = Telemetry({})
    telemetry.observe(FrameDropped(f"camera-{i}", 0, 1, START, "late") for i in range(CAMERAS + 50))
    telemetry.observe(FrameDropped("camera-0", 0, 1, START, f"reason {i}") for i in range(REASONS + 50))
    labels = [labels for name, labels in samples(telemetry) if name == "camlink_dropped_frames_total"]
    assert len({camera for camera, _ in labels}) == CAMERAS + 1
    assert len({reason for _, reason in labels}) == REASONS + 1
    assert samples(telemetry)["camlink_dropped_frames_total", (OTHER, "late")] == 50


def test_batches_are_timed_and_sized_by_the_pool() -> None:
    telemetry = Telemetry({"persons": SPEC})
    pool = ModelPool([TinyModel(SPEC, crowd)])
    pool.watch = telemetry.batch
    pool.run("persons", make_frames("hall", 3))
    found = samples(telemetry)
    assert found["camlink_batch_frames_sum", ("persons",)] == 3
    assert found["camlink_inference_seconds_count", ("persons",)] == 1
    assert pool.batch_sizes["persons"] == {3: 1}


def test_workers_serve_metrics_beside_their_health() -> None:
    telemetry = Telemetry({})
    telemetry.worker("linking", lambda: {"taken": 7, "held": 2}, lambda: 0.5)
    page = Health("0", lambda: 0.5, dict, telemetry.render)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{page.port}/metrics") as answer:
            text = answer.read().decode()
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    finally:
        page.close()
    assert 'camlink_worker_records_total{step="linking",what="taken"} 7.0' in text
    assert 'camlink_worker_held_records{step="linking"} 2.0' in text


def test_every_metric_that_the_grafana_dashboard_asks_for_exists(records: list[Record]) -> None:
    known = {name for name, _ in samples(full(records))}
    asked = set(re.findall(r"camlink_[a-z_]+", GRAFANA.read_text()))
    assert asked and not asked - known


def test_every_label_that_the_grafana_dashboard_asks_for_exists(records: list[Record]) -> None:
    telemetry = told(records)
    telemetry.observe([FrameDropped("hall", 0, 1, START, "late"), decided("hall", {"persons": "met"})])
    labels = {s.name: set(s.labels) for family in telemetry.registry.collect() for s in family.samples}
    panels = json.loads(GRAFANA.read_text())["panels"]
    expressions = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    checked = 0
    for name, selector in re.findall(r"(camlink_\w+)\{([^}]*)\}", " ".join(expressions)):
        if name in labels:
            assert set(re.findall(r"(\w+)=", selector)) <= labels[name], name
            checked += 1
    assert checked > 10
