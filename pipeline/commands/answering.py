"""`--answers`: where a run's answers are told, line by line, to other programs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

if TYPE_CHECKING:
    from camlink.models.base import OutputSpec
    from camlink.pipeline.session import Listener

OUT, NOTES = 1, 2  # file descriptors of standard output and standard error
AnswersOption = Annotated[
    str | None,
    typer.Option(
        help='File or pipe to which every answer is added as a line of JSON as it comes; "-": standard output.'
    ),
]


@contextmanager
def told_answers(target: str | None, specs: Mapping[str, OutputSpec]) -> Iterator[list[Listener]]:
    """Give the listener that tells answers to ``target``, while the context lasts; none where there is no target.

    With "-" all that would be printed on standard output goes to standard error. Raises `RequestError` where the target
    cannot be opened.
    """
    from camlink.pipeline.answers import AnswerLines

    if target is None:
        yield []
        return
    out = _opened(target)
    try:
        yield [AnswerLines(out, "standard output" if target == "-" else target, specs).observe]
    finally:
        with suppress(OSError):  # of a reader that has gone, as was told
            out.close()


def _opened(target: str) -> TextIO:
    from camlink.pipeline.errors import RequestError

    if target == "-":
        out = os.fdopen(os.dup(OUT), "w", encoding="utf-8")
        os.dup2(NOTES, OUT)
        return out
    try:
        return open(target, "a", encoding="utf-8")
    except OSError as error:
        raise RequestError(f"--answers: {target} cannot be written: {error.strerror}") from error
