"""What the tests in a real browser share: a dashboard to visit, and a page that notes all that goes wrong on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page

from camlink.pipeline.dashboard.server import Dashboard


def serve(folder: Path, token: str | None = None) -> Iterator[str]:
    dashboard = Dashboard([folder], port=0, token=token)
    dashboard.start()
    try:
        yield dashboard.url.rstrip("/")
    finally:
        dashboard.close()


@dataclass
class Visit:
    """A page with all that went wrong on it."""

    page: Page
    site: str
    wrong: list[str] = field(default_factory=list)

    def go(self, path: str) -> Page:
        self.page.goto(self.site + path)
        return self.page


def visiting(browser: Browser, site: str, **options: object) -> Iterator[Visit]:
    """Open a page; at the end nothing may have failed, complained, or been asked of another host."""
    context = browser.new_context(**options)  # type: ignore[arg-type]
    page = context.new_page()
    found = Visit(page, site)
    page.on("console", lambda m: found.wrong.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: found.wrong.append(str(error)))
    page.on(
        "requestfailed", lambda r: found.wrong.append(f"failed: {r.url}") if r.failure != "net::ERR_ABORTED" else None
    )
    page.on("request", lambda r: found.wrong.append(r.url) if urlsplit(r.url).hostname != "127.0.0.1" else None)
    yield found
    context.close()
    assert not found.wrong


def fits(page: Page) -> bool:
    """Say whether nothing sticks out to the right."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"))


def press(page: Page, *keys: str) -> None:
    """Press keys once the page that they lead from has loaded, script included."""
    for key in keys:
        page.wait_for_load_state()
        page.keyboard.press(key)
