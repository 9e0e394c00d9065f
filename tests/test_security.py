"""What comes from outside, tried with bad intent: configuration files, names, addresses, listening sockets."""

from __future__ import annotations

import ipaddress
import logging
from pathlib import Path

import pytest

from camlink.pipeline.config import SiteConfig, check_config, load_config
from camlink.pipeline.errors import ConfigError, ResultsError, SourceError
from camlink.pipeline.health import Health
from camlink.pipeline.ingest import SourceSpec, discover
from camlink.pipeline.ingest.names import camera_id_from
from camlink.pipeline.results import ResultsLog
from camlink.pipeline.results.tables import folder_name

CAMERA = "models: building\ncameras:\n  - {{id: {id}, source: 0}}\n"


def problems_of(folder: Path, text: str) -> list[str]:
    file = folder / "site.yaml"
    file.write_text(text)
    return [str(problem) for problem in check_config(file)]


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.system ['echo owned']",
        "!!python/object/new:os.system ['echo owned']",
        "!!python/name:os.system ''",
        "!!python/module:os ''",
        "!include /etc/passwd",
    ],
)
def test_a_tag_that_asks_for_code_or_files_is_refused_with_its_line(tmp_path: Path, tag: str) -> None:
    problems = problems_of(tmp_path, f"models: building\nsite: {tag}\n")
    assert problems and all("site.yaml:2" in problem for problem in problems)
    assert not any("root:" in problem for problem in problems)


def test_aliases_that_multiply_are_refused_before_they_fill_the_memory(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    (problem,) = problems_of(tmp_path, "\n".join(lines))
    assert "write less by aliases" in problem


def test_nesting_without_end_is_refused(tmp_path: Path) -> None:
    for depth in (100, 5000):
        (problem,) = problems_of(tmp_path, "models: " + "[" * depth + "]" * depth)
        assert "nested deeper than 50 levels" in problem


def test_a_file_without_end_is_refused() -> None:
    with pytest.raises(ConfigError, match="larger than 4,000,000 bytes"):
        load_config("/dev/zero")


def test_aliases_and_merges_as_people_write_them_are_fine(tmp_path: Path) -> None:
    text = "models: building\ncameras:\n  - &first {id: a, source: 0, fps: 3}\n  - {<<: *first, id: b}\n"
    assert problems_of(tmp_path, text) == []


@pytest.mark.parametrize(
    "name", ["../x", "/etc/x", "..", ".", '"a\\0b"', "a/b", "x" * 65, '"a b"', '"a\\nb"', "Süd", '""', "C:\\x"]
)
def test_a_camera_that_is_named_like_a_path_is_refused_with_its_line(tmp_path: Path, name: str) -> None:
    (problem,) = problems_of(tmp_path, CAMERA.format(id=name))
    assert "site.yaml:3" in problem and "is not a camera id" in problem and len(problem) < 500


@pytest.mark.parametrize("name", ["../x", "..", "a/b", "hard hats"])
def test_a_model_that_is_named_like_a_path_is_refused_with_its_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "w.onnx").touch()
    model = f"{{name: {name}, adapter: onnx, weights: w.onnx, task: count, labels: [a], classes: [a]}}"
    (problem,) = problems_of(tmp_path, f"models:\n  - {model}\n")
    assert "site.yaml:2" in problem and "cannot name a model" in problem


@pytest.mark.parametrize("name", ["../x", "..", "a\0b", "x" * 65, "Süd"])
def test_a_source_is_never_made_for_such_a_name(name: str) -> None:
    with pytest.raises(SourceError, match="an id has 1 to 64"):
        SourceSpec(name, ("rtsp://cam/1",))


@pytest.mark.parametrize("name", ["../../x", "/etc", "..", ".", "", "a\0b", "Süd", "监控"])
def test_a_folder_named_after_anything_stays_where_it_belongs(tmp_path: Path, name: str) -> None:
    folder = (tmp_path / folder_name(name)).resolve()
    assert folder.parent == tmp_path.resolve()


@pytest.mark.parametrize("out", ["a\0b", "x" * 300])
def test_an_output_folder_that_cannot_be_is_refused_by_name(tmp_path: Path, out: str) -> None:
    with pytest.raises(ResultsError, match="cannot be made"):
        ResultsLog(tmp_path / out)


def test_names_that_lose_letters_stay_apart(tmp_path: Path) -> None:
    names = ["Süd", "Sud", "Sùd", "监控一", "监控二", "Œ", "ß", "入口", "x" * 70, "x" * 71]
    ids = [camera_id_from(name) for name in names]
    assert len(set(ids)) == len(names)
    for camera_id in ids:
        SourceSpec(camera_id, ("rtsp://cam/1",))
    assert camera_id_from("Su\u0308d") == camera_id_from("Süd")  # two ways to write one name


def test_clips_with_names_in_any_script_are_cameras_of_their_own(tmp_path: Path) -> None:
    for name in ("南門", "北門", "Tür"):
        (tmp_path / f"{name}.mp4").touch()
    assert len(discover(tmp_path, fps=1.0, timezone="UTC")) == 3


SECRET = "hunter2"
ADDRESS = f"rtsp://admin:{SECRET}@192.0.2.7/s1?key={SECRET}"


def test_a_password_in_an_address_is_in_nothing_that_is_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "site.yaml"
    file.write_text(f"models: building\ncameras:\n  - {{id: hall, source: '{ADDRESS}'}}\n")
    site = load_config(file)
    spec = site.cameras[0].source_spec()
    assert spec.sources == (ADDRESS,)
    shown = [repr(site), str(site), repr(site.cameras[0]), repr(spec), str(site.masked()), spec.shown]
    assert not any(SECRET in text or "admin" in text for text in shown)
    with caplog.at_level(logging.DEBUG), pytest.raises(SourceError) as error:
        discover(Path(ADDRESS), fps=1.0, timezone="UTC")
    assert SECRET not in str(error.value) + caplog.text


@pytest.mark.parametrize(
    "line",
    [
        f"  - {{id: hall, source: '{ADDRESS}', fsp: 1}}",
        f"  - {{id: hall, source: ['{ADDRESS}']}}",
        f"  - {{id: hall, source: 'rtps://admin:{SECRET}@cam/1'}}",
        f"  - {{id: hall, source: 'admin:{SECRET}@cam/1'}}",
        f"  - {{id: hall, source: 'rtsp://admin:{SECRET}@cam:port/1'}}",
        f"  - {{id: hall, source: 'rtsp://admin:{SECRET} x@cam/1'}}",
        f"  - {{id: hall, fps: '{ADDRESS}', source: 0}}",
        f"  - {{id: hall, source: '{ADDRESS}",
    ],
)
def test_a_password_is_in_no_problem_of_a_configuration(tmp_path: Path, line: str) -> None:
    problems = problems_of(tmp_path, f"models: building\ncameras:\n{line}\n")
    assert problems and not any(SECRET in problem for problem in problems)


def test_a_health_page_listens_on_loopback_unless_told_otherwise() -> None:
    page = Health("0", lambda: None, dict)
    try:
        assert ipaddress.ip_address(page._server.server_address[0]).is_loopback  # type: ignore[arg-type]
    finally:
        page.close()


def test_a_site_named_like_a_path_names_no_folder_elsewhere() -> None:
    assert "/" not in camera_id_from(SiteConfig(models="building", site="../../etc/x").site)
    assert camera_id_from("..") == "camera"
