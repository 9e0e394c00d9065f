"""A simulated city: many cameras over many days, for scale and for drift. Synthetic, and labelled so; never a result.

Real are only the daily profiles, hour by hour on weekdays and at weekends, each divided by its mean: pedestrians
counted in Auckland's centre (Auckland Council, CC-BY 4.0), people through a building's main door (CalIt2, UCI Machine
Learning Repository, CC-BY 4.0), and cars on Singapore's road cameras (LTA open data, counted by a detector). Around
them: people and cars come and go as an immigration-death process, busier for a while now and then; models see the same
scene, miss some of it, more at night, and see things that are not there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from camlink.models.base import OutputSpec
from camlink.models.trace_arrays import Array, CameraTrace
from camlink.models.trace_files import RecordedEntry

Counts = NDArray[np.int64]
NOTE = "SYNTHETIC trace by `camlink simulate`, seed {seed}: no camera has seen this. Never mix it into real results."
START = datetime(2026, 1, 5, tzinfo=UTC)  # a Monday
PROFILES: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {  # weekday and weekend, hour 0 to 23
    "street": (
        (.286, .206, .149, .101, .075, .109, .368, .906, 1.66, 1.25, 1.29, 1.53,
         2.18, 2.12, 1.82, 1.91, 2.18, 2.39, 1.67, 1.21, .963, .752, .574, .418),
        (.482, .384, .29, .195, .138, .093, .132, .228, .434, .774, 1.16, 1.48,
         1.67, 1.8, 1.86, 1.87, 1.79, 1.61, 1.33, 1.14, .961, .796, .691, .592),
    ),
    "building": (
        (.172, .074, .03, .029, .019, .195, .255, .374, .928, 2.68, 3.82, 3.95,
         4.75, 5.39, 4.75, 4.44, 3.91, 3.43, 2.17, 1.12, .824, .607, .362, .255),
        (.099, .042, .057, .009, .018, .006, .009, .057, .027, .042, .122, .179,
         .218, .242, .26, .272, .352, .272, .269, .203, .176, .269, .161, .102),
    ),
    "road": (
        (.255, .169, .13, .106, .108, .157, .643, 2.12, 2.18, 1.71, 1.4, 1.33,
         1.35, 1.38, 1.41, 1.36, 1.51, 2.04, 2.34, 1.25, .828, .751, .619, .408),
        (.363, .267, .203, .164, .141, .154, .352, .852, 1.07, 1.22, 1.36, 1.51,
         1.56, 1.57, 1.56, 1.5, 1.53, 1.68, 1.72, .971, .813, .789, .663, .46),
    ),
}  # fmt: skip
MODELS = {
    "persons": RecordedEntry(OutputSpec("persons", "vector", 1, "count", ("person",)), 32.0, 0.5),
    "objects": RecordedEntry(OutputSpec("objects", "vector", 3, "count", ("person", "car", "bag")), 45.0, 0.9),
    "vehicles": RecordedEntry(OutputSpec("vehicles", "vector", 2, "count", ("car", "truck")), 40.0, 0.7),
    "scene": RecordedEntry(OutputSpec("scene", "vector", 3, "single_label", ("empty", "some", "busy")), 12.0, 0.3),
}
SEEN_BY_DAY = {"persons": 0.95, "objects": 0.9, "vehicles": 0.95}
SEEN_BY_NIGHT = {"persons": 0.45, "objects": 0.6, "vehicles": 0.8}
FALSE_ALARMS = 0.02  # per frame and kind of thing
STAY_S = 20.0  # mean time that a person or a car stays in view


@dataclass(frozen=True)
class City:
    """What is simulated. ``every_s``: seconds from frame to frame."""

    cameras: int = 12
    days: float = 7.0
    every_s: float = 10.0
    seed: int = 0

    def note(self) -> str:
        """Return the label that its trace carries."""
        return NOTE.format(seed=self.seed)


def simulate(city: City) -> Iterator[CameraTrace]:
    """Yield one camera after the other; each has a seed of its own, so more cameras leave the first as they are."""
    kinds = list(PROFILES)
    for number in range(city.cameras):
        kind = kinds[number % len(kinds)]
        yield _camera(f"synthetic-{kind}-{number + 1:02d}", kind, city, np.random.default_rng([city.seed, number]))


def rate_at(kind: str, hours: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how busy it is, 1 on average over the week's profile, at ``hours`` (n,) since Monday midnight."""
    weekday, weekend = (np.array(p) for p in PROFILES[kind])
    day = (hours // 24).astype(int) % 7
    hour = hours % 24
    around = np.arange(25)

    def between(profile: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.interp(hour, around, [*profile, profile[0]]), np.float64)

    return np.asarray(np.where(day < 5, between(weekday), between(weekend)), np.float64)


def _camera(name: str, kind: str, city: City, rng: np.random.Generator) -> CameraTrace:
    frames = max(1, int(timedelta(days=city.days).total_seconds() / city.every_s))
    seconds: NDArray[np.float64] = np.arange(frames, dtype=np.float64) * city.every_s
    hours = np.asarray(seconds / 3600.0, np.float64)
    busy = rate_at(kind, hours) * _moods(frames, city.every_s, rng) * rng.lognormal(0.5, 0.4)
    walkers, drivers = (3.0, 0.6) if kind != "road" else (0.4, 4.0)
    people, left_p = _come_and_go(busy * walkers, city.every_s, rng)
    cars, left_c = _come_and_go(busy * drivers * (0.1 if kind == "building" else 1.0), city.every_s, rng)
    night = (hours % 24 < 6) | (hours % 24 >= 20)
    values = _outputs(people, cars, night, rng)
    moved = np.clip(0.004 * (left_p + 2 * left_c) + rng.gamma(2.0, 0.002, frames), 0.0, 1.0)
    luma = 60.0 + 80.0 * np.clip(np.sin((hours % 24 - 6.0) / 12.0 * np.pi), 0.0, 1.0) + rng.normal(0, 1.5, frames)
    edges = np.clip(0.08 + 0.003 * (people + 2 * cars) - 0.02 * night + rng.normal(0, 0.001, frames), 0.0, 1.0)
    stats = {"pixel_change": moved, "edge_density": edges, "mean_luma": luma}
    specs = {m: e.spec for m, e in MODELS.items()}
    times = np.asarray(START.timestamp() + seconds, np.float64)
    return CameraTrace(
        name, specs, np.arange(frames), times, {s: v.astype(np.float32) for s, v in stats.items()}, values
    )


def _moods(frames: int, every_s: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return how much busier than usual it is (n,): log-normal around 1, remembered for some twenty minutes."""
    keep = float(np.exp(-every_s / 1200.0))
    noise = rng.normal(0.0, 0.5 * np.sqrt(1.0 - keep**2), frames)
    return np.asarray(np.exp(list(accumulate(noise, lambda mood, step: keep * mood + step))), np.float64)


def _come_and_go(rate: NDArray[np.float64], every_s: float, rng: np.random.Generator) -> tuple[Counts, Counts]:
    """Return how many are in view (n,) when ``rate`` (n,) is their mean, and how many came or left since last."""
    stay = float(np.exp(-every_s / STAY_S))
    arrivals = rng.poisson(rate * (1.0 - stay))
    there, moved = np.empty(len(rate), np.int64), np.empty(len(rate), np.int64)
    now = int(rng.poisson(rate[0]))
    for i, new in enumerate(arrivals.tolist()):
        kept = int(rng.binomial(now, stay)) if now else 0
        moved[i] = now - kept + new
        now = kept + new
        there[i] = now
    return there, moved


def _outputs(people: Counts, cars: Counts, night: NDArray[np.bool_], rng: np.random.Generator) -> dict[str, Array]:
    """Return what each model says of the scene: model -> (n, size)."""

    def seen(true: Counts, model: str) -> Counts:
        chance = np.where(night, SEEN_BY_NIGHT[model], SEEN_BY_DAY[model])
        return np.asarray(rng.binomial(true, chance) + rng.poisson(FALSE_ALARMS, len(true)))

    trucks = rng.binomial(cars, 0.12)
    bags = rng.binomial(people, 0.3)
    total = people + cars + rng.normal(0.0, 0.7, len(people))
    closeness = np.stack([-np.abs(total - centre) / width for centre, width in ((0, 0.6), (3, 1.5), (9, 3))], axis=1)
    odds = np.exp(closeness * 3.0)
    return {
        "persons": seen(people, "persons")[:, None].astype(np.float32),
        "objects": np.stack([seen(v, "objects") for v in (people, cars, bags)], axis=1).astype(np.float32),
        "vehicles": np.stack([seen(v, "vehicles") for v in (cars - trucks, trucks)], axis=1).astype(np.float32),
        "scene": (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32),
    }
