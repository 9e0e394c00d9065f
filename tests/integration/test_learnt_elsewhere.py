"""Links from a person's labels and from a federation, as the running pipeline serves them, in one process or many."""

from __future__ import annotations

import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from camlink.links.domain import Offset
from camlink.links.train import train_ensembles
from camlink.models.base import OutputSpec
from camlink.models.pool import ModelPool
from camlink.operators.adaptation import AdaptationOperator, LearningRules
from camlink.operators.oracle import OracleNode
from camlink.operators.relabelling import NoRelabelling
from camlink.pipeline.config import SiteConfig, check_config
from camlink.pipeline.dashboard.app import build_app
from camlink.pipeline.dashboard.auth import Door
from camlink.pipeline.dashboard.camera import camera_view
from camlink.pipeline.dashboard.fleet import FleetView
from camlink.pipeline.dashboard.library import Library
from camlink.pipeline.dashboard.rollups import RunRollups
from camlink.pipeline.errors import ConfigError, LinkError
from camlink.pipeline.federation import save_links
from camlink.pipeline.learnt_elsewhere import NEAR, train_oracle
from camlink.pipeline.records import AdaptationEvent, CalibratedOutput, FrameResult, ModelOutput, Purpose, Record
from camlink.pipeline.reports import build_report, write_report
from camlink.pipeline.reports.calibrated import calibrated_lines, calibrated_words
from camlink.pipeline.results import ResultsLog, RunInfo, RunResults
from camlink.pipeline.session import Camera, Session
from camlink.pipeline.testing import START, TinyModel, make_frames, outputs, run_frames
from tests.integration.test_in_step import Site

FRAMES = 120
SEEN = OutputSpec("seen", "vector", 1, "count", ("car",))


def cars(index: int) -> int:
    """What a person sees; the model "seen" counts every car twice, "half" one in two."""
    return index * 7 // 20 % 6


def models() -> list[TinyModel]:
    return [
        TinyModel(SEEN, lambda f: 2 * cars(f.index)),
        TinyModel(OutputSpec("half", "vector", 1, "count"), lambda f: cars(f.index) // 2),
    ]


@pytest.fixture
def oracle(tmp_path: Path) -> dict[str, Any]:
    """A trace of the models on camera "hall", and labels of every second frame."""
    described = "  {name}: {{kind: vector, size: 1, task: count, time_ms: 10, memory_gb: 1{labels}}}\n"
    (tmp_path / "trace.yaml").write_text(
        "models:\n" + described.format(name="seen", labels=", labels: [car]") + described.format(name="half", labels="")
    )
    frames = make_frames("hall", FRAMES)
    times = "".join(f"hall,{f.index},{f.captured_at.isoformat()},0,0,0\n" for f in frames)
    head = "camera_id,frame_index,captured_at,pixel_change,edge_density,mean_luma\n"
    (tmp_path / "frames.csv").write_text(head + times)
    said = "".join(f'hall,{f.index},{m.spec.model},"[{m.function(f)}]"\n' for f in frames for m in models())
    (tmp_path / "outputs.csv").write_text("camera_id,frame_index,model,value\n" + said)
    labels = "".join(f"hall,{i},{cars(i)}\n" for i in range(0, FRAMES, 2))
    (tmp_path / "labels.csv").write_text("camera_id,frame_index,cars\n" + labels)
    return {"name": "guard", "labels": str(tmp_path / "labels.csv"), "trace": str(tmp_path), "counts": ["cars"]}


RULES: dict[str, Any] = {
    "policy": "mlink",
    "links": {"bootstrap_frames": 40, "min_train_frames": 40},
    "audit": {"fraction": 0.1},
    "budgets": {"time_share": 0.6},
    "period": timedelta(minutes=5),
}


def calibrated(records: list[Record]) -> dict[tuple[str, int], tuple[int, tuple[str, ...]]]:
    found = [r for r in records if isinstance(r, CalibratedOutput)]
    assert len({(r.camera_id, r.frame_index) for r in found}) == len(found)
    return {(r.camera_id, r.frame_index): (int(r.value[0]), r.sources) for r in found}


@pytest.mark.parametrize("policy", ["mlink", "camlink"])
def test_what_a_person_would_say_is_served_beside_every_result_of_a_labelled_camera(
    oracle: dict[str, Any], policy: str
) -> None:
    frames = make_frames("hall", 300) + make_frames("yard", 50)
    records = run_frames(frames, models(), oracle=oracle, **RULES | {"policy": policy})
    found = calibrated(records)
    assert set(found) == {("hall", index) for index in range(300)}, "of yard nobody gave labels"
    assert np.mean([found["hall", i][0] == cars(i) for i in range(FRAMES, 300)]) > 0.95
    results = [r for r in records if isinstance(r, FrameResult)]
    assert {o.model for r in results for o in r.outputs} == {"seen", "half"}, "outputs of models stay what they are"
    predicted = ("linked",) if policy == "mlink" else ("linked", "reused")
    assert any(o.how in predicted for o in outputs(records)), "it must be served where models are predicted, too"


def test_an_offset_is_served_from_its_one_counter_and_nothing_without_it() -> None:
    seen, guard = (
        OutputSpec("seen", "vector", 1, "count", ("car",)),
        OutputSpec("guard", "vector", 1, "count", ("cars",)),
    )
    node = OracleNode({"hall": Offset(seen, guard, np.array([1.0], np.float32), 1.0, 0.9)})

    def result(*models: str) -> FrameResult:
        outputs = [ModelOutput("hall", 0, START, m, np.array([4], np.float32), "serve", "executed") for m in models]
        return FrameResult("hall", 0, START, "serve", tuple(outputs))

    said = node.of(result("half", "seen"))
    assert said is not None and (said.value.tolist(), said.sources, said.confidence) == ([5.0], ("seen",), 0.9)
    assert node.of(result("half")) is None


def test_a_line_says_when_the_links_own_word_is_too_high() -> None:
    judged = {"agreement": 0.25, "low": 0.12, "high": 0.45, "frames": 24, "taught": 95, "constant": 0.0, "own": None}
    entry = {
        "name": "guard",
        "mean_count": 3.0,
        "unit": "cars",
        "mean_own": None,
        "frames": 9,
        "mean_confidence": 0.947,
    }
    assert calibrated_words(entry | {"judged": judged}).endswith(
        "Its own word is too high: believe the labels kept aside."
    )
    assert "own word is" not in calibrated_words(entry | {"judged": judged, "mean_confidence": 0.3})


def test_workers_say_what_one_process_says(oracle: dict[str, Any]) -> None:
    frames = make_frames("hall", 200)
    alone = run_frames(frames, models(), oracle=oracle, **RULES)
    site = Site(SiteConfig(models="building", oracle=oracle, **RULES), models(), ("hall",))
    assert calibrated(site.run(frames, random.Random(1))) == calibrated(alone)


def test_labels_by_time_are_of_the_nearest_frame(oracle: dict[str, Any], tmp_path: Path) -> None:
    config = SiteConfig(models="building", oracle=oracle).oracle
    assert config is not None
    specs = {m.spec.model: m.spec for m in models()}
    by_index = train_oracle(config, specs, seed=0)["hall"]
    later = timedelta(seconds=0.4)
    rows = [f"hall,{(START + timedelta(seconds=i) + later).isoformat()},{cars(i)}\n" for i in range(0, FRAMES, 2)]
    Path(oracle["labels"]).write_text("camera_id,captured_at,cars\n" + "".join(rows))
    assert train_oracle(config, specs, seed=0)["hall"].to_bytes() == by_index.to_bytes()
    farther = "".join(f"hall,{(START + timedelta(seconds=i - 0.45)).isoformat()},5\n" for i in range(0, FRAMES, 2))
    Path(oracle["labels"]).write_text("camera_id,captured_at,cars\n" + "".join(rows) + farther)
    assert train_oracle(config, specs, seed=0)["hall"].to_bytes() == by_index.to_bytes(), "the nearest label counts"
    far = (START - 2 * NEAR).isoformat()
    Path(oracle["labels"]).write_text("camera_id,captured_at,cars\n" + "".join(rows) + f"hall,{far},1\n")
    with pytest.raises(LinkError, match='camera "hall": no frame'):
        train_oracle(config, specs, seed=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"counts": "[cars, vans]"}, r"site\.yaml:\d+: .*labels\.csv:1: lacks the columns vans"),
        ({"labels": "nowhere.csv"}, r"site\.yaml:4: .*nowhere\.csv"),
        ({"name": "people"}, r"site\.yaml:\d+: .*give the oracle a name of its own"),
    ],
)
def test_a_wrong_oracle_is_refused_with_file_and_line(
    oracle: dict[str, Any], tmp_path: Path, change: dict[str, str], message: str
) -> None:
    import re

    told = {"name": "guard", "labels": oracle["labels"], "trace": oracle["trace"], "counts": "[cars]"} | change
    if "name" in change:
        from camlink.pipeline.config import model_names

        told["name"] = model_names("building")[0]
    text = "models: building\noracle:\n" + "".join(f"  {key}: {value}\n" for key, value in told.items())
    file = tmp_path / "site.yaml"
    file.write_text(text)
    problems = "\n".join(map(str, check_config(file)))
    assert re.search(message, problems), problems


def test_a_label_that_is_no_number_stops_a_run_with_the_line_of_the_csv(oracle: dict[str, Any]) -> None:
    Path(oracle["labels"]).write_text("camera_id,frame_index,cars\nhall,0,1\nhall,2,many\n")
    with pytest.raises(ValueError, match=r"labels\.csv:3: "):
        SiteConfig(models="building", oracle=oracle)


def test_too_few_labels_and_unknown_cameras_are_named(oracle: dict[str, Any]) -> None:
    specs = {m.spec.model: m.spec for m in models()}
    for rows, message in (("hall,0,1\n", "has 1 labelled frame in"), ("roof,0,1\n", 'camera "roof" is not in')):
        Path(oracle["labels"]).write_text("camera_id,frame_index,cars\n" + rows)
        config = SiteConfig(models="building", oracle=oracle).oracle
        assert config is not None
        with pytest.raises(LinkError, match=message):
            train_oracle(config, specs, seed=0)


def test_results_and_report_tell_calibrated_outputs_from_those_of_models(tmp_path: Path) -> None:
    log = ResultsLog(tmp_path)
    frames = make_frames("hall", 3)
    said = [
        CalibratedOutput("hall", f.index, f.captured_at, "guard", np.ones(1, np.float32), ("seen",), 0.8)
        for f in frames
    ]
    log.write([*said, said[0]])  # delivered twice
    log.close()
    spec = {"task": "count", "kind": "vector", "size": 1, "labels": [], "scale": 1.0, "max_steps": 1}
    known = {"seen": {**spec, "time_ms": 1.0, "memory_gb": 1.0}}
    RunInfo(
        name="run", camlink_version="0", seed=0, policy="all", models=known, cameras={}, started_at=START, config={},
        captured={},
    ).save(tmp_path)  # fmt: skip
    assert RunResults(tmp_path).calibrated("hall").num_rows == 3
    assert RunResults(tmp_path).outputs().num_rows == 0
    (line,) = calibrated_lines(build_report(tmp_path))
    assert line == (
        'hall: "guard" says 1.00 things a frame, mean over 3 frames, by its own word right on 80.0 %. Not measured: '
        "too few labelled frames to keep any aside, or the run did not judge them."
    )


def test_a_run_says_how_calibrated_values_did_on_labels_kept_aside_and_what_the_detector_does_itself(
    oracle: dict[str, Any], tmp_path: Path
) -> None:
    site = SiteConfig(models="building", oracle=oracle, **RULES)
    cameras = {name: Camera("indoor", f"{name}.mp4", 1.0) for name in ("hall", "yard")}
    run = tmp_path / "run"
    frames = make_frames("hall", 200) + make_frames("yard", 200)
    frames.sort(key=lambda frame: (frame.captured_at, frame.camera_id))
    Session(site, ModelPool(models()), cameras, run).run(frames, lambda: {"hall": 200, "yard": 200})
    (entry,) = build_report(run)["calibrated"]
    judged = entry["judged"]
    truth = [cars(i) for i in range(0, FRAMES, 2)][48:]  # the last fifth of 60 labels
    own = {"seen": np.mean([2 * n == n for n in truth]), "half": np.mean([n // 2 == n for n in truth])}
    assert (judged["taught"], judged["frames"], entry["unit"]) == (48, 12, "cars")
    assert judged["source"] == max(own, key=lambda name: own[name])
    assert judged["own"] == pytest.approx(max(own.values())) and judged["own"] < judged["agreement"]
    assert judged["low"] < judged["agreement"] <= judged["high"]
    rows = RunResults(run).outputs("hall").to_pylist()
    served = [r["value"][0] for r in rows if r["model"] == judged["source"] and r["served"]]
    assert entry["mean_own"] == pytest.approx(np.mean(served))
    page = write_report(run).read_text(encoding="utf-8")
    assert "cars a frame" in page and "On 12 labelled frames kept aside (48 taught)" in page
    assert "nobody labelled" not in page, "some of these very frames are labelled"
    rollups = RunRollups(run)
    rollups.refresh()
    view = camera_view(FleetView(rollups), rollups, "hall", "all", START)
    other = camera_view(FleetView(rollups), rollups, "yard", "all", START)
    assert view is not None and other is not None
    assert "On 12 labelled frames kept aside (48 taught)" in view.calibrated[0] and "cars a frame" in view.calibrated[0]
    assert f"says {entry['mean_count']:.2f}" in view.calibrated[0] and other.calibrated == []
    with TestClient(build_app(Library([run]), Door(None)), base_url="http://127.0.0.1:8765") as client:
        assert "cars a frame" in client.get("/camera?run=run&id=hall").text
        assert "Calibrated" not in client.get("/camera?run=run&id=yard").text


def test_every_camera_begins_with_links_learnt_elsewhere(tmp_path: Path) -> None:
    specs = {m.spec.model: m.spec for m in models()}
    taught = make_frames("other", 200)
    samples = {m.spec.model: np.array([[m.function(f)] for f in taught], np.float32) for m in models()}
    save_links(tmp_path, train_ensembles(specs, samples, seed=0, kind="vec_to_vec"))
    rules = RULES | {"links": {"bootstrap_frames": 10, "min_train_frames": 10, "start": str(tmp_path)}}
    records = run_frames(make_frames("hall", 60), models(), **rules)
    begun = [r for r in records if isinstance(r, AdaptationEvent) and "learnt elsewhere" in r.detail]
    assert {(r.target, r.version, r.kind) for r in begun} == {(m, 1, "promoted") for m in specs}
    linked = [o for o in outputs(records) if o.how == "linked"]
    assert linked
    assert {o.link_version for o in linked} == {1}
    first = min(o.frame_index for o in linked)
    assert first == 20, "they serve as soon as bootstrap and profile frames have scored them"


def test_links_learnt_elsewhere_from_fewer_models_are_watched_whatever_executes() -> None:
    specs = {name: OutputSpec(name, "vector", 1, "count") for name in ("a", "b", "c")}
    rng = np.random.default_rng(0)
    noise = {name: rng.integers(0, 4, (60, 1)).astype(np.float32) for name in ("a", "b")}
    start = train_ensembles({name: specs[name] for name in noise}, noise, seed=0)
    operator = AdaptationOperator(specs, LearningRules(20, 20, 30, 200), NoRelabelling, start=start)

    def result(index: int, purpose: Purpose) -> FrameResult:
        """All say the same; served frames execute "c", of which the links that were begun with know nothing."""
        at, value = START + timedelta(seconds=index), np.array([index * 7 % 4], np.float32)
        rows = [
            ModelOutput("hall", index, at, m, value, purpose, "linked", sources=("c",))
            if purpose == "serve" and m != "c"
            else ModelOutput("hall", index, at, m, value, purpose, "executed")
            for m in specs
        ]
        return FrameResult("hall", index, at, purpose, tuple(rows))

    purposes: list[Purpose] = [*34 * ["profile"], "serve", *30 * ["audit"]]  # type: ignore[list-item]
    told = [after for i, purpose in enumerate(purposes) for after in operator.on_records([result(i, purpose)])]
    promoted = {(e.target, e.version) for e in told if isinstance(e, AdaptationEvent) and e.kind == "promoted"}
    assert {("a", 1), ("b", 1), ("a", 2), ("b", 2)} <= promoted


@pytest.mark.parametrize("more", [{"context": ["time_of_day"]}, {"kind": "set"}])
def test_links_that_read_less_than_is_asked_for_are_refused(tmp_path: Path, more: dict[str, Any]) -> None:
    specs = {m.spec.model: m.spec for m in models()}
    samples = {m: np.random.default_rng(0).poisson(2, (40, 1)).astype(np.float32) for m in specs}
    save_links(tmp_path, train_ensembles(specs, samples, seed=0, kind="vec_to_vec"))
    rules = RULES | {"links": {"start": str(tmp_path), **more}}
    with pytest.raises(ConfigError, match=r"these links read outputs alone; leave out links\.context"):
        run_frames(make_frames("hall", 5), models(), **rules)


def test_links_to_other_models_are_refused(tmp_path: Path) -> None:
    specs = {"seen": OutputSpec("seen", "vector", 2, "count"), "half": OutputSpec("half", "vector", 1, "count")}
    rng = np.random.default_rng(0)
    samples = {m: rng.poisson(2, (40, s.size)).astype(np.float32) for m, s in specs.items()}
    save_links(tmp_path, train_ensembles(specs, samples, seed=0, kind="vec_to_vec"))
    with pytest.raises(ConfigError, match='links "seen" as another model'):
        run_frames(make_frames("hall", 5), models(), **(RULES | {"links": {"start": str(tmp_path)}}))
    (tmp_path / "half.npz").write_bytes(b"links")
    with pytest.raises(ConfigError, match=r"half\.npz: not a saved ensemble: no zip of arrays; `camlink federate`"):
        run_frames(make_frames("hall", 5), models(), **(RULES | {"links": {"start": str(tmp_path)}}))
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ConfigError, match="no links to any of seen, half"):
        run_frames(make_frames("hall", 5), models(), **(RULES | {"links": {"start": str(empty)}}))
