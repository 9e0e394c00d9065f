"""What every request passes first: the right host, a session where one is needed, and headers that keep pages in."""

from __future__ import annotations

from urllib.parse import quote

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from camlink.pipeline.dashboard.auth import COOKIE, Door, host_of, is_local

OPEN = ("/healthz", "/readyz", "/signin", "/static/")
LONGEST_QUERY = 2000
POLICY = (
    "default-src 'none'; style-src 'self' 'unsafe-inline'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Gate:
    """ASGI middleware before all pages."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self._app = app
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        refusal = self._refusal(Request(scope))
        await (refusal or self._app)(scope, receive, send_guarded)

    def _refusal(self, request: Request) -> Response | None:
        if self._door.is_open and not is_local(host_of(request.headers.get("host", ""))):
            # A page elsewhere may have had its name point here (DNS rebinding); it must not read cameras.
            return PlainTextResponse("This dashboard answers to localhost only.\n", 421)
        if len(request.url.query) > LONGEST_QUERY:
            return PlainTextResponse("The address is too long.\n", 414)
        path = request.url.path
        if path.startswith(OPEN) or self._door.lets_in(
            request.cookies.get(COOKIE), request.headers.get("authorization")
        ):
            return None
        if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
            target = path + (f"?{request.url.query}" if request.url.query else "")
            return RedirectResponse(f"/signin?next={quote(target)}", 303)
        return PlainTextResponse(
            "Sign in, or send the token as a bearer.\n", 401, headers={"WWW-Authenticate": "Bearer"}
        )
