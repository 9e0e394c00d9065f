"""The pages in a real browser: what a person sees and can do, without errors and without leaving this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, expect

from camlink.pipeline.dashboard.server import Dashboard
from camlink.pipeline.reports import write_report
from tests.pipeline.dashboard.browsing import Visit, fits, press, serve, visiting
from tests.pipeline.dashboard.conftest import HALL, NASTY, YARD

pytestmark = [pytest.mark.browser, pytest.mark.slow]

TOKEN = "a token of some length"
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def served(runs: Path) -> Iterator[str]:
    yield from serve(runs)


@pytest.fixture
def visit(browser: Browser, served: str) -> Iterator[Visit]:
    yield from visiting(browser, served)


PATHS = (
    "/?run=replayed",
    f"/camera?run=replayed&id={HALL}",
    f"/day?run=replayed&id={HALL}&date=2026-01-05",
    "/models?run=replayed",
    "/runs?a=replayed&b=trouble",
)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("shape", ["desk", "phone", "dark"])
def test_every_page_fits_and_has_a_heading_in_every_shape(browser: Browser, served: str, path: str, shape: str) -> None:
    options = {"desk": {}, "phone": {"viewport": PHONE}, "dark": {"color_scheme": "dark"}}[shape]
    for found in visiting(browser, served, **options):
        page = found.go(path)
        assert page.locator("h1").count() == 1
        assert fits(page)
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(20, 22, 26)") == (shape == "dark")


def test_from_the_fleet_to_a_camera_and_back_with_the_keyboard_alone(visit: Visit) -> None:
    page = visit.go("/?run=replayed")
    press(page, "j")
    expect(page.locator(f'[data-key="{HALL}"]')).to_be_focused()
    press(page, "j")
    expect(page.locator(f'[data-key="{YARD}"]')).to_be_focused()
    press(page, "k", "Enter")
    expect(page.locator("h1")).to_have_text(HALL)
    press(page, "]")
    expect(page.locator("h1")).to_have_text(YARD)
    press(page, "Escape")
    expect(page.locator("#fleet")).to_be_visible()
    press(page, "g", "m")
    expect(page.locator("h1")).to_have_text("Models")


def test_tab_reaches_the_content_first_by_the_skip_link(visit: Visit) -> None:
    page = visit.go("/?run=replayed")
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()


def test_the_keys_are_listed_on_demand(visit: Visit) -> None:
    page = visit.go("/?run=replayed")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_finding_a_camera_hides_the_others_and_says_when_there_is_none(visit: Visit) -> None:
    page = visit.go("/?run=replayed")
    page.keyboard.press("/")
    page.keyboard.type(HALL)
    expect(page.locator(f'[data-key="{YARD}"]')).to_be_hidden()
    page.keyboard.type("xyz")
    expect(page.locator("#nothing")).to_be_visible()
    page.locator("#clear").click()
    expect(page.locator(f'[data-key="{YARD}"]')).to_be_visible()


def test_a_camera_shows_its_picture_boxes_charts_and_wrong_predictions(visit: Visit) -> None:
    page = visit.go(f"/camera?run=replayed&id={HALL}")
    assert page.locator(".latest img").evaluate("img => img.complete && img.naturalWidth > 0")
    assert page.locator(".chart").count() == 3  # one per model, and the decisions
    assert page.locator(".chart path.predicted").count() > 0
    assert page.locator(".matrix tbody td span").count() == 2
    assert page.locator("#gallery figure").count() > 0
    page.locator("#gallery img").first.scroll_into_view_if_needed()
    expect(page.locator("#gallery img").first).to_have_js_property("complete", True)


@pytest.mark.parametrize("printed", [True, False])
def test_a_report_has_no_empty_places_on_paper_or_in_a_picture(browser: Browser, runs: Path, printed: bool) -> None:
    """Nobody scrolls: what is below the window is drawn all the same, by printing alone or when the browser is idle."""
    page = browser.new_page(viewport={"width": 1280, "height": 400})
    if printed:
        page.add_init_script("window.requestIdleCallback = () => 0")
    page.goto(write_report(runs / "replayed").as_uri())
    unfolded = page.evaluate("[...document.querySelectorAll('.plot')].filter((plot) => plot.checkVisibility()).length")
    drawn = page.locator(".plot .main-svg:first-child")
    assert unfolded > 4
    if printed:
        assert drawn.count() < unfolded, "else this shows nothing of printing"
        page.pdf()
    expect(drawn).to_have_count(unfolded)
    page.close()


def test_a_camera_that_is_down_is_plain_to_see(visit: Visit) -> None:
    page = visit.go("/?run=trouble&sort=health")
    first = page.locator("#lines tr").first
    expect(first.locator(".health.bad")).to_have_text("down")
    first.locator("a").click()
    expect(page.locator("#head")).to_contain_text("reconnecting")
    expect(page.locator("#charts")).to_contain_text("No outputs yet")


def test_a_camera_named_like_markup_is_shown_as_it_is_called(visit: Visit) -> None:
    page = visit.go(f"/camera?run=trouble&id={quote(NASTY)}")
    expect(page.locator("h1")).to_have_text(NASTY)
    expect(page.locator("#head")).to_contain_text("<b>bold</b>")


def test_no_page_shows_a_password_or_an_unmasked_address(visit: Visit) -> None:
    for path in (*PATHS, "/camera?run=trouble&id=gate"):
        text = visit.go(path).content()
        assert "***@" in text or "rtsp" not in text


def test_an_empty_folder_has_a_page_that_says_what_to_do(browser: Browser, tmp_path: Path) -> None:
    for site in serve(tmp_path):
        for found in visiting(browser, site):
            page = found.go("/")
            expect(page.locator("h1")).to_have_text("Nothing to show yet")
            assert fits(page)


def test_what_is_new_appears_without_a_reload_and_focus_stays(browser: Browser, runs: Path, tmp_path: Path) -> None:
    import shutil

    from camlink.pipeline.records import CameraEvent
    from camlink.pipeline.results import ResultsLog
    from camlink.pipeline.testing import START

    shutil.copytree(runs / "trouble", tmp_path / "run")
    for site in serve(tmp_path / "run"):
        for found in visiting(browser, site):
            page = found.go("/")
            page.locator(f'[data-key="{HALL}"]').focus()
            with ResultsLog(tmp_path / "run") as log:
                log.write([CameraEvent("lift", START, "down", "no frame")])
            expect(page.locator('[data-key="lift"]')).to_be_visible(timeout=20_000)
            expect(page.locator(f'[data-key="{HALL}"]')).to_be_focused()


def test_when_camlink_stops_the_page_says_so_and_keeps_what_it_showed(browser: Browser, runs: Path) -> None:
    dashboard = Dashboard([runs], port=0)
    dashboard.start()
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{dashboard.url}?run=replayed")
    dashboard.close()
    expect(page.locator("#lost")).to_be_visible(timeout=20_000)
    expect(page.locator(f'[data-key="{HALL}"]')).to_be_visible()
    context.close()


def test_signing_in_leads_to_the_page_that_was_asked_for_and_out_again(browser: Browser, runs: Path) -> None:
    for site in serve(runs, TOKEN):
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"{site}/models?run=replayed")
        page.get_by_label("Token").fill("not the right token")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("not the token")
        page.get_by_label("Token").fill(TOKEN)
        page.keyboard.press("Enter")
        expect(page.locator("h1")).to_have_text("Models")
        assert page.evaluate("document.cookie") == ""
        page.get_by_role("button", name="Sign out").click()
        expect(page.locator("h1")).to_have_text("Sign in")
        context.close()
