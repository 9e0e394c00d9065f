"""What cameras have taught, kept in a folder while camlink runs, and taken up from it at the next start.

Per camera one file, `CAMERA.learnt`: where its plan of first, profile and audit frames stands, and what the policy that
decides on every frame has learnt; under the papers' policies its links, the frames they are learnt from, their scores
and the day's certificates. It is the same that workers keep of a camera in Redis (docs/distributed.md).
"""

from __future__ import annotations

import fcntl
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO

from camlink.links.store import folder_name
from camlink.operators.adaptation import AdaptationOperator
from camlink.operators.base import Operator
from camlink.operators.inference import InferenceOperator
from camlink.operators.scheduler import SchedulerOperator
from camlink.operators.snapshots import Snapshot, get_time, put_time, reading
from camlink.pipeline.config.checks import WITH_LINKS
from camlink.pipeline.durable import write_bytes
from camlink.pipeline.errors import RequestError, ResultsError, StateError
from camlink.pipeline.records import LinkPromotion

logger = logging.getLogger(__name__)

EVERY_S = 60.0  # between two versions of a camera's file: what a crash costs
KEPT_FOR = timedelta(days=7)  # as in Redis: what is older says little of now
KEPT = ("camlink", *WITH_LINKS)  # policies whose learning is
_TALLY = "tally/"


class LearntFolder:
    """The folder, for one run at a time."""

    def __init__(
        self,
        folder: Path,
        policy: str,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """``policy``: the site's.

        Raises `RequestError` for one whose learning is not kept, where the folder cannot be written to, and where
        another run keeps there what it learns.
        """
        if policy not in KEPT:
            raise RequestError(f"policy {policy} starts anew each time; what {', '.join(KEPT)} learn can be kept")
        self.folder = folder
        self._now, self._seconds = now, seconds
        self._lock = _locked(folder)
        self._policy = policy
        self._due_s: dict[str, float] = {}  # camera -> when its file is to be written next
        self._changed: set[str] = set()  # since its file was written

    def attach(self, operators: Mapping[str, Operator]) -> None:
        """Say whose learning is kept: the operators by their steps, before anything else."""
        inference, adaptation, scheduler = (operators[name] for name in ("inference", "adaptation", "scheduler"))
        assert isinstance(inference, InferenceOperator)
        assert isinstance(adaptation, AdaptationOperator)
        assert isinstance(scheduler, SchedulerOperator)
        self._inference, self._adaptation, self._scheduler = inference, adaptation, scheduler

    def take_up(self, cameras: Iterable[str]) -> dict[str, datetime]:
        """Let cameras go on from their files; return until when those that did had learnt.

        One without a file starts anew, and so does, with a warning, one whose file is damaged, or of other models.
        Links are then `owed` to the rest of the graph.
        """
        found = {camera: self._take_up(camera) for camera in cameras}
        return {camera: until for camera, until in found.items() if until is not None}

    def owed(self) -> list[LinkPromotion]:
        """Return the links that were taken up, for those who answer with them."""
        return self._adaptation.owed()

    def changed(self, camera_id: str) -> None:
        """Say that a camera has had a frame."""
        self._changed.add(camera_id)
        self._due_s.setdefault(camera_id, self._seconds() + EVERY_S)

    def keep(self, *, everything: bool = False) -> None:
        """Write the file of a camera that is due, or ``everything`` that changed; between frames.

        A disk that does not take it is warned of, and tried again a minute later.
        """
        now_s = self._seconds()
        due = [camera for camera in sorted(self._changed) if everything or self._due_s[camera] <= now_s]
        for camera in due if everything else due[:1]:
            self._due_s[camera] = now_s + EVERY_S
            try:
                write_bytes(self._file(camera), self._snapshot(camera).to_bytes())
                self._changed.discard(camera)
            except ResultsError as error:
                logger.warning('camera "%s": what was learnt is not kept: %s', camera, error)

    def close(self) -> None:
        """Let another run have the folder."""
        self._lock.close()

    def _file(self, camera_id: str) -> Path:
        return self.folder / f"{folder_name(camera_id)}.learnt"

    def _snapshot(self, camera_id: str) -> Snapshot:
        policy = self._inference.policy_of(camera_id)
        parts = {} if policy is None else {"policy": policy}
        told = {
            "by": self._policy,
            "until": put_time(self._now()),
            "plan": self._inference.plan_of(camera_id),
        }
        if self._policy in WITH_LINKS:
            parts["links"] = self._adaptation.snapshot(camera_id)
        tally = self._scheduler.tally(camera_id)
        parts["scores"] = self._scheduler.snapshot(camera_id)
        parts |= {_TALLY + name: part for name, part in tally.parts.items()}
        return Snapshot({**told, "tally": tally.told}, parts)

    def _take_up(self, camera_id: str) -> datetime | None:
        file = self._file(camera_id)
        try:
            kept = Snapshot.from_bytes(file.read_bytes())
            with reading():
                by, until = str(kept.told["by"]), get_time(kept.told["until"])
            if by != self._policy or until is None:
                raise StateError(f"learnt by policy {by}, and this one is {self._policy}")
            if self._now() - until > KEPT_FOR:
                raise StateError(f"learnt until {until:%Y-%m-%d}, more than {KEPT_FOR.days} days ago")
            self._resume(camera_id, kept)
        except FileNotFoundError:
            return None
        except (OSError, StateError) as error:
            for operator in (self._inference, self._adaptation, self._scheduler):
                operator.forget(camera_id)
            logger.warning('camera "%s" starts anew: %s: %s', camera_id, file, error)
            return None
        return until

    def _resume(self, camera_id: str, kept: Snapshot) -> None:
        """Raises `StateError`, before any links are owed."""
        told, parts = kept.told, kept.parts
        tally = {name.removeprefix(_TALLY): part for name, part in parts.items() if name.startswith(_TALLY)}
        with reading():
            if "policy" in parts:
                self._inference.resume_policy(camera_id, parts["policy"], account=False)  # budgets are of each run
            # Decisions are not kept: a frame on which every model runs, at once, lets one be made.
            self._inference.resume(camera_id, told["plan"] | {"profile_left": max(told["plan"]["profile_left"], 1)})
            self._scheduler.restore(camera_id, parts["scores"])
            self._scheduler.resume_tally(camera_id, Snapshot(told["tally"], tally))
            if "links" in parts:
                self._adaptation.restore(camera_id, parts["links"])


def _locked(folder: Path) -> IO[str]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise RequestError(f"{folder}: {error.strerror}; name a folder to keep what is learnt in") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise RequestError(f"{folder}: another run keeps there what it learns; name another folder") from error
    except OSError as error:  # some network file systems have no locks
        lock.close()
        raise RequestError(f"{folder}: cannot be locked: {error.strerror}; name a folder on a local disk") from error
    return lock
