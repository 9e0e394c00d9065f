"""The section ``alerts`` of a site configuration: which events are told, and to whom."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, Strict, field_validator

from camlink.pipeline.addresses import check_address, expand_environment, is_url
from camlink.pipeline.config.sections import Duration, Names, Section
from camlink.pipeline.suggestions import suggest

SCHEMES = ("http", "https", "mqtt", "mqtts", "kafka")
NEEDS = {
    "count_above": ("model", "above"),
    "label_seen": ("model", "label"),
    "target_not_met": (),
    "camera_down": (),
}
TAKES = {
    "count_above": ("model", "above", "label", "confirm"),
    "label_seen": ("model", "label", "confirm"),
    "target_not_met": ("model",),
    "camera_down": (),
}

Places = Annotated[tuple[str, ...], Strict(False)]


def shown_place(address: str) -> str:
    """Return where alerts go as pages and logs may show it: scheme and host, since the rest may hold a secret.

    >>> shown_place("https://user:pw@hooks.example/services/T0/B0/secret")
    'https://hooks.example'
    """
    parts = urlsplit(address)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}" + (parts.path if parts.scheme == "kafka" else "")


def _checked_places(places: tuple[str, ...]) -> tuple[str, ...]:
    opened = []
    for place in places:
        address = expand_environment(place)
        if not is_url(address):
            raise ValueError("an alert goes to an address: https://..., mqtt://HOST/TOPIC or kafka://HOST:PORT/TOPIC")
        check_address(address)
        scheme = urlsplit(address).scheme.lower()
        if scheme not in SCHEMES:
            raise ValueError(f'alerts cannot be sent by "{scheme}://"; {suggest(scheme, SCHEMES)}')
        if scheme in ("mqtt", "mqtts", "kafka") and not urlsplit(address).path.strip("/"):
            raise ValueError(f"{shown_place(address)} names no topic; write {scheme}://HOST/TOPIC")
        opened.append(address)
    return tuple(opened)


class AlertRule(Section):
    """One kind of event that is told. What it needs beside its parts is checked with the file: `config_checks`."""

    name: str = Field(min_length=1, max_length=100, description="Name of the rule; every alert bears it.")
    when: Literal["count_above", "label_seen", "target_not_met", "camera_down"] = Field(
        description="count_above: a model counts more than `above`; label_seen: a model gives `label`; "
        "target_not_met: the agreement's interval lies below the target; camera_down: a camera is down or frozen."
    )
    cameras: Names = Field(default=(), description="Cameras it is about; all when left out.")
    model: str | None = Field(default=None, description="Model it is about.")
    label: str | None = Field(default=None, description="Label that is given, or that is counted; all when left out.")
    above: float | None = Field(default=None, ge=0, allow_inf_nan=False, description="Count that is exceeded.")
    lasting: Duration = Field(
        default=timedelta(seconds=10), description="How long it must hold, in event time, before it is told."
    )
    cool_down: Duration = Field(
        default=timedelta(minutes=5), description="How long the same camera is not told of again."
    )
    confirm: bool = Field(
        default=False, description="Execute the model on the deciding frame first, where its output was predicted."
    )
    to: Places | None = Field(
        default=None, repr=False, description="Where it goes; as under `alerts.to` when left out."
    )

    @field_validator("to")
    @classmethod
    def _check_to(cls, places: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if places is None else _checked_places(places)


class AlertsConfig(Section):
    """Events out. Without rules nothing is sent."""

    to: Places = Field(
        default=(),
        repr=False,
        description="Addresses: https://..., mqtt[s]://HOST[:PORT]/TOPIC, kafka://HOST:PORT/TOPIC. ${NAME} is taken "
        "from the environment.",
    )
    rules: Annotated[tuple[AlertRule, ...], Strict(False)] = Field(default=(), description="What is told.")

    @field_validator("to")
    @classmethod
    def _check_to(cls, places: tuple[str, ...]) -> tuple[str, ...]:
        return _checked_places(places)

    def places(self, rule: AlertRule) -> tuple[str, ...]:
        """Return where a rule's alerts go."""
        return self.to if rule.to is None else rule.to
