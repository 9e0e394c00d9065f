"""What cameras have taught, kept over restarts of `camlink run`."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from camlink.models.pool import ModelPool
from camlink.pipeline import learnt_folder
from camlink.pipeline.cli import app
from camlink.pipeline.commands import live, running
from camlink.pipeline.config import SiteConfig
from camlink.pipeline.errors import RequestError, ResultsError
from camlink.pipeline.learnt_folder import EVERY_S, LearntFolder
from camlink.pipeline.records import Frame, FrameResult, LinkPromotion, Record
from camlink.pipeline.reports import build_report, write_report
from camlink.pipeline.run_info import RunInfo
from camlink.pipeline.session import Camera, Session
from camlink.pipeline.testing import START, TinyModel, make_frames

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
FRAMES = make_frames("hall", 300)
CAMERA = {"hall": Camera("indoor", "hall.mp4", 1.0)}


class Site:
    """Runs one camera again and again; what one run has learnt is there for the next."""

    def __init__(self, folder: Path, policy: str = "camlink", **budgets: float) -> None:
        self.budgets = {"time_share": 0.5, **budgets}
        self.folder, self.policy, self.now, self.runs = folder, policy, NOW, 0

    @property
    def out(self) -> Path:
        return self.folder / f"run-{self.runs}"

    def run(
        self, frames: Sequence[Frame], *names: str, after: int | None = None, keeps: bool = True, **more: Any
    ) -> list[Record]:
        """Return the records of another run; ``after`` so many frames it is killed."""
        self.runs += 1
        records: list[Record] = []

        def collect(found: Sequence[Record]) -> list[Record]:
            records.extend(found)
            return []

        rules = {"bootstrap_frames": 40, "min_train_frames": 40}
        config = SiteConfig(models="building", policy=self.policy, links=rules, budgets=self.budgets, **more)
        counts = [TinyModel.count(n, lambda f: f.index // 7 % 4, time_ms=20.0) for n in names or ("persons", "objects")]
        with closing(LearntFolder(self.folder / "learnt", self.policy, now=lambda: self.now)) as learnt:
            kept = learnt if keeps else None
            session = Session(
                config,
                ModelPool(counts, self.budgets.get("memory_gb")),
                CAMERA,
                self.out,
                listeners=[collect],
                learnt=kept,
            )

            def readings() -> Iterator[Frame]:
                for frame in frames:
                    if after is not None and frame is frames[after]:
                        raise KeyboardInterrupt
                    yield frame

            with suppress(KeyboardInterrupt):
                session.run(readings(), lambda: {"hall": len(frames)})
        return records


def purposes(records: Sequence[Record]) -> list[str]:
    return [r.purpose for r in records if isinstance(r, FrameResult)]


def full(records: Sequence[Record]) -> list[int]:
    """Return the served frames on which every model ran, though none was to be learnt from."""
    results = [r for r in records if isinstance(r, FrameResult) and r.purpose == "serve"]
    return [r.frame_index for r in results if all(o.how == "executed" for o in r.outputs if o.served)]


@pytest.mark.parametrize("policy", ["camlink", "mlink"])
def test_a_camera_goes_on_from_what_it_had_learnt(tmp_path: Path, policy: str) -> None:
    site = Site(tmp_path, policy)
    first = purposes(site.run(FRAMES[:150]))
    assert first[:40] == ["profile"] * 40, "a new camera learns"
    records = site.run(FRAMES[150:])
    assert purposes(records).count("profile") == 1, "within the same period nothing is learnt again"
    assert len(full(records)) < 75, "and no more executes than was paid for"
    info = RunInfo.load(site.out)
    assert info.taken_up == {"hall": NOW.isoformat()} and info.learning_frames("hall") == 0
    page = write_report(site.out).read_text(encoding="utf-8")
    assert "went on from what an earlier run had learnt: hall" in page
    parts = build_report(site.out)["cost"]["parts"]
    assert (parts["bootstrap"]["frames"], parts["profile"]["frames"]) == (0, 1)


def test_links_are_served_again_and_lie_in_the_folder_of_the_run(tmp_path: Path) -> None:
    site = Site(tmp_path, "mlink")
    trained = [r for r in site.run(FRAMES[:150]) if isinstance(r, LinkPromotion)]
    records = site.run(FRAMES[150:])
    taken_up = [r for r in records if isinstance(r, LinkPromotion)]
    assert {r.target: r.payload for r in taken_up} == {r.target: r.payload for r in trained}
    assert (site.out / "links" / "hall").is_dir()
    results = [r for r in records if isinstance(r, FrameResult) and r.purpose == "serve"]
    assert any(o.how == "linked" for r in results[:5] for o in r.outputs), "no new training was waited for"


def test_what_a_policy_does_after_a_restart_is_what_it_would_have_done(tmp_path: Path) -> None:
    """But for the first frame, on which every model runs, as there is no decision yet."""
    whole, parts = Site(tmp_path / "a"), Site(tmp_path / "b")
    uninterrupted = whole.run(FRAMES)
    parts.run(FRAMES[:150])
    restarted = parts.run(FRAMES[150:])

    def executed(records: Sequence[Record]) -> float:
        late = [r for r in records if isinstance(r, FrameResult) and r.frame_index > 160]
        return sum(o.how == "executed" for r in late for o in r.outputs) / len(late)

    assert executed(restarted) == pytest.approx(executed(uninterrupted), abs=0.15)


def test_what_was_learnt_is_written_while_the_run_goes_on_one_camera_at_a_time(tmp_path: Path) -> None:
    now = [0.0]
    with closing(LearntFolder(tmp_path / "other", "camlink", seconds=lambda: now[0])) as learnt:
        config = SiteConfig(models="building", links={"bootstrap_frames": 5})
        pool = ModelPool([TinyModel.count("persons", lambda f: 1)])
        cameras = {name: Camera("indoor", f"{name}.mp4", 1.0) for name in ("a b", "hall")}
        session = Session(config, pool, cameras, tmp_path / "out", learnt=learnt)
        files: list[list[str]] = []

        def readings() -> Iterator[Frame]:
            for frames in zip(make_frames("hall", 200), make_frames("a b", 200), strict=True):
                for frame in frames:
                    yield frame
                    files.append(sorted(file.name for file in (tmp_path / "other").glob("*.learnt")))
                now[0] += 1.0

        session.run(readings(), lambda: dict.fromkeys(cameras, 200))
    assert files[2 * int(EVERY_S) - 5] == [] and files[-1] == ["a%20b.learnt", "hall.learnt"]
    assert ["hall.learnt"] in files, "not both at once"


def test_a_killed_run_costs_what_was_learnt_since_the_last_minute_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learnt_folder, "EVERY_S", 0.0)
    site = Site(tmp_path)
    site.run(FRAMES[:150], after=140)
    assert purposes(site.run(FRAMES[150:])).count("profile") == 1


@pytest.mark.parametrize("policy", ["camlink", "mlink"])
@pytest.mark.parametrize("memory_gb", [None, 1.0])
def test_one_frame_is_executed_whole_and_counts_as_no_served_one(
    tmp_path: Path, policy: str, memory_gb: float | None
) -> None:
    site = Site(tmp_path, policy, **({} if memory_gb is None else {"memory_gb": memory_gb}))
    site.run(FRAMES[:150])
    results = [r for r in site.run(FRAMES[150:]) if isinstance(r, FrameResult)]
    assert [r.purpose for r in results].count("profile") == 1 and results[0].purpose == "profile"
    served = [sum(o.how == "executed" for o in r.outputs) for r in results if r.purpose == "serve"]
    assert sum(served) <= 0.5 * 2 * len(served), "the time budget"


def test_a_camera_that_joins_a_run_goes_on_too_and_its_rate_is_known(tmp_path: Path) -> None:
    cameras, later = (
        {name: Camera("indoor", f"{name}.mp4", 2.0) for name in ("door", "hall")},
        START + timedelta(hours=1),
    )
    config = SiteConfig(models="building", policy="mlink", links={"bootstrap_frames": 5}, budgets={"time_share": 0.5})

    def run(out: str, frames: Sequence[Frame], first: dict[str, Camera]) -> list[Record]:
        records: list[Record] = []
        pool = ModelPool([TinyModel.count(name, lambda f: f.index // 7 % 4) for name in ("persons", "objects")])

        def collect(found: Sequence[Record]) -> list[Record]:
            records.extend(found)
            return []

        with closing(LearntFolder(tmp_path / "learnt", "mlink")) as learnt:
            session = Session(config, pool, first, tmp_path / out, listeners=[collect], learnt=learnt)

            def readings() -> Iterator[Frame]:
                session.update_cameras(config, cameras)
                yield from frames

            session.run(readings(), lambda: {"hall": len(frames)})
        assert session.info.taken_up.keys() == ({"hall"} if out == "then" else set())
        return records

    run("first", make_frames("hall", 100, fps=2.0), cameras)
    records = run("then", make_frames("hall", 100, fps=2.0, start=later), {"door": cameras["door"]})
    assert purposes(records).count("profile") == 72, "1 % of an hour"


def test_a_site_that_spends_audits_otherwise_now_is_audited_as_it_says(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.run(FRAMES[:150], audit={"fraction": 0.05, "spend": "widest"})
    served = [r for r in site.run(FRAMES[150:], audit={"fraction": 0.2}) if isinstance(r, FrameResult)]
    assert {r.audit_probability for r in served} - {None} == {0.2}


def test_a_run_keeps_to_its_budget_by_itself_whatever_an_earlier_one_saved(tmp_path: Path) -> None:
    calm = [replace(frame, index=0) for frame in FRAMES[:200]]  # counts that never change
    site = Site(tmp_path, time_share=0.3)
    site.run(calm)
    results = [r for r in site.run(FRAMES[200:]) if isinstance(r, FrameResult) and r.purpose == "serve"]
    executed = sum(o.how == "executed" for r in results for o in r.outputs)
    assert executed <= 0.3 * 2 * len(results) + 1e-6


@pytest.mark.parametrize("amiss", ["bytes", "models", "policy", "age", "part"])
def test_what_does_not_fit_is_told_and_the_camera_starts_anew(
    tmp_path: Path, amiss: str, caplog: pytest.LogCaptureFixture
) -> None:
    site, file = Site(tmp_path), tmp_path / "learnt" / "hall.learnt"
    site.run(FRAMES[:150])
    names: tuple[str, ...] = ()
    if amiss == "bytes":
        file.write_bytes(file.read_bytes()[:-7])
    elif amiss == "part":
        file.write_bytes(file.read_bytes().replace(b'"bootstrap_left"', b'"bootstrap_lost"'))
    elif amiss == "models":
        names = ("persons", "cars")
    elif amiss == "policy":
        site.policy = "mlink"
    else:
        site.now += timedelta(days=8)
    with caplog.at_level(logging.WARNING):
        records = site.run(FRAMES[150:], *names)
    assert purposes(records)[:40] == ["profile"] * 40
    assert f'camera "hall" starts anew: {file}: ' in caplog.text
    assert RunInfo.load(site.out).taken_up == {}
    again = purposes(site.run(FRAMES[150:], *names))
    assert again.count("profile") == 1, "what it learnt instead is kept"


def test_a_disk_that_is_full_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full_disk(path: Path, data: bytes) -> None:
        raise ResultsError(f"{path}: cannot be written: No space left on device")

    monkeypatch.setattr(learnt_folder, "write_bytes", full_disk)
    site = Site(tmp_path)
    assert len(purposes(site.run(FRAMES))) == 300
    assert 'camera "hall": what was learnt is not kept: ' in caplog.text and "No space left" in caplog.text


def test_two_runs_do_not_keep_what_they_learn_in_one_folder(tmp_path: Path) -> None:
    with (
        closing(LearntFolder(tmp_path, "camlink")),
        pytest.raises(RequestError, match="another run keeps there what it learns; name another folder"),
    ):
        LearntFolder(tmp_path, "camlink")
    LearntFolder(tmp_path, "camlink").close()


def test_a_folder_that_cannot_be_locked_is_told_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(file: object, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(learnt_folder.fcntl, "flock", no_locks)
    with pytest.raises(RequestError, match="cannot be locked: No locks available; name a folder on a local disk"):
        LearntFolder(tmp_path, "camlink")


def test_a_policy_whose_learning_is_not_kept_is_told(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="policy periodic starts anew each time; what camlink, mlink, mlink-exact"):
        LearntFolder(tmp_path, "periodic")


class Frames:
    """In place of the cameras of `camlink run`."""

    def __init__(self, count: int) -> None:
        self.frames = make_frames("hall", count)

    def __iter__(self) -> Iterator[Frame]:
        return iter(self.frames)

    def captured(self) -> dict[str, int]:
        return {"hall": len(self.frames)}

    def close(self) -> None:
        """Nothing is open."""


def test_camlink_run_says_that_cameras_go_on_and_refuses_what_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = {
        "models": "building",
        "cameras": [{"id": "hall", "source": 0, "fps": 1.0}],
        "links": {"bootstrap_frames": 5},
    }
    pool = ModelPool([TinyModel.count("objects", lambda frame: 1)])
    monkeypatch.setattr(running, "build_pool", lambda config: (pool, {}))
    monkeypatch.setattr(live, "_roster", lambda site, edits: Frames(20))

    def start(run: str, policy: str = "camlink") -> Result:
        config = SiteConfig.model_validate(site | {"policy": policy})
        monkeypatch.setattr(live, "_checked", lambda name, device: config)
        options = ["--no-dashboard", "--out", str(tmp_path / run), "--learnt", str(tmp_path / "learnt")]
        return CliRunner(env={"COLUMNS": "300"}).invoke(app, ["run", "site.yaml", *options])

    first, again, periodic = start("first"), start("again"), start("periodic", "periodic")
    assert first.exit_code == 0 and "going on" not in first.stderr
    assert again.exit_code == 0 and "1 camera going on from what was learnt until 20" in again.stderr
    assert isinstance(periodic.exception, RequestError) and not (tmp_path / "periodic").exists()
