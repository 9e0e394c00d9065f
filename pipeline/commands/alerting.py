"""What `run` and the results worker have in common where a site tells of events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from camlink.models.base import OutputSpec
    from camlink.pipeline.alerts.delivery import Alerts
    from camlink.pipeline.config import SiteConfig
    from camlink.pipeline.telemetry import Telemetry


@contextmanager
def sent_alerts(
    site: SiteConfig, specs: Mapping[str, OutputSpec], folder: Path, telemetry: Telemetry | None
) -> Iterator[Alerts]:
    """Send a site's alerts while the context lasts; what has not arrived by then stays in ``folder``."""
    from camlink.pipeline.alerts.delivery import Alerts

    alerts = Alerts(site.alerts, specs, folder, targets=site.target_of)
    if telemetry is not None:
        telemetry.gauge("alerts_waiting", "Alerts that have not arrived yet, per place", alerts.waiting)
        telemetry.gauge("alert_failures", "Attempts to deliver an alert that failed", lambda: alerts.counts["failures"])
        telemetry.gauge("alerts_raised", "Alerts raised since the start", lambda: alerts.counts["alerts"])
    alerts.start()
    try:
        yield alerts
    finally:
        alerts.close()
