"""`camlink config check` finds all that is wrong in one go, alerts that could never fire and starts that would fail."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from camlink.links.train import train_ensembles
from camlink.models import catalogue
from camlink.pipeline.commands.settings import on_device
from camlink.pipeline.config import check_config, load_config
from camlink.pipeline.config.start_checks import check_start
from camlink.pipeline.errors import ConfigError
from camlink.pipeline.federation import save_links
from tests.pipeline.test_cli import camlink

HEAD = "models: building\ncameras: [{id: hall, source: 0}]\n"
TO = "alerts:\n  to: [https://hooks.example/x]\n  rules:\n"
SPECS = {name: catalogue.output_spec(catalogue.definition(name)) for name in catalogue.sets()["building"]}


def problems(folder: Path, text: str) -> list[str]:
    """Return what is wrong, as ``LINE: MESSAGE``."""
    file = folder / "site.yaml"
    file.write_text(text)
    return [f"{problem.line}: {problem.message}" for problem in check_config(file)]


def one(folder: Path, text: str) -> str:
    (found,) = problems(folder, text)
    return found


# --- alerts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "key", "message"),
    [
        ("{when: camera_down, cameras: [hal]}", "cameras.0: ", 'no camera "hal"; did you mean "hall"?'),
        ("{when: count_above, model: action, above: 1}", "when: ", "action gives labels and counts nothing"),
        ("{when: target_not_met}", "when: ", "no target is set; set target_agreement"),
        ("{when: target_not_met, model: persons, cameras: [hall]}", "when: ", "no target is set for persons at hall"),
        ("{when: label_seen, model: persons, label: fall}", "label: ", 'no label "fall"; known: person'),
        ("{when: label_seen, model: acton, label: fall}", "model: ", 'did you mean "action"?'),
        ("{when: label_seen, model: action}", "", "label_seen needs `label`"),
        ("{when: camera_down, above: 3}", "above: ", "camera_down takes no `above`"),
        ("{when: count_above, model: persons, above: .inf}", "above: ", "finite number"),
    ],
)
def test_a_rule_that_can_never_fire_is_refused_with_its_own_line(
    tmp_path: Path, rule: str, key: str, message: str
) -> None:
    good = "    - {name: fine, when: camera_down}\n"
    found = one(tmp_path, HEAD + TO + good + f"    - {{name: r, {rule[1:]}\n")
    assert found.startswith(f'7: alert rule "r": {key}') and message in found


@pytest.mark.parametrize(
    "settings",
    [
        "target_agreement: 0.9\n",
        "targets: {persons: 0.9}\n",
        "models: building\ncameras: [{id: hall, source: 0, target_agreement: 0.9}]\n",
    ],
)
def test_a_target_of_any_kind_is_one_that_can_be_missed(tmp_path: Path, settings: str) -> None:
    head = settings if "cameras" in settings else HEAD + settings
    assert problems(tmp_path, head + TO + "    - {name: r, when: target_not_met, model: persons}\n") == []


def test_a_target_is_never_missed_where_nothing_is_measured_or_predicted(tmp_path: Path) -> None:
    rule = "target_agreement: 0.9\n" + TO + "    - {name: r, when: target_not_met}\n"
    assert "audit.fraction is 0" in one(tmp_path, HEAD + "audit: {fraction: 0}\n" + rule)
    assert "policy standalone predicts nothing" in one(tmp_path, HEAD + "policy: standalone\n" + rule)


def test_faults_of_rules_are_told_together_and_each_with_its_line(tmp_path: Path) -> None:
    rules = (
        "    - {name: a, when: camera_down, cool_down: 5, cameras: [yard]}\n"
        "    - {name: a, when: count_above, model: persons, label: persn, above: 1}\n"
        "    - {name: b, when: count_above, model: action}\n"
        "    - {name: c, when: camera_down, colour: red}\n"
    )
    found = problems(tmp_path, HEAD + TO + rules)
    assert [(text.partition(":")[0], part) for text in found for part in (text.split('": ')[1].split(":")[0],)] == [
        ("6", "cool_down"),
        ("6", "cameras.0"),
        ("7", "name"),
        ("7", "label"),
        ("8", "count_above needs `above`"),
        ("8", "when"),
        ("9", "colour"),
    ], found
    assert "did you mean" in found[3] and "known: name, when" in found[6]


# --- all in one go ----------------------------------------------------------------------------------------------------


def test_what_compares_parts_is_found_beside_parts_that_are_wrong(tmp_path: Path) -> None:
    """A wrong value must not hide what is wrong elsewhere, nor bring forth faults that are none."""
    text = (
        "models: [persons, persns]\n"
        "cameras:\n"
        "  - {id: hall, source: 0, fps: many}\n"
        "  - {id: hall, source: 1}\n"
        "budgets: {time_share: 7}\n"
        "targets: {persns: 0.9}\n"
        "links: {start: nowhere}\n"
        "oracle: {labels: labels.csv, counts: [a]}\n"
        + TO
        + "    - {name: r, when: camera_down, cameras: [hall, yard]}\n"
    )
    lines = [text.partition(":")[0] for text in problems(tmp_path, text)]
    assert lines == ["1", "3", "4", "5", "7", "8", "8", "12"]


def test_a_wrong_model_hides_nothing_of_the_rest(tmp_path: Path) -> None:
    found = problems(tmp_path, "models: bulding\n" + TO + "    - {name: r, when: camera_down, model: x}\n")
    assert [text[:2] for text in found] == ["1:", "5:"] and "takes no `model`" in found[1]


def test_the_command_line_tells_all_of_it_and_exits_with_2(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text(HEAD + "period: 5\nlinks: {start: .}\npolicy: camlink\n")
    done = camlink("config", "check", "site.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert [line.split(" ")[0] for line in done.stderr.splitlines()] == ["site.yaml:3:", "site.yaml:4:", "site.yaml:4:"]


def test_what_is_right_is_said_to_be_so_and_what_a_run_still_needs(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(HEAD)
    (tmp_path / "b.yaml").write_text("models: building\n")
    done = camlink("config", "check", "a.yaml", "b.yaml", cwd=tmp_path)
    assert done.stdout.splitlines() == [
        "a.yaml: correct",
        "b.yaml: correct; it has no cameras, which `camlink run` needs",
    ]
    assert done.returncode == 0


# --- what a start would stumble over ----------------------------------------------------------------------------------


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """A trace of "persons" on 20 frames of camera "hall"."""
    folder = tmp_path / "trace"
    folder.mkdir()
    described = "{kind: vector, size: 1, task: count, time_ms: 10, memory_gb: 1, labels: [person]}"
    (folder / "trace.yaml").write_text(f"models:\n  persons: {described}\n")
    times = "".join(f"hall,{i},2026-03-02T08:00:{i:02d}Z,0,0,0\n" for i in range(20))
    head = "camera_id,frame_index,captured_at,pixel_change,edge_density,mean_luma\n"
    (folder / "frames.csv").write_text(head + times)
    said = "".join(f'hall,{i},persons,"[{i % 3}]"\n' for i in range(20))
    (folder / "outputs.csv").write_text("camera_id,frame_index,model,value\n" + said)
    (tmp_path / "labels.csv").write_text(
        "camera_id,frame_index,people\n" + "".join(f"hall,{i},{i % 3}\n" for i in range(20))
    )
    return folder


ORACLE = "models: [persons]\noracle:\n  labels: labels.csv\n  trace: trace\n  counts: [people]\n"


def test_an_oracle_that_can_be_taught_is_right(tmp_path: Path, trace: Path) -> None:
    assert problems(tmp_path, ORACLE) == []


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("hall,0,1\nhall,1,1\n", '3: oracle.labels: {}: camera "hall" has 2 labelled frames'),
        ("roof,0,1\n", '3: oracle.labels: {}: camera "roof" is not in'),
        ("hall,99,1\n", '3: oracle.labels: {}: camera "hall": no frame 99'),
        ("", "3: oracle.labels: {}: no labels; 10 frames of a camera are needed"),
    ],
)
def test_labels_that_a_start_would_refuse_are_refused(tmp_path: Path, trace: Path, labels: str, message: str) -> None:
    (tmp_path / "labels.csv").write_text("camera_id,frame_index,people\n" + labels)
    assert one(tmp_path, ORACLE).startswith(message.format(tmp_path / "labels.csv"))


def test_sources_of_an_oracle_that_do_not_run_are_refused_each_with_its_line(tmp_path: Path, trace: Path) -> None:
    found = problems(tmp_path, ORACLE + "  sources:\n    - persns\n    - persons\n    - vehicles\n")
    assert [text[:23] for text in found] == ['7: oracle.sources.0: "p', '9: oracle.sources.2: "v']


def test_a_trace_of_other_models_is_refused(tmp_path: Path, trace: Path) -> None:
    found = problems(tmp_path, ORACLE.replace("[persons]", "[persons, action]"))
    assert len(found) == 1 and "4: oracle.trace: " in found[0] and '"action" is not there as it is deployed' in found[0]


def test_paths_of_an_oracle_are_suggested_only_where_they_could_be_meant(tmp_path: Path, trace: Path) -> None:
    """A file called almost like the missing trace is no trace."""
    (tmp_path / "tracee.csv").touch()
    (tmp_path / "trac").mkdir()
    assert 'did you mean "trace"?' in one(tmp_path, ORACLE.replace("trace: trace", "trace: tracee"))
    assert "holds no trace.yaml; `camlink record` writes one" in one(
        tmp_path, ORACLE.replace("trace: trace", "trace: trac")
    )
    assert "is a folder; a file is wanted" in one(tmp_path, ORACLE.replace("labels.csv", "trace"))


def test_a_configuration_that_is_not_there_is_told_without_error_numbers(tmp_path: Path) -> None:
    (problem,) = check_config(tmp_path / "nope.yaml")
    assert "Errno" not in str(problem) and "No such file or directory" in str(problem)


def links(folder: Path, *targets: str) -> Path:
    rng = np.random.default_rng(0)
    specs = {name: SPECS[name] for name in ("objects", "persons")}
    samples = {m: rng.poisson(2, (40, s.size)).astype(np.float32) for m, s in specs.items()}
    save_links(folder, train_ensembles(specs, samples, seed=0, targets=targets, kind="vec_to_vec"))
    return folder


def test_links_to_start_from_are_read_as_a_start_reads_them(tmp_path: Path) -> None:
    links(tmp_path / "fine", "persons")
    links(tmp_path / "other", "persons")
    (tmp_path / "other" / "persons.npz").rename(tmp_path / "other" / "vehicles.npz")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "persons.npz").write_bytes(b"no links")
    (tmp_path / "empty").mkdir()
    text = HEAD + "policy: mlink\nlinks:\n  start: "
    assert problems(tmp_path, text + "fine") == []
    assert "no links to any of objects, persons, action" in one(tmp_path, text + "empty")
    assert "no links to any of objects, persons, action" in one(tmp_path, text + "other")
    assert one(tmp_path, text + "broken").startswith("5: links.start: ")
    assert "a folder is wanted" in one(tmp_path, text + "fine/persons.npz")


@pytest.mark.parametrize("policy", ["camlink", "reducto", "periodic", "standalone", "all"])
def test_links_to_start_from_are_refused_where_the_policy_would_not_use_them(tmp_path: Path, policy: str) -> None:
    links(tmp_path / "fine", "persons")
    text = HEAD + f"policy: {policy}\nlinks: {{start: fine}}\n"
    assert f"4: links.start: policy {policy} does not use these links" in one(tmp_path, text)


def test_answers_abstain_below_a_number_or_one_by_model_where_the_policy_says_how_sure_it_is(tmp_path: Path) -> None:
    text = HEAD + "policy: camlink\nabstain_below: "
    assert problems(tmp_path, text + "0.7") == []
    assert problems(tmp_path, text + "{persons: 0.7, objects: 0.9}") == []
    assert one(tmp_path, text + "7").startswith("4: abstain_below: 7 is above 1")
    assert one(tmp_path, text + "{persons: 70%}").startswith("4: abstain_below.persons: ")
    assert 'did you mean "persons"?' in one(tmp_path, text + "{person: 0.7}")
    refused = one(tmp_path, HEAD + "policy: reducto\nabstain_below: 0.7")
    assert refused.startswith("4: abstain_below: policy reducto states no confidence")


def test_weights_and_budgets_are_looked_at_where_that_needs_no_network(tmp_path: Path) -> None:
    own = "{{name: {}, adapter: onnx, weights: w.onnx, task: count, labels: [a], time_ms: {}, memory_gb: 2}}"
    text = f"models:\n  - {own.format('x', 10)}\n  - {own.format('y', 30)}\nbudgets:\n  time_share: 0.2\n"
    text += "policy: mlink\n"  # others save up for what they cannot pay on every frame
    assert [found[:2] for found in problems(tmp_path, text)] == ["2:", "3:", "5:"]
    (tmp_path / "w.onnx").touch()
    assert one(tmp_path, text).startswith("5: budgets.time_share: 0.20 allows 8.0 ms a frame")


@pytest.mark.parametrize(
    ("policy", "limit", "said"),
    [
        ("camlink", 9.5, "9.5 ms leaves no model time: the cheapest, x, takes 10.0 ms a frame; give more than that"),
        ("mlink", 9.5, "9.5 ms leaves no model time"),
        ("all", 39, "policy all executes all models on every frame, 40.0 ms, but 39 ms is allowed"),
        ("all", 40, None),
        ("camlink", 10, None),
    ],
)
def test_a_latency_limit_that_leaves_nothing_is_named_with_its_line(
    tmp_path: Path, policy: str, limit: float, said: str | None
) -> None:
    own = "{{name: {}, adapter: onnx, weights: w.onnx, task: count, labels: [a], time_ms: {}, memory_gb: 2}}"
    (tmp_path / "w.onnx").touch()
    text = f"models:\n  - {own.format('x', 10)}\n  - {own.format('y', 30)}\npolicy: {policy}\n"
    text += f"budgets:\n  time_share: 0.5\n  latency_ms: {limit}\n"
    assert [found.split("; raise")[0] for found in problems(tmp_path, text)] == [] if said is None else True
    if said is not None:
        assert one(tmp_path, text).startswith(f"7: budgets.latency_ms: {said}")


def test_a_device_that_an_option_names_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text(HEAD + "device: cpu\n")
    with pytest.raises(ConfigError, match=r"^--device: "):
        check_start(on_device(load_config(tmp_path / "site.yaml"), "cuda:77"))


def test_a_start_refuses_what_the_check_refuses_in_the_same_words(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    found = problems(tmp_path, HEAD + "policy: mlink\nlinks: {start: empty}\n")
    with pytest.raises(ConfigError) as refused:
        check_start(load_config(tmp_path / "site.yaml"))
    assert [f"{p.line}: {p.message}" for p in refused.value.problems] == found
    done = camlink("run", "site.yaml", cwd=tmp_path)
    assert done.returncode == 2 and "site.yaml:4: links.start: " in done.stderr
