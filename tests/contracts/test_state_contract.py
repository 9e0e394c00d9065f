"""What every state store promises: values by key, until their time has come."""

from collections.abc import Callable

import numpy as np
import pytest

from camlink.operators.base import StateStore
from camlink.pipeline.errors import StateError
from camlink.pipeline.records import ModelOutput
from camlink.pipeline.state.base import open_state
from camlink.pipeline.state.memory import MemoryState
from camlink.pipeline.testing import START

FACTORIES: dict[str, Callable[[], StateStore]] = {"memory": lambda: open_state("memory://")}


def output(model: str, value: float) -> ModelOutput:
    return ModelOutput("hall", 1, START, model, np.array([value], np.float32), "serve", "executed")


@pytest.fixture(params=FACTORIES)
def store(request: pytest.FixtureRequest) -> StateStore:
    return FACTORIES[request.param]()


def test_what_was_put_is_got_in_the_order_of_the_keys_asked_for(store: StateStore) -> None:
    store.put("hall/1/serve", (output("objects", 2.0),), ttl_s=60)
    store.put("hall/2/serve", (output("objects", 3.0), output("persons", 4.0)), ttl_s=60)
    two, none, one = store.get_many(["hall/2/serve", "hall/9/serve", "hall/1/serve"])
    assert none is None
    assert two is not None
    assert one is not None
    assert [(o.model, float(o.value[0])) for o in two] == [("objects", 3.0), ("persons", 4.0)]  # type: ignore[index]
    assert float(one[0].value[0]) == 2.0  # type: ignore[index]


def test_a_later_put_replaces_an_earlier_one(store: StateStore) -> None:
    for value in (1.0, 2.0):
        store.put("hall/1/serve", (output("objects", value),), ttl_s=60)
    (got,) = store.get_many(["hall/1/serve"])
    assert got is not None
    assert float(got[0].value[0]) == 2.0  # type: ignore[index]


def test_no_keys_give_no_values(store: StateStore) -> None:
    assert store.get_many([]) == []


def test_entries_expire_and_are_freed() -> None:
    now = 0.0
    store = MemoryState(now_s=lambda: now)
    for i in range(1000):
        now = float(i)
        store.put(f"hall/{i}/serve", (output("objects", i),), ttl_s=10)
        assert len(store) <= 11
    now = 1004.0
    assert store.get_many(["hall/990/serve", "hall/999/serve"])[0] is None
    assert store.get_many(["hall/999/serve"])[0] is not None


def test_a_wrong_scheme_says_what_was_probably_meant() -> None:
    with pytest.raises(StateError, match='did you mean "memory://"'):
        open_state("memry://")
