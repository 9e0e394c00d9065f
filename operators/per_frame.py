"""`policy: camlink`: on every frame, execute what is worth its time, and answer for the rest from what is known.

For each model it knows how fresh the last output still is (`camlink.operators.freshness`), what would be answered
without executing and how wrong that is likely to be (`camlink.operators.belief`), put right by how sure the model was
(`camlink.operators.own_evidence`), and what executing is worth for this frame and those after
(`camlink.operators.worth`). It executes the model with most worth per millisecond as long as that
is above a price, which is set so that the time budget is just used up; credit is saved for when the scene moves, debt
is never made. Links (`camlink.operators.link_evidence`) say what the others' outputs on this very frame tell of a
model; they, and how far they are believed, are learnt from frames on which both executed: all at first, later some.
What they told holds on the frames after as well, as far as the model has not changed since, until it executes.

It learns from executed outputs only. What it chose to execute is no random sample, but given what the choice was made
by (age, movement, the last value) the outcome is; on audit frames, where everything runs, it learns of all models. One
that has not executed for long does so once all the same: what made it look not worth its time may have changed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import exp, inf, isinf

from camlink.operators.aim import Aims
from camlink.operators.allowance import Allowance
from camlink.operators.belief import Guess, Levels
from camlink.operators.demands import demand_of
from camlink.operators.frame_guesses import FrameGuesses
from camlink.operators.known_model import KnownModel, PutOff, belief_of
from camlink.operators.link_evidence import LinkEvidence
from camlink.operators.newcomer import Newcomer
from camlink.operators.policy import Answer, FrameFacts, PolicySetup
from camlink.operators.policy_state import pack, unpack
from camlink.operators.recalibration import AUDITED
from camlink.operators.scene import Scene
from camlink.operators.shares import Demand
from camlink.operators.snapshots import reading
from camlink.operators.unloaded import LINK_WEIGHT, LINKS_BACK, Unloaded
from camlink.operators.worth import Outlook, Prices
from camlink.pipeline.errors import StateError
from camlink.pipeline.records import Detections, Prospect, Value

WEIGH_ALL, WEIGH_EVERY = 300, 4  # frames that links' weights learn from: the first ones, then every 4th, for four
FIT_EVERY = 25  # frames
FIRST_STEPS = 25  # of fitting, when the policy is first asked
CAUTION = 0.3  # how strongly credit lowers the price: by exp(-CAUTION) per frame's worth of executing everything
CREDIT = 0.5  # frames' worth of executing everything that is kept for when the scene moves
LOOK_AGAIN = 100, 0.2  # steps, and share of all steps, after which a model executes whatever is expected of it
PAID_BEFORE = 16  # times that the budget has paid for everything before that
MUCH = 1e6  # worth, in agreement: of what is overdue, the cheapest first
_TINY = 1e-9


class PerFrame:
    """One camera's policy; see the module. Targets of ``setup`` take the place of the time budget."""

    def __init__(self, setup: PolicySetup, *, links: bool = True) -> None:
        self._setup = setup
        self._allowance = Allowance(setup.costs, setup.budget, setup.load_ms)
        self._models = {m: KnownModel(m, s, setup.costs.time_ms[m], belief_of(s)) for m, s in setup.specs.items()}
        self._times_ms = {m: max(time_ms, _TINY) for m, time_ms in setup.costs.time_ms.items()}
        self._total_ms = max(setup.costs.time(setup.costs.models), _TINY)
        paid_ms = max(setup.budget.long_run_ms(setup.costs), _TINY)
        self._look_again = max(LOOK_AGAIN[0], PAID_BEFORE * self._total_ms / paid_ms)
        self._allowed: frozenset[str] | None = None
        self._choosable: list[str] = []  # those, in order
        self._required: frozenset[str] = frozenset()
        self._scene = Scene()
        self._newcomer = Newcomer(setup.zoo, setup.camera_id) if setup.zoo is not None else None
        self._links = self._new_links() if links else None
        self._learnt_links = 0  # frames that links could learn from
        self._price, self._until_fit = 0.0, 0
        self._looked_at = 0  # models with an outlook
        self._aims = Aims(setup)
        self._unloaded = Unloaded(setup, self._models, self._links)
        self._frame = self._new_guesses()
        self._detections: Mapping[str, Detections] = {}  # of this frame
        self._stated: dict[str, Guess] = {}  # of this frame: what was answered, or would have been without executing
        self._asked = False

    def _new_links(self) -> LinkEvidence:
        return LinkEvidence(self._setup.specs)

    def _new_guesses(self) -> FrameGuesses:
        return FrameGuesses(self._models, self._links, self._unloaded)

    def allow(self, models: Collection[str], required: Collection[str] = ()) -> None:
        """Say which models may be chosen, those that are loaded, and which of them must be on every frame.

        Without, the policy sees to the memory budget itself.
        """
        if self._allowed is not None and self._allowed != frozenset(models):
            self._until_fit = 0  # other models use the budget up at another price
        self._required = frozenset(required)
        self._choose_among(frozenset(models))
        self._unloaded.allow(models)

    def _choose_among(self, models: frozenset[str]) -> None:
        self._allowed, self._choosable = models, [m for m in self._models if m in models]

    def limit(self, share: float) -> None:
        """Choose no more than ``share`` of executing everything, whatever the budget: there is no time for more."""
        self._allowance.limit(share)

    def demand(self) -> Demand | None:
        """Return what share of executing everything it would choose at which price per ms; None if it cannot say."""
        known = {n: m.outlook for n, m in self._models.items() if m.outlook and n in (self._allowed or ())}
        most = self._setup.budget.time_share or 1.0
        return demand_of(known, self._total_ms, most, required=self._required, least=self._aims.price)

    def prospects(self) -> dict[str, Prospect]:
        """Return what is expected of each model that ever executed, for the choice of those that are loaded."""
        return self._unloaded.prospects(self._look())

    def snapshot(self) -> bytes:
        """Return all that is known, between frames: a policy that `resume`s from it decides as this one would have."""
        return pack(
            {
                "models": self._shapes(),
                "purse": self._allowance.state(),
                "known": {name: model.state() for name, model in self._models.items()},
                "scene": self._scene.state(),
                "links": None if self._links is None else self._links.state(),
                "learnt_links": self._learnt_links,
                "price": self._price,
                "aims": self._aims.state(),
                "until_fit": self._until_fit,
                "allowed": None if self._allowed is None else sorted(self._allowed),
                "required": sorted(self._required),
                "unloaded": self._unloaded.state(),
                "settled": self._newcomer is None or self._newcomer.settled,
            }
        )

    def resume(self, snapshot: bytes, *, account: bool = True) -> None:
        """Take up what `snapshot` told; under another budget, or without ``account``, not the price and what was spent.

        Raises `StateError` for what is none, or is of other models; this policy is then to be thrown away.
        """
        state = unpack(snapshot)
        with reading():
            if state["models"] != self._shapes():
                raise StateError(f"a policy's snapshot of other models: {state['models']}, here {self._shapes()}")
            if (state["links"] is None) != (self._links is None):
                raise StateError("a policy's snapshot with links for one without, or the other way round")
            readings = {n: m.belief.last for n, m in self._models.items()}
            for name, model in self._models.items():
                model.resume(state["known"][name], readings)
            self._looked_at = sum(m.outlook is not None for m in self._models.values())
            self._scene.resume(state["scene"])
            if self._links is not None:
                self._links.resume(state["links"])
            self._learnt_links = int(state["learnt_links"])
            self._aims.resume(state["aims"])
            if account and self._allowance.resume(state["purse"]):
                self._price, self._until_fit = float(state["price"]), int(state["until_fit"])
            if state["allowed"] is not None:
                self._choose_among(frozenset(state["allowed"]))
            self._required = frozenset(state["required"])
            self._unloaded.resume(state["unloaded"])
            if self._newcomer is not None:
                self._newcomer.settled = bool(state["settled"])

    def _shapes(self) -> dict[str, list[object]]:
        return {m: [s.task, s.size, list(s.labels or ())] for m, s in self._setup.specs.items()}

    def within(self, left_ms: float) -> None:
        """Say how long the models may still take on this frame, by the clock; before each `choose`."""
        self._allowance.within(left_ms)

    def begin(self, frame: FrameFacts) -> None:
        """Take in the next frame."""
        self._frame.begin(self._scene.add(frame), frame.time_s)
        self._stated, self._detections, self._asked = {}, {}, False

    def choose(self, executed: Mapping[str, Value]) -> str | None:
        """Return the model that is worth most per millisecond, if that is above the price and can be paid."""
        if not self._asked:
            self._ask()
        candidates = self._allowance.choices([m for m in self._choosable if m not in executed])
        if not candidates:
            return None
        frame, aims = self._frame, self._aims
        frame.hear(executed)
        best, best_worth = None, 0.0
        for name in candidates:
            worth = self._worth(name) / self._times_ms[name]
            if worth > best_worth and (not aims or worth >= aims.price(name)):
                best, best_worth = name, worth
        if best is None or best_worth < self._price_now() or not self._allowance.affords(best):
            return None
        self._allowance.spend(best)
        if self._models[best].past:
            self._stated[best] = self._frame.guess(best)
        return best

    def answer(self, executed: Mapping[str, Value]) -> dict[str, Answer]:
        """Answer for models that did not execute; those that never have abstain."""
        frame, answers = self._frame, {}
        frame.hear(executed)
        for name, model in self._models.items():
            if name in executed or not model.past:
                continue
            guess = self._stated[name] = frame.guess(name)
            if (told := frame.told(name)) is not None:
                model.told = told
            linked = () if model.belief.repeats else frame.sources(name)
            confidence = 1.0 - model.recalibration(guess.wrong)
            answers[name] = Answer(guess.value, "linked" if linked else "reused", confidence, linked)
        if self._aims:
            self._aims.served({name: 1.0 - (answer.confidence or 0.0) for name, answer in answers.items()})
        return answers

    def expected(self) -> dict[str, float]:
        """Return how far what was answered on this frame, or would have been without executing, likely disagrees."""
        return {name: self._models[name].recalibration(guess.wrong) for name, guess in self._stated.items()}

    def found(self, detections: Mapping[str, Detections]) -> None:
        """Take in the boxes behind the counts of models that executed on this frame; before `learn`."""
        self._detections = detections

    def learn(self, executed: Mapping[str, Value], *, chosen: bool) -> None:
        """Learn from what was executed: a few models, or all of them."""
        self._hold_against(executed, self._stated, 1.0 if chosen else AUDITED)
        frame = self._frame
        frame.hear(executed)
        now = frame.levels()
        if len(executed) == len(self._models):
            self._unloaded.add(now)
        if self._links is not None and len(executed) > 1:
            self._learn_links(self._links, executed, now, chosen)
        for name, value in executed.items():
            model, found = self._models[name], self._detections.get(name)
            before = frame.known(name) if model.past else None
            sure = model.learn_own(frame.now, frame.time_s, value, found, before, chosen=chosen)
            model.learn(frame.now, value, now, sure, chosen)
        self._until_fit -= 1

    def put_off(self) -> PutOff:
        """Return what `learn_late` has to know of this frame; after `answer`."""
        return PutOff(self._frame.now, self._frame.time_s, dict(self._stated))

    def learn_late(self, frame: PutOff, executed: Mapping[str, Value], detections: Mapping[str, Detections]) -> None:
        """Learn from an earlier frame on which all models executed after all, when later ones had come already.

        Of those that have not executed since: models that are not loaded, and had to wait for it.
        """
        now = {n: b.levels(b.read(v)) for n, v in executed.items() for b in (self._models[n].belief,)}
        if len(now) == len(self._models):
            self._unloaded.add(now)
        for name, value in executed.items():
            model, told = self._models[name], self._models[name].told
            if model.past and model.past[-1].at.steps >= frame.at.steps:
                continue
            self._hold_against({name: value}, frame.stated, AUDITED)
            known = model.known(frame.at, frame.time_s, model.past[-1]) if model.past else None
            if known is not None and self._links is not None and (heard := self._frame.sources_of(name, now)):
                self._links.learn(name, known, heard, now, model.past[-1].others, now[name])
            sure = model.learn_own(frame.at, frame.time_s, value, detections.get(name), known, chosen=False)
            model.learn(frame.at, value, now, sure, chosen=False)
            model.told = told if told is not None and told.at.steps > frame.at.steps else None

    def _learn_links(
        self, links: LinkEvidence, executed: Mapping[str, Value], now: Mapping[str, Levels], chosen: bool
    ) -> None:
        """Tell links what each executed model said beside the others, as if it had last executed some time ago."""
        self._learnt_links += 1
        backs = (1,) if chosen else (1, LINKS_BACK[self._learnt_links % len(LINKS_BACK)])
        every = WEIGH_EVERY if self._learnt_links > WEIGH_ALL else 1
        frames = every if self._learnt_links % every == 0 else 0
        frame = self._frame
        for name in executed:
            model = self._models[name]
            heard = frame.sources(name)
            for back in backs if heard else ():
                if back > len(model.past):
                    break
                then = model.past[-back]
                known = frame.known(name) if back == 1 else model.known(frame.now, frame.time_s, then)
                told, weight = (heard, now, then.others, now[name]), 1.0 if chosen else LINK_WEIGHT
                links.learn(name, known, *told, weight=weight, only_moves=back > 1, frames=frames)

    def _hold_against(self, executed: Mapping[str, Value], stated: Mapping[str, Guess], weight: float) -> None:
        """Learn how far to believe what was answered, or would have been, from what was executed."""
        for name, guess in stated.items():
            if name in executed:
                model = self._models[name]
                wrong = model.belief.disagreement(guess.reading, model.belief.read(executed[name]))
                model.recalibration.learn(guess.wrong, wrong, weight)

    def _ask(self) -> None:
        """A frame begins that is the policy's to decide on."""
        self._asked = True
        self._allowance.next_frame()
        if self._until_fit <= 0 or len(self._frame.gone) > self._looked_at:
            outlooks = self._look()
            if self._allowed is None:
                self._choose_among(self._unloaded.choose(outlooks))
            self._price = self._set_price(outlooks)
            self._until_fit = FIT_EVERY
        if self._allowed is None:
            self._choose_among(self._unloaded.choose({}))

    def _look(self) -> dict[str, Outlook]:
        """Find out how long outputs last by what was seen so far; return the outlook of each model that executed."""
        steps = 1 if self._price else FIRST_STEPS
        for model in self._models.values():
            if model.freshness.new:
                model.freshness.fit(steps)
        if self._newcomer is not None:
            self._newcomer.start(self._models, self._links, steps)
        self._frame.see_what_is_gone()
        outlooks = {n: m.look(self._scene.recent) for n, m in self._models.items() if m.past}
        self._looked_at = len(outlooks)
        return outlooks

    def _set_price(self, outlooks: Mapping[str, Outlook]) -> float:
        """Return the price per ms at which the loaded models use the budget up, or targets are just met."""
        if self._aims:
            return self._aims.look(outlooks)
        limit = self._allowance.per_frame_ms
        loaded = [o for n, o in outlooks.items() if self._allowed is None or n in self._allowed]
        return 0.0 if isinf(limit) else Prices(loaded).for_time(limit)

    def _price_now(self) -> float:
        if self._aims or isinf(self._allowance.per_frame_ms):
            return 0.0  # each model has its own, or the mean of all has one; or nothing is limited
        return self._price * exp(CAUTION * (CREDIT - self._allowance.left_ms / self._total_ms))

    def _worth(self, name: str) -> float:
        model, frame = self._models[name], self._frame
        if name in self._required or not model.past or model.outlook is None:
            return inf  # where nothing is known yet, to know something is worth any price
        waited = frame.waited[name]
        if waited > self._look_again and waited > LOOK_AGAIN[1] * frame.now.steps:
            return MUCH  # it has not executed for so long that what is known of it may be so no more
        return model.outlook.worth(frame.guess(name).wrong, frame.gone[name])
