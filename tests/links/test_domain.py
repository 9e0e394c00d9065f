"""The oracle node: labels are read strictly, and a detector that errs steadily is set right."""

from pathlib import Path

import numpy as np
import pytest

from camlink.links.domain import Offset, judge_oracle, learn_oracle, link_to_oracle, own_value, read_labels
from camlink.links.ensemble import Ensemble
from camlink.models.base import OutputSpec
from camlink.pipeline.errors import LinkError

VEHICLES = OutputSpec("guard", "vector", 1, "count", ("vehicle",))
ORACLE = OutputSpec("person on site", "vector", 2, "count", ("car", "bus"))


def write(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_text(text)
    return path


def test_labels_are_read_by_camera_and_frame_whatever_the_order_of_columns(tmp_path: Path) -> None:
    labels = read_labels(write(tmp_path, "bus,camera_id,frame_index,car\n1,gate,7,3\n0,gate,8,2\n"), ORACLE)
    assert {key: value.tolist() for key, value in labels.items()} == {("gate", 7): [3, 1], ("gate", 8): [2, 0]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("camera_id,frame_index,car\n", r"labels.csv:1: lacks the columns bus"),
        ("camera_id,frame_index,car,bus\ngate,1,2,many\n", r"labels.csv:2: could not convert"),
        ("camera_id,frame_index,car,bus\ngate,1,2\n", r"labels.csv:2: "),
        ("camera_id,frame_index,car,bus\ngate,1,2,5,0\n", r"labels.csv:2: more fields than columns"),
        ('camera_id,frame_index,car,bus\n"' + 200_000 * "x" + '",1,2,0\n', r"labels.csv:2: not CSV"),
        ("camera_id,frame_index,car,bus\ngate,1,2,-1\n", r"labels.csv:2: labels must be finite"),
        ("camera_id,frame_index,car,bus\ngate,1,2,0\ngate,1,2,0\n", r"labels.csv:3: frame 1 of gate .* second time"),
    ],
)
def test_faulty_labels_are_refused_with_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(LinkError, match=message):
        read_labels(write(tmp_path, text), ORACLE)
    with pytest.raises(LinkError, match="cannot be read"):
        read_labels(tmp_path / "absent.csv", ORACLE)


def test_labels_saved_by_a_spreadsheet_are_read_or_refused_with_the_reason(tmp_path: Path) -> None:
    path, text = tmp_path / "labels.csv", "camera_id,frame_index,car,bus\nhöhe,1,2,0\n"
    path.write_bytes(text.encode("utf-8-sig"))
    assert list(read_labels(path, ORACLE)) == [("höhe", 1)]
    for encoding in ("latin-1", "utf-16"):
        path.write_bytes(text.encode(encoding))
        with pytest.raises(LinkError, match=r"labels\.csv: is not UTF-8 .*; save it as UTF-8"):
            read_labels(path, ORACLE)


def test_a_steady_error_is_set_right_from_100_labels() -> None:
    """A detector that mistakes every bus for two cars and sees no bus."""
    rng = np.random.default_rng(0)
    truth = np.stack([rng.integers(0, 3, 400), np.zeros(400)], axis=1).astype(np.float32)
    seen = OutputSpec("detector", "vector", 2, "count", ("car", "bus"))
    bus = rng.random(400) < 0.4
    truth[bus] = [0, 1]
    said = np.stack([np.where(bus, 5, truth[:, 0]), np.zeros(400)], axis=1).astype(np.float32)
    ensemble = link_to_oracle({"detector": seen}, {"detector": said[:100]}, ORACLE, truth[:100], seed=0)
    value, confidence = ensemble.predict({"detector": said[100:]})
    assert (value == truth[100:]).mean() > 0.97
    assert (said[100:] == truth[100:]).mean() < 0.7
    assert confidence.mean() > 0.8


def test_the_oracle_cannot_take_a_models_name() -> None:
    with pytest.raises(LinkError, match="name of its own"):
        link_to_oracle({ORACLE.model: ORACLE}, {}, ORACLE, np.zeros((20, 2), np.float32), seed=0)


def test_labels_are_judged_on_the_last_fifth_which_taught_nothing() -> None:
    truth = np.array([[i % 4] for i in range(80)] + [[9.0]] * 20, np.float32)  # the end is like nothing before
    detector = OutputSpec("detector", "vector", 2, "count", ("car", "van"))
    said = np.hstack([truth, np.zeros_like(truth)])
    judged = judge_oracle({"detector": detector}, {"detector": said}, VEHICLES, truth, seed=0)
    assert judged is not None
    assert (judged.taught, judged.frames) == (80, 20)
    assert judged.own == {"detector": 1.0}, "all its counts together are the label"
    assert judged.calibrated == 0.0, "nobody taught it to count to nine"
    assert judged.constant == 0.0


def test_a_steady_offset_is_learnt_where_it_is_right_more_often_than_links() -> None:
    truth = np.array([[i // 10 + 1] for i in range(100)], np.float32)  # counts only grow: the last were never seen
    detector, other = (OutputSpec(name, "vector", 1, "count", ("car",)) for name in ("detector", "other"))
    samples = {"detector": truth - 1, "other": np.zeros_like(truth)}
    specs = {"detector": detector, "other": other}
    learnt = learn_oracle(specs, samples, VEHICLES, truth, seed=0)
    assert isinstance(learnt, Offset) and learnt.source == detector and learnt.offset.tolist() == [1.0]
    assert list(learnt.links) == ["detector"] and learnt.held_out_agreement == 1.0
    assert 0.9 < learnt.stated < 1.0, "twenty frames make nobody sure"
    value, confidence = learnt.predict({"detector": np.array([41], np.float32)})
    assert value.tolist() == [42.0] and float(confidence) == learnt.stated
    judged = judge_oracle(specs, samples, VEHICLES, truth, seed=0)
    assert judged is not None and judged.calibrated == 1.0 and judged.own["detector"] == 0.0
    with pytest.raises(LinkError, match="told from detector"):
        learnt.predict({"other": truth})


def test_an_offset_never_goes_below_nothing() -> None:
    spec = OutputSpec("detector", "vector", 1, "count", ("car",))
    learnt = Offset(spec, VEHICLES, np.array([-2.0], np.float32), 1.0, 0.9)
    assert learnt.predict({"detector": np.array([[1], [5]], np.float32)})[0].tolist() == [[0.0], [3.0]]


def test_links_stay_where_no_offset_does_better() -> None:
    truth = np.array([[i % 4] for i in range(100)], np.float32)
    detector = OutputSpec("detector", "vector", 1, "count", ("car",))
    learnt = learn_oracle({"detector": detector}, {"detector": 3 - truth}, VEHICLES, truth, seed=0)
    assert isinstance(learnt, Ensemble)


def test_too_few_labels_are_not_judged_at_all() -> None:
    truth = np.ones((12, 1), np.float32)
    detector = OutputSpec("detector", "vector", 1, "count", ("car",))
    assert judge_oracle({"detector": detector}, {"detector": truth}, VEHICLES, truth, seed=0) is None


def test_a_counter_answers_in_the_terms_of_the_labels_or_not_at_all() -> None:
    values = np.array([[1.0, 2.0, 4.0]], np.float32)
    counter = OutputSpec("counter", "vector", 3, "count", ("car", "van", "person"))
    two = OutputSpec("person", "vector", 2, "count", ("person", "car"))
    named, pooled = own_value(counter, values, two), own_value(counter, values, VEHICLES)
    assert named is not None and named.tolist() == [[4.0, 1.0]]
    assert pooled is not None and pooled.tolist() == [[7.0]]
    assert own_value(counter, values, OutputSpec("x", "vector", 2, "count", ("bus", "car"))) is None
    assert own_value(OutputSpec("action", "vector", 3, "single_label"), values, VEHICLES) is None
