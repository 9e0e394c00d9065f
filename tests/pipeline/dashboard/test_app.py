"""What the dashboard answers, and what it refuses: by requests, without a browser."""

from __future__ import annotations

import re
import socket
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from starlette.testclient import TestClient

from camlink.operators.evidence import gathered
from camlink.pipeline.dashboard.app import build_app
from camlink.pipeline.dashboard.auth import COOKIE, TRIES, TRIES_S, Door
from camlink.pipeline.dashboard.costs import Costs
from camlink.pipeline.dashboard.fleet import troubles
from camlink.pipeline.dashboard.gate import LONGEST_QUERY
from camlink.pipeline.dashboard.library import Library
from camlink.pipeline.dashboard.rollups import CameraState, ModelState
from camlink.pipeline.dashboard.server import Dashboard, DashboardError
from camlink.pipeline.records import FrameDropped
from camlink.pipeline.reports import notes
from camlink.pipeline.results import ResultsLog
from camlink.pipeline.run_info import RunInfo
from camlink.pipeline.testing import TinyModel, make_frames
from tests.pipeline.dashboard.conftest import HALL, NASTY, YARD, write_run

TOKEN = "a token of some length"
PAGES = ("/", f"/camera?id={HALL}", "/models", "/runs")


def client(folder: Path, token: str | None = None, **more: object) -> TestClient:
    app = build_app(Library([folder]), Door(token), clock=lambda: datetime.now(UTC), **more)  # type: ignore[arg-type]
    return TestClient(app, base_url="http://127.0.0.1:8765", follow_redirects=False)


@pytest.fixture(scope="module")
def site(runs: Path) -> Iterator[TestClient]:
    with client(runs) as opened:
        yield opened


@pytest.mark.parametrize("page", PAGES)
def test_every_page_answers_for_every_run(site: TestClient, page: str) -> None:
    for run in ("replayed", "trouble"):
        answer = site.get(f"{page}{'&' if '?' in page else '?'}run={run}")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/html")


def test_the_fleet_shows_each_camera_with_its_agreement_and_interval(site: TestClient) -> None:
    text = site.get("/?run=replayed").text
    assert f">{HALL}</a>" in text and f">{YARD}</a>" in text
    assert "95 % interval: " in text and 'class="whisker"' in text
    assert "95 %, at any time" not in text, "the run is over: the figure is its report's"
    assert "audit frames" in text and "Best baseline" in text


def test_what_was_in_memory_when_a_run_ended_is_not_said_to_be_there_still(site: TestClient) -> None:
    ended, live = (site.get(f"/models?run={run}").text for run in ("replayed", "trouble"))
    assert ">in memory at the end<" in ended and "held at the end" in ended and ">in memory<" not in ended
    assert ">in memory<" in live and "in use" in live and "at the end" not in live


@pytest.mark.parametrize(("least", "measured"), [(1, True), (10_000, False)])
def test_the_fleet_makes_no_headline_of_too_few_audits(
    runs: Path, monkeypatch: pytest.MonkeyPatch, least: int, measured: bool
) -> None:
    monkeypatch.setattr(notes, "LEAST_AUDITS", least)
    with client(runs) as own:  # pages are kept while nothing new comes
        text = own.get("/?run=replayed").text
    assert ('<p class="big muted">not measured</p>' not in text) == measured
    assert (re.search(r"\d+ audit frames are too few\.", text) is None) == measured


def test_the_fleet_shows_the_time_budget_beside_what_served_frames_and_all_frames_took(site: TestClient) -> None:
    text = site.get("/?run=replayed").text
    assert re.search(r"on served frames \d+ %, time budget 60 %", text)
    assert re.search(r"<small>cost \d+ %, served \d+ %</small>", text)
    assert "Time budget 60 %: frames served under a decision took" in site.get(f"/camera?run=replayed&id={HALL}").text
    assert 'class="trouble"' not in text


def test_overload_stands_at_the_top_of_the_fleet(tmp_path: Path) -> None:
    frames = make_frames(HALL, 300)
    run = write_run(tmp_path / "run", {HALL: frames[:240]})
    with ResultsLog(run) as log:
        log.write([FrameDropped(HALL, 240, 60, frames[240].captured_at, "overload")])
    with client(tmp_path) as opened:
        text, one = opened.get("/?run=run").text, opened.get(f"/camera?run=run&id={HALL}").text
    assert "60 of 300 frames (20.0 %) were dropped before any model saw them: 60 overload." in text
    assert text.count('class="trouble"') == one.count('class="trouble"') == 1
    assert "<small>20 %</small>" in text, "the line of the camera tells the share of frames that were lost"


def missing_camera(name: str) -> CameraState:
    """A camera whose predictions of one model were wrong on 40 of 40 audits of the second day since 1970."""
    model = ModelState.of(TinyModel.count("action", lambda frame: 0).spec)
    model.audit.days[1] = gathered(np.full(40, 0.5), np.zeros(40))
    return CameraState(name, {"action": model}, decisions=deque([{"target_states": {"action": "not known"}}]))


def test_missed_targets_and_budgets_stand_at_the_top_of_the_fleet(runs: Path) -> None:
    info = RunInfo.load(runs / "replayed")
    info.config["target_agreement"] = 0.9
    cameras = [missing_camera(f"cam-{n}") for n in range(5)]
    kept, broken = Costs(0.7, 0.5, asked=0.5), Costs(0.7, 0.6, asked=0.5)
    each = [f"action on cam-{n} on 1970-01-02 (0.0 % instead of 90.0 %)" for n in range(3)]
    missed = f"Target missed: {', '.join(each)} and 2 more."
    assert troubles(info, cameras, kept) == [missed]
    assert troubles(info, cameras, broken) == [missed, broken.words]
    assert "took 60.0 %, more than it allows" in broken.words


def test_targets_are_shown_with_the_day_that_decides(site: TestClient) -> None:
    assert "<th>Target</th>" in site.get("/?run=replayed").text
    text = site.get(f"/camera?run=replayed&id={HALL}").text
    assert "target 40.0 %" in text and 'class="target"' in text
    assert re.search(r">(met|not met|not known)</span> on \d{4}-\d\d-\d\d: \d+\.\d % \(95 %, at any time: .*\)", text)


def test_a_camera_that_is_down_is_said_to_be_and_sorted_first(site: TestClient) -> None:
    text = site.get("/?run=trouble&sort=health").text
    assert text.index(">gate</a>") < text.index(f">{HALL}</a>")
    assert "1 down" in text
    assert "reconnecting" in site.get("/camera?run=trouble&id=gate").text


def test_a_live_camera_without_a_late_frame_is_silent_not_live(site: TestClient) -> None:
    text = site.get("/?run=trouble").text
    row = text[text.index(f">{YARD}</a>") :].split("</tr>")[0]
    assert "silent" in row


def test_without_runs_the_page_says_how_to_get_one(tmp_path: Path) -> None:
    with client(tmp_path) as nothing:
        for page in ("/", "/camera?id=x", "/models"):
            answer = nothing.get(page)
            assert answer.status_code == 200
            assert "camlink run" in answer.text and str(tmp_path) in answer.text
        assert nothing.get("/readyz").status_code == 503


def test_names_of_cameras_cannot_become_markup(site: TestClient) -> None:
    for page in ("/?run=trouble", f"/camera?run=trouble&id={quote(NASTY)}"):
        text = site.get(page).text
        assert "<img src=x" not in text and "<b>bold</b>" not in text
        assert "&lt;img src=x" in text


@pytest.mark.parametrize(
    "query",
    [
        "id=../../../../etc&kind=latest&frame=1",
        f"id={HALL}&kind=../pictures&frame=1",
        f"id={HALL}&kind=audit&frame=../../run.json",
        f"id={HALL}&kind=audit&frame=-1",
        f"id={HALL}&kind=audit&frame={'9' * 400}",
        f"id={HALL}&kind=audit&frame=%D9%A1",  # a digit, but not one of ours
        f"id={HALL}&kind=latest&frame=1%00.json",
    ],
)
def test_pictures_cannot_be_asked_for_by_path(site: TestClient, query: str) -> None:
    assert site.get(f"/picture?run=replayed&{query}").status_code == 404


@pytest.mark.parametrize("path", ["/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2f..%2fsession.py"])
def test_static_files_do_not_lead_out_of_their_folder(site: TestClient, path: str) -> None:
    assert site.get(path).status_code == 404


def test_runs_are_looked_up_by_name_never_opened_by_path(site: TestClient, runs: Path) -> None:
    for name in ("../replayed", str(runs / "replayed"), "nothing"):
        assert site.get("/", params={"run": name}).status_code == 404
        assert site.get("/runs", params={"a": name}).status_code == 404


def test_spans_and_orders_are_choices_and_long_queries_are_refused(site: TestClient) -> None:
    assert site.get(f"/camera?id={HALL}&run=replayed&span=100000000d").status_code == 400
    assert site.get("/?run=replayed&sort=;drop").status_code == 400
    assert site.get(f"/?run=replayed&x={'y' * LONGEST_QUERY}").status_code == 414


def test_the_latest_picture_is_served_with_its_boxes(site: TestClient) -> None:
    text = site.get(f"/camera?run=replayed&id={HALL}").text
    address = text.split('<img src="')[1].split('"')[0].replace("&amp;", "&")
    picture = site.get(address)
    assert picture.status_code == 200 and picture.headers["content-type"] == "image/jpeg"
    assert picture.content.startswith(b"\xff\xd8")
    assert 'class="box' in text


def test_disagreements_are_shown_with_their_pictures(site: TestClient) -> None:
    text = site.get(f"/camera?run=replayed&id={HALL}").text
    gallery = text[text.index('id="gallery"') :]
    assert "model said" in gallery and "kind=audit" in gallery


def test_two_runs_can_be_compared(site: TestClient) -> None:
    text = site.get("/runs?a=replayed&b=trouble").text
    assert "<h2>replayed and trouble</h2>" in text
    assert text.count('class="whisker"') >= 2


def test_a_page_that_has_not_changed_is_not_sent_again(runs: Path) -> None:
    app = build_app(Library([runs]), Door(None), clock=lambda: datetime(2026, 1, 5, tzinfo=UTC))
    with TestClient(app, base_url="http://localhost") as site:
        first = site.get("/?run=replayed")
        again = site.get("/?run=replayed", headers={"If-None-Match": first.headers["etag"]})
        assert again.status_code == 304 and not again.content


def test_a_folder_that_breaks_keeps_what_was_read_and_says_so(runs: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(runs / "replayed", tmp_path / "run")
    library = Library([tmp_path / "run"], seconds=iter(range(0, 10**6, 60)).__next__)
    with TestClient(build_app(library, Door(None)), base_url="http://localhost") as site:
        assert site.get("/").status_code == 200
        (next((tmp_path / "run").glob("outputs/*/*")) / "part-000099-broken.parquet").write_bytes(b"no parquet")
        text = site.get("/?sort=health").text
        assert "cannot be read" in text and f">{HALL}</a>" in text


def test_without_a_token_only_this_machine_is_answered(runs: Path) -> None:
    with client(runs) as site:
        for host, code in (("localhost", 200), ("[::1]:80", 200), ("attacker.example", 421), ("10.0.0.7:8765", 421)):
            assert site.get("/healthz", headers={"Host": host}).status_code == code


def test_with_a_token_pages_lead_to_signing_in_and_data_is_refused(runs: Path) -> None:
    with client(runs, TOKEN) as site:
        page = site.get(f"/camera?id={HALL}", headers={"Accept": "text/html"})
        assert page.status_code == 303
        assert page.headers["location"] == f"/signin?next=/camera%3Fid%3D{HALL}"
        assert site.get("/metrics").status_code == 401
        assert site.get("/", headers={"Authorization": "Bearer wrong"}).status_code == 401
        assert site.get("/healthz").status_code == 200


def test_the_right_token_opens_a_session_that_scripts_cannot_read(runs: Path) -> None:
    with client(runs, TOKEN) as site:
        done = site.post("/signin?next=/models", data={"token": TOKEN})
        assert done.status_code == 303 and done.headers["location"] == "/models"
        cookie = done.headers["set-cookie"].lower()
        assert "httponly" in cookie and "samesite=strict" in cookie
        assert TOKEN not in done.headers["set-cookie"]
        assert site.get("/models").status_code == 200
        assert site.post("/signout").status_code == 303
        assert site.get("/models").status_code == 401


def test_a_dashboard_over_folders_says_in_plain_text_where_metrics_are(site: TestClient) -> None:
    answer = site.get("/metrics")
    assert answer.status_code == 404 and answer.headers["content-type"].startswith("text/plain")
    assert "`camlink run` serves them here" in answer.text and "report.json" in answer.text


def test_a_simulated_run_is_labelled_on_each_of_its_pages(tmp_path: Path) -> None:
    write_run(tmp_path / "city", {HALL: make_frames(HALL, 80)})
    with client(tmp_path) as site:
        assert "SYNTHETIC" not in site.get("/").text
    replace(RunInfo.load(tmp_path / "city"), synthetic=True).save(tmp_path / "city")
    with client(tmp_path) as site:
        assert all("city (SYNTHETIC)" in site.get(page).text for page in PAGES if page != "/runs")


def test_a_bearer_token_reads_metrics(runs: Path) -> None:
    with client(runs, TOKEN, metrics=lambda: (b"camlink_up 1\n", "text/plain; version=0.0.4")) as site:
        answer = site.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
        assert answer.text == "camlink_up 1\n"
        assert answer.headers["content-type"] == "text/plain; version=0.0.4"


@pytest.mark.parametrize("target", ["https://elsewhere.example", "//elsewhere.example", "/\\elsewhere.example", "/\n"])
def test_signing_in_never_leads_elsewhere(runs: Path, target: str) -> None:
    with client(runs, TOKEN) as site:
        done = site.post("/signin", params={"next": target}, data={"token": TOKEN})
        assert done.headers["location"] == "/"


def test_forged_cookies_and_oversize_forms_are_refused(runs: Path) -> None:
    with client(runs, TOKEN) as site:
        assert site.get("/", headers={"Cookie": f"{COOKIE}={TOKEN}"}).status_code == 401
        assert site.post("/signin", content=b"token=" + b"x" * 10_000).status_code == 413


def test_after_too_many_wrong_tokens_even_the_right_one_must_wait() -> None:
    now = [0.0]
    door = Door(TOKEN, seconds=lambda: now[0])
    for number in range(TRIES):
        assert door.wait_s() == 0.0
        assert not door.knows(f"wrong {number}")
    assert door.wait_s() > 0.0
    assert not door.lets_in(None, f"Bearer {TOKEN}")
    now[0] = TRIES_S + 1.0
    assert door.lets_in(None, f"Bearer {TOKEN}")


def test_every_answer_keeps_its_content_to_this_site(site: TestClient) -> None:
    for page in (*PAGES, "/healthz", "/nowhere"):
        headers = site.get(page).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_bound_elsewhere_it_must_have_a_token(runs: Path) -> None:
    with pytest.raises(DashboardError, match="needs a token"):
        Dashboard([runs], host="0.0.0.0", port=0)
    with pytest.raises(DashboardError, match="at least 16"):
        Dashboard([runs], host="0.0.0.0", port=0, token="short")


def test_the_address_it_prints_can_be_opened() -> None:
    from camlink.pipeline.dashboard.server import _reachable

    assert [_reachable(host) for host in ("127.0.0.1", "::1", "camlink.lan")] == ["127.0.0.1", "[::1]", "camlink.lan"]
    assert _reachable("0.0.0.0") == _reachable("::") == socket.gethostname()


def test_a_port_that_is_taken_is_named_and_the_usual_one_gives_way(runs: Path) -> None:
    first = Dashboard([runs], port=0)
    try:
        with pytest.raises(DashboardError, match=str(first.port)):
            Dashboard([runs], port=first.port)
    finally:
        first.close()


def test_pages_say_from_which_day_on_figures_are_where_earlier_ones_are_not_read(tmp_path: Path) -> None:
    start = datetime(2026, 1, 5, 23, 58, 20, tzinfo=UTC)
    write_run(tmp_path / "night", {HALL: make_frames(HALL, 200, start=start)})
    for days, said in ((1, True), (2, False)):
        app = build_app(Library([tmp_path], days=days), Door(None), clock=lambda: datetime.now(UTC))
        with TestClient(app, base_url="http://127.0.0.1:8765") as site:
            for page in PAGES[:3]:
                assert ("of the days from 06 Jan 2026 on" in site.get(page).text) == said
            assert ("from 06 Jan 2026 on: all figures here are" in site.get("/runs?a=night&b=night").text) == said


def test_a_camera_leads_to_its_days(runs: Path) -> None:
    with client(runs) as site:
        page = site.get("/camera", params={"run": "replayed", "id": HALL}).text
        assert f"/day?run=replayed&amp;id={HALL}&amp;date=2026-01-05" in page
        day = site.get("/day", params={"run": "replayed", "id": HALL, "date": "2026-01-05"})
        assert day.status_code == 200 and "Monday, 05 January 2026" in day.text
        assert YARD not in day.text and "persons" in day.text
        assert "the interval is that of the day's certificate" in day.text.replace("&#39;", "'")
        assert site.get("/static/report.css").status_code == 200


@pytest.mark.parametrize(
    ("camera", "day", "code"),
    [
        (HALL, "../../etc/passwd", 400),
        (HALL, "", 400),
        (HALL, "9999-99-99", 400),
        (HALL, "2020-01-01", 404),
        ("../yard", "2026-01-05", 404),
    ],
)
def test_a_day_that_is_none_is_refused(runs: Path, camera: str, day: str, code: int) -> None:
    with client(runs) as site:
        assert site.get("/day", params={"run": "replayed", "id": camera, "date": day}).status_code == code
