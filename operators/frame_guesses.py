"""What would be answered on one frame without executing, from all that is known of one camera's models until then.

A guess rests on the model's own past (how fresh its last output still is, what it usually says, how sure it was) and on
what has been executed on this very frame (links); where nothing has, on what links told of an earlier frame, as far as
that still holds. Each is made once per frame and set of models heard.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from camlink.operators.belief import Frequencies, Guess, Levels, blended
from camlink.operators.known_model import KnownModel, Told
from camlink.operators.link_evidence import LinkEvidence
from camlink.operators.link_pool import Known
from camlink.operators.scene import Moment
from camlink.operators.unloaded import Unloaded
from camlink.pipeline.records import Value

MOST_SOURCES = 2  # that links are read from at once
Sources = Mapping[str, tuple[str, ...]]  # by model, those whose outputs tell of it


class FrameGuesses:
    """Of one camera, for one frame after the other: `begin`, then `hear` before each time that it is asked.

    ``gone``: the chance that each model that ever executed would say something else by now; ``waited``: steps since it
    did; ``said``: the levels of what was executed on this frame.
    """

    def __init__(self, models: Mapping[str, KnownModel], links: LinkEvidence | None, unloaded: Unloaded) -> None:
        self._models, self.links, self._unloaded = models, links, unloaded
        self._guides: Sources = unloaded.guides  # that `_by_executed` was found for
        self._by_executed: dict[tuple[str, ...], Sources] = {}
        self.begin(Moment(0.0, 0.0, 0.0, 0.0), 0.0)

    def begin(self, now: Moment, time_s: float) -> None:
        """Forget the last frame; this one is at ``now``."""
        self.now, self.time_s = now, time_s
        self.gone: dict[str, float] = {}
        self.waited: dict[str, float] = {}
        self.said: dict[str, Levels] = {}
        self._guesses: dict[str, tuple[tuple[str, ...], Guess]] = {}  # the last one of each model, by whom it rests on
        self._knowns: dict[str, Known] = {}
        self._alone: dict[str, Frequencies] = {}  # P(level) by what a model's own outputs tell
        self._told: dict[tuple[str, tuple[str, ...]], Told] = {}  # by links, of what was executed on this frame
        self._sources: Sources = {}
        self.see_what_is_gone()

    def see_what_is_gone(self) -> None:
        """Find out how fresh outputs still are; again, once more is known of how long they last."""
        now, gone, waited = self.now, self.gone, self.waited
        for name, model in self._models.items():
            if model.past:
                passed = now.since(model.past[-1].at)
                gone[name], waited[name] = model.freshness.gone(passed), passed.age

    def hear(self, executed: Mapping[str, Value]) -> None:
        """Take in what was executed on this frame so far; less than before, where a model is only tried (an audit)."""
        if self._sources and executed.keys() == self.said.keys():
            return
        before, self.said = self.said, {}
        for name, value in executed.items():
            belief = self._models[name].belief
            self.said[name] = before[name] if name in before else belief.levels(belief.read(value))
        if self._guides is not self._unloaded.guides:
            self._guides, self._by_executed = self._unloaded.guides, {}
        key = tuple(self.said)
        if key not in self._by_executed:
            self._by_executed[key] = {name: self.sources_of(name, key) for name in self._models}
        self._sources = self._by_executed[key]

    def levels(self) -> dict[str, Levels]:
        """Return what each model said last, this frame included."""
        said = self.said
        return {name: said.get(name, model.belief.last) for name, model in self._models.items()}

    def sources(self, name: str) -> tuple[str, ...]:
        """Return the models whose outputs on this frame tell of ``name``."""
        return self._sources[name]

    def sources_of(self, name: str, executed: Collection[str]) -> tuple[str, ...]:
        """Return those of ``executed`` that tell of ``name``: few, the first ones of the configuration."""
        if name in self._unloaded.guides:
            return tuple([m for m in self._unloaded.guides[name] if m in executed])
        if self.links is None:
            return ()
        return tuple([m for m in self._models if m in executed and m != name][:MOST_SOURCES])

    def known(self, name: str) -> Known:
        """Return what is known of a model that ever executed, on this frame, without links."""
        known = self._knowns.get(name)
        if known is None:
            model = self._models[name]
            known = self._knowns[name] = model.known(self.now, self.time_s, model.past[-1], self.gone[name])
        return known

    def told(self, name: str) -> Told | None:
        """Return what links told of a model by what was executed on this frame, once its guess was made."""
        return self._told.get((name, self._sources[name]))

    def guess(self, name: str) -> Guess:
        """Return what would be answered for a model that ever executed, by what was executed on this frame."""
        sources, made = self._sources[name], self._guesses.get(name)
        if made is not None and made[0] == sources:
            return made[1]
        linked = sources or name in self._unloaded.guides
        guess = self._linked(name, sources) if linked else self._unlinked(name)
        self._guesses[name] = sources, guess
        return guess

    def _unlinked(self, name: str) -> Guess:
        model, chances = self._models[name], self._by_itself(name)
        if model.told is not None:
            holds = 1.0 - model.freshness.gone(self.now.since(model.told.at))
            chances = blended(holds, model.told.chances, chances)
        return model.belief.settle(chances, self._fresh(name))

    def _linked(self, name: str, sources: tuple[str, ...]) -> Guess:
        model = self._models[name]
        then = model.past[-1].others
        assert self.links is not None
        if sources:
            chances = self.links.chances(name, self.known(name), sources, self.said, then)
            self._told[name, sources] = Told(self.now, chances)
        else:  # not loaded, and neither is executed what tells of it: by what that said last
            guides = self._unloaded.guides[name]
            chances = self.links.chances(name, self.known(name), guides, self.levels(), then)
            chances = blended(min(self._fresh(s) for s in guides), chances, self._by_itself(name))
        return model.belief.settle(chances, self._fresh(name))

    def _by_itself(self, name: str) -> Frequencies:
        """Return P(level) of a model on this frame without links."""
        chances = self._alone.get(name)
        if chances is None:
            known, model = self.known(name), self._models[name]
            chances = model.own.chances(known) if known.tells else model.belief.chances(self._fresh(name))
            self._alone[name] = chances
        return chances

    def _fresh(self, name: str) -> float:
        return self._models[name].freshness.steady * (1.0 - self.gone[name])
