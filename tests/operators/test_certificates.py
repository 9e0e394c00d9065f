"""Certificates follow from results: which frames count, with what chance, and that live and stored evidence agree."""

from __future__ import annotations

from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from camlink.models.base import OutputSpec
from camlink.operators.certificates import ALL, Judged, Ledger, RecentFrames, Stream
from camlink.operators.evidence import certify, combined
from camlink.pipeline.certificates import camera_answers, camera_evidence, model_evidence
from camlink.pipeline.records import Frame, FrameResult, ModelOutput, Record
from camlink.pipeline.reports.rows import read_camera
from camlink.pipeline.results import ResultsLog, RunResults
from camlink.pipeline.run_info import RunInfo
from camlink.pipeline.testing import START, TinyModel, make_frames, run_frames
from tests.scenes import crowd

RULES: dict[str, Any] = {
    "period": timedelta(minutes=5),
    "links": {"bootstrap_frames": 40, "min_train_frames": 40},
    "audit": {"fraction": 0.1},
    "budgets": {"time_share": 0.4},
    "policy": "mlink-exact",
}


def models(**more: Any) -> list[TinyModel]:
    """Bags follow persons only until frame 400, so that predictions are right first and wrong later."""
    return [
        TinyModel.count("objects", lambda f: [crowd(f), f.index % 2], size=2),
        TinyModel.count("persons", crowd),
        TinyModel.count("bags", lambda f: crowd(f) * 2 if f.index > 400 else crowd(f) // 2, **more),
    ]


def specs() -> dict[str, OutputSpec]:
    return {model.spec.model: model.spec for model in models()}


def ledger_of(records: list[Record], span: timedelta = timedelta(minutes=5)) -> Ledger:
    ledger = Ledger(specs(), span)
    for record in records:
        if isinstance(record, FrameResult):
            ledger.observe(record)
    return ledger


def stored(records: list[Record], folder: Path) -> RunResults:
    entries = {n: {"task": s.task, "size": s.size, "time_ms": 10.0, "memory_gb": 1.0} for n, s in specs().items()}
    RunInfo("run", "0", 0, "mlink", entries, {"hall": {}}, START).save(folder)
    with ResultsLog(folder, specs=specs()) as log:
        log.write(records)
    return RunResults(folder)


@pytest.mark.parametrize("fails_on", [frozenset[int](), frozenset(range(500, 800))])
def test_the_rows_of_a_run_give_the_evidence_that_was_gathered_live(tmp_path: Path, fails_on: frozenset[int]) -> None:
    records = run_frames(make_frames("hall", 900), models(fails_on=fails_on), **RULES)
    ledger = ledger_of(records, timedelta(days=1))  # a span starts its guesses anew, which the rows do not
    told = camera_answers(read_camera(stored(records, tmp_path), "hall"))
    for model in (*specs(), ALL):
        live = certify(ledger.evidence(model=model))
        read = certify(camera_evidence(told.values()) if model == ALL else model_evidence(told[model]))
        assert (live.frames, live.audits, live.state) == (read.frames, read.audits, read.state), model
        if live.state == "measured":
            assert (live.estimate, live.low, live.high) == pytest.approx((read.estimate, read.low, read.high)), model
    assert certify(ledger.evidence(model="bags")).audits > 30 or fails_on


def test_certificates_hold_what_was_true_on_the_frames_nobody_audited() -> None:
    """The models are functions of the frame, so what each would have said is known here."""
    records = run_frames(make_frames("hall", 3000), models(), **RULES | {"adaptation": {"policy": "off"}})
    truth = models()[2].function
    right = [
        abs(float(o.value[0]) - truth(Frame("hall", r.frame_index, r.captured_at, None))) < 0.5  # type: ignore[arg-type]
        for r in records
        if isinstance(r, FrameResult) and r.purpose in ("serve", "audit")
        for o in r.outputs
        if o.model == "bags" and o.how == "linked" and o.value is not None
    ]
    found = certify(ledger_of(records).evidence(model="bags"))
    assert found.frames == len(right)
    assert found.low is not None
    assert found.high is not None
    assert found.low <= np.mean(right) <= found.high
    assert found.high - found.low < 0.4


def test_spans_add_up_to_the_whole() -> None:
    ledger = ledger_of(run_frames(make_frames("hall", 900), models(), **RULES))
    spans = ledger.spans("hall", "bags")
    assert len(spans) == 3
    whole = certify(ledger.evidence(["hall"], "bags"))
    assert certify(combined(spans.values())) == whole
    second = list(spans)[1]
    tail = certify(ledger.evidence(["hall"], "bags", since=second))
    assert tail.frames == whole.frames - certify(spans[START]).frames
    assert certify(ledger.evidence(["yard"], "bags")).frames == 0
    ledger.forget_before(second)
    assert list(ledger.spans("hall", "bags")) == list(spans)[1:]


numbers = count()


def result(purpose: str, *outputs: ModelOutput, chance: float | None = 0.1) -> FrameResult:
    return FrameResult("hall", next(numbers), START, purpose, outputs, chance)  # type: ignore[arg-type]


def output(how: str, value: float | None, purpose: str = "serve", *, served: bool = True) -> ModelOutput:
    array = None if value is None else np.array([value], np.float32)
    return ModelOutput("hall", 0, START, "persons", array, purpose, how, served)  # type: ignore[arg-type]


def test_only_predictions_that_a_coin_could_have_checked_are_sampled() -> None:
    ledger = Ledger({"persons": specs()["persons"]}, timedelta(hours=1))
    for purpose in ("profile", "relabel"):
        ledger.observe(result(purpose, output("executed", 1.0, purpose)))
    assert certify(ledger.evidence()).frames == 0
    ledger.observe(result("serve", output("executed", 1.0)))
    assert certify(ledger.evidence(model="persons")).frames == 0  # nothing was predicted
    assert certify(ledger.evidence(model=ALL)).frames == 1
    ledger.observe(result("serve", output("linked", 1.0)))
    ledger.observe(result("serve", output("abstained", None)))
    shadow = output("linked", 3.0, "audit", served=False)
    ledger.observe(result("audit", output("executed", 1.0, "audit"), shadow))
    found = ledger.evidence(model="persons")
    assert (found.frames, found.known, found.known_sum, found.audits, found.wrong) == (3, 1, 1.0, 1, 1.0)


def test_an_audit_on_which_the_model_failed_leaves_its_frame_in_doubt() -> None:
    ledger = Ledger({"persons": specs()["persons"]}, timedelta(hours=1))
    ledger.observe(result("audit", output("linked", 1.0, "audit"), chance=1.0))
    found = ledger.evidence(model="persons")
    assert (found.frames, found.audits) == (1, 0)
    assert certify(found).state == "not measured"


def test_a_changing_chance_is_recorded_frame_by_frame() -> None:
    stream = Stream()
    for chance in (0.5, 0.5, 0.1):
        stream.add(Judged(None, sampled=True), chance, audited=False)
    stream.add(Judged(0.0, sampled=True), 0.1, audited=True)
    assert stream.evidence.frames == 4
    assert stream.evidence.weight == pytest.approx(10.0)
    assert stream.evidence.unit == 0.5


def test_what_is_delivered_twice_counts_once() -> None:
    ledger = Ledger({"persons": specs()["persons"]}, timedelta(hours=1))
    frame = result("audit", output("executed", 1.0, "audit"), output("linked", 1.0, "audit", served=False))
    for _ in range(3):
        ledger.observe(frame)
    assert certify(ledger.evidence(model="persons")).audits == 1
    recent = RecentFrames(most=2)
    assert [recent.is_new(i) for i in (1, 2, 1, 3, 1)] == [True, True, False, True, True]
