"""The fleet at a glance: one line per camera, worst first if asked, and what all of them come to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from markupsafe import Markup

from camlink.pipeline.dashboard import svg
from camlink.pipeline.dashboard.costs import Costs, costs_of
from camlink.pipeline.dashboard.health import ORDER, Health, health_of, learning_of
from camlink.pipeline.dashboard.rollups import SECOND_US, CameraState, RunRollups
from camlink.pipeline.dashboard.targets import targets, worst
from camlink.pipeline.dashboard.trust import Trust, trust_of_cameras, trusts_of_cameras
from camlink.pipeline.reports.notes import dropped_sentence, missed_targets
from camlink.pipeline.reports.spending import failed_sentence, overtaken_sentence
from camlink.pipeline.run_info import RunInfo

SORTS = {"name": "Name", "health": "Health", "executed": "Executed", "agreement": "Agreement"}
MUCH = 0.01  # share of frames dropped, or of executions failed, from which on a page says so at its top
HOUR_US = 3600 * SECOND_US
Made = tuple[int, bool]  # of which version of the rows, and whether the run had come to its own end


@dataclass(frozen=True)
class Line:
    """What the fleet page says of one camera."""

    camera_id: str
    domain: str
    health: Health
    frames: int
    dropped: int
    dropped_share: float
    learning: str  # how far it is with the frames before its first decision; empty for one that has come past them
    executed_share: float | None
    costs: Costs
    abstained_share: float
    trust: Trust | None
    spark: Markup
    drawn: str  # the model behind the sparkline
    target: str | None  # met, not met or not known, of the model that is worst off; None: no target is set


@dataclass(frozen=True)
class Fleet:
    """All lines and their sums."""

    lines: Sequence[Line]
    states: Counter[str]
    frames: int
    dropped: int
    learning: int  # cameras without a decision yet
    executed_share: float | None  # None where all cameras are learning
    costs: Costs
    trust: Trust | None
    troubles: Sequence[str]  # what must not be overlooked, in sentences


class FleetView:
    """Makes lines only of cameras that changed; the rest are kept from the last time."""

    def __init__(self, rollups: RunRollups) -> None:
        self._rollups = rollups
        self._trust: dict[str, tuple[Made, Trust | None]] = {}  # by camera, with what it was made of
        self._sparks: dict[str, tuple[int, Markup]] = {}
        self._whole: tuple[Made, Trust | None] = ((-1, False), None)

    def fleet(self, now: datetime, sort: str = "name") -> Fleet:
        """Return the fleet as it stands; ``sort`` is one of `SORTS`."""
        rollups = self._rollups
        with rollups.lock:
            cameras = list(rollups.cameras.values())
            self._update(cameras)
            lines = [self._line(camera, now) for camera in cameras]
            made, possible = _executions(cameras)
            return Fleet(
                lines=_sorted(lines, sort),
                states=Counter(line.health.state for line in lines),
                frames=sum(line.frames for line in lines),
                dropped=sum(line.dropped for line in lines),
                learning=(learning := sum(bool(line.learning) for line in lines)),
                executed_share=made / possible
                if possible and learning < sum(line.frames > 0 for line in lines)
                else None,
                costs=(costs := costs_of(cameras, rollups.info)),
                trust=self._together(cameras),
                troubles=troubles(rollups.info, cameras, costs),
            )

    def warm(self) -> None:
        """Do beforehand what is costly, so that no page waits for it."""
        with self._rollups.lock:
            self._update(list(self._rollups.cameras.values()))

    def trust_of(self, camera: CameraState) -> Trust | None:
        """Return what audits say of one camera; the caller holds the lock."""
        self._update([camera])
        return self._trust[camera.camera_id][1]

    def _update(self, cameras: Sequence[CameraState]) -> None:
        info = self._rollups.info
        made = {c.camera_id: (c.version, info.complete) for c in cameras}
        changed = [c for c in cameras if self._trust.get(c.camera_id, (None, None))[0] != made[c.camera_id]]
        for camera, found in zip(changed, trusts_of_cameras(changed, info), strict=True):
            self._trust[camera.camera_id] = (made[camera.camera_id], found)

    def _line(self, camera: CameraState, now: datetime) -> Line:
        made, possible = _executions([camera])
        served = sum(model.served.total() for model in camera.models.values())
        abstained = sum(model.served["abstained"] for model in camera.models.values())
        return Line(
            camera_id=camera.camera_id,
            domain=str(self._rollups.info.cameras.get(camera.camera_id, {}).get("domain") or ""),
            health=health_of(camera, self._rollups.info, now),
            frames=camera.frames(),
            dropped=(dropped := camera.dropped.total()),
            dropped_share=dropped / (camera.frames() + dropped) if dropped else 0.0,
            learning=learning_of(camera, self._rollups.info),
            executed_share=made / possible if possible else None,
            costs=costs_of([camera], self._rollups.info),
            abstained_share=abstained / served if served else 0.0,
            trust=self.trust_of(camera),
            spark=self._spark(camera),
            drawn=drawn_model(camera),
            target=worst(targets(self._rollups.info, camera).values()),
        )

    def _spark(self, camera: CameraState) -> Markup:
        version, drawing = self._sparks.get(camera.camera_id, (-1, Markup("")))
        if version != camera.version:
            model = camera.models.get(drawn_model(camera))
            drawing = svg.sparkline(model.series[self._span(camera)].read()) if model is not None else Markup("")
            self._sparks[camera.camera_id] = (camera.version, drawing)
        return drawing

    def _span(self, camera: CameraState) -> str:
        """Return the span to draw: the last day of a live camera, or its last hour while it knows no more."""
        if not self._rollups.info.live:
            return telling_span(camera)
        known_us = (camera.last_us or 0) - (camera.first_us or 0)
        return "24h" if known_us > HOUR_US else "1h"

    def _together(self, cameras: Sequence[CameraState]) -> Trust | None:
        info = self._rollups.info
        made = (sum(camera.version for camera in cameras), info.complete)
        if self._whole[0] != made:
            self._whole = (made, trust_of_cameras(cameras, info))
        return self._whole[1]


def troubles(info: RunInfo, cameras: Sequence[CameraState], costs: Costs) -> list[str]:
    """Say what was lost or missed: executions that failed, frames that no model saw, targets, the time budget."""
    dropped = sum((camera.dropped for camera in cameras), Counter[str]())
    captured = sum(camera.frames() for camera in cameras) + dropped.total()
    told, made = [], _made(cameras)
    if sum(e["failed"] for e in made.values()) >= MUCH * sum(e["made"] for e in made.values()):
        told.append(failed_sentence(made.items()))
    if dropped.total() >= MUCH * captured:
        told.append(dropped_sentence({"dropped": dropped, "captured": captured}))
    overtaken = sum(camera.overtaken for camera in cameras)
    if overtaken >= MUCH * captured:
        told.append(overtaken_sentence(overtaken, captured - dropped.total()))
    told.append(missed_targets([(c.camera_id, entry) for c in cameras for entry in targets(info, c).values()]))
    return [*filter(None, told), *([costs.words] if costs.over_spent else [])]


def telling_span(camera: CameraState) -> str:
    """Return all as the span to draw, but where the frames are too far apart for that the one that shows most."""
    model = camera.models.get(drawn_model(camera))
    if model is None:
        return "all"
    filled = {span: len(model.series[span].read().starts_us) for span in ("all", "24h", "1h", "1m")}
    return "all" if filled["all"] >= svg.FEW else max(filled, key=lambda span: filled[span])


def drawn_model(camera: CameraState) -> str:
    """Return the model whose values stand for what goes on at a camera: the first that counts, else the first."""
    counting = [name for name, model in camera.models.items() if model.spec.task == "count"]
    return (counting or list(camera.models) or [""])[0]


def _executions(cameras: Sequence[CameraState]) -> tuple[int, int]:
    models = [model for camera in cameras for model in camera.models.values()]
    return sum(model.executions for model in models), sum(model.served.total() for model in models)


def _made(cameras: Sequence[CameraState]) -> dict[str, Counter[str]]:
    """Return, by model, executions ``made`` and those of them that ``failed``."""
    made: dict[str, Counter[str]] = {}
    for name, model in (named for camera in cameras for named in camera.models.items()):
        made.setdefault(name, Counter()).update(made=model.executions, failed=model.failed)
    return made


def _sorted(lines: list[Line], sort: str) -> list[Line]:
    if sort == "health":
        return sorted(lines, key=lambda line: (ORDER.index(line.health.state), line.camera_id))
    if sort == "executed":
        return sorted(lines, key=lambda line: (-(line.executed_share or 0.0), line.camera_id))
    if sort == "agreement":  # least certain to be good first; what is not measured before all
        return sorted(lines, key=lambda line: (line.trust.low if line.trust else -1.0, line.camera_id))
    return sorted(lines, key=lambda line: line.camera_id)
