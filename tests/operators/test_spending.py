"""Spending audits where intervals are wide: more where doubt is, never more than the share in all, chances recorded."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camlink.operators.certificates import Ledger
from camlink.operators.evidence import Certificate, certify
from camlink.operators.spending import LEAST, MOST, AuditAccount
from camlink.pipeline.records import Decision, Frame, FrameResult
from camlink.pipeline.testing import TinyModel, make_frames, run_frames
from tests.scenes import crowd

NARROW, WIDE = Certificate(0.99, 0.98, 1.0, 900, 9000), Certificate(0.7, 0.4, 0.9, 20, 900)


def test_narrow_intervals_save_and_wide_ones_spend_what_was_saved() -> None:
    account = AuditAccount(0.02)
    assert account.next_share([]) == account.next_share([WIDE]) == 0.02  # nothing was saved yet
    for _ in range(1000):
        account.observe(0.02)
    frugal = account.next_share([NARROW])
    assert frugal == pytest.approx(0.02 * LEAST)
    for _ in range(1000):
        account.observe(frugal)
    assert account.next_share([NARROW, WIDE]) == pytest.approx(0.02 + 0.015)


@given(st.lists(st.tuples(st.integers(0, 500), st.sampled_from([NARROW, WIDE])), min_size=1, max_size=60))
def test_no_camera_is_audited_beyond_its_share_but_for_a_period_that_grew(periods) -> None:
    account, spent, frames, longest = AuditAccount(0.05), 0.0, 0, 0
    for count, certificate in periods:
        chance = account.next_share([certificate])
        assert 0.05 * LEAST <= chance <= 0.05 * MOST
        for _ in range(count):
            account.observe(chance)
        spent, frames, longest = spent + count * chance, frames + count, max(longest, count)
    assert spent <= 0.05 * frames + 0.05 * MOST * longest


def test_a_run_records_the_chances_it_used_and_its_certificate_stays_true() -> None:
    def bags(frame: Frame) -> int:
        return crowd(frame) // 2 if frame.index % 1500 < 900 else 9

    models = [
        TinyModel.count("objects", lambda f: [crowd(f), f.index % 2], size=2),
        TinyModel.count("persons", crowd),
        TinyModel.count("bags", bags),
    ]
    records = run_frames(
        make_frames("hall", 4000),
        models,
        period=timedelta(minutes=5),
        links={"bootstrap_frames": 60, "min_train_frames": 60},
        audit={"fraction": 0.1, "spend": "widest"},
        adaptation={"policy": "off"},
        budgets={"time_share": 0.4},
        policy="mlink-exact",
    )
    shares = [r.audit_share for r in records if isinstance(r, Decision)]
    assert len(set(shares)) > 2
    ledger, right = Ledger({m.spec.model: m.spec for m in models}, timedelta(days=1)), []
    frames = make_frames("hall", 4000)
    for record in records:
        if not isinstance(record, FrameResult) or record.purpose not in ("serve", "audit"):
            continue
        ledger.observe(record)
        assert record.audit_probability in shares or record.audit_probability == 0.1
        said = [o for o in record.outputs if o.model == "bags" and o.how == "linked" and o.value is not None]
        right += [abs(float(o.value[0]) - bags(frames[o.frame_index])) < 0.5 for o in said]  # type: ignore[index]
    found = certify(ledger.evidence(model="bags"))
    assert found.frames == len(right)
    assert found.low is not None and found.low <= np.mean(right) <= (found.high or 0.0)
    assert found.audits / found.frames < 0.12
