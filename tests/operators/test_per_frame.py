"""The per-frame policy: freshness, belief, worth and what they decide together."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import exp, inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camlink.models.base import OutputSpec
from camlink.operators import per_frame
from camlink.operators.freshness import KEPT, Freshness, Passed
from camlink.operators.known_model import belief_of
from camlink.operators.leveled import Leveled
from camlink.operators.per_frame import PerFrame
from camlink.operators.policy import FrameFacts, PolicySetup
from camlink.operators.policy_state import pack, unpack
from camlink.operators.scene import Scene
from camlink.operators.selection import Budget, Costs
from camlink.operators.worth import AGES, Outlook, Prices
from camlink.pipeline.records import FrameStats, Value

COUNT = OutputSpec("people", "vector", 2, "count")
LABEL = OutputSpec("weather", "vector", 3, "single_label")


def value(*numbers: float) -> Value:
    return np.array(numbers, np.float32)


def learnt(change_rate: float, noise: float, pairs: int = 400) -> Freshness:
    """Return the freshness of a two-valued output that changes at ``change_rate`` a step and is read with noise."""
    rng, freshness = np.random.default_rng(3), Freshness()
    for _ in range(pairs):
        age = int(rng.integers(1, 33))
        gone = rng.random() < 1.0 - (1.0 - change_rate) ** age or rng.random() < noise
        freshness.observe(Passed(age, age), 0.5, float(gone and rng.random() < 0.5))
    freshness.fit(40)
    return freshness


def test_freshness_finds_how_fast_outputs_change() -> None:
    slow, fast = learnt(0.005, 0.0), learnt(0.2, 0.0)
    assert slow.gone(Passed(4, 4)) < 0.1 < 0.4 < fast.gone(Passed(4, 4))
    assert fast.gone(Passed(4, 4)) == pytest.approx(1 - 0.8**4, abs=0.15)


def test_freshness_tells_noise_from_change() -> None:
    noisy = learnt(0.005, 0.5)
    assert noisy.steady == pytest.approx(0.5, abs=0.15)
    assert noisy.gone(Passed(1, 1)) < 0.15


def test_freshness_forgets_all_but_its_last_samples() -> None:
    rng = np.random.default_rng(9)
    rows = [(Passed(float(a), float(a)), 0.5, float(y)) for a, y in rng.integers(0, (9, 2), (3 * KEPT + 7, 2))]
    seen, late = Freshness(), Freshness()
    for row in rows:
        seen.observe(*row)
    for row in rows[-KEPT:]:
        late.observe(*row)
    seen.fit(5)
    late.fit(5)
    assert seen.gone(Passed(3.0, 1.0)) == late.gone(Passed(3.0, 1.0))
    assert (seen.steady, seen.new) == (late.steady, 0)


def test_freshness_learns_that_movement_matters() -> None:
    rng, freshness = np.random.default_rng(5), Freshness()
    for _ in range(400):
        moved = float(rng.integers(0, 2)) * 10.0
        freshness.observe(Passed(4.0, moved), 0.5, float(moved > 0 and rng.random() < 0.5))
    freshness.fit(40)
    assert freshness.gone(Passed(4, 0)) < 0.2 < 0.7 < freshness.gone(Passed(4, 10))


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0.5, 1e6), st.floats(0, 1e6), st.floats(0, 1)), min_size=1, max_size=30))
def test_freshness_stays_a_probability_that_falls_with_age(seen: list[tuple[float, float, float]]) -> None:
    freshness = Freshness()
    for age, activity, disagreed in seen:
        freshness.observe(Passed(age, activity), 0.3, disagreed)
    freshness.fit(5)
    gone = [freshness.gone(Passed(age, age)) for age in (0.0, 1.0, 10.0, 1e3, 1e9)]
    assert gone[0] >= 0.0 and gone[-1] <= 1.0
    assert all(a <= b + 1e-12 for a, b in pairwise(gone))


def test_a_stale_rare_value_gives_way_to_the_usual_one() -> None:
    belief = Leveled(COUNT)
    for _ in range(50):
        belief.take(value(0, 3))
    belief.take(value(2, 3))
    fresh, stale = belief.guess(0.9), belief.guess(0.05)
    assert fresh.value.tolist() == [2, 3] and fresh.stays
    assert stale.value.tolist() == [0, 3] and not stale.stays
    assert 0.0 < fresh.wrong < stale.wrong < 0.5


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=40), st.floats(0.0, 1.0))
def test_a_guess_is_the_most_probable_of_what_is_believed(said: list[tuple[int, int]], fresh: float) -> None:
    belief = Leveled(COUNT)
    for counts in said:
        belief.take(value(*counts))
    guess, settled = belief.guess(fresh), belief.settle(belief.chances(fresh), fresh)
    assert guess.wrong == pytest.approx(settled.wrong, abs=1e-9)
    assert belief.chances(fresh).sum(axis=1) == pytest.approx(1.0)
    assert guess.reading.tolist() == guess.value.tolist()
    chances = belief.chances(fresh)
    assert chances[[0, 1], guess.reading] == pytest.approx(chances.max(axis=1), abs=1e-9)


def test_a_label_is_served_as_it_was_last_executed() -> None:
    belief = Leveled(LABEL)
    for _ in range(20):
        belief.take(value(0.7, 0.2, 0.1))
    belief.take(value(0.3, 0.4, 0.3))
    assert belief.guess(1.0).value.tolist() == pytest.approx([0.3, 0.4, 0.3])
    assert belief.guess(0.0).value.tolist() == pytest.approx([0.7, 0.2, 0.1])


def test_counts_never_seen_before_are_told_apart() -> None:
    belief = Leveled(COUNT)
    belief.take(value(0, 0))
    belief.take(value(40, 1))
    assert belief.guess(1.0).value.tolist() == [40, 1]
    assert belief.disagreement(belief.read(value(40, 1)), belief.read(value(41, 1))) == 0.5


def test_an_output_of_another_size_is_refused() -> None:
    belief = Leveled(COUNT)
    with pytest.raises(ValueError, match=r"an output of shape \(3,\), expected \(2,\)"):
        belief.take(value(1, 2, 3))


@given(
    st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.floats(0.05, 0.999), st.floats(1e-4, 3.0), st.floats(0.0, 0.999999)
)
def test_worth_is_at_least_the_present_gain_and_finite(
    stale: float, renewed: float, steady: float, hazard: float, gone: float
) -> None:
    wrong = (1 - steady * (1 - gone)) * stale
    worth = Outlook(stale, renewed, steady, hazard, 10.0).worth(wrong, gone)
    assert wrong <= worth < inf


@given(st.floats(0.0, 0.99), st.floats(0.01, 0.99), st.floats(0.05, 0.999), st.floats(1e-4, 3.0))
def test_worths_by_age_are_the_worth_at_each_age(stale: float, renewed: float, steady: float, hazard: float) -> None:
    outlook, highest = Outlook(stale, renewed, steady, hazard, 10.0), 0.0
    for age, worth in zip(AGES, outlook.worths(), strict=True):
        highest = max(highest, outlook.worth(outlook.wrong_at(age), 1.0 - exp(-min(hazard * age, 13.0))))
        assert worth == pytest.approx(highest, rel=1e-6, abs=1e-9)


def test_what_changes_slowly_is_worth_more_than_what_flickers() -> None:
    slow = Outlook(stale=0.5, renewed=0.5, steady=1.0, hazard=0.02, time_ms=10)
    flicker = Outlook(stale=0.5, renewed=0.5, steady=0.4, hazard=0.02, time_ms=10)
    age = 20
    gone = 1 - np.exp(-0.02 * age)
    assert slow.worth(slow.wrong_at(age), gone) > flicker.worth(slow.wrong_at(age), gone)


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.9])
def test_prices_use_the_budget_up_and_not_more(share: float) -> None:
    outlooks = [Outlook(0.5, 0.5, 0.95, h, ms) for h, ms in ((0.3, 10.0), (0.03, 30.0), (0.003, 60.0))]
    prices, limit = Prices(outlooks), share * 100.0
    intervals = prices.intervals(prices.for_time(limit))
    assert 0.8 * limit <= sum(o.time_ms / i for o, i in zip(outlooks, intervals, strict=True)) <= limit


def test_a_higher_target_sets_a_lower_price() -> None:
    prices = Prices([Outlook(0.5, 0.5, 0.98, 0.05, 10.0), Outlook(0.2, 0.2, 0.98, 0.01, 30.0)])
    found = [prices.for_agreement(target) for target in (0.8, 0.9, 0.95)]
    assert found == sorted(found, reverse=True)
    assert len(AGES) == len(set(AGES))


def test_a_scene_counts_time_in_its_own_steps() -> None:
    scene = Scene()
    moments = [scene.add(FrameFacts(i, t, FrameStats(0.02, 0.1, 90.0))) for i, t in enumerate((0, 2, 4, 6, 36, 38))]
    steps = [b.since(a).age for a, b in pairwise(moments)]
    assert steps[1:3] == [1.0, 1.0]
    assert steps[3] == pytest.approx(15.0)
    assert moments[2].since(moments[1]).activity == pytest.approx(1.0)


def test_a_frame_without_statistics_is_like_the_one_before() -> None:
    scene = Scene()
    for i in range(50):
        scene.add(FrameFacts(i, i, FrameStats(0.02, 0.1 + 0.01 * (i % 2), 90.0)))
    before = scene.now
    unknown = scene.add(FrameFacts(50, 50, None))
    assert unknown.since(before) == (1.0, 1.0, 0.0, 0.0)


def camera(frames: int = 600, seed: int = 0) -> tuple[list[FrameFacts], dict[str, list[Value]]]:
    """Return a scene in which `people` changes now and then, with movement, and `weather` never."""
    rng = np.random.default_rng(seed)
    facts, people, count = [], [], 1
    for i in range(frames):
        moves = rng.random() < 0.05
        count = int(rng.integers(0, 5)) if moves else count
        facts.append(FrameFacts(i, i * 0.5, FrameStats(0.3 if moves else 0.01, 0.1, 90.0)))
        people.append(value(count, 0))
    return facts, {"people": people, "weather": [value(1, 0, 0)] * frames}


def setup(share: float | None, target: float | None = None) -> PolicySetup:
    costs = Costs({"people": 40.0, "weather": 10.0}, {"people": 1.0, "weather": 1.0})
    return PolicySetup(
        "hall", {"people": COUNT, "weather": LABEL}, costs, Budget(None, share), 0, target_agreement=target
    )


def play(policy: PerFrame, frames: int = 600) -> tuple[float, dict[str, list[int]]]:
    """Return the agreement on `people` after 60 frames of warm-up, and when each model executed."""
    facts, outputs = camera(frames)
    agreed, ran = [], dict[str, list[int]](people=[], weather=[])
    for i, frame in enumerate(facts):
        policy.begin(frame)
        if i < 60:
            policy.learn({m: v[i] for m, v in outputs.items()}, chosen=False)
            continue
        executed: dict[str, Value] = {}
        while (model := policy.choose(executed)) is not None:
            assert model not in executed
            executed[model] = outputs[model][i]
            ran[model].append(i)
        answers = policy.answer(executed)
        served = executed.get("people", answers["people"].value if "people" in answers else value(-1, -1))
        agreed.append(float((served == outputs["people"][i]).all()))
        policy.learn(executed, chosen=True)
    return float(np.mean(agreed)), ran


def test_it_executes_when_the_scene_moves() -> None:
    agreement, ran = play(PerFrame(setup(0.15)))
    moved = {f.index for f in camera()[0][60:] if f.stats is not None and f.stats.pixel_change > 0.1}
    assert len(moved & set(ran["people"])) >= 0.8 * len(moved)
    assert agreement > 0.97
    assert len(ran["weather"]) < 0.1 * 540  # it never changes


def test_from_its_priors_it_soon_executes_each_model_and_answers_only_from_then_on() -> None:
    policy, (facts, outputs) = PerFrame(setup(0.3)), camera()
    ran: list[str] = []
    for i, frame in enumerate(facts[:40]):
        policy.begin(frame)
        executed: dict[str, Value] = {}
        while (model := policy.choose(executed)) is not None:
            executed[model] = outputs[model][i]
            ran.append(model)
        assert set(policy.answer(executed)) == set(ran) - set(executed)
        policy.learn(executed, chosen=True)
        if i == 6:  # 0.3 of two models: each was paid for by now
            assert set(ran) == {"people", "weather"}
    assert len(ran) > 6, "it learns on"


def test_a_model_that_looked_hopeless_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    costs = Costs({"people": 10.0, "weather": 40.0}, {"people": 1.0, "weather": 1.0})
    rng = np.random.default_rng(2)
    labels, people = np.eye(3, dtype=np.float32)[rng.integers(0, 3, 500)], rng.integers(0, 3, (500, 2))

    def executes() -> list[int]:
        policy, ran = PerFrame(replace(setup(0.15), costs=costs)), []
        for i in range(500):
            said = {"people": value(*people[i]), "weather": labels[i]}
            policy.begin(FrameFacts(i, float(i)))
            executed: dict[str, Value] = said if i < 60 else {}
            while i >= 60 and (model := policy.choose(executed)) is not None:
                executed[model] = said[model]
                ran += [i] if model == "weather" else []
            policy.learn(executed, chosen=i >= 60)
        return ran

    assert [100 < wait < 112 for wait in np.diff([59, *executes()])] == [True] * 4
    monkeypatch.setattr(per_frame, "LOOK_AGAIN", (inf, 0.2))
    assert executes() == [], "it costs much and changes on every frame: nothing else speaks for it"


def test_without_statistics_it_still_works() -> None:
    policy, (facts, outputs) = PerFrame(setup(0.2)), camera()
    for i, frame in enumerate(facts):
        policy.begin(FrameFacts(frame.index, frame.time_s))
        executed: dict[str, Value] = {}
        while (model := policy.choose(executed)) is not None:
            executed[model] = outputs[model][i]
        policy.learn(executed, chosen=True)
    assert set(policy.answer({})) == {"people", "weather"}


def test_a_required_model_executes_on_every_frame_it_can_pay_for() -> None:
    policy = PerFrame(setup(0.5))
    policy.allow(["people", "weather"], required=["weather"])
    _, ran = play(policy)
    assert len(ran["weather"]) >= 0.95 * 540


def test_what_executed_only_because_it_had_to_tells_nothing_where_it_is_tried() -> None:
    """On an audit frame answers are made without it, from all else that executed."""
    policy, (facts, outputs) = PerFrame(setup(1.0)), camera(60)
    policy.allow(["people", "weather"], required=["weather"])
    for i, frame in enumerate(facts[:40]):
        policy.begin(frame)
        policy.learn({m: v[i] for m, v in outputs.items()}, chosen=False)
    for i, frame in enumerate(facts[40:], 40):
        weather, people = {"weather": outputs["weather"][i]}, {"people": outputs["people"][i]}
        policy.begin(frame)
        assert policy.choose({}) == "weather"
        policy.choose(weather)
        assert policy.answer({})["people"].sources == ()
        assert policy.answer(people)["weather"].sources == ("people",)
        policy.learn(weather | people, chosen=False)


def test_a_model_that_is_not_loaded_is_never_chosen() -> None:
    policy = PerFrame(setup(0.5))
    policy.allow(["weather"])
    _, ran = play(policy)
    assert ran["people"] == []


def test_an_accuracy_target_is_met_at_less_cost_when_it_is_lower() -> None:
    (high, often), (low, seldom) = (play(PerFrame(setup(None, t))) for t in (0.98, 0.8))
    assert len(often["people"]) > len(seldom["people"])
    assert high > low


def test_weights_of_links_learn_from_fewer_frames_as_they_know_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(per_frame, "WEIGH_ALL", 60)
    policy, (facts, outputs) = PerFrame(setup(0.15)), camera(100)
    weighed_on, told_on, before = [], [], (b"", b"")
    for i, frame in enumerate(facts):
        policy.begin(frame)
        policy.learn({m: v[i] for m, v in outputs.items()}, chosen=False)
        links = unpack(policy.snapshot())["links"]
        now = pack({"pools": links["pools"]}), pack({"pairs": links["pairs"]})
        weighed_on += [i + 1] if now[0] != before[0] else []
        told_on += [i + 1] if now[1] != before[1] else []
        before = now
    assert weighed_on[1:60] == list(range(2, 61))  # a first frame has none before it that it could be held against
    assert [i for i in weighed_on if i > 60] == [64, 68, 72, 76, 80, 84, 88, 92, 96, 100]
    assert told_on[1:] == list(range(2, 101))


def test_confidence_is_near_what_is_reached() -> None:
    policy, (facts, outputs) = PerFrame(setup(0.15)), camera(2000, seed=4)
    stated, reached = [], []
    for i, frame in enumerate(facts):
        policy.begin(frame)
        executed: dict[str, Value] = {}
        while i >= 100 and (model := policy.choose(executed)) is not None:
            executed[model] = outputs[model][i]
        if i >= 100:
            for model, answer in policy.answer(executed).items():
                assert answer.confidence is not None
                stated.append(answer.confidence)
                belief = belief_of({"people": COUNT, "weather": LABEL}[model])
                reached.append(1 - belief.disagreement(belief.read(answer.value), belief.read(outputs[model][i])))
            policy.learn(executed, chosen=True)
        else:
            policy.learn({m: v[i] for m, v in outputs.items()}, chosen=False)
    assert np.mean(stated) == pytest.approx(np.mean(reached), abs=0.05)


def test_what_links_told_of_a_model_still_holds_on_the_frames_after() -> None:
    specs = {name: OutputSpec(name, "vector", 1, "count") for name in ("seen", "same")}
    costs = Costs({"seen": 10.0, "same": 10.0}, {"seen": 0.1, "same": 0.1})
    policy = PerFrame(PolicySetup("cam", specs, costs, Budget(time_share=0.5)))
    rng, people = np.random.default_rng(4), 0.0
    for index in range(200):
        people = float(rng.integers(0, 4)) if rng.random() < 0.1 else people
        policy.begin(FrameFacts(index, float(index)))
        policy.learn({name: value(people) for name in specs}, chosen=False)
    other, answers = (people + 1) % 4, []
    for index, executed in enumerate(({"seen": value(other)}, {}, {}, {"same": value(people)}, {}), 200):
        policy.begin(FrameFacts(index, float(index)))
        answers.append(policy.answer(executed))
        policy.learn(executed, chosen=True)
    told, *after, _, executed_since = [a.get("same") for a in answers]
    assert told is not None and told.value.tolist() == [other] and told.sources == ("seen",)
    assert [(a.value.tolist(), a.sources) for a in after if a] == [([other], ())] * 2
    confidences = [a.confidence for a in (told, *after) if a and a.confidence is not None]
    assert len(confidences) == 3 and confidences == sorted(confidences, reverse=True)
    assert executed_since is not None and executed_since.value.tolist() == [people]
