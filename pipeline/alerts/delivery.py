"""Puts alerts into the outbox as records come, and carries them out of it in a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from camlink.models.base import OutputSpec
from camlink.pipeline.alerts.alert import Alert
from camlink.pipeline.alerts.outbox import Letter, Outbox
from camlink.pipeline.alerts.rules import AlertRules, Targets
from camlink.pipeline.alerts.senders import Sender, open_sender
from camlink.pipeline.config.alerts import AlertsConfig, shown_place
from camlink.pipeline.errors import AlertError
from camlink.pipeline.records import Record, RelabelRequest

logger = logging.getLogger(__name__)

EVERY_S = 1.0


class Alerts:
    """A site's alerts: `observe` is a listener of a `Session` or a `ResultsWorker`. ``counts`` are for metrics.

    What `observe` returns is to be published: frames that are to be executed before an alert is told. An alert is on
    disk when `observe` returns. Raises `ResultsError` where the outbox cannot be written.
    """

    def __init__(
        self,
        config: AlertsConfig,
        specs: Mapping[str, OutputSpec],
        folder: Path,
        *,
        targets: Targets = lambda camera, model: None,
        live: bool = True,
        open_sender: Callable[[str], Sender] = open_sender,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        """``live``: event time is the present, so that a camera's silence is noticed without any record."""
        self.counts: Counter[str] = Counter()
        self._rules = AlertRules(config.rules, specs, targets)
        self._places = {rule.name: config.places(rule) for rule in config.rules}
        self._addresses = {_name(place): place for places in self._places.values() for place in places}
        self._outbox = Outbox(folder)
        self._live, self._open, self._now_s = live, open_sender, now_s
        self._senders: dict[str, Sender] = {}
        self._lock = threading.Lock()  # around the rules
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def observe(self, records: Sequence[Record]) -> list[RelabelRequest]:
        """Look at records; keep what is to be told, and return what is to be executed."""
        with self._lock:
            return self._sort(self._rules.observe(records))

    def start(self) -> None:
        """Deliver in a thread of its own: no frame waits for a webhook."""
        self._thread = threading.Thread(target=self._run, name="alerts", daemon=True)
        self._thread.start()

    def deliver(self) -> int:
        """Carry out what is due; return how many letters have arrived."""
        if self._live:
            with self._lock:  # executions are asked for by records alone, so nothing is lost here
                self._sort(self._rules.on_time(datetime.fromtimestamp(self._now_s(), UTC)))
        return sum(self._carry_to(place) for place in self._outbox.places_due(self._now_s()))

    def waiting(self) -> int:
        """Return how many letters have not arrived."""
        return self._outbox.waiting()

    def close(self) -> None:
        """Try once more what is due, and stop; what has not arrived stays for the next start."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(30)
        self.deliver()
        for sender in self._senders.values():
            sender.close()
        self._outbox.close()

    def _sort(self, found: Iterable[Alert | RelabelRequest]) -> list[RelabelRequest]:
        asked = []
        for one in found:
            if isinstance(one, RelabelRequest):
                self.counts["confirmations"] += 1
                asked.append(one)
            else:
                self.counts["alerts"] += 1
                logger.info('alert "%s", camera "%s": %s (%s)', one.rule, one.camera_id, one.detail, one.how)
                self._outbox.put(one, [_name(place) for place in self._places[one.rule]], self._now_s())
        return asked

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            try:
                self.deliver()
            except Exception:  # the thread must outlive a full disk; what is kept is tried again
                self.counts["failures"] += 1
                logger.exception("alerts could not be delivered; trying again")

    def _carry_to(self, place: str) -> int:
        """Carry what is due to one place; return how many letters have arrived.

        After one that has not, the others wait for the next turn, so that a place that hangs holds up no other.
        """
        arrived = 0
        for letter in self._outbox.due(self._now_s(), place):
            if not self._carry(letter):
                break
            arrived += 1
        return arrived

    def _carry(self, letter: Letter) -> bool:
        address = self._addresses.get(letter.place)
        if address is None:
            self._outbox.failed(letter, "its address is no longer in the configuration", self._now_s())
            return False
        try:
            if letter.place not in self._senders:
                self._senders[letter.place] = self._open(address)
            self._senders[letter.place].send(letter.id, letter.body)
        except AlertError as error:
            self.counts["failures"] += 1
            wait_s = self._outbox.failed(letter, str(error), self._now_s())
            logger.warning("%s; trying again in %.0f s (attempt %d)", error, wait_s, letter.tries + 1)
            return False
        self._outbox.told(letter, self._now_s())
        self.counts["delivered"] += 1
        return True


def _name(address: str) -> str:
    """Return what the outbox calls an address: recognised again, but without the secrets that it may hold."""
    from hashlib import blake2b

    return f"{shown_place(address)}#{blake2b(address.encode(), digest_size=6).hexdigest()}"
