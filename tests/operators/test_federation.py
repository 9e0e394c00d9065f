"""A federation over a bus: who is late does not stop it, who sends nonsense is named, and no output leaves a site."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from camlink.links.federation import Plan
from camlink.models.base import OutputSpec
from camlink.operators.federation import CoordinatorOperator, RoundRules, SiteOperator
from camlink.pipeline.bus.base import open_bus
from camlink.pipeline.bus.memory import MemoryBus
from camlink.pipeline.clock import ManualClock, SteadyClock
from camlink.pipeline.codec import decode, encode
from camlink.pipeline.errors import CodecError, LinkError
from camlink.pipeline.federation import ROUNDS, UPDATES, CoordinatorFolder, Party
from camlink.pipeline.records import FederationRound, FederationUpdate, Record

SPECS = {
    "objects": OutputSpec("objects", "vector", 2, "count", ("person", "chair")),
    "persons": OutputSpec("persons", "vector", 1, "count"),
}
PLAN = Plan(SPECS, ("persons",), rounds=40)


def frames(seed: int, low: int, high: int, count: int = 200) -> dict[str, np.ndarray]:
    """Outputs that are no round numbers, so that none of them could turn up in a message by chance."""
    rng = np.random.default_rng(seed)
    people = rng.integers(low, high, (count, 1)) + rng.normal(0, 0.05, (count, 1))
    objects = np.concatenate([0.7 * people, rng.random((count, 1))], axis=1)
    return {"objects": objects.astype(np.float32), "persons": people.astype(np.float32)}


class Spy(MemoryBus):
    """Keeps everything that is published."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Record] = []

    def publish(self, topic: str, record: Record) -> None:
        self.seen.append(record)
        super().publish(topic, record)


class Federation:
    """A coordinator and sites on one bus; `go` lets all of them work, but those that are away."""

    def __init__(self, folder: Path, have: dict[str, dict[str, np.ndarray]], plan: Plan = PLAN, **rules: object):
        self.bus, self.clock, self.folder = Spy(), ManualClock(), CoordinatorFolder(folder)
        self.plan, self.rules = plan, RoundRules(**rules)  # type: ignore[arg-type]
        self.sites = {name: SiteOperator(name, "test", SPECS, samples) for name, samples in have.items()}
        self.parties = {
            n: Party(s, self.bus, self.bus.subscribe((ROUNDS,), n), self.clock) for n, s in self.sites.items()
        }
        self.lives = 0
        self.start()

    def start(self) -> None:
        """Begin the coordinator, or begin it again after its process was killed."""
        self.lives += 1
        self.coordinator = self.folder.open("test", self.plan, self.rules, 1.0, self.clock)
        inbox = self.bus.subscribe((UPDATES,), f"coordinator-{self.lives}")
        save = lambda: self.folder.save("test", 1.0, self.coordinator)  # noqa: E731
        self.head = Party(self.coordinator, self.bus, inbox, self.clock, save)

    def go(self, turns: int = 200, away: tuple[str, ...] = (), step_s: float = 0.0) -> None:
        for _ in range(turns):
            self.head.once()
            for name, party in self.parties.items():
                if name not in away:
                    party.once()
            self.clock.advance(step_s)


@pytest.fixture
def two(tmp_path: Path) -> Federation:
    return Federation(tmp_path, {"low": frames(1, 0, 4), "high": frames(2, 4, 9)}, sites=("low", "high"))


def test_all_end_with_the_same_links_that_know_what_no_single_site_has_seen(two: Federation) -> None:
    two.go()
    assert two.coordinator.is_done
    link = two.sites["low"].result
    assert link is not None
    everything = frames(3, 0, 9)
    value, _ = link["persons"].predict({"objects": everything["objects"]})
    assert (np.abs(value - everything["persons"]) < 0.5).mean() > 0.9
    assert link["persons"].to_bytes() == two.coordinator.server.ensembles["persons"].to_bytes()
    assert (two.folder.folder / "persons.npz").read_bytes() == link["persons"].to_bytes()
    assert link["persons"].held_out_agreement > 0.9
    assert 0.05 < link["persons"].spread[0] < 0.5


def test_no_output_of_any_frame_is_in_any_message(two: Federation) -> None:
    two.go()
    outputs = {
        float(number) for site in two.sites.values() for values in site.samples.values() for number in np.unique(values)
    }
    assert len(outputs) > 1000
    sent = [record for record in two.bus.seen if isinstance(record, FederationUpdate)]
    assert len(sent) == 2 * (PLAN.rounds + 3)
    for record in sent:
        assert not outputs & {float(number) for number in (*record.gradient, *record.sums)}
        data = encode(record)
        assert not any(np.float32(number).tobytes() in data for number in list(outputs)[:200])


def test_a_site_that_vanishes_is_waited_for_three_rounds_and_comes_back(tmp_path: Path) -> None:
    sites = {"a": frames(1, 0, 9), "b": frames(2, 0, 9)}
    federation = Federation(tmp_path, sites, sites=("a", "b"), deadline=timedelta(seconds=5))
    federation.go(3)
    federation.go(1, away=("b",))  # what b had said before
    before = federation.coordinator.server.number
    federation.go(10, away=("b",))
    assert federation.coordinator.server.number == before, "within the deadline, b is waited for"
    for _ in range(3):
        federation.clock.advance(5.1)
        federation.go(1, away=("b",))
    waited = federation.coordinator.server.number
    federation.go(10, away=("b",))
    assert federation.coordinator.server.number >= waited + 9, "after three silent rounds, b is waited for no more"
    federation.go(200)
    assert federation.coordinator.is_done
    assert federation.sites["b"].result is not None


def test_with_too_few_sites_the_round_is_asked_again_and_nothing_changes(tmp_path: Path) -> None:
    federation = Federation(
        tmp_path, {"a": frames(1, 0, 9), "b": frames(2, 0, 9)}, min_sites=2, deadline=timedelta(seconds=5)
    )
    federation.go(20, away=("b",), step_s=1.0)
    assert federation.coordinator.server.number == 0
    assert federation.coordinator.counts["waits"] >= 2
    federation.go(300, step_s=1.0)
    assert federation.coordinator.is_done


def test_an_answer_to_an_earlier_round_counts_as_late_and_changes_nothing(two: Federation) -> None:
    two.go(5)
    old = next(r for r in two.bus.seen if isinstance(r, FederationUpdate) and r.gradient.size)
    before = two.coordinator.server.parameters.copy()
    assert list(two.coordinator.on_records([old])) == []
    assert two.coordinator.counts["late"] == 1
    np.testing.assert_array_equal(before, two.coordinator.server.parameters)


def test_a_coordinator_that_is_killed_goes_on_and_ends_as_it_would_have(two: Federation, tmp_path: Path) -> None:
    two.go()
    broken = Federation(tmp_path / "other", {"low": frames(1, 0, 4), "high": frames(2, 4, 9)}, sites=("low", "high"))
    broken.go(30)
    number = broken.coordinator.server.number
    assert 0 < number < PLAN.rounds
    broken.start()
    assert broken.coordinator.server.number == number
    broken.go()
    ends = [f.coordinator.server.ensembles["persons"].to_bytes() for f in (two, broken)]
    assert ends[0] == ends[1]


def test_a_folder_of_other_settings_or_of_nonsense_is_refused(two: Federation) -> None:
    two.go(5)
    with pytest.raises(LinkError, match="other settings"):
        two.folder.open("test", replace(PLAN, rounds=7), two.rules, 1.0, two.clock)
    (two.folder.folder / "federation.npz").write_bytes(b"nonsense")
    with pytest.raises(LinkError, match=r"federation\.npz: no state of a federation"):
        two.start()


def wrong(update: FederationUpdate, how: str) -> FederationUpdate:
    gradient = update.gradient
    changes: dict[str, dict[str, object]] = {
        "not finite": {"gradient": np.where(np.arange(gradient.size) == 3, np.nan, gradient).astype(np.float32)},
        "numbers": {"gradient": np.zeros(100_000, np.float32)},
        "samples": {"samples": 10**15},
        "not one of": {"site": "stranger"},
    }
    return replace(update, **changes[how])  # type: ignore[arg-type]


@pytest.mark.parametrize("how", ["not finite", "numbers", "samples", "not one of"])
def test_an_update_that_cannot_be_is_refused_with_the_senders_name(two: Federation, how: str) -> None:
    two.go(5)
    two.head.once()
    good = [r for r in two.bus.seen if isinstance(r, FederationUpdate) and r.gradient.size][-1]
    bad = wrong(replace(good, number=two.coordinator.server.number), how)
    before = two.coordinator.server.parameters.copy()
    two.bus.publish(UPDATES, bad)
    two.head.once()
    np.testing.assert_array_equal(before, two.coordinator.server.parameters)
    topic, record, why = two.bus.refused[-1]
    assert (topic, record) == (UPDATES, bad)
    assert f'site "{bad.site}"' in why
    assert how in why
    two.go()
    assert two.coordinator.is_done, "the others go on"


def test_what_belongs_to_another_federation_on_the_same_topic_is_left_to_it(two: Federation) -> None:
    two.go(5)
    mine = [r for r in two.bus.seen if isinstance(r, FederationUpdate)][-1]
    other = replace(mine, federation="another", gradient=np.full(3, np.nan, np.float32))
    answered = two.coordinator.counts["answers"]
    assert list(two.coordinator.on_records([other])) == []
    assert two.coordinator.refused() == []
    assert two.coordinator.counts["answers"] == answered


def test_moments_that_no_frames_could_have_are_refused(two: Federation) -> None:
    two.head.once()
    two.parties["low"].once()
    moments = next(r for r in two.bus.seen if isinstance(r, FederationUpdate))
    sums = moments.sums.copy()
    sums[-1] = 0.0
    assert list(two.coordinator.on_records([replace(moments, sums=sums)])) == []
    assert "too small" in two.coordinator.refused()[0][1]


def test_what_is_no_update_of_this_schema_is_refused_naming_who_sent_it(two: Federation) -> None:
    two.go(5)
    update = next(r for r in two.bus.seen if isinstance(r, FederationUpdate))
    data = bytearray(encode(update, "gate-7:311"))
    data[4] ^= 1  # the fingerprint of the fields
    with pytest.raises(CodecError, match='from "gate-7:311" refused: its FederationUpdate has other fields'):
        decode(bytes(data))
    with pytest.raises(CodecError, match="site"):
        decode(encode(replace(update, site="../../etc"), "gate-7:311"))


def test_a_site_with_other_models_says_so_and_sends_nothing(two: Federation) -> None:
    two.head.once()
    asked = next(r for r in two.bus.seen if isinstance(r, FederationRound))
    other = {**SPECS, "objects": replace(SPECS["objects"], labels=("person", "car"))}
    site = SiteOperator("odd", "test", other, frames(1, 0, 4))
    assert list(site.on_records([asked])) == []
    assert "differ from those here" in site.refused()[0][1]


def test_a_clipped_site_cannot_carry_the_links_away(tmp_path: Path) -> None:
    wild = {m: v * 1000 for m, v in frames(2, 0, 9, count=20).items()}
    federation = Federation(tmp_path, {"a": frames(1, 0, 9, 400), "wild": wild}, sites=("a", "wild"))
    federation.go()
    assert federation.coordinator.is_done
    assert all(np.isfinite(federation.coordinator.server.parameters))


def test_fused_links_do_not_fall_behind_the_global_ones_at_home(two: Federation) -> None:
    two.go()
    for site in two.sites.values():
        assert site.learner is not None
        assert site.result is not None
        fused = site.learner.fused(site.result)
        assert fused["persons"].held_out_agreement >= site.learner.agreement(site.result)["persons"] - 0.02


def test_who_has_too_few_frames_cannot_take_part(two: Federation) -> None:
    two.head.once()
    asked = next(r for r in two.bus.seen if isinstance(r, FederationRound))
    site = SiteOperator("small", "test", SPECS, frames(1, 0, 4, count=5))
    assert list(site.on_records([asked])) == [], "sums over very few frames would tell of single ones"
    assert "at least 10 frames" in site.refused()[0][1]


def test_the_size_of_a_round_is_counted(two: Federation) -> None:
    two.go()
    back, out = two.head.bytes_per_message("taken"), two.head.bytes_per_message("sent")
    assert 4 * PLAN.parameters < back < 4 * PLAN.parameters + 400
    assert 4 * PLAN.parameters < out < 4 * PLAN.parameters + 8 * PLAN.width("moments") + 700


def test_nothing_is_asked_before_the_coordinators_time() -> None:
    clock = ManualClock()
    from camlink.links.federation import Server

    coordinator = CoordinatorOperator("x", "r", Server(PLAN), RoundRules(), clock)
    assert coordinator.next_time() == clock.now()
    assert not coordinator.is_done
    with pytest.raises(LinkError, match="no site answered"):
        coordinator.server.advance([])


@pytest.mark.broker
def test_a_federation_over_a_broker_ends_as_it_does_in_memory(broker_address: str, tmp_path: Path) -> None:
    samples = {"low": frames(1, 0, 4), "high": frames(2, 4, 9)}
    plan = replace(PLAN, rounds=3)
    memory = Federation(tmp_path / "memory", samples, plan, sites=("low", "high"))
    memory.go(20)
    url = f"kafka://{broker_address}/federation?partitions=2&wait_ms=5"
    buses = [open_bus(url) for _ in range(3)]
    clock = SteadyClock()
    rules = RoundRules(timedelta(seconds=60), 2, ("low", "high"))
    folder = CoordinatorFolder(tmp_path / "broker")
    coordinator = folder.open("test", plan, rules, 1.0, clock)
    parties = [Party(coordinator, buses[0], buses[0].subscribe((UPDATES,), "coordinator"), clock)]
    sites = [SiteOperator(name, "test", SPECS, values) for name, values in samples.items()]
    for site, name, bus in zip(sites, samples, buses[1:], strict=True):
        parties.append(Party(site, bus, bus.subscribe((ROUNDS,), name), clock))
    end = time.monotonic() + 90.0
    while not all(site.is_done for site in sites):
        assert time.monotonic() < end, f"only {coordinator.server.number} rounds"
        for party in parties:
            party.once(0.05)
    for bus in buses:
        bus.close()
    assert sites[0].result is not None
    assert sites[0].result["persons"].to_bytes() == memory.coordinator.server.ensembles["persons"].to_bytes()
