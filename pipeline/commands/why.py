"""`camlink why`: how one answer came about."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def why(
    run: Annotated[Path, typer.Argument(help="Results folder of a run, finished or still going on.")],
    camera: Annotated[str, typer.Argument(help="Camera id.")],
    frame: Annotated[int, typer.Argument(min=0, help="Frame index, as in results and pictures.")],
    model: Annotated[str, typer.Argument(help="Model whose answer is in question.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the facts as JSON, and nothing else.")] = False,
) -> None:
    """Explain one answer: executed, linked from which values by which links, reused from when, or why there is none."""
    import json

    from camlink.pipeline.provenance import explain
    from camlink.pipeline.results import RunResults

    facts = explain(RunResults(run), camera, frame, model)
    text = facts.pop("text")
    typer.echo(json.dumps(facts, indent=2, ensure_ascii=False) if as_json else "\n".join(text))
