"""A clock that was far ahead for a while and then set right: what was known of the time ahead holds nothing up."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from camlink.models.pool import ModelPool
from camlink.pipeline.assembly import CameraFacts, build_embedded
from camlink.pipeline.config import SiteConfig
from camlink.pipeline.records import Decision, FrameResult, Picture, Record
from camlink.pipeline.testing import TinyModel, make_frames
from tests.scenes import crowd

PIXELS = np.zeros((2, 2, 3), np.uint8)
RIGHT_FROM = 300  # the first frame that has its own time again
AHEAD = range(280, RIGHT_FROM)


def run(ahead: timedelta, policy: str) -> list[Record]:
    frames = [replace(frame, picture=PIXELS) for frame in make_frames("hall", 700)]
    frames = [replace(f, captured_at=f.captured_at + ahead) if f.index in AHEAD else f for f in frames]
    models = [TinyModel.count("objects", lambda f: [crowd(f), 1], size=2), TinyModel.count("persons", crowd)]
    config = SiteConfig(
        models="building",
        policy=policy,  # type: ignore[arg-type]
        period=timedelta(minutes=2),
        links={"bootstrap_frames": 60, "min_train_frames": 60},  # type: ignore[arg-type]
        audit={"fraction": 0.1},  # type: ignore[arg-type]
        adaptation={"policy": "periodic", "interval": "1min", "frames": 3},  # type: ignore[arg-type]
        budgets={"time_share": 0.5},  # type: ignore[arg-type]
    )
    records: list[Record] = []
    cameras = {"hall": CameraFacts(1.0)}
    build_embedded(config, ModelPool(models), cameras, records.extend, encode_picture=lambda f: b"x").run(frames)
    return records


def happened(records: list[Record]) -> dict[str, int]:
    """Count what happened once the clock was right."""
    late = [r for r in records if isinstance(r, FrameResult | Picture) and r.frame_index >= RIGHT_FROM]
    kinds = [r.purpose if isinstance(r, FrameResult) else f"picture, {r.purpose}" for r in late]
    begun = make_frames("hall", 1, first=RIGHT_FROM)[0].captured_at
    decisions = [r for r in records if isinstance(r, Decision) and begun <= r.start < begun + timedelta(hours=1)]
    return {kind: kinds.count(kind) for kind in kinds} | {"decisions": len(decisions)}


@pytest.mark.parametrize("policy", ["mlink", "camlink", "all"])
def test_all_goes_on_as_if_the_clock_had_been_right(policy: str) -> None:
    usual, after = happened(run(timedelta(), policy)), happened(run(timedelta(days=4000), policy))
    assert usual["picture, serve"] > 20 and usual["decisions"] == 3 and (policy != "mlink" or usual["relabel"] > 10)
    for kind, count in usual.items():  # one period is profiled again
        assert abs(after.get(kind, 0) - count) <= 10, (kind, usual, after)
