"""The example in links/README.md runs as it stands, and predicts what it claims to."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "links" / "README.md"


def test_the_example_runs_and_predicts() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(example, str(PAGE), "exec"), names)
    assert names["value"] == names["persons"][7]  # type: ignore[index]
    assert 0.9 < float(names["confidence"]) <= 1.0  # type: ignore[arg-type]


def test_every_file_it_names_is_there_and_none_is_missing() -> None:
    named = set(re.findall(r"`(\w+\.py)`", PAGE.read_text()))
    there = {path.name for path in PAGE.parent.glob("*.py")} - {"__init__.py", "base.py", "ensemble_bytes.py"}
    assert named == there
