"""Models that a policy has no room for in memory: which these are, and what loaded ones they are answered from.

Seen on frames that all models executed on (`camlink.operators.loading`), and so is what is expected of loading each.
Each model that is not loaded is guided by up to two that are and that tell more of it than what is usual; how it
follows from them is learnt from the same frames, as if it had last executed long ago.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from camlink.models.scores import agrees_by_degrees
from camlink.operators.belief import Levels
from camlink.operators.known_model import KnownModel
from camlink.operators.link_evidence import LinkEvidence
from camlink.operators.link_pool import Known
from camlink.operators.loaded_set import CameraProspects, choose_loaded
from camlink.operators.loading import FEWEST_FRAMES, FullFrames, Telling, what_fits
from camlink.operators.policy import PolicySetup
from camlink.operators.policy_state import State
from camlink.operators.worth import Outlook
from camlink.pipeline.errors import StateError
from camlink.pipeline.records import Prospect

LINKS_BACK = (2, 4, 8, 16)  # frames back that links learn from, one at a time, besides 1
LINK_WEIGHT = 0.6  # of each of these two


class Unloaded:
    """Those of one camera. ``guides``: what models that are not loaded are answered from."""

    def __init__(self, setup: PolicySetup, models: Mapping[str, KnownModel], links: LinkEvidence | None) -> None:
        self._setup, self._models, self._links = setup, models, links
        self._leveled = tuple(n for n, spec in setup.specs.items() if not agrees_by_degrees(spec))  # that may be guided
        tight = setup.costs.memory(setup.costs.models) > setup.budget.memory_limit()
        self._full = FullFrames({n: setup.specs[n] for n in self._leveled}) if tight else None
        self.guides: dict[str, tuple[str, ...]] = {}

    def add(self, levels: Mapping[str, Levels]) -> None:
        """Take in the levels of what all models said on one frame."""
        if self._full is not None:
            self._full.add(levels)

    def choose(self, outlooks: Mapping[str, Outlook]) -> frozenset[str]:
        """Return the models to hold in memory from now on, and learn how those that are not follow from them."""
        full = self._full
        if full is None or len(full) < FEWEST_FRAMES or len(outlooks) < len(self._models):
            return self._what_fits()
        costs, budget = self._setup.costs, self._setup.budget
        camera = CameraProspects(self.prospects(outlooks), costs, budget)
        loaded = choose_loaded({self._setup.camera_id: camera}, costs, budget)
        self._guide(loaded, self._telling(full), list(full))
        self._full = None  # it holds for good
        return loaded

    def prospects(self, outlooks: Mapping[str, Outlook]) -> dict[str, Prospect]:
        """Return what is expected of the models with an outlook, for the choice of those that are loaded."""
        telling = Telling({}, {}) if self._full is None else self._telling(self._full)
        usual = {n: 1.0 - self._models[n].belief.guess(0.0).wrong for n in outlooks}
        return telling.prospects(outlooks, usual)

    def _telling(self, full: FullFrames) -> Telling:
        """Return what full frames show; without links no model is answered from others."""
        telling = full.telling()
        return telling if self._links is not None else replace(telling, by={})

    def allow(self, loaded: Collection[str]) -> None:
        """Learn how those that are not ``loaded`` follow from those that are, until others are."""
        if self._full is not None and self._links is not None and len(self._full) >= FEWEST_FRAMES:
            self._guide(loaded, self._full.telling(), list(self._full))

    def state(self) -> State:
        """Return what was seen and what is answered from what, for a snapshot."""
        return {"full": None if self._full is None else self._full.state(), "guides": self.guides}

    def resume(self, state: State) -> None:
        """Take up what `state` told. Raises `StateError`, and `KeyError` for models that are not there."""
        if state["full"] is None:
            self._full = None
        elif self._full is not None:
            self._full.resume(state["full"])
        self.guides = {m: tuple(g) for m, g in state["guides"].items()}
        if unknown := set(self.guides).union(*self.guides.values()) - set(self._leveled):
            raise StateError(f"a policy's snapshot with guides that are no counts or labels: {sorted(unknown)}")

    def _guide(self, loaded: Collection[str], telling: Telling, frames: Sequence[Mapping[str, Levels]]) -> None:
        before, self.guides = self.guides, {}
        for name in self._leveled:
            guides = telling.guides(name, loaded) if name not in loaded else ()
            if guides:
                self.guides[name] = guides
                if before.get(name) != guides:
                    self._follow(name, frames)

    def _follow(self, name: str, frames: Sequence[Mapping[str, Levels]]) -> None:
        """Learn how ``name`` follows from its guides, as if it had last executed long ago."""
        belief = self._models[name].belief
        assert self._links is not None
        for i in range(1, len(frames)):
            for back in (1, LINKS_BACK[i % len(LINKS_BACK)]):
                if back <= i:
                    now, then = frames[i], frames[i - back]
                    known = Known.of(belief.usual, belief.usual, then[name])
                    told = self.guides[name], now, then, now[name]
                    self._links.learn(name, known, *told, weight=LINK_WEIGHT, only_moves=back > 1)

    def _what_fits(self) -> frozenset[str]:
        """Return the models that fit into memory together and whose outputs are hardest to do without."""
        stale = {name: model.belief.guess(0.0).wrong for name, model in self._models.items()}
        return what_fits(stale, self._setup.costs, self._setup.budget)
