"""The import rule: what each folder may know of the others, and what must stay out until it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDERS = ("links", "models", "operators", "pipeline")
LEAVES = ("camlink.pipeline.records", "camlink.pipeline.errors", "camlink.pipeline.clock")
MAY_IMPORT = {
    "models": (*LEAVES, "camlink.models"),
    "links": (*LEAVES, "camlink.models.base", "camlink.models.scores", "camlink.links"),
    "operators": (*LEAVES, "camlink.models", "camlink.links", "camlink.operators"),
}
ONLY_IN = {
    "kafka": "pipeline/bus/kafka_python.py",
    "confluent_kafka": "pipeline/bus/kafka_confluent.py",
    "redis": "pipeline/state/redis.py",
}
HEAVY = (
    *("av", "cv2", "duckdb", "numba", "onnxruntime", "pandas", "plotly", "polars"),
    *("pyarrow", "torch", "torchvision", "ultralytics"),
)
MAY_USE_TEST_BEDS = ("pipeline/testbed", "pipeline/compose_local.py")  # the latter is for trying without Docker


def source_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (REPOSITORY / folder).rglob("*.py"))


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and full name of everything imported: ``from a import b`` as ``a.b``, relative names as ``.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{origin}.{alias.name}") for alias in node.names)


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def imports_of(path: Path) -> list[tuple[str, str]]:
    """Return (file:line, imported name) of all imports of a file."""
    shown = path.relative_to(REPOSITORY).as_posix()
    return [(f"{shown}:{line}", name) for line, name in imports(ast.parse(path.read_text(encoding="utf-8")))]


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_a_folder_imports_only_what_its_layer_may_know(folder: str) -> None:
    breaches = [
        f"{where}: {name}"
        for path in source_files(folder)
        for where, name in imports_of(path)
        if within(name, "camlink") and not any(within(name, allowed) for allowed in MAY_IMPORT[folder])
    ]
    assert not breaches, f"{folder} may import only {', '.join(MAY_IMPORT[folder])}"


@pytest.mark.parametrize("driver", ONLY_IN)
def test_a_driver_is_imported_in_one_file_only(driver: str) -> None:
    breaches = [
        f"{where}: {name}"
        for path in source_files(*FOLDERS)
        if path.relative_to(REPOSITORY).as_posix() != ONLY_IN[driver]
        for where, name in imports_of(path)
        if within(name, driver)
    ]
    assert not breaches, f"only {ONLY_IN[driver]} imports {driver}"


def test_nothing_that_runs_at_a_site_imports_a_test_bed() -> None:
    breaches = [
        f"{where}: {name}"
        for path in source_files(*FOLDERS)
        if not path.relative_to(REPOSITORY).as_posix().startswith(MAY_USE_TEST_BEDS)
        for where, name in imports_of(path)
        if "testbed" in name
    ]
    assert not breaches


def test_folders_are_imported_through_the_bridge_and_never_by_their_bare_names() -> None:
    breaches = [
        f"{where}: {name}"
        for path in source_files(*FOLDERS, "tests", "benchmarks")
        for where, name in imports_of(path)
        if name.startswith(".") or any(within(name, folder) for folder in FOLDERS)
    ]
    assert not breaches, "write camlink.models, and so on"


@pytest.mark.skipif(not (REPOSITORY / "pipeline/cli.py").exists(), reason="pipeline/cli.py is not written yet")
def test_the_command_line_starts_without_the_heavy_libraries() -> None:
    code = f"import sys, camlink.pipeline.cli; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert found.returncode == 0, found.stderr
    assert found.stdout.split() == [], "import these where they are used, or `camlink --help` takes seconds"


def test_only_what_decides_on_frames_loads_the_compiler() -> None:
    code = "import sys, camlink.pipeline.commands.worker, camlink.pipeline.distributed; print('numba' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert found.stdout == "False\n", f"60 MB in each worker: import it where it is used. {found.stderr}"
