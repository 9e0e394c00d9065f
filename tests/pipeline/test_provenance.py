"""`camlink why`: each way in which an answer comes about is told with what it was made from."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from camlink.models.base import OutputSpec
from camlink.pipeline import provenance
from camlink.pipeline.cli import app
from camlink.pipeline.errors import ResultsError
from camlink.pipeline.provenance import explain
from camlink.pipeline.records import FrameDropped, FrameResult, How, ModelOutput, Purpose, Record
from camlink.pipeline.results import ResultsLog, RunResults
from camlink.pipeline.run_info import RunInfo
from camlink.pipeline.testing import START, TinyModel, make_frames, run_frames
from tests.scenes import crowd


@pytest.fixture(scope="module")
def records() -> list[Record]:
    models = [
        TinyModel.count("objects", lambda f: [crowd(f), crowd(f) % 2], size=2),
        TinyModel.count("persons", crowd),
        TinyModel.count("action", lambda f: crowd(f) // 2 if f.index < 300 else f.index * 7919 % 11 + 3),
    ]
    frames = [f for f in make_frames("hall", 900) if f.index not in (500, 501)]
    return run_frames(
        [*frames, FrameDropped("hall", 500, 2, START, "queue full")],
        models,
        period=timedelta(minutes=5),
        links={"bootstrap_frames": 60, "min_train_frames": 60},
        audit={"fraction": 0.2},
        adaptation={"policy": "off"},
        budgets={"time_share": 0.34},
        policy="mlink-exact",
        target_agreement=0.9,
    )


@pytest.fixture(scope="module")
def run(records: list[Record], tmp_path_factory: pytest.TempPathFactory) -> RunResults:
    sizes = {"objects": 2, "persons": 1, "action": 1}
    return written(records, tmp_path_factory.mktemp("run"), sizes)


def written(records: list[Record], folder: Path, sizes: dict[str, int], policy: str = "mlink") -> RunResults:
    """Leave a results folder as a session does; all models count, with so many entries."""
    specs = {name: OutputSpec(name, "vector", size, "count") for name, size in sizes.items()}
    entries = {n: {"task": s.task, "size": s.size, "time_ms": 10.0, "memory_gb": 1.0} for n, s in specs.items()}
    RunInfo("run", "0", 0, policy, entries, {"hall": {}}, START).save(folder)
    with ResultsLog(folder, specs=specs) as log:
        log.write(records)
    return RunResults(folder)


def first(records: list[Record], wanted: Any) -> FrameResult:
    return next(r for r in records if isinstance(r, FrameResult) and r.purpose != "relabel" and wanted(r))


def how(result: FrameResult, model: str) -> str:
    return next(o.how for o in result.outputs if o.served and o.model == model)


def test_an_executed_answer_names_the_decision_that_asked_for_it(records: list[Record], run: RunResults) -> None:
    result = first(records, lambda r: r.purpose == "serve" and how(r, "objects") == "executed")
    found = explain(run, "hall", result.frame_index, "objects")
    assert found["answer"]["how"] == "executed"
    assert "objects" in found["decision"]["execute"]
    assert found["decision"]["start"] < found["captured_at"]
    assert any("not audited; the chance was 20.0 %" in line for line in found["text"])


def test_a_linked_answer_names_its_sources_their_values_and_the_links(records: list[Record], run: RunResults) -> None:
    result = first(records, lambda r: r.purpose == "serve" and how(r, "persons") == "linked" and r.frame_index > 100)
    found = explain(run, "hall", result.frame_index, "persons")
    answer = found["answer"]
    row = next(o for o in result.outputs if o.model == "persons")
    assert set(answer["sources"]) == set(row.sources)
    for source, told in answer["sources"].items():
        assert told["value"] == result.executed()[source].tolist()
    assert answer["link"]["version"] == row.link_version
    assert answer["link"]["promoted_at"] < found["captured_at"]
    assert answer["confidence"] == pytest.approx(row.confidence)
    assert answer["last_executed"]["frame"] < result.frame_index
    assert any("from objects, executed on this frame" in line for line in found["text"])


def test_an_audit_shows_what_would_have_been_served_and_how_far_it_agreed(
    records: list[Record], run: RunResults
) -> None:
    result = first(
        records, lambda r: r.purpose == "audit" and any(o.how == "linked" for o in r.outputs) and not r.trial
    )
    shadow = next(o for o in result.outputs if o.how == "linked")
    found = explain(run, "hall", result.frame_index, shadow.model)
    truth = result.executed()[shadow.model]
    assert shadow.value is not None
    assert found["audit"]["agreement"] == float(abs(shadow.value - truth).max() < 0.5)
    assert found["audit"]["prediction"]["link"]["version"] == shadow.link_version
    assert any(line.startswith("What would have been served: ") for line in found["text"])


def test_a_trial_is_told_apart_from_what_would_have_been_served(records: list[Record], run: RunResults) -> None:
    result = first(records, lambda r: r.purpose == "audit" and "action" in r.trial)
    found = explain(run, "hall", result.frame_index, "action")
    assert found["audit"]["on_trial"]
    assert any("On trial, not served" in line for line in found["text"])
    assert "When that decision was made, its target, 90.0 %, was not met." in found["text"]


def test_the_first_frames_ran_without_a_decision(run: RunResults) -> None:
    found = explain(run, "hall", 3, "persons")
    assert found["decision"] is None
    assert "No decision was in force: every model ran." in found["text"]


def test_a_dropped_frame_says_why(run: RunResults) -> None:
    found = explain(run, "hall", 501, "persons")
    assert found["answer"] == {"how": "dropped", "reason": "queue full"}


@pytest.fixture(scope="module")
def per_frame() -> list[Record]:
    """`policy: camlink`, which answers without links; one model fails at first, so that nothing is known of it."""
    models = [
        TinyModel.count("objects", lambda f: [crowd(f), crowd(f) % 2], size=2),
        TinyModel.count("persons", crowd, time_ms=30.0),
        TinyModel.count("action", lambda f: crowd(f) // 2, fails_on=frozenset(range(150))),
    ]
    return run_frames(
        make_frames("hall", 400),
        models,
        period=timedelta(minutes=2),
        links={"bootstrap_frames": 60, "min_train_frames": 60},
        budgets={"time_share": 0.2},
        policy="camlink",
    )


@pytest.fixture(scope="module")
def per_frame_run(per_frame: list[Record], tmp_path_factory: pytest.TempPathFactory) -> RunResults:
    return written(per_frame, tmp_path_factory.mktemp("per-frame"), {"objects": 2, "persons": 1, "action": 1})


@pytest.mark.parametrize("way", ["linked", "reused"])
def test_a_policy_that_decides_on_every_frame_is_named_where_no_links_were_used(
    per_frame: list[Record], per_frame_run: RunResults, way: str
) -> None:
    result, row = next(
        (r, o) for r in per_frame if isinstance(r, FrameResult) for o in r.outputs if o.served and o.how == way
    )
    found = explain(per_frame_run, "hall", result.frame_index, row.model)
    assert found["answer"]["confidence"] == pytest.approx(row.confidence)
    assert set(found["answer"].get("sources", {})) == set(row.sources)
    assert any(line.startswith("  by the policy that decides on every frame, confidence ") for line in found["text"])
    assert not any("version" in line for line in found["text"])
    assert "decides on every frame" in found["decision"]["reason"]


def test_an_execution_that_a_policy_chose_says_what_it_expected_without(
    per_frame: list[Record], per_frame_run: RunResults
) -> None:
    chosen = (
        (r, o) for r in per_frame if isinstance(r, FrameResult) and r.purpose == "serve" for o in r.outputs if o.reason
    )
    result, row = next((r, o) for r, o in chosen if o.how == "executed")
    text = explain(per_frame_run, "hall", result.frame_index, row.model)["text"]
    assert any(line.startswith("  reason: without executing, disagreement of ") for line in text)


def test_an_abstention_says_why_and_makes_nothing_up(per_frame: list[Record], per_frame_run: RunResults) -> None:
    result, row = next(
        (r, o) for r in per_frame if isinstance(r, FrameResult) for o in r.outputs if o.served and o.how == "abstained"
    )
    found = explain(per_frame_run, "hall", result.frame_index, row.model)
    assert found["answer"]["value"] is None
    assert row.reason and f"  reason: {row.reason}" in found["text"]
    assert "Answer: nothing, abstained." in found["text"]


def test_what_a_model_said_on_a_frame_that_ran_late_is_named_only_once_it_was_known(tmp_path: Path) -> None:
    told = run_frames(
        make_frames("hall", 300),
        [TinyModel.count(name, lambda frame: frame.index) for name in ("objects", "persons")],
        policy="camlink",
        budgets={"memory_gb": 1.0},
        audit={"fraction": 0.2},
        links={"bootstrap_frames": 20},
        adaptation={"policy": "off"},
    )
    outputs = (o for r in told if isinstance(r, FrameResult) for o in r.outputs)
    late = next(o for o in outputs if o.known_after is not None and o.purpose == "audit")
    run = written(told, tmp_path, {"objects": 1, "persons": 1})
    after = next(f.index for f in make_frames("hall", 300) if f.captured_at == late.known_after)
    assert after > late.frame_index + 1
    named = {
        frame: explain(run, "hall", frame, late.model)["answer"].get("last_executed", {}).get("frame")
        for frame in range(late.frame_index + 1, after + 2)
    }
    early = [seen for frame, seen in named.items() if frame <= after and seen is not None]
    assert early and max(early) < late.frame_index, "it had not run when these were answered"
    assert named[after + 1] >= late.frame_index


@pytest.mark.parametrize(("policy", "named"), [("mlink", [0, 0, 0, 1]), ("camlink", [0, 0, 0, 0])])
def test_what_a_relabelled_frame_said_is_named_only_where_it_was_known(
    policy: str, named: list[int], tmp_path: Path
) -> None:
    """Frame 1 was executed when frame 3 had been answered; policies that decide on every frame never hear of it."""

    def row(index: int, how: How, purpose: Purpose = "serve") -> FrameResult:
        at, served = START + timedelta(seconds=index), purpose == "serve"
        output = ModelOutput("hall", index, at, "persons", np.ones(1, np.float32), purpose, how, served)
        known = None if served else START + timedelta(seconds=3)
        return FrameResult("hall", index, at, purpose, (replace(output, known_after=known),))

    answered: list[Record] = [row(0, "executed"), *(row(index, "reused") for index in range(1, 5))]
    run = written([*answered, row(1, "executed", "relabel")], tmp_path, {"persons": 1}, policy)
    assert [explain(run, "hall", i, "persons")["answer"]["last_executed"]["frame"] for i in range(1, 5)] == named


@pytest.mark.parametrize(
    ("camera", "frame", "model", "words"),
    [
        ("hal", 3, "persons", 'no camera "hal".*did you mean "hall"'),
        ("hall", 3, "person", 'no model "person".*did you mean "persons"'),
        ("hall", 9999, "persons", "has no frame 9999 in this run, but frames 0 to 899"),
    ],
)
def test_what_is_not_in_the_run_is_said_with_what_is(
    run: RunResults, camera: str, frame: int, model: str, words: str
) -> None:
    with pytest.raises(ResultsError, match=words):
        explain(run, camera, frame, model)


def test_a_target_is_told_as_it_stood_when_the_decision_was_made(
    records: list[Record], run: RunResults, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = provenance._decision

    def with_target(results: RunResults, camera: str, at: datetime) -> dict[str, Any] | None:
        found = made(results, camera, at)
        told = {"target_states": {"persons": "not known"}, "certificates": {"persons": {"target": 0.98, "frames": 0}}}
        return found and found | told

    monkeypatch.setattr(provenance, "_decision", with_target)
    result = first(records, lambda r: r.purpose == "serve" and how(r, "persons") == "linked")
    text = explain(run, "hall", result.frame_index, "persons")["text"]
    assert text[-1] == (
        "When that decision was made, its target, 98.0 %, was not known: nothing had been predicted of it yet."
    )


def test_a_value_is_told_whole_and_a_moment_ago_is_not_now() -> None:
    spec = OutputSpec("vehicles", "vector", 6, "count", ("car", "van", "bus", "truck", "tram", "bike"))
    assert provenance._said(spec, [4, 0, 2, 0, 1, 3]) == "4 car, 0 van, 2 bus, 0 truck, 1 tram, 3 bike"
    last = {"said": "4 car", "frame": 419, "age_s": 0.04}
    lines = provenance._answer_text({"said": "4 car", "how": "reused", "reason": "", "last_executed": last}, "Answer")
    assert lines[-1] == "  the model itself last said 4 car on frame 419, 0.04 s before"


def test_the_command_prints_lines_or_json(run: RunResults) -> None:
    said = CliRunner().invoke(app, ["why", str(run.run_dir), "hall", "120", "persons"])
    assert said.exit_code == 0
    assert said.stdout.startswith("hall, frame 120, 2026-01-05T08:02:00+00:00, persons\n")
    facts = json.loads(CliRunner().invoke(app, ["why", str(run.run_dir), "hall", "120", "persons", "--json"]).stdout)
    assert facts["frame"] == 120
    assert "text" not in facts
