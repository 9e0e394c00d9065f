"""Right configurations load; wrong ones say everything that is wrong, where, and what to write instead."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from camlink.pipeline import quantities
from camlink.pipeline.config import (
    AdaptationConfig,
    CameraConfig,
    SiteConfig,
    built_in_configs,
    check_config,
    json_schema,
    load_config,
)
from camlink.pipeline.errors import ConfigError

SMALL = "models: building\n"


def write(folder: Path, text: str) -> Path:
    file = folder / "site.yaml"
    file.write_text(text)
    return file


def problems(folder: Path, text: str) -> list[tuple[int | None, str]]:
    return [(problem.line, problem.message) for problem in check_config(write(folder, text))]


def one_problem(folder: Path, text: str) -> tuple[int | None, str]:
    found = problems(folder, text)
    assert len(found) == 1, found
    return found[0]


def test_time_zones_are_looked_for_once_however_many_cameras_name_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    monkeypatch.setattr(quantities, "available_timezones", lambda: looks.append(1) or {"Asia/Singapore"})
    quantities._time_zones.cache_clear()
    cameras = "".join(f"  - {{id: c{i}, source: {i}, timezone: Asia/Singapore}}\n" for i in range(9))
    try:
        assert len(load_config(write(tmp_path, f"{SMALL}cameras:\n{cameras}")).cameras) == 9
    finally:
        quantities._time_zones.cache_clear()
    assert len(looks) == 1


# --- what loads -------------------------------------------------------------------------------------------------------


def test_a_full_configuration_loads(tmp_path: Path) -> None:
    (tmp_path / "clip.avi").touch()
    config = load_config(
        write(
            tmp_path,
            """
site: lab
models: building
cameras:
  - {id: hall-03, source: "rtsp://10.0.0.7/s1", fps: 1/min, crop: [0, 0, 1, 0.8], domain: indoor}
  - {id: clip, source: clip.avi}
  - {id: desk, source: 0}
budgets: {memory_gb: 500 MB, time_share: 0.4}
period: 1h30min
adaptation: {policy: off, interval: 90s}
policy: mlink-exact
""",
        )
    )
    hall, clip, desk = config.cameras
    assert (hall.fps, hall.crop, hall.domain) == (1 / 60, (0, 0, 1, 0.8), "indoor")
    assert Path(str(clip.source)) == tmp_path / "clip.avi"
    assert desk.source == 0
    assert config.budgets.memory_gb == 0.5
    assert config.period == timedelta(minutes=90)
    assert (config.adaptation.policy, config.adaptation.interval) == ("off", timedelta(seconds=90))


def test_a_file_without_a_policy_decides_on_every_frame(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, SMALL))
    assert config.policy == "camlink" == json_schema()["properties"]["policy"]["default"]
    assert config.shown_policy() == "policy camlink (the default)"
    assert load_config("building").shown_policy() == "policy camlink"


def test_absent_sections_mean_their_defaults(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, SMALL + "budgets:\n  # memory_gb: 4\ncameras:\n"))
    assert config == SiteConfig(models="building")
    assert config.budgets.memory_gb is None
    assert config.period == timedelta(hours=1)


@pytest.mark.parametrize("name", ["building", "demo", "traffic", "webcam"])
def test_built_in_configurations_are_right_and_explain_themselves(name: str) -> None:
    assert check_config(name) == []
    assert load_config(name) == load_config(built_in_configs()[name])
    assert built_in_configs()[name].read_text().startswith("# ")


def test_relative_sources_are_found_beside_the_file_and_then_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, work = tmp_path / "site", tmp_path / "work"
    for folder in (site, work):
        folder.mkdir()
        (folder / "both.avi").touch()
    (work / "only-here").mkdir()
    monkeypatch.chdir(work)
    text = "models: building\ncameras: [{id: a, source: both.avi}, {id: b, source: only-here}]"
    sources = [Path(str(camera.source)).resolve() for camera in load_config(write(site, text)).cameras]
    assert sources == [site / "both.avi", work / "only-here"]


def test_merge_keys_let_cameras_share_settings(tmp_path: Path) -> None:
    text = """
models: building
cameras:
  - &hall {id: a, source: 0, fps: 5, domain: indoor}
  - {<<: *hall, id: b, source: 1}
"""
    first, second = load_config(write(tmp_path, text)).cameras
    assert (second.id, second.source, second.fps, second.domain) == ("b", 1, first.fps, first.domain)


def test_a_replay_takes_the_settings_without_the_cameras(tmp_path: Path) -> None:
    file = write(tmp_path, SMALL + 'cameras: [{id: a, source: "rtsp://u:${UNSET_PW}@10.0.0.7/s1"}]\nseed: 3\n')
    with pytest.raises(ConfigError, match="UNSET_PW"):
        load_config(file)
    settings = load_config(file, ignore_cameras=True)
    assert (settings.cameras, settings.seed) == ((), 3)


def test_configurations_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        SiteConfig(models="building").seed = 1  # type: ignore[misc]


# --- what is refused --------------------------------------------------------------------------------------------------


def test_every_problem_is_reported_at_once_in_the_order_of_lines(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        """site: lab
models: buildin
cameras:
  - {id: a, source: missing.avi}
  - id: a
    source: rstp://10.0.0.7/s1
    crop: [0, 0.9, 1, 0.8]
    frames_per_second: 2
budgets: {time_share: 40}
perod: 1h
period: 1 hour
audit: {fraction: 0.02, fraction: 0.03}
adaptation: {policy: perodic}
memory_gb: 4
""",
    )
    lines = [line for line, _ in found]
    assert lines == [2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]
    texts = dict(found)
    assert 'did you mean "building"?' in texts[2]
    assert 'camera "a": source: no file or folder "missing.avi"' in texts[4]
    assert 'camera id "a" is already used on line 4' in texts[5]
    assert 'unknown scheme "rstp"; did you mean "rtsp"?' in texts[6]
    assert "[0, 0.9, 1, 0.8] is not a crop" in texts[7]
    assert "frames_per_second: is not a known key; " in texts[8]
    assert "for 40 per cent write 0.4" in texts[9]
    assert texts[10] == 'perod: is not a known key; did you mean "period"?'
    assert texts[11] == 'period: "1 hour" is not a duration; did you mean "1h"?'
    assert texts[12] == '"fraction" is already given on line 12; keep one of them'
    assert texts[13] == 'adaptation.policy: "perodic" is not a choice here; did you mean "periodic"?'
    assert texts[14] == 'memory_gb: is not a known key; it belongs under "budgets"'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("period: 60", 'period: 60 has no unit; write "60s", "60min", "60h" or "60d"'),
        ("period: 10 minutes", 'period: "10 minutes" is not a duration; did you mean "10min"?'),
        ("period: 10m", 'period: "10m" is not a duration; did you mean "10min"?'),
        ("period: 0s", 'period: "0s" is not longer than nothing'),
        ("period: 0.1ms", 'period: "0.1ms" is not usable; a duration lies between 1ms and 36500d'),
        ("period: 99999999999d", 'period: "99999999999d" is not usable; a duration lies between 1ms and 36500d'),
        ("audit: {fraction: 2%}", 'audit.fraction: "2%" is a percentage; write 0.02'),
        ("budgets: {memory_gb: 5 gigs}", '"5 gigs" is not a size'),
        ("budgets: {time_share: 0}", "budgets.time_share: must be above 0, got 0"),
        ("budgets: {latency_ms: 0}", "budgets.latency_ms: must be above 0, got 0"),
        ("budgets: {latency_ms: -5}", "budgets.latency_ms: must be above 0, got -5"),
        ("budgets: {latency_ms: .inf}", "budgets.latency_ms: "),
        ("budgets: {latency_ms: 60ms}", 'budgets.latency_ms: must be a number, got "60ms"'),
        ("profile: {min_frames: many}", 'profile.min_frames: must be a whole number, got "many"'),
        ("profile: {min_frames: 2.5}", "profile.min_frames: must be a whole number, got 2.5"),
        ("profile: {min_frames: 0}", "profile.min_frames: must be at least 1, got 0"),
        ("seed: true", "seed: must be a whole number, got True"),
        ("device: gpu", 'device: must be of the form (auto|cpu|cuda(:\\d+)?), got "gpu"'),
        ("site: 2026-01-01", "site: must be text (in quotes if it looks like a number or a date), got 2026-01-01"),
        ("cameras: hall", 'cameras: must be a list, got "hall"'),
        ("cameras: [hall]", 'camera 1: must be a mapping of keys such as "id", "source", '),
        ("alerts: [{name: crowd}]", 'must be a mapping of keys such as "to", "rules", got [a mapping]'),
        ("budgets: {time_share: 1.5}", "1.5 is not a share; it must lie in 0..1"),
        ("cameras: [{id: 7, source: 0}]", "camera 1: id: must be text"),
        ("cameras: [{id: hall 3, source: 0}]", 'such as "hall-3"'),
        ("cameras: [{id: a}]", 'camera "a": source: is missing. Where frames come from'),
        ("cameras: [{id: a, source: -1}]", "device numbers start at 0, got -1"),
        ("cameras: [{id: a, source: 0, fps: 0}]", "0 is not a usable rate"),
        ("cameras: [{id: a, source: 0, fps: 2 per second}]", '"2 per second" is not a rate'),
        ("cameras: [{id: a, source: 0, crop: [0, 1]}]", 'camera "a": crop: [0, 1] is not a crop'),
        ("cameras: [{id: a, source: 0, crop: [0, .nan, 1, 0.5]}]", 'camera "a": crop: [0, nan, 1, 0.5] is not a crop'),
        ("cameras: [{id: a, source: 0, crop: [0, 0, 640, 480]}]", "as shares (0..1) of the picture"),
        ("cameras: [{id: a, source: 0, timezone: Asia/Singapor}]", 'did you mean "Asia/Singapore"?'),
        ("links: {history_frames: 20}", "links.history_frames: 20 is below min_train_frames (40)"),
        (f"period: {10**400}", "has no unit"),
        (f"audit: {{fraction: {10**400}}}", "audit.fraction: inf is not a share"),
        (f"budgets: {{memory_gb: {10**400}}}", "is not a usable size"),
        (f"cameras: [{{id: a, source: 0, fps: {10**400}}}]", "is not a usable rate"),
        (f"cameras: [{{id: a, source: 0, crop: [0, 0, 1, {10**400}]}}]", "is not a crop"),
        (f"cameras: [{{id: a, source: {'x' * 300}}}]", 'camera "a": source: no file or folder'),
        ("cameras: [{id: a, source: ~nobody-of-that-name/clip.avi}]", 'camera "a": source: no file or folder'),
    ],
)
def test_wrong_values_say_what_to_write_instead(tmp_path: Path, text: str, expected: str) -> None:
    line, message = one_problem(tmp_path, SMALL + text)
    assert line == 2
    assert expected in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("models: [objects, persns]", 'did you mean "persons"?'),
        ("models: [objects, objects]", '"objects" is listed twice'),
        (f"models: [{{name: a, adapter: onnx, weights: {'x' * 300}, task: count, labels: [a]}}]", "neither a file"),
        ("models: []", "name at least one model, or a set: building, traffic"),
        ("models: [{name: own, adapter: onx, weights: own.onnx, task: count}]", 'model "own": adapter: "onx"'),
        ("models: [{name: own, adapter: onnx, weights: own.onnx, task: count}]", 'model "own": give labels'),
        ("models: [{name: own, adapter: onnx, task: count}]", 'model "own": weights: is missing.'),
        ("site: lab", "models: is missing."),
    ],
)
def test_wrong_models_are_named(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in one_problem(tmp_path, text)[1]


@pytest.mark.parametrize(
    ("text", "line"),
    [("site: [", 2), ("site: a\n\tmodels: b", 2), ("a: &x [*x]", 1), ("site: 2026-13-45", 1), ("- a", 1), ("\0", None)],
)
def test_what_is_not_yaml_is_a_problem_and_not_a_crash(tmp_path: Path, text: str, line: int | None) -> None:
    assert problems(tmp_path, text + "\n")[0][0] == line


def test_a_folder_called_like_a_built_in_configuration_does_not_hide_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "building").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_config("building") == load_config(built_in_configs()["building"])


def test_a_missing_file_suggests_the_built_in_configuration() -> None:
    (problem,) = check_config("bulding")
    assert problem.file == "bulding"
    assert 'did you mean "building"?' in problem.message


def test_the_error_shows_file_and_line(tmp_path: Path) -> None:
    file = write(tmp_path, SMALL + "sed: 1\nfoo: 2\n")
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert str(caught.value).splitlines()[0] == f'{file}:2: sed: is not a known key; did you mean "seed"?'
    assert len(caught.value.problems) == 2


# --- passwords --------------------------------------------------------------------------------------------------------


def test_passwords_come_from_the_environment_and_show_up_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HALL_PW", "s3cr/t@")
    monkeypatch.setenv("HALL_TOKEN", "t0ken")
    text = 'cameras: [{id: a, source: "rtsp://u:${HALL_PW}@10.0.0.7/s1?x=${HALL_TOKEN}"}]\n'
    config = load_config(write(tmp_path, SMALL + text))
    camera = config.cameras[0]
    assert camera.source == "rtsp://u:s3cr%2Ft%40@10.0.0.7/s1?x=t0ken"
    assert camera.shown_source == "rtsp://***@10.0.0.7/s1?x=***"
    for shown in (repr(config), json.dumps(config.masked())):
        assert "s3cr" not in shown
        assert "t0ken" not in shown


def test_errors_hide_passwords(tmp_path: Path) -> None:
    text = 'cameras: [{id: a, source: "rtps://u:s3cret@10.0.0.7/s1"}, {id: b, source: ["rtsp://u:s3cret@h/"]}]\n'
    shown = str(problems(tmp_path, SMALL + text))
    assert "rtps://***@10.0.0.7/s1" in shown
    assert "s3cret" not in shown


def test_all_unset_variables_are_named(tmp_path: Path) -> None:
    line, message = one_problem(tmp_path, SMALL + 'cameras: [{id: a, source: "rtsp://${NO_A}:${NO_B}@h/"}]')
    assert line == 2
    assert "${NO_A}, ${NO_B}" in message


# --- for other programs -----------------------------------------------------------------------------------------------


def test_the_schema_describes_every_key() -> None:
    schema = json_schema()
    for section in [schema, *schema["$defs"].values()]:
        assert section["additionalProperties"] is False
        for name, key in section["properties"].items():
            assert key.get("description"), name


def test_a_source_that_stands_where_an_id_belongs_is_told_without_its_password(tmp_path: Path) -> None:
    entry = "  - {id: 'rtsp://u:hunter2@cam/1', source: 0}\n"
    said = problems(tmp_path, f"{SMALL}cameras:\n{entry}{entry}")
    assert [line for line, _ in said] == [3, 4, 4]
    assert "hunter2" not in str(said)
    assert 'camera "rtsp://***@cam/1": id: "rtsp://***@cam/1" is not a camera id' in said[0][1]


def test_masked_is_plain_json_that_loads_again() -> None:
    config = load_config("building")
    loaded = SiteConfig.model_validate(json.loads(json.dumps(config.masked())))
    assert loaded.profile_frames == config.profile_frames, "said, where the file leaves it to the policy"
    assert loaded.model_copy(update={"profile": config.profile}) == config


def test_own_models_become_definitions_beside_those_of_the_catalogue() -> None:
    own = {"name": "bags", "adapter": "onnx", "weights": "bags.onnx", "task": "count", "labels": ["bag"]}
    definitions = SiteConfig.model_validate({"models": ["persons", own]}).model_definitions()
    assert [definition.name for definition in definitions] == ["persons", "bags"]
    assert definitions[1].labels == ("bag",)
    assert len(SiteConfig(models="building").model_definitions()) == 3


def test_weights_beside_the_configuration_are_found_and_other_names_left_to_the_weight_search(tmp_path: Path) -> None:
    (tmp_path / "own.onnx").touch()
    own = "{name: a, adapter: onnx, weights: own.onnx, task: count, labels: [bag]}"
    pinned = "{name: b, adapter: ultralytics, weights: yolov8n.pt, task: count, labels: [cup], classes: [cup]}"
    first, second = load_config(write(tmp_path, f"models: [{own}, {pinned}]")).model_definitions()
    assert (first.weights, second.weights) == (str(tmp_path / "own.onnx"), "yolov8n.pt")


def test_a_camera_says_to_ingest_what_it_is() -> None:
    spec = CameraConfig(id="a", source="rtsp://10.0.0.7/s1", fps=0.5, crop=(0, 0, 1, 0.8), domain="road").source_spec()
    assert (spec.camera_id, spec.sources, spec.fps) == ("a", ("rtsp://10.0.0.7/s1",), 0.5)
    assert (spec.crop, spec.domain, spec.timezone) == ((0, 0, 1, 0.8), "road", "UTC")


def test_adaptation_can_be_made_in_python() -> None:
    assert AdaptationConfig(interval=timedelta(seconds=5)).model_dump(mode="json")["interval"] == "5s"


# --- targets ----------------------------------------------------------------------------------------------------------


def test_targets_are_inherited_and_the_stricter_of_camera_and_model_holds(tmp_path: Path) -> None:
    cameras = "cameras: [{id: hall, source: 0}, {id: gate, source: 1, target_agreement: 0.95}]\n"
    config = load_config(
        write(tmp_path, SMALL + cameras + "target_agreement: 0.8\ntargets: {persons: 0.97, objects: 0.7}\n")
    )
    asked = {(c, m): config.target_of(c, m) for c in ("hall", "gate") for m in ("persons", "objects", "action")}
    assert asked == {
        ("hall", "persons"): 0.97, ("hall", "objects"): 0.7, ("hall", "action"): 0.8,
        ("gate", "persons"): 0.97, ("gate", "objects"): 0.95, ("gate", "action"): 0.95,
    }  # fmt: skip
    assert SiteConfig(models="building").target_of("hall", "persons") is None


def test_a_target_for_a_model_that_is_not_there_is_named_with_its_line(tmp_path: Path) -> None:
    line, message = one_problem(tmp_path, SMALL + "targets:\n  objects: 0.9\n  person: 0.97\n")
    assert line == 4
    assert 'targets.person: "person" is none of the models; did you mean "persons"?' in message


def test_a_target_is_a_share(tmp_path: Path) -> None:
    text = SMALL + "cameras:\n  - id: hall\n    source: 0\n    target_agreement: 95%\n"
    assert one_problem(tmp_path, text) == (5, 'camera "hall": target_agreement: "95%" is a percentage; write 0.95')
