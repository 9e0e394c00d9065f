"""Online training at a label budget: who learns when the scene changes, at what number of labels."""

from __future__ import annotations

import numpy as np
import pytest

from camlink.models.trace_arrays import CameraTrace
from camlink.pipeline.errors import TraceError
from camlink.pipeline.lab.online import STRATEGIES, Adapted, Strategy, adapt
from tests.lab_traces import trace_of

FRAMES, SHARE, SEGMENTS, TURN = 6000, 0.03, 10, 2000


def turning(seed: int = 0) -> CameraTrace:
    """The target says what the source says, and from `TURN` on the opposite."""
    source = np.random.default_rng(seed).integers(0, 2, FRAMES)
    target = np.where(np.arange(FRAMES) < TURN, source, 1 - source)
    return trace_of({"source": source, "target": target}, {"source": 1.0, "target": 1.0}).cameras[0]


@pytest.fixture(scope="module")
def reached() -> dict[Strategy, Adapted]:
    camera = turning()
    return {s: adapt(camera, "source", "target", s, share=SHARE, segments=SEGMENTS) for s in STRATEGIES}


def test_no_strategy_labels_more_than_its_budget(reached: dict[Strategy, Adapted]) -> None:
    assert {s: r.labels <= SHARE * FRAMES for s, r in reached.items()} == dict.fromkeys(STRATEGIES, True)
    assert reached["offline"].labels == reached["periodic"].labels == SHARE * FRAMES


def test_what_is_learnt_once_is_wrong_after_the_turn(reached: dict[Strategy, Adapted]) -> None:
    assert min(reached["offline"].agreement[:3]) > 0.95
    assert max(reached["offline"].agreement[-3:]) < 0.05


def test_forgetting_at_a_found_drift_relearns_soonest(reached: dict[Strategy, Adapted]) -> None:
    assert reached["drift"].drifts and min(reached["drift"].drifts) >= 3
    assert reached["drift"].agreement[7] > 0.95 > reached["periodic"].agreement[7]
    assert reached["drift"].mean > reached["periodic"].mean > reached["offline"].mean


def test_a_segment_is_scored_before_its_labels_are_learnt(reached: dict[Strategy, Adapted]) -> None:
    turn = int((TURN - SHARE * FRAMES) / (FRAMES * (1 - SHARE)) * SEGMENTS) + 1  # the first segment wholly after it
    assert all(result.agreement[turn] < 0.6 for result in reached.values())


def test_too_small_a_budget_is_refused() -> None:
    with pytest.raises(TraceError, match=r"0\.1% of 6000 frames are 6 labels"):
        adapt(turning(), "source", "target", "periodic", share=0.001)
