"""What was set aside as wrong is found again, however much of it there is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from camlink.pipeline.config.validation import LeftOut


@given(st.sets(st.integers(0, 11)), st.sets(st.integers(0, 11)))
def test_what_is_left_is_traced_back_to_where_it_was(first: set[int], later: set[int]) -> None:
    data = {"cameras": [{"id": number} for number in range(12)], "site": "x"}
    left_out = LeftOut(("cameras", number) for number in first)
    left_out.add(("cameras", number) for number in later)
    for place, camera in enumerate(left_out.without(data)["cameras"]):
        assert left_out.original(("cameras", place, "id")) == ("cameras", camera["id"], "id")


def test_a_path_is_touched_by_what_is_left_out_at_or_below_it() -> None:
    left_out = LeftOut({("cameras", 3), ("alerts", "to", 0)})
    assert left_out.touches()
    assert left_out.touches("alerts", "to")
    assert left_out.touches("cameras", 3)
    assert not left_out.touches("cameras", 2)
    assert not left_out.touches("cameras", 3, "id")
    assert not LeftOut().touches()
