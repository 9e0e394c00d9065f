"""A configuration file that is edited while camlink runs: read anew when it changes, and never half-written or broken.

watch = ConfigWatch(path, site)
edited = watch.poll()      # None, or the new configuration; call it as often as you like
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from camlink.pipeline.assembly import CameraFacts
from camlink.pipeline.config import SiteConfig, config_file, load_config
from camlink.pipeline.errors import ConfigError
from camlink.pipeline.records import Record, RelabelRequest

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
LIVE_KEYS = frozenset({"cameras", "site"})  # of the others a change takes effect at the next start, and is told of

Stamp = tuple[int, int, int]


class ConfigWatch:
    """Tells of edits to a configuration file. A broken edit is reported once, and the configuration before it stays."""

    def __init__(self, path: str, site: SiteConfig, seconds: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._file = config_file(path)
        self._site = site
        self._seconds = seconds
        self._known = self._seen = _stamp(self._file)
        self._due = seconds() + LOOK_EVERY_S

    def poll(self) -> SiteConfig | None:
        """Return the new configuration once after each edit that is right. Looks at the file once a second.

        A file is read when it was the same at two looks, so that an editor may take its time to write it.
        """
        if self._seconds() < self._due:
            return None
        self._due = self._seconds() + LOOK_EVERY_S
        stamp = _stamp(self._file)
        settled, self._seen = stamp == self._seen, stamp
        if not settled or stamp == self._known:
            return None
        return self.look()

    def look(self) -> SiteConfig | None:
        """Return the new configuration if the file was edited since it was read last, at once."""
        stamp = _stamp(self._file)
        if stamp == self._known:
            return None
        self._known = self._seen = stamp
        return self._read()

    def _read(self) -> SiteConfig | None:
        try:
            edited = load_config(self._path)
        except ConfigError as error:
            logger.error("the edited configuration is not used, the one before stays in force:\n%s", error)
            return None
        waiting = [key for key in _changed_keys(self._site, edited) if key not in LIVE_KEYS]
        if waiting:
            logger.warning("%s: a change of %s takes effect when camlink is restarted", self._file, ", ".join(waiting))
        # What needs a restart stays as it was, so that nobody works with half of an edit.
        self._site = self._site.model_copy(update={key: getattr(edited, key) for key in LIVE_KEYS})
        return self._site


class WatchedFacts(Mapping[str, CameraFacts]):
    """What operators need to know of cameras, those included that were added to the file since."""

    def __init__(self, path: str, site: SiteConfig) -> None:
        self._watch = ConfigWatch(path, site)
        self._facts = _facts(site)

    def __getitem__(self, camera_id: str) -> CameraFacts:
        if camera_id not in self._facts:
            edited = self._watch.look()
            if edited is not None:
                self._facts = _facts(edited)
        return self._facts[camera_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._facts)

    def __len__(self) -> int:
        return len(self._facts)


class WatchedCameras:
    """What the header of a run says of its cameras, as the file is now; ``tell`` hears at each edit which there are."""

    def __init__(
        self,
        path: str,
        site: SiteConfig,
        tell: Callable[[Collection[str]], object],
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._watch = ConfigWatch(path, site, seconds)
        self._site = site
        self._tell = tell

    def described(self) -> dict[str, dict[str, Any]]:
        """Return all cameras; the file is looked at at once."""
        self._take(self._watch.look())
        return described_cameras(self._site)

    def observe(self, records: Sequence[Record]) -> tuple[RelabelRequest, ...]:
        """Look at the file now and then: a listener that asks for nothing."""
        self._take(self._watch.poll())
        return ()

    def _take(self, edited: SiteConfig | None) -> None:
        if edited is not None:
            self._site = edited
            self._tell([camera.id for camera in edited.cameras])


def described_cameras(site: SiteConfig) -> dict[str, dict[str, Any]]:
    """Return what the header of a run says of a site's cameras."""
    return {c.id: {"domain": c.domain, "source": c.shown_source, "fps": c.fps} for c in site.cameras}


def _facts(site: SiteConfig) -> dict[str, CameraFacts]:
    return {camera.id: CameraFacts(camera.fps) for camera in site.cameras}


def _changed_keys(before: SiteConfig, after: SiteConfig) -> list[str]:
    return [key for key in SiteConfig.model_fields if getattr(before, key) != getattr(after, key)]


def _stamp(file: Path) -> Stamp | None:
    """Return what changes when a file is edited or replaced; None where there is none."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
