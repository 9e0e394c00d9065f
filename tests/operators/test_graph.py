"""The operators together, on models whose outputs are known: conservation, honesty, determinism, learning."""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camlink.models.base import Inference
from camlink.models.pool import ModelPool
from camlink.pipeline.assembly import CameraFacts, build_embedded, check_budgets, pool_of
from camlink.pipeline.config import SiteConfig
from camlink.pipeline.embedded import ticks
from camlink.pipeline.errors import ConfigError, ModelError
from camlink.pipeline.records import (
    AdaptationEvent,
    Decision,
    Frame,
    FrameDropped,
    FrameResult,
    LinkPromotion,
    Record,
)
from camlink.pipeline.testing import START, TinyModel, make_frames, outputs, run_frames
from tests.scenes import USUAL, crowd

RULES = USUAL | {"policy": "mlink-exact"}


def models(**more: object) -> list[TinyModel]:
    return [
        TinyModel.count("objects", lambda f: [crowd(f), f.index % 2], size=2),
        TinyModel.count("persons", crowd),
        TinyModel.count("bags", lambda f: crowd(f) // 2, **more),  # type: ignore[arg-type]
    ]


def served_per_frame(records: list) -> Counter:  # type: ignore[type-arg]
    return Counter((o.camera_id, o.frame_index, o.model) for o in outputs(records))


def test_every_frame_has_exactly_one_served_output_per_model() -> None:
    records = run_frames(make_frames("hall", 500), models(), **RULES)
    counts = served_per_frame(records)
    assert len(counts) == 500 * 3
    assert set(counts.values()) == {1}


def test_linked_outputs_are_right_where_links_can_know() -> None:
    frames = make_frames("hall", 600)
    records = run_frames(frames, models(), **RULES)
    linked = [o for o in outputs(records) if o.how == "linked" and o.model in ("persons", "bags")]
    assert len(linked) > 500
    truth = {"persons": crowd, "bags": lambda f: crowd(f) // 2}
    right = [abs(float(o.value[0]) - truth[o.model](frames[o.frame_index])) < 0.5 for o in linked]  # type: ignore[index]
    assert np.mean(right) > 0.8
    assert all(o.sources and o.link_version and 0 <= (o.confidence or 0) <= 1 for o in linked)


def test_audit_frames_serve_the_truth_and_keep_the_guess_beside_it() -> None:
    records = run_frames(make_frames("hall", 600), models(), **RULES)
    audits = [r for r in records if isinstance(r, FrameResult) and r.purpose == "audit"]
    assert len(audits) > 20
    for result in audits:
        served = [o for o in result.outputs if o.served]
        shadows = [o for o in result.outputs if not o.served]
        assert {o.model for o in served} == {"objects", "persons", "bags"}
        assert {o.how for o in served} == {"executed"}
        assert {o.how for o in shadows} == {"linked"}
        for shadow in shadows:
            assert shadow.model not in shadow.sources
            assert shadow.audit_probability == 0.1


def test_shadow_guesses_use_only_what_would_have_been_executed() -> None:
    records = run_frames(make_frames("hall", 600), models(), **RULES)
    decisions = [r for r in records if isinstance(r, Decision)]
    for shadow in outputs(records, served=False):
        in_force = [d for d in decisions if d.start <= shadow.captured_at][-1]
        assert set(shadow.sources) <= set(in_force.execute)


def test_decisions_stay_in_budget_and_give_a_reason() -> None:
    records = run_frames(make_frames("hall", 1300), models(time_ms=30.0), **RULES)
    decisions = [r for r in records if isinstance(r, Decision)]
    assert len(decisions) == 5  # one per period
    for decision in decisions:
        assert decision.budget["time_share_used"] <= 0.4
        assert set(decision.execute) | set(decision.predict) == {"objects", "persons", "bags"}
        assert "predicts" in decision.reason
        assert "judged on" in decision.reason


def test_two_runs_with_one_seed_are_identical_and_another_seed_audits_others() -> None:
    def rows(seed: int) -> list:  # type: ignore[type-arg]
        records = run_frames(make_frames("hall", 400), models(), seed=seed, **RULES)
        return [
            (o.frame_index, o.model, o.how, o.purpose, o.served, tuple(o.value) if o.value is not None else None)  # type: ignore[arg-type]
            for o in outputs(records, served=None)
        ]

    assert rows(0) == rows(0)
    assert {r[0] for r in rows(0) if r[3] == "audit"} != {r[0] for r in rows(1) if r[3] == "audit"}


def test_two_cameras_in_one_batch_are_served_as_if_alone() -> None:
    hall, yard = make_frames("hall", 300), make_frames("yard", 300, start=START + timedelta(milliseconds=300))
    mixed = sorted(hall + yard, key=lambda f: f.captured_at)

    def of_hall(records: list) -> list:  # type: ignore[type-arg]
        return [(o.frame_index, o.model, o.how, float(o.value[0])) for o in outputs(records) if o.camera_id == "hall"]  # type: ignore[index]

    alone = of_hall(run_frames(hall, models(), **RULES))
    assert of_hall(run_frames(mixed, models(), tick=2, **RULES)) == alone
    assert of_hall(run_frames(mixed, models(), tick=1, **RULES)) == alone


def test_a_model_that_fails_is_told_of_once_until_it_has_run_again(caplog: pytest.LogCaptureFixture) -> None:
    broken = frozenset(range(10, 40)) | {60}
    run_frames(make_frames("hall", 80), models(fails_on=broken), **{**RULES, "policy": "all"})
    told = [r.getMessage() for r in caplog.records if "fails on frame" in r.getMessage()]
    assert [text.partition(":")[0] for text in told] == [f'camera "hall", from frame {i} on' for i in (10, 60)]


def test_a_model_that_fails_leaves_an_abstention_with_its_reason_and_the_others_unharmed() -> None:
    broken = frozenset(range(100, 120))
    records = run_frames(make_frames("hall", 300), models(fails_on=broken), **{**RULES, "policy": "all"})
    assert set(served_per_frame(records).values()) == {1}
    abstained = [o for o in outputs(records) if o.how == "abstained"]
    assert {o.frame_index for o in abstained} == set(broken)
    assert {o.model for o in abstained} == {"bags"}
    assert all("fails on frame" in (o.reason or "") for o in abstained)


def test_a_budget_too_small_for_any_model_abstains_and_says_so() -> None:
    records = run_frames(make_frames("hall", 200), models(), **{**RULES, "budgets": {"time_share": 0.01}})
    decision = next(r for r in records if isinstance(r, Decision))
    assert decision.execute == ()
    assert "no model fits the budget" in decision.reason
    served = [o for o in outputs(records) if o.purpose == "serve"]
    assert {o.how for o in served} == {"abstained"}
    assert all(o.reason for o in served)


def test_standalone_predicts_nothing() -> None:
    records = run_frames(make_frames("hall", 200), models(), **{**RULES, "policy": "standalone"})
    hows = Counter(o.how for o in outputs(records) if o.purpose == "serve")
    assert set(hows) == {"executed", "abstained"}


def test_one_model_alone_is_always_executed_whatever_the_budget() -> None:
    records = run_frames(make_frames("hall", 120), models()[:1], **RULES)
    assert {o.how for o in outputs(records)} == {"executed"}


def test_models_that_do_not_fit_together_are_loaded_in_turn_within_the_memory_budget() -> None:
    tiny = models()
    peak = 0

    def watched(model: TinyModel) -> TinyModel:
        inner = model.function

        def function(frame: Frame) -> object:
            nonlocal peak
            peak = max(peak, sum(m.loaded for m in tiny))
            return inner(frame)

        model.function = function
        return model

    for model in tiny:
        watched(model)
    records = run_frames(make_frames("hall", 500), tiny, **{**RULES, "budgets": {"memory_gb": 1.5}})
    assert peak == 1
    assert set(served_per_frame(records).values()) == {1}
    assert len(served_per_frame(records)) == 1500
    assert all(len(r.loaded) == 1 for r in records if isinstance(r, Decision))
    audits = [r for r in records if isinstance(r, FrameResult) and r.purpose == "audit"]
    assert all(len(r.executed()) == 3 for r in audits)


def test_what_a_policy_neither_executes_nor_predicts_is_an_abstention_on_audit_frames_too() -> None:
    records = run_frames(make_frames("hall", 300), models(), **{**RULES, "policy": "standalone"})
    decision = next(r for r in records if isinstance(r, Decision))
    left = {"objects", "persons", "bags"} - set(decision.execute)
    audits = [r for r in records if isinstance(r, FrameResult) and r.purpose == "audit"]
    assert left and audits
    for result in audits:
        shadows = {o.model: o.how for o in result.outputs if not o.served}
        assert shadows == dict.fromkeys(left, "abstained")


def test_one_bad_frame_harms_no_other_camera_in_its_batch() -> None:
    tiny = models()
    inner = tiny[0].run

    def run(frames: Sequence[Frame]) -> list[Inference]:
        if any(f.camera_id == "yard" and f.index == 77 for f in frames):
            raise ModelError("yard 77 is broken")
        return inner(frames)

    tiny[0].run = run  # type: ignore[method-assign]
    hall, yard = make_frames("hall", 150), make_frames("yard", 150)
    mixed = sorted(hall + yard, key=lambda f: (f.captured_at, f.camera_id))
    records = run_frames(mixed, tiny, tick=2, **{**RULES, "policy": "all"})
    abstained = [(o.camera_id, o.frame_index, o.reason) for o in outputs(records) if o.how == "abstained"]
    assert abstained == [("yard", 77, "yard 77 is broken")]


def test_after_a_stop_every_frame_that_was_read_is_accounted_for() -> None:
    config = SiteConfig(models="building", **RULES)
    records: list[Record] = []
    frames = make_frames("hall", 100)
    pipeline = build_embedded(config, ModelPool(models()), {"hall": CameraFacts(1.0)}, records.extend)
    read = 0

    def readings() -> Iterator[Frame]:
        nonlocal read
        for frame in frames[:63]:  # the source ends once it was told to stop
            read += 1
            yield frame

    pipeline.run(readings(), stop=lambda: read > 60)
    dropped = [r for r in records if isinstance(r, FrameDropped)]
    assert {r.reason for r in dropped} == {"stopped"}
    for model in ("objects", "persons", "bags"):
        assert sum(o.model == model for o in outputs(records)) + sum(r.count for r in dropped) == read == 63


def test_a_pause_among_live_frames_lets_what_has_come_through() -> None:
    hall, yard = make_frames("hall", 2), make_frames("yard", 1)
    assert [len(t) for t in ticks([hall[0], None, yard[0], hall[1], None, None], size=16)] == [1, 2]


def test_a_slow_camera_is_not_relabelled_away() -> None:
    """At one frame a minute, 50 frames every 10 minutes would be all of them."""
    adaptation = {"policy": "periodic", "interval": timedelta(minutes=10), "frames": 50}
    rules = {**RULES, "adaptation": adaptation, "period": timedelta(days=1)}
    records = run_frames(make_frames("hall", 600, fps=1 / 60), models(), fps=1 / 60, **rules)
    relabelled = {o.frame_index for o in outputs(records, served=False) if o.purpose == "relabel"}
    assert 20 < len(relabelled) <= 60


def test_a_short_history_never_keeps_links_from_being_learnt() -> None:
    links = {"bootstrap_frames": 100, "min_train_frames": 10, "history_frames": 60}
    records = run_frames(make_frames("hall", 300), models(), **{**RULES, "links": links})
    assert any(isinstance(r, LinkPromotion) for r in records)


@pytest.mark.parametrize("policy", ["periodic", "uncertainty"])
def test_relabelled_frames_train_links_but_are_served_only_once(policy: str) -> None:
    adaptation = {
        "policy": policy,
        "interval": timedelta(seconds=60),
        "frames": 5,
        "label_fraction": 0.1,
        "confidence_threshold": 0.99,
        "retrain_after_frames": 20,
        "shadow_frames": 10,
    }
    records = run_frames(make_frames("hall", 900), models(), **{**RULES, "adaptation": adaptation})
    assert set(served_per_frame(records).values()) == {1}
    relabelled = [o for o in outputs(records, served=False) if o.purpose == "relabel"]
    assert relabelled
    assert {o.how for o in relabelled} == {"executed"}
    share = len({o.frame_index for o in relabelled}) / 900
    assert share <= 0.11
    assert any(isinstance(r, AdaptationEvent) and r.kind == "trained" and r.version > 1 for r in records)


def test_links_relearn_after_the_scene_has_changed() -> None:
    """From frame 600 on, each object comes with two bags instead of half a one: the old link is wrong everywhere."""

    def bags(frame: Frame) -> int:
        return crowd(frame) // 2 if frame.index < 600 else 2 * crowd(frame)

    tiny = [*models()[:2], TinyModel.count("bags", bags)]
    adaptation = {"policy": "periodic", "interval": timedelta(seconds=60), "frames": 10}
    adaptation |= {"retrain_after_frames": 30, "shadow_frames": 10}
    links = {"bootstrap_frames": 40, "min_train_frames": 40, "history_frames": 150}
    frames = make_frames("hall", 3000)
    records = run_frames(frames, tiny, **{**RULES, "adaptation": adaptation, "links": links})

    def share_right(first: int, last: int) -> float:
        rows = [o for o in outputs(records) if o.model == "bags" and o.how == "linked"]
        rows = [o for o in rows if first <= o.frame_index < last]
        return float(np.mean([abs(float(o.value[0]) - bags(frames[o.frame_index])) < 0.5 for o in rows]))  # type: ignore[index]

    assert share_right(620, 700) < 0.5
    assert share_right(2000, 3000) > 0.75
    promoted = [r for r in records if isinstance(r, AdaptationEvent) and r.kind == "promoted" and r.target == "bags"]
    assert len(promoted) >= 2
    assert all(isinstance(r.version, int) for r in records if isinstance(r, LinkPromotion))


@settings(max_examples=15)
@given(
    st.sets(st.integers(0, 199), max_size=60),
    st.sampled_from(["mlink", "mlink-exact", "standalone", "all"]),
    st.sampled_from(["off", "periodic", "uncertainty"]),
    st.sets(st.integers(0, 199), max_size=30),
)
def test_the_conservation_law_holds_whatever_is_dropped_or_fails(
    gone: set[int], policy: str, adaptation: str, broken: set[int]
) -> None:
    readings = [
        FrameDropped("hall", f.index, 1, f.captured_at, "overload") if f.index in gone else f
        for f in make_frames("hall", 200)
    ]
    rules = {**RULES, "policy": policy, "adaptation": {"policy": adaptation, "interval": timedelta(seconds=30)}}
    records = run_frames(readings, models(fails_on=frozenset(broken)), **rules)
    dropped = sum(r.count for r in records if isinstance(r, FrameDropped))
    for model in ("objects", "persons", "bags"):
        served = Counter(o.how for o in outputs(records) if o.model == model)
        assert served.total() + dropped == 200
    assert set(served_per_frame(records).values()) <= {1}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"policy": "mlink", "budgets": {"time_share": 0.2}},
            r"cheapest model, objects, takes 10.0 of 30.0 ms; give at least 0.34",
        ),
        ({"budgets": {"latency_ms": 9.0}}, r"9 ms leaves no model time: the cheapest, objects, takes 10\.0 ms"),
        ({"policy": "all", "budgets": {"latency_ms": 29.0}}, r"policy all executes all models .* 30\.0 ms, but 29 ms"),
        ({"policy": "all", "budgets": {"memory_gb": 2.5}}, "policy all holds all models at once, 3.00 GB"),
        ({"budgets": {"memory_gb": 0.5}}, "the largest model, objects, takes 1 GB by itself, but 0.5 is allowed"),
    ],
)
def test_budgets_that_leave_nothing_are_refused_before_anything_runs(settings: dict, message: str) -> None:  # type: ignore[type-arg]
    config = SiteConfig(models="building", **settings)
    with pytest.raises(ConfigError, match=message):
        check_budgets(config, pool_of(config, models()))
