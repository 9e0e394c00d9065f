"""docs/scaling.md states what its arithmetic gives, and the arithmetic follows the code's own constants."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.sizing import SIZES, Assumed, Measured, needs, table
from camlink.operators.inference import OUTPUT_TTL_S
from camlink.operators.relabelling import MOST_RELABELLED
from camlink.pipeline.bus.kafka_topics import RETENTION_MS
from camlink.pipeline.config import SiteConfig


def test_the_page_holds_the_table_that_the_script_prints(repository: Path) -> None:
    page = (repository / "docs/scaling.md").read_text()
    assert table() in page, "run `python -m benchmarks.sizing` and put its table into docs/scaling.md"


def test_the_page_says_what_was_measured_and_what_was_assumed(repository: Path) -> None:
    page = (repository / "docs/scaling.md").read_text()
    measured, assumed = Measured(), Assumed()
    for figure in (*dict(measured.cpu_us).values(), measured.jpeg_bytes, measured.outputs_bytes, measured.links_per_s):
        assert f"{figure:,.0f}" in page
    for figure in (assumed.gpu_ms, assumed.time_share, assumed.audit):
        assert f"{figure:g}" in page


def test_assumptions_that_the_code_decides_are_the_codes() -> None:
    assumed, site = Assumed(), SiteConfig(models="building", policy="mlink")
    assert assumed.outputs_ttl_s == OUTPUT_TTL_S
    assert assumed.frames_kept_s * 1000 == RETENTION_MS["frames"]
    assert assumed.profile == site.profile_frames[0]
    assert assumed.audit == site.audit.fraction
    interval_s = site.adaptation.interval.total_seconds()
    assert assumed.relabel == pytest.approx(site.adaptation.frames / interval_s, abs=1e-3)
    assert assumed.relabel <= MOST_RELABELLED
    assert assumed.retrain_frames == site.links.history_frames // 5


def test_needs_grow_with_cameras_and_fall_with_the_time_share() -> None:
    found = [needs(cameras, Measured(), Assumed()) for cameras in SIZES]
    assert [n.gpus for n in found] == sorted(n.gpus for n in found)
    assert found[-1].redis_mb == pytest.approx(2000 * found[0].redis_mb)
    saving = needs(1000, Measured(), Assumed(time_share=0.2))
    assert saving.gpus < needs(1000, Measured(), Assumed(time_share=1.0)).gpus
    assert needs(1000, Measured(), Assumed(time_share=1.0)).executed == pytest.approx(1.0)
