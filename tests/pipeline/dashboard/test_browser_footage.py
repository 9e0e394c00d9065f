"""The pages over replays of real footage through real models: what they show is what the run came to."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from camlink.models import catalogue
from camlink.models.base import Inference, Model, OutputSpec
from camlink.models.pool import ModelPool
from camlink.pipeline.commands.running import encode_picture
from camlink.pipeline.config import SiteConfig
from camlink.pipeline.errors import WeightsError
from camlink.pipeline.ingest import Reading, discover, merge, open_source
from camlink.pipeline.ingest.replay import time_of
from camlink.pipeline.records import Frame, FrameResult
from camlink.pipeline.session import Camera, Session
from tests.pipeline.dashboard.browsing import Visit, fits, press, serve, visiting

pytestmark = [pytest.mark.browser, pytest.mark.footage, pytest.mark.slow]

CLIPS = ("campus-crossing.avi", "one-by-one-person-detection.mp4")
CAMPUS, HALLWAY = (Path(clip).stem for clip in CLIPS)
POLICIES = ("mlink", "camlink")
FPS, SECONDS = 2.0, 40
FRAMES = int(FPS * SECONDS)


class Remembering:
    """A model that sees each frame once, however many runs ask: its answers to the same frame are the same."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._known: dict[tuple[str, int], Inference] = {}
        self.spec: OutputSpec = model.spec
        self.memory_gb, self.time_ms = model.memory_gb, model.time_ms

    def load(self) -> None:
        self._model.load()

    def unload(self) -> None:
        """Stays loaded for the next run."""

    def run(self, frames: Sequence[Frame]) -> list[Inference]:
        new = [frame for frame in frames if (frame.camera_id, frame.index) not in self._known]
        if new:
            for frame, found in zip(new, self._model.run(new), strict=True):
                self._known[frame.camera_id, frame.index] = found
        return [self._known[frame.camera_id, frame.index] for frame in frames]


@dataclass
class Replayed:
    """Where the runs lie, and what each came to: served outputs by camera, model and how."""

    folder: Path
    served: dict[str, Counter[tuple[str, str, str]]]


@pytest.fixture(scope="module")
def replayed(footage: Path, tmp_path_factory: pytest.TempPathFactory) -> Replayed:
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("CAMLINK_WEIGHTS_OFFLINE", "1")
    try:
        priced = {"objects": 33.0, "persons": 32.0}
        known = [replace(catalogue.definition(n), time_ms=ms, memory_gb=0.1) for n, ms in priced.items()]
        models = [Remembering(catalogue.build(definition, device="cpu")) for definition in known]
    except WeightsError as error:
        pytest.skip(f"run `camlink models pull` first: {error}")
    finally:
        monkeypatch.undo()
    found = Replayed(tmp_path_factory.mktemp("real"), {})
    for policy in POLICIES:
        found.served[policy] = replay(footage / "building", models, policy, found.folder / policy)
    return found


def replay(clips: Path, models: list[Remembering], policy: str, out: Path) -> Counter[tuple[str, str, str]]:
    """Carry the first seconds of both clips through a whole session; return what was served."""
    site = SiteConfig(
        models="building",
        policy=policy,  # type: ignore[arg-type]
        period=timedelta(seconds=10),
        links={"bootstrap_frames": 20, "min_train_frames": 15},
        profile={"fraction": 0.1, "min_frames": 2},
        audit={"fraction": 0.3},
        budgets={"time_share": 0.6},
        target_agreement=0.05,
    )
    served: Counter[tuple[str, str, str]] = Counter()

    def count(records: Sequence[object]) -> tuple[()]:
        results = (record for record in records if isinstance(record, FrameResult))
        served.update((r.camera_id, o.model, o.how) for r in results for o in r.outputs if o.served)
        return ()

    cameras = {name: Camera("indoor", clip, FPS) for name, clip in zip((CAMPUS, HALLWAY), CLIPS, strict=True)}
    session = Session(site, ModelPool(models), cameras, out, encode_picture=encode_picture, listeners=[count])
    session.run(first_seconds(clips), lambda: dict.fromkeys(cameras, FRAMES))
    return served


def first_seconds(clips: Path) -> Iterator[Reading]:
    specs = [spec for clip in CLIPS for spec in discover(clips / clip, fps=FPS, timezone="UTC")]
    with closing(merge(open_source(spec, live=False) for spec in specs)) as readings:  # type: ignore[type-var]
        first = next(readings)
        end = time_of(first) + timedelta(seconds=SECONDS)
        yield from itertools.chain([first], itertools.takewhile(lambda reading: time_of(reading) < end, readings))


@pytest.fixture(scope="module")
def site(replayed: Replayed) -> Iterator[str]:
    yield from serve(replayed.folder)


@pytest.fixture
def visit(browser: Browser, site: str) -> Iterator[Visit]:
    yield from visiting(browser, site, viewport={"width": 1300, "height": 900})


@pytest.mark.parametrize("policy", POLICIES)
def test_the_fleet_counts_frames_and_states_agreement(visit: Visit, replayed: Replayed, policy: str) -> None:
    page = visit.go(f"/?run={policy}")
    expect(page.locator("#lines tr")).to_have_count(2)
    for camera in (CAMPUS, HALLWAY):
        line = page.locator("#lines tr").filter(has=page.locator(f'[data-key="{camera}"]'))
        expect(line.locator(".frames")).to_have_text(str(FRAMES))
        expect(line.locator(".agree .figure b")).to_contain_text("%")
        assert line.locator(".act svg path").count() > 0
    expect(page.locator("#figures")).to_contain_text("audit frames")
    expect(page.locator("#figures")).not_to_contain_text("not measured")
    made = sum(n for (_, _, how), n in replayed.served[policy].items() if how == "executed")
    assert 0 < made < replayed.served[policy].total()  # there is something that was predicted


@pytest.mark.parametrize("policy", POLICIES)
def test_a_camera_shows_its_counts_its_picture_with_boxes_and_its_agreement(
    visit: Visit, replayed: Replayed, policy: str
) -> None:
    page = visit.go(f"/camera?run={policy}&id={CAMPUS}")
    expect(page.locator("h1")).to_have_text(CAMPUS)
    assert counts(page, ".counts") == expected_counts(replayed.served[policy])
    assert page.locator(".latest img").evaluate("img => img.complete && img.naturalWidth > 0")
    boxes = page.locator(".latest rect.box").evaluate_all(
        "all => all.map(r => ['x', 'y', 'width', 'height'].map(n => +r.getAttribute(n)))"
    )
    assert boxes  # two to eight pedestrians at any time
    for x, y, width, height in boxes:
        assert min(x, y) >= -0.5
        assert max(x + width, y + height) <= 1000.5
    expect(page.locator(".trust .agree .figure b").first).to_contain_text("%")
    expect(page.locator(".trust")).not_to_contain_text("v-1")  # the policy on every frame has no versions of links
    assert page.locator(".chart path").count() > 0


def test_a_target_that_is_met_is_shown_as_met(visit: Visit) -> None:
    page = visit.go("/?run=camlink")
    badges = page.locator("#lines .aim .badge.good").all_inner_texts()
    assert badges and set(badges) == {"met"}  # of one camera or both: where audits tell enough
    page.goto(page.url.split("?")[0] + f"camera?run=camlink&id={CAMPUS}")
    expect(page.locator(".trust tr").filter(has_text="objects").locator(".badge.good")).to_have_text("met")


def counts(page: Page, table: str) -> dict[str, list[int]]:
    """Return, per model, the frames executed, predicted and left without an answer, as a table of the page has them."""
    rows = page.locator(f"{table} tbody tr").all()
    cells = {row.locator("th").inner_text(): row.locator("td").all_inner_texts()[:3] for row in rows}
    return {model: [int(text.replace("–", "0")) for text in texts] for model, texts in cells.items()}


def expected_counts(served: Counter[tuple[str, str, str]]) -> dict[str, list[int]]:
    by = (("executed",), ("linked", "reused"), ("abstained",))
    return {m: [sum(served[CAMPUS, m, how] for how in hows) for hows in by] for m in ("objects", "persons")}


def test_models_say_how_often_each_ran(visit: Visit) -> None:
    page = visit.go("/models?run=camlink")
    expect(page.locator("h1")).to_have_text("Models")
    for model in ("objects", "persons"):
        expect(page.locator("main")).to_contain_text(model)


def test_two_policies_stand_side_by_side(visit: Visit) -> None:
    page = visit.go("/runs?a=mlink&b=camlink")
    for policy in POLICIES:
        expect(page.locator("main")).to_contain_text(policy)
    expect(page.locator("main")).to_contain_text("%")


@pytest.mark.parametrize("policy", POLICIES)
def test_the_report_of_the_day_is_reached_with_the_keyboard_and_counts_the_frames(
    visit: Visit, replayed: Replayed, policy: str
) -> None:
    page = visit.go(f"/?run={policy}")
    press(page, "j", "Enter")
    expect(page.locator("h1")).to_have_text(CAMPUS)
    page.locator("#days a").focus()
    press(page, "Enter")
    expect(page.locator("h1")).to_contain_text("01 January 2026")
    expect(page.locator("body")).to_contain_text(CAMPUS)
    assert counts(page, "table") == expected_counts(replayed.served[policy])


SHAPES = {
    "light": {"viewport": {"width": 1300, "height": 900}},
    "dark": {"viewport": {"width": 1300, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 400, "height": 850}},
    "dark phone": {"viewport": {"width": 400, "height": 850}, "color_scheme": "dark"},
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("path", ["/?", f"/camera?id={CAMPUS}&", f"/camera?id={HALLWAY}&", "/models?", "/runs?"])
def test_nothing_sticks_out_of_any_page(browser: Browser, site: str, path: str, shape: str) -> None:
    for found in visiting(browser, site, **SHAPES[shape]):
        assert fits(found.go(f"{path}run=camlink"))
