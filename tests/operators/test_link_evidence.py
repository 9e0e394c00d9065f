"""Links learnt online: what they learn, how fast they are believed, and that they are not believed in vain."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from camlink.models.base import OutputSpec
from camlink.operators.belief import Levels
from camlink.operators.link_evidence import LinkEvidence
from camlink.operators.link_loops import FADE, REACH
from camlink.operators.link_pool import Known, Pool
from camlink.operators.policy_state import pack, unpack

WIDE = OutputSpec("wide", "vector", 1, "count", ("person",))
NARROW = OutputSpec("narrow", "vector", 1, "count", ("person",))
TWO = OutputSpec("two", "vector", 2, "count", ("car", "person"))
WEATHER = OutputSpec("weather", "vector", 3, "single_label")
SPECS = {s.model: s for s in (WIDE, NARROW, TWO, WEATHER)}
LEVELS = 8


def at(*levels: int) -> Levels:
    return np.array(levels, np.intp)


def knowing(last: int, fresh: float = 0.2) -> Known:
    usual = np.full((1, LEVELS), 1.0 / LEVELS)
    chances = (1.0 - fresh) * usual
    chances[0, last] += fresh
    return Known.of(chances, usual, at(last))


def of(**told: tuple[Levels, Levels]) -> tuple[tuple[str, ...], dict[str, Levels], dict[str, Levels]]:
    """Return sources, what each says now, and what it had said then."""
    return tuple(told), {n: now for n, (now, _) in told.items()}, {n: then for n, (_, then) in told.items()}


def learn(links: LinkEvidence, said: NDArray[np.intp], heard: NDArray[np.intp]) -> None:
    """Teach ``said`` of "wide" given ``heard`` of "narrow", frame after frame."""
    for i in range(1, len(said)):
        sources = of(narrow=(heard[i : i + 1], heard[i - 1 : i]))
        links.learn("wide", knowing(int(said[i - 1])), *sources, said[i : i + 1])


def random_counts(frames: int, seed: int = 0) -> NDArray[np.intp]:
    return np.random.default_rng(seed).integers(0, 6, frames).astype(np.intp)


def test_a_counter_of_the_same_things_is_believed_within_fifty_frames() -> None:
    links, heard = LinkEvidence(SPECS), random_counts(50)
    learn(links, heard + 1, heard)
    chances = links.chances("wide", knowing(last=1), *of(narrow=(at(4), at(0))))
    assert chances.shape == (1, LEVELS)
    assert chances.sum() == pytest.approx(1.0)
    assert chances[0].argmax() == 5
    assert chances[0, 5] > 0.8


def test_a_source_that_tells_nothing_changes_little() -> None:
    links, said = LinkEvidence(SPECS), random_counts(300)
    said[1::2] = said[::2]  # the last level holds every other time
    learn(links, said, random_counts(300, seed=1))
    told = [links.chances("wide", knowing(3), *of(narrow=(at(k), at(k - 1))))[0, 3] for k in range(1, 6)]
    assert np.std(told) < 0.1
    assert np.mean(told) == pytest.approx(0.5 + 0.5 / 6, abs=0.15)


def test_how_far_a_source_moved_tells_of_a_level_never_seen() -> None:
    links, rng = LinkEvidence(SPECS), np.random.default_rng(5)
    said = np.cumsum(rng.choice([-1, 0, 1], 400)) % 5  # a random walk, seen by the source at an offset that wanders
    for i in range(1, 400):
        offset = int(rng.integers(0, 9))
        sources = of(narrow=(said[i : i + 1] + offset, said[i - 1 : i] + offset))
        links.learn("wide", knowing(int(said[i - 1])), *sources, said[i : i + 1])
    moved = links.chances("wide", knowing(last=6), *of(narrow=(at(10), at(9))))
    stayed = links.chances("wide", knowing(last=6), *of(narrow=(at(9), at(9))))
    assert moved[0].argmax() == 7
    assert stayed[0].argmax() == 6


def test_two_sources_that_say_the_same_are_not_counted_twice() -> None:
    links, heard = LinkEvidence(SPECS), random_counts(400)
    noisy = np.where(np.random.default_rng(2).random(400) < 0.6, heard, random_counts(400, seed=3))
    for i in range(1, 400):
        sources = of(narrow=(noisy[i : i + 1], noisy[i - 1 : i]), two=(at(0, noisy[i]), at(0, noisy[i - 1])))
        links.learn("wide", knowing(int(heard[i - 1])), *sources, heard[i : i + 1])
    once = links.chances("wide", knowing(last=0), *of(narrow=(at(4), at(0))))
    twice = links.chances("wide", knowing(last=0), *of(narrow=(at(4), at(0)), two=(at(0, 4), at(0, 0))))
    assert twice[0, 4] == pytest.approx(once[0, 4], abs=0.1)
    assert twice[0, 4] == pytest.approx(0.6 + 0.4 / 6, abs=0.15)


def test_labels_tell_of_counts_and_counts_of_labels() -> None:
    links, heard = LinkEvidence(SPECS), random_counts(200) % 3
    for i in range(1, 200):
        count, label, before = at(2 * int(heard[i])), at(int(heard[i])), at(int(heard[i - 1]))
        links.learn("wide", knowing(2 * int(before[0])), *of(weather=(label, before)), count)
        usual = np.full((1, 3), 1 / 3)
        links.learn("weather", Known.of(usual, usual, before), *of(wide=(count, 2 * before)), label)
    assert links.chances("wide", knowing(last=0), *of(weather=(at(2), at(0))))[0].argmax() == 4
    usual = np.full((1, 3), 1 / 3)
    assert links.chances("weather", Known.of(usual, usual, at(0)), *of(wide=(at(4), at(0))))[0].argmax() == 2


def test_a_level_beyond_all_that_were_told_apart_teaches_the_tables_only() -> None:
    links = LinkEvidence(SPECS)
    links.learn("wide", knowing(last=0), *of(narrow=(at(30), at(0))), at(31))
    chances = links.chances("wide", knowing(last=0), *of(narrow=(at(40), at(0))))
    assert np.isfinite(chances).all()


def test_tables_count_what_went_with_what_and_keep_it_as_they_grow() -> None:
    links = LinkEvidence(SPECS)
    links.learn("wide", knowing(last=0), *of(narrow=(at(1), at(0))), at(2))
    links.learn("wide", knowing(last=2), *of(narrow=(at(9), at(1))), at(7))
    pair = links.pairs["narrow", "wide"]
    assert (pair.level[0, 1, 2], pair.level[0, 9, 7]) == (FADE, 1.0)
    assert (pair.apart[0, REACH + 1], pair.apart[0, REACH - 2]) == (FADE, 1.0)
    assert pair.level.sum() == pair.apart.sum() == pair.moved.sum() == pytest.approx(1.0 + FADE)


def test_links_taken_up_again_tell_and_learn_the_same() -> None:
    links, other, heard = LinkEvidence(SPECS), LinkEvidence(SPECS), random_counts(40)
    learn(links, heard + 1, heard)
    other.resume(unpack(pack(links.state())))
    for one in (links, other):
        learn(one, heard + 2, heard)
    told, told_by_other = (one.chances("wide", knowing(last=1), *of(narrow=(at(4), at(0)))) for one in (links, other))
    assert told.tolist() == told_by_other.tolist()


def test_a_frame_learnt_from_again_only_adds_how_far_models_moved() -> None:
    links, source = LinkEvidence(SPECS), of(narrow=(at(1), at(0)))
    links.learn("wide", knowing(last=0), *source, at(2))
    pair, pool = links.pairs["narrow", "wide"], links.pools["wide", "narrow"]
    level, moved, weights = pair.level.copy(), pair.moved.sum(), pool.weights.copy()
    links.learn("wide", knowing(last=1), *source, at(2), only_moves=True)
    assert (pair.level == level).all() and (pool.weights == weights).all()
    assert pair.moved.sum() == pytest.approx(moved * FADE + 1.0)


def test_more_sources_at_once_than_a_float_holds_the_odds_of_are_refused() -> None:
    with pytest.raises(ValueError, match="a pool of 6 sources; at most 5"):
        Pool(6)
