"""What numba compiles: it does as the same loops do in Python, wherever it can be kept, and is never out of date."""

from __future__ import annotations

import ast
import importlib
import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from numba.core.dispatcher import Dispatcher

from camlink import operators

DECIDE = """
import json, sys
from camlink.operators.per_frame import PerFrame
from camlink.operators.selection import Budget
from camlink.pipeline.lab.play import play, split
from tests.lab_traces import random_trace, setup_of
trace = random_trace(3, 150, 3, task=sys.argv[1], with_detections=True)
(camera,) = trace.cameras
tally = play(camera, PerFrame, setup_of(trace, Budget(time_share=0.4)), split(camera, 1e9), name="camlink")
print(json.dumps([tally.hows.tolist(), tally.agreed.tolist(), tally.stated.tolist()]))
"""
ROOT = Path(__file__).parents[2]


def decide(task: str, **environment: str) -> list[list[list[float]]]:
    """Return what a policy did in a process of its own: how it answered, how often it agreed, what it stated."""
    done = subprocess.run(
        [sys.executable, "-c", DECIDE, task],
        env=os.environ | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told: list[list[list[float]]] = json.loads(done.stdout)
    return told


@pytest.mark.parametrize("task", ["count", "single_label", "multi_label"])
def test_compiled_and_in_python_a_policy_decides_alike_and_reads_within_its_arrays(task: str) -> None:
    compiled, interpreted = decide(task), decide(task, NUMBA_DISABLE_JIT="1")  # in Python, reading beyond is an error
    assert compiled[0] == interpreted[0]
    for one, other in zip(compiled[1:], interpreted[1:], strict=True):
        for row, like in zip(one, other, strict=True):
            assert row == pytest.approx(like, abs=1e-6)


def test_once_warmed_up_a_policy_has_nothing_left_to_compile() -> None:
    run = """
from itertools import product
from camlink.operators.warm_up import warm_up
from tests.operators.test_compiled import compiled_in, modules
warm_up()
functions = {name: f for module in modules() for name, f in compiled_in(module).items()}
before = {name: len(f.signatures) for name, f in functions.items()}
from camlink.operators.per_frame import PerFrame
from camlink.operators.selection import Budget
from camlink.pipeline.lab.play import play, split
from tests.lab_traces import random_trace, setup_of
for task, boxes in product(("count", "single_label", "multi_label"), (False, True)):
    trace = random_trace(3, 150, 3, task=task, with_detections=boxes)
    setup = setup_of(trace, Budget(time_share=0.4))
    play(trace.cameras[0], PerFrame, setup, split(trace.cameras[0], 1e9), name="camlink")
print({name: len(f.signatures) - before[name] for name, f in functions.items() if len(f.signatures) != before[name]})
"""
    done = subprocess.run([sys.executable, "-c", run], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "{}\n", done.stderr


def test_where_nothing_can_be_kept_each_process_compiles_for_itself(tmp_path: Path) -> None:
    source = tmp_path / "code" / "doubling.py"
    source.parent.mkdir()
    source.write_text(
        "from camlink.operators.compiled import compiled\n@compiled\ndef twice(x: float) -> float:\n    return 2 * x\n"
    )
    (source.parent / "__pycache__").touch()  # a file where the folder would be: root may write anywhere else
    (tmp_path / "home").touch()
    run = "import logging; logging.basicConfig(level='INFO'); import doubling; print(doubling.twice(4.0))"
    nowhere = str(tmp_path / "home")
    environment = {"PYTHONPATH": f"{ROOT}:{source.parent}", "HOME": nowhere, "XDG_CACHE_HOME": nowhere}
    own = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, "-c", run], env=own | environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == "8.0\n", done.stderr
    assert "compiled for this process only" in done.stderr


def modules() -> list[ModuleType]:
    found = pkgutil.iter_modules(operators.__path__, "camlink.operators.")
    return [importlib.import_module(module.name) for module in found]


def compiled_in(module: ModuleType) -> dict[str, Dispatcher]:
    """Return what is compiled of a module's own functions, by name."""
    found = {name: f for name, f in vars(module).items() if isinstance(f, Dispatcher)}
    return {name: f for name, f in found.items() if f.py_func.__module__ == module.__name__}


def test_nothing_compiled_rests_on_another_file_whose_changes_would_go_unnoticed() -> None:
    checked = 0
    for module in modules():
        own = compiled_in(module)
        tree = ast.parse(Path(str(module.__file__)).read_text())
        froms = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and (n.module or "").startswith("camlink")]
        imported = {a.asname or a.name for n in froms for a in n.names}
        for name, function in own.items():
            for used in function.py_func.__code__.co_names:
                there = vars(module).get(used)
                assert not isinstance(there, Dispatcher) or used in own, f"{name} calls {used} of another file"
                assert not isinstance(there, int | float | tuple) or used not in imported, f"{name} reads {used}"
            checked += 1
    assert checked > 20
