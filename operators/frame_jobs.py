"""What inference has to do on each frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from camlink.operators.sampling import FramePlan
from camlink.pipeline.records import Frame, ModelOutput


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One frame to be processed: which models run on it, and what to say about it afterwards."""

    frame: Frame
    plan: FramePlan
    run: tuple[str, ...]
    predict: tuple[str, ...] = ()
    abstain: tuple[str, ...] = ()
    trial: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    asks: bool = False  # the policy that decides on every frame
    answers: tuple[ModelOutput, ...] = ()  # of a policy that decides on every frame
    done: tuple[ModelOutput, ...] = ()  # what ran before the job had to wait
    failed: Mapping[str, str] = field(default_factory=dict)
    put_off: Any = None  # what the policy has to know of it, to learn from what executes later
    known_after: datetime | None = None  # the latest frame of its camera when it no longer had to wait


def waves(jobs: Sequence[Job]) -> list[list[Job]]:
    """Deal the jobs into waves with each camera once in a wave at most, its frames in order."""
    waves: list[list[Job]] = []
    taken: dict[str, int] = {}
    for job in jobs:
        place = taken.get(job.frame.camera_id, 0)
        taken[job.frame.camera_id] = place + 1
        if place == len(waves):
            waves.append([])
        waves[place].append(job)
    return waves
