"""The dashboard's pages over a `Library` of runs. Rendered on the server; a few lines of script keep them live."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from camlink.pipeline import reports
from camlink.pipeline.dashboard.auth import COOKIE, SESSION_S, Door, local_path
from camlink.pipeline.dashboard.camera import SPANS, camera_view
from camlink.pipeline.dashboard.fleet import SORTS
from camlink.pipeline.dashboard.gallery import gallery
from camlink.pipeline.dashboard.gate import Gate
from camlink.pipeline.dashboard.library import Library, OpenRun
from camlink.pipeline.dashboard.models import models_view
from camlink.pipeline.dashboard.pages import Pages, link
from camlink.pipeline.dashboard.parts import days_of
from camlink.pipeline.dashboard.runs import compared, models_of, outcomes
from camlink.pipeline.errors import ResultsError
from camlink.pipeline.reports.daily import daily_report, render_daily
from camlink.pipeline.results import RunResults
from camlink.pipeline.results.latest import latest_picture
from camlink.pipeline.results.pictures import kept_pictures, picture_file

Metrics = Callable[[], tuple[bytes, str]]
NO_METRICS = (
    "This dashboard reads results folders, and metrics are of what is running: `camlink run` serves them here, "
    "`camlink worker` with --health. The figures of a run are in its report.json.\n"
)

FORM_MOST = 4096  # bytes of a sign-in
DAYS_LINKED = 7
KEPT = 64  # rendered pages
FRAME_MOST = 2**62


def build_app(
    library: Library, door: Door, metrics: Metrics | None = None, clock: Callable[[], datetime] | None = None
) -> Starlette:
    """Return the application. ``metrics`` gives the Prometheus text and its content type; ``clock`` is the wall's."""
    site = _Site(library, door, metrics, clock or (lambda: datetime.now(UTC)))
    routes = [
        Route("/", site.fleet),
        Route("/camera", site.camera),
        Route("/models", site.models),
        Route("/runs", site.runs),
        Route("/day", site.day),
        Route("/picture", site.picture),
        Route("/metrics", site.metrics),
        Route("/healthz", site.health),
        Route("/readyz", site.ready),
        Route("/signin", site.sign_in, methods=["GET", "POST"]),
        Route("/signout", site.sign_out, methods=["POST"]),
        Route("/static/colours.css", site.shared_style),
        Route("/static/report.css", site.shared_style),
        Mount("/static", StaticFiles(directory=Path(__file__).parent / "static")),
    ]
    handlers: Any = {HTTPException: site.trouble, ResultsError: site.broken, Exception: site.crashed}
    return Starlette(routes=routes, middleware=[Middleware(Gate, door=door)], exception_handlers=handlers)


class _Site:
    """The pages' handlers. Those that read files are plain functions, which Starlette runs in threads."""

    def __init__(self, library: Library, door: Door, metrics: Metrics | None, clock: Callable[[], datetime]) -> None:
        self._library, self._door, self._metrics, self._clock = library, door, metrics, clock
        self._pages = Pages(signed_in=not door.is_open)
        self._kept: OrderedDict[tuple[Any, ...], tuple[str, str]] = OrderedDict()
        self._lock = threading.Lock()
        self._days = threading.Lock()

    def fleet(self, request: Request) -> Response:
        sort = _choice(request, "sort", SORTS, "name")
        run = self._run(request)
        if run is None:
            return self._no_runs(request)

        def render() -> str:
            fleet = run.view.fleet(self._clock(), sort)
            return self._pages.render("fleet.html", run, page="fleet", fleet=fleet, sort=sort, sorts=SORTS)

        return self._live(request, run, ("fleet", sort), render)

    def camera(self, request: Request) -> Response:
        span = _choice(request, "span", SPANS, "all") if "span" in request.query_params else ""
        run = self._run(request)
        if run is None:
            return self._no_runs(request)
        camera_id = request.query_params.get("id", "")

        def render() -> str:
            found = camera_view(run.view, run.rollups, camera_id, span, self._clock())
            if found is None:
                raise HTTPException(404, "This run has no such camera.")
            days = days_of(run.rollups.run_dir, camera_id)[:DAYS_LINKED]
            pictures = kept_pictures(run.rollups.run_dir, camera_id)
            with run.rollups.lock:
                wrong = gallery(run.rollups.cameras[camera_id], pictures)
                names = sorted(run.rollups.cameras)
            place = names.index(camera_id)
            around = (names[place - 1] if place else None, names[place + 1] if place + 1 < len(names) else None)
            return self._pages.render(
                "camera.html", run, page="camera", camera=found, gallery=wrong, spans=SPANS, around=around, days=days
            )

        return self._live(request, run, ("camera", camera_id, span), render)

    def day(self, request: Request) -> Response:
        """One camera's day, made from its rows when it is asked for."""
        run = self._run(request)
        camera_id = request.query_params.get("id", "")
        if run is None or camera_id not in run.rollups.cameras:
            raise HTTPException(404, "This run has no such camera.")
        try:
            day = date.fromisoformat(request.query_params.get("date", ""))
        except ValueError:
            raise HTTPException(400, "“date” is a day such as 2026-03-02.") from None
        if day not in days_of(run.rollups.run_dir):
            raise HTTPException(404, "This run has no results of that day.")
        today, back = self._clock().date(), link("/camera", run, id=camera_id)
        with self._days:  # one at a time: it reads a day's rows, and the pipeline comes first
            report = daily_report(RunResults(run.rollups.run_dir), day, [camera_id])
        return HTMLResponse(render_daily(report, today=today, linked=True, back=back))

    def models(self, request: Request) -> Response:
        run = self._run(request)
        if run is None:
            return self._no_runs(request)

        def render() -> str:
            return self._pages.render("models.html", run, page="models", models=models_view(run.rollups))

        return self._live(request, run, ("models",), render)

    def runs(self, request: Request) -> Response:
        chosen = [name for key in ("a", "b") if (name := request.query_params.get(key))]
        pair = []
        for name in chosen:
            run = self._library.run(name)
            if run is None:
                raise HTTPException(404, "There is no such run.")
            pair.append(compared(name, run.rollups))
        lines = self._library.lines()
        body = self._pages.render(
            *("runs.html", None),
            page="runs",
            lines=lines,
            outcomes=outcomes(lines),
            pair=pair,
            models=models_of(pair),
            chosen=chosen,
        )
        return HTMLResponse(body)

    def picture(self, request: Request) -> Response:
        """A camera's picture of one frame. Camera and run are looked up, never put together into a path as given."""
        run = self._run(request)
        camera_id, frame = request.query_params.get("id", ""), request.query_params.get("frame", "")
        if run is None or camera_id not in run.rollups.cameras or not (frame.isascii() and frame.isdecimal()):
            raise HTTPException(404, "There is no such picture.")
        index = min(int(frame[:20]), FRAME_MOST)
        kept = {"latest": latest_picture, "audit": picture_file}.get(request.query_params.get("kind", ""))
        file = kept(run.rollups.run_dir, camera_id, index) if kept is not None else None
        if file is None or not file.is_file():
            raise HTTPException(404, "There is no such picture.")
        return FileResponse(file, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})

    def metrics(self, request: Request) -> Response:
        if self._metrics is None:
            return PlainTextResponse(NO_METRICS, 404)
        body, kind = self._metrics()
        return Response(body, headers={"Content-Type": kind})

    def shared_style(self, request: Request) -> Response:
        """The report's styles: its colours are the dashboard's too, and its days are shown here."""
        name = {"/static/report.css": "report.css"}.get(request.url.path, "colours.css")
        return FileResponse(Path(reports.__file__).parent / name, headers={"Cache-Control": "max-age=3600"})

    def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    def ready(self, request: Request) -> Response:
        run = self._library.run()
        well = run is not None and not run.problem
        return JSONResponse({"ready": well}, 200 if well else 503)

    async def sign_in(self, request: Request) -> Response:
        target = local_path(request.query_params.get("next", "/"))
        if self._door.is_open:
            return RedirectResponse(target, 303)
        if request.method == "GET":
            return HTMLResponse(self._pages.render("signin.html", None, page="signin", problem="", target=target))
        token = await _token(request)
        wait_s = self._door.wait_s()
        if wait_s > 0.0 or not self._door.knows(token):
            problem = f"Too many wrong tokens; try again in {wait_s:.0f} s." if wait_s else "That is not the token."
            body = self._pages.render("signin.html", None, page="signin", problem=problem, target=target)
            return HTMLResponse(body, 429 if wait_s else 401)
        done = RedirectResponse(target, 303)
        secure = request.url.scheme == "https"
        done.set_cookie(
            COOKIE, self._door.open_session(), max_age=SESSION_S, httponly=True, samesite="strict", secure=secure
        )
        return done

    async def sign_out(self, request: Request) -> Response:
        self._door.close_session(request.cookies.get(COOKIE, ""))
        done = RedirectResponse("/signin", 303)
        done.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return done

    def trouble(self, request: Request, error: HTTPException) -> Response:
        return self._message(error.status_code, error.detail)

    def broken(self, request: Request, error: ResultsError) -> Response:
        return self._message(500, str(error))

    def crashed(self, request: Request, error: Exception) -> Response:
        return self._message(500, "This page failed; the log of the dashboard says why. The pipeline is not affected.")

    def _message(self, code: int, text: str) -> Response:
        return HTMLResponse(self._pages.render("message.html", None, page="", code=code, text=text), code)

    def _run(self, request: Request) -> OpenRun | None:
        name = request.query_params.get("run") or None
        run = self._library.run(name)
        if run is None and name is not None:
            raise HTTPException(404, "There is no such run.")
        return run

    def _no_runs(self, request: Request) -> Response:
        folders = [str(folder) for folder in self._library.folders]
        return HTMLResponse(self._pages.render("empty.html", None, page="fleet", folders=folders))

    def _live(self, request: Request, run: OpenRun, key: tuple[Any, ...], render: Callable[[], str]) -> Response:
        """Render once per change, for however many viewers; tell a browser that has the page that nothing is new."""
        mark = f'W/"{id(run):x}-{run.rollups.version}-{bool(run.problem):d}-{self._clock().timestamp() // 20:.0f}"'
        if request.headers.get("if-none-match") == mark:
            return Response(status_code=304, headers={"ETag": mark})
        with self._lock:
            kept = self._kept.get((run.name, *key))
        if kept is None or kept[0] != mark:
            kept = (mark, render())
            with self._lock:
                self._kept[run.name, *key] = kept
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
        return HTMLResponse(kept[1], headers={"ETag": mark, "Cache-Control": "private, no-cache"})


def _choice(request: Request, name: str, choices: Any, default: str) -> str:
    """Return a query's value if it is one of the choices. Raises `HTTPException` otherwise."""
    value = request.query_params.get(name, default)
    if value not in choices:
        raise HTTPException(400, f"“{name}” is one of {', '.join(choices)}.")
    return value


async def _token(request: Request) -> str:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > FORM_MOST:
            raise HTTPException(413, "That is too long for a token.")
    return parse_qs(body.decode("utf-8", "replace")).get("token", [""])[0]
