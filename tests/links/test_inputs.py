"""What links read of a frame: values by default; boxes and context where asked for."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from camlink.links.inputs import LinkInputs
from camlink.links.sets import COLUMNS, PLACES, packed
from camlink.links.train import train_ensembles
from camlink.models.base import OutputSpec
from camlink.pipeline.records import Detections, FrameStats, ModelOutput

SPECS = {
    "objects": OutputSpec("objects", "vector", 2, "count", ("person", "bag")),
    "persons": OutputSpec("persons", "vector", 1, "count"),
}
NOON = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
STATS = FrameStats(0.25, 0.125, 51.0)
VALUES = {"objects": np.float32([3, 1]), "persons": np.float32([2])}
BOXES = Detections(np.float32([[0, 0, 1, 1]]), np.float32([0.3]), np.int32([1]))


def test_by_default_links_read_the_values_themselves() -> None:
    inputs = LinkInputs(SPECS)
    assert inputs.sources == SPECS
    assert inputs.read(VALUES, {}, NOON, STATS) == VALUES


def test_context_follows_the_value() -> None:
    inputs = LinkInputs(SPECS, context=["time_of_day", "frame_statistics"])
    read = inputs.read(VALUES, {}, NOON, STATS)
    np.testing.assert_allclose(read["objects"], [3, 1, 0, -1, 0.25, 0.125, 0.2], atol=1e-6)
    assert inputs.sources["objects"].size == 7
    without = inputs.read(VALUES, {}, NOON, None)
    np.testing.assert_array_equal(without["persons"][3:], [0, 0, 0])


def test_the_last_minute_of_a_day_lies_beside_the_first() -> None:
    inputs = LinkInputs(SPECS, context=["time_of_day"])
    late, early = (
        inputs.read(VALUES, {}, datetime(2026, 1, day, hour, minute, tzinfo=UTC), None)["persons"]
        for day, hour, minute in ((5, 23, 59), (6, 0, 0))
    )
    np.testing.assert_allclose(late, early, atol=0.01)


def test_boxes_come_last_and_none_read_like_an_empty_list() -> None:
    inputs = LinkInputs(SPECS, boxes=True, context=["frame_statistics"])
    read = inputs.read(VALUES, {"objects": BOXES}, NOON, STATS)
    np.testing.assert_array_equal(read["objects"][5:], packed(BOXES))
    assert read["objects"].shape == (2 + 3 + PLACES * COLUMNS,) == (inputs.sources["objects"].size,)
    assert not read["persons"][4:].any()


def test_only_executed_outputs_are_read() -> None:
    executed = ModelOutput("hall", 1, NOON, "objects", VALUES["objects"], "audit", "executed", detections=BOXES)
    shadow = ModelOutput("hall", 1, NOON, "persons", VALUES["persons"], "audit", "linked", served=False)
    read = LinkInputs(SPECS, boxes=True).of_outputs([executed, shadow], NOON, None)
    assert list(read) == ["objects"]
    np.testing.assert_array_equal(read["objects"][2:], packed(BOXES))


def test_links_use_context_that_matters() -> None:
    """At night the second detector sees nobody: only the brightness tells."""
    rng = np.random.default_rng(0)
    people = rng.integers(1, 4, (300, 1)).astype(np.float32)
    dark = rng.random(300) < 0.5
    values = {"objects": np.repeat(people, 2, axis=1), "persons": np.where(dark[:, None], 0, people).astype(np.float32)}
    inputs = LinkInputs(SPECS, context=["frame_statistics"])
    frames = [
        inputs.read({m: v[i] for m, v in values.items()}, {}, NOON, FrameStats(0.0, 0.1, 20.0 if night else 120.0))
        for i, night in enumerate(dark)
    ]
    read = inputs.stacked(frames)
    links = train_ensembles(SPECS, values, seed=0, read=read, targets=["persons"])["persons"]
    blind = train_ensembles(SPECS, values, seed=0, targets=["persons"])["persons"]
    seeing, _ = links.predict({"objects": read.samples["objects"]})
    guessing, _ = blind.predict({"objects": values["objects"]})
    assert (seeing == values["persons"]).mean() > 0.95
    assert (guessing == values["persons"]).mean() < 0.7
