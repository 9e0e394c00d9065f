"""What has to fit together in a configuration whose parts are right one by one: alert rules that could never fire.

Each check yields the path of what is wrong and a message. What was left out as wrong already is not held against the
rest: one fault is told of once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from camlink.pipeline.config.alerts import NEEDS, TAKES, AlertRule
from camlink.pipeline.config.validation import LeftOut
from camlink.pipeline.config.yaml_lines import KeyPath
from camlink.pipeline.suggestions import suggest

if TYPE_CHECKING:
    from camlink.models.catalogue import ModelDefinition
    from camlink.pipeline.config import SiteConfig

Found = tuple[KeyPath, str]
LABELLED = ("single_label", "multi_label")
NOTHING_PREDICTED = ("all", "standalone")  # policies
WITH_LINKS = ("mlink", "mlink-exact")  # policies that answer by the links of adaptation, and so by `links.start`
CONFIDENT = ("mlink", "mlink-exact", "camlink")  # policies whose answers say how sure they are


def contradictions(site: SiteConfig, left_out: LeftOut, data: Mapping[str, Any]) -> Iterator[Found]:
    """Yield everything that does not fit together in the sound part of a site. ``data``: the file, as it was read."""
    known = None if left_out.touches("models") else {d.name: d for d in site.model_definitions()}
    if known is not None:
        yield from _names(site, known)
    if site.abstain_below is not None and site.policy not in CONFIDENT:
        message = f"policy {site.policy} states no confidence, so nothing would abstain"
        yield ("abstain_below",), f"{message}; leave it out, or choose one of {', '.join(CONFIDENT)}"
    first: dict[str, int] = {}
    for number, rule in enumerate(site.alerts.rules):
        path: KeyPath = ("alerts", "rules", number)
        before = first.setdefault(rule.name, number)
        if before != number:
            yield (*path, "name"), f"rule {before + 1} has this name, too; rename one"
        checks = _Rule(site, rule, left_out, left_out.original(path), known, _camera_ids(data))
        for key, message in checks.faults():
            yield (*path, *key), message


def _names(site: SiteConfig, known: Mapping[str, ModelDefinition]) -> Iterator[Found]:
    """Yield what is said of models that are not there."""
    for key, by_model in {"targets": site.targets, "abstain_below": site.abstain_below}.items():
        for name in by_model if isinstance(by_model, dict) else ():
            if name not in known:
                yield (key, name), f'"{name}" is none of the models; {suggest(name, known)}'
    if site.oracle is not None and site.oracle.name in known:
        yield ("oracle", "name"), f'"{site.oracle.name}" is a model; give the oracle a name of its own'


def _camera_ids(data: Mapping[str, Any]) -> list[str] | None:
    """Return the ids of all cameras in the file, those included that are wrong otherwise; None where there are none."""
    cameras = data.get("cameras")
    entries = cameras if isinstance(cameras, list) else []
    return [str(entry["id"]) for entry in entries if isinstance(entry, dict) and "id" in entry] or None


@dataclass(frozen=True)
class _Rule:
    """One alert rule, and what it is to be held against."""

    site: SiteConfig
    rule: AlertRule
    left_out: LeftOut
    path: KeyPath  # in the file
    models: Mapping[str, ModelDefinition] | None
    cameras: list[str] | None

    def faults(self) -> Iterator[Found]:
        yield from self._fields()
        yield from self._names()
        model = (self.models or {}).get(self.rule.model or "")
        if model is not None:
            yield from self._task(model)
        if self.rule.when == "target_not_met":
            yield from self._target()

    def _fields(self) -> Iterator[Found]:
        rule = self.rule
        for key in NEEDS[rule.when]:
            if getattr(rule, key) is None and not self.left_out.touches(*self.path, key):
                yield (), f"{rule.when} needs `{key}`"
        for key in ("model", "label", "above", "confirm"):
            if getattr(rule, key) not in (None, False) and key not in TAKES[rule.when]:
                yield (key,), f"{rule.when} takes no `{key}`; leave it out"
        nowhere = not self.site.alerts.places(rule)
        if nowhere and not self.left_out.touches("alerts", "to") and not self.left_out.touches(*self.path, "to"):
            yield (), "it goes nowhere; name an address under `to`"

    def _names(self) -> Iterator[Found]:
        rule = self.rule
        for number, name in enumerate(rule.cameras):
            if self.cameras is not None and name not in self.cameras:
                yield ("cameras", number), f'there is no camera "{name}"; {suggest(name, self.cameras)}'
        if self.models is not None and rule.model is not None and rule.model not in self.models:
            yield ("model",), f'the model "{rule.model}" is not run here; {suggest(rule.model, self.models)}'

    def _task(self, model: ModelDefinition) -> Iterator[Found]:
        rule = self.rule
        if rule.label is not None and "label" in TAKES[rule.when] and rule.label not in model.labels:
            yield ("label",), f'no label "{rule.label}"; {suggest(rule.label, model.labels)}'
        if rule.when == "count_above" and model.task in LABELLED:
            yield ("when",), f"{model.name} gives labels and counts nothing; use label_seen, or a model that counts"
        if rule.when == "label_seen" and model.task == "regression":
            yield ("when",), f"{model.name} gives a number and no labels; use count_above"

    def _target(self) -> Iterator[Found]:
        """A target that is not there is never missed, nor is one where nothing is predicted, or nothing measured."""
        site, rule = self.site, self.rule
        unsure = any(self.left_out.touches(key) for key in ("targets", "target_agreement", "cameras", "models"))
        models = (rule.model,) if rule.model is not None else tuple(self.models or ())
        cameras = rule.cameras or tuple(self.cameras or ("",))
        if not unsure and not any(site.target_of(c, m) is not None for c in cameras for m in models):
            yield ("when",), f"no target is set{self._whose()}; set target_agreement, or targets by model"
        if site.audit.fraction == 0:
            yield ("when",), "audit.fraction is 0, so that agreement is never measured; raise it, or drop this rule"
        if site.policy in NOTHING_PREDICTED:
            yield ("when",), f"policy {site.policy} predicts nothing that could miss a target; drop this rule"

    def _whose(self) -> str:
        of = f" for {self.rule.model}" if self.rule.model else ""
        return of + (f" at {', '.join(self.rule.cameras)}" if self.rule.cameras else "")
