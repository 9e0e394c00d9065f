"""What became of every published frame, per camera and model: read from the results log, never from counters.

    published = executed + linked + reused + abstained + dropped

holds if every published frame has exactly one served output of each model, or a reason why it was dropped. A frame
with none of them is *missing*, one with several is *doubled*; both must be 0 after any fault.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from camlink.pipeline.errors import ResultsError
from camlink.pipeline.results import RunResults

FATES = ("executed", "linked", "reused", "abstained", "dropped")
Published = Collection[tuple[str, int]]  # (camera, frame index)


@dataclass
class Account:
    """One camera and model. ``fates`` counts what became of frames; ``reasons`` why they were abstained or dropped.

    ``fate_of``: by frame index, for a look at single frames.
    """

    published: int
    fates: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    doubled: int = 0
    missing: int = 0
    fate_of: dict[int, str] = field(default_factory=dict)

    @property
    def balances(self) -> bool:
        """Whether the conservation law holds, and no frame is on both sides of it."""
        return self.published == self.fates.total() and not self.doubled and not self.missing


@dataclass
class Ledger:
    """The accounts of all cameras and models. ``repeats``: rows that fell out by keys; ``refused``: dead letters."""

    accounts: dict[tuple[str, str], Account]
    repeats: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    @property
    def balances(self) -> bool:
        return all(account.balances for account in self.accounts.values())

    def total(self, fate: str) -> int:
        """Return in how many accounts' frames ``fate`` was seen."""
        return sum(account.fates[fate] for account in self.accounts.values())

    def reasons(self) -> Counter[str]:
        """Return why outputs were abstained and frames dropped, over all accounts."""
        return sum((account.reasons for account in self.accounts.values()), Counter())

    def lines(self) -> Iterator[str]:
        """Show the ledger; many cameras as one line per model."""
        yield f"{'camera':>10} {'model':<10} published = {' + '.join(FATES)} | doubled missing"
        for (camera, model), account in self._shown():
            parts = " + ".join(f"{account.fates[fate]}" for fate in FATES)
            law = f"{account.published} = {parts}" if account.balances else f"{account.published} != {parts}"
            yield f"{camera:>10} {model:<10} {law} | {account.doubled} {account.missing}"
        for reason, count in sorted(self.reasons().items()):
            yield f"{'':>10} {count} x {reason}"
        for reason, count in sorted(self.refused.items()):
            yield f"{'':>10} {count} x dead letter: {reason}"
        yield f"{'':>10} repeated rows that fell out by their keys: {self.repeats}"

    def _shown(self) -> Iterable[tuple[tuple[str, str], Account]]:
        if len(self.accounts) <= 24:
            return self.accounts.items()
        joined: dict[tuple[str, str], Account] = {}
        cameras = len({camera for camera, _ in self.accounts})
        for (_, model), account in self.accounts.items():
            total = joined.setdefault((f"all {cameras}", model), Account(0))
            total.published += account.published
            total.fates.update(account.fates)
            total.doubled += account.doubled
            total.missing += account.missing
        return joined.items()


def read_ledger(out: Path, published: Published, models: Sequence[str]) -> Ledger:
    """Return what the results folder ``out`` says of the ``published`` frames."""
    cameras = dict.fromkeys(camera for camera, _ in sorted(published))
    fates: dict[tuple[str, str], dict[int, list[tuple[str, str | None]]]] = {
        (camera, model): {index: [] for name, index in published if name == camera}
        for camera in cameras
        for model in models
    }
    for camera, model, index, how, reason in _served(out):
        if index in fates.get((camera, model), ()):
            fates[camera, model][index].append((how, reason if how == "abstained" else None))
    for camera, index, reason in _dropped(out):
        for model in models:
            if index in fates.get((camera, model), ()):
                fates[camera, model][index].append(("dropped", reason))
    return Ledger({key: _account(found) for key, found in fates.items()}, _repeats(out, published))


def settled(out: Path) -> set[tuple[str, int]]:
    """Return the frames of which the results folder says anything."""
    return {(camera, index) for camera, _, index, _, _ in _served(out)} | {(c, i) for c, i, _ in _dropped(out)}


def _repeats(out: Path, published: Published) -> int:
    """Return how many rows on disk repeat another row's key, of frames from the first published one on."""
    import duckdb

    files = [str(file) for file in out.glob("outputs/day=*/*/part-*.parquet")]
    if not files:
        return 0
    first = min((index for _, index in published), default=0)
    query = "SELECT count(*) FROM read_parquet($1, hive_partitioning=false) WHERE frame_index >= $2"
    on_disk = duckdb.connect().execute(query, [files, first]).fetchone()
    assert on_disk is not None
    return int(on_disk[0]) - sum(
        1 for _ in _rows(out, f"SELECT model FROM outputs WHERE frame_index >= {first}", "outputs")
    )


def _account(found: dict[int, list[tuple[str, str | None]]]) -> Account:
    account = Account(len(found))
    for index, fates in found.items():
        account.fate_of[index] = fates[-1][0] if fates else "missing"
        account.fates.update(fate for fate, _ in fates)
        account.reasons.update(f"{fate}: {reason}" for fate, reason in fates if reason is not None)
        account.doubled += len(fates) > 1
        account.missing += not fates
    return account


def _served(out: Path) -> Iterable[tuple[str, str, int, str, str | None]]:
    sql = "SELECT camera_id, model, frame_index, how, reason FROM outputs WHERE served"
    return _rows(out, sql, "outputs")


def _dropped(out: Path) -> Iterator[tuple[str, int, str]]:
    for camera, first, count, reason in _rows(out, "SELECT camera_id, first_index, count, reason FROM drops", "drops"):
        yield from ((camera, index, reason) for index in range(first, first + count))


def _rows(out: Path, sql: str, table: str) -> Iterable[tuple]:  # type: ignore[type-arg]
    try:
        columns = RunResults(out).query(sql, table).columns
    except ResultsError:
        return ()  # nothing was written yet, or a file went away while it was read
    return zip(*(column.to_pylist() for column in columns), strict=True)
