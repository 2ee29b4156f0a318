"""The door: who asks, from where, under which name, and how much. Whoever may not come in learns nothing but a number.

The threat model and a test for each line of it: `docs/security.md`.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

from pellucid.studio.settings import MEGABYTE, StudioSettings

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

POLICY = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'self'"
"""What a page of the studio may do; the frame of a result has a stricter one of its own."""

_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"same-origin",  # with none at all, a form would not say where it comes from
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"cache-control": b"no-store",
}
_OPEN = ("/static/", "/shared/")  # need no token: the first holds nothing, the second has a key of its own
_VISITOR = re.compile(r"[0-9a-f]{32}")
_ADDRESS = 4_000  # letters of a path with its query


class _TooLargeError(Exception):
    """More bytes came than may."""


class Guard:
    """Around the whole application.

    Args:
        app: what answers those who may come in.
        settings: of the studio.
    """

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], settings: StudioSettings) -> None:
        self._app, self._settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let the application do so."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        refused = self._refused(scope, headers)
        if refused:
            await _short(send, refused)
            return
        path: str = scope["path"]
        token = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if path == "/" and token:
            await self._admit(token, headers, send)
            return
        visitor = self._visitor(headers)
        if visitor is None and not path.startswith(_OPEN):
            await _short(send, 403)
            return
        scope.setdefault("state", {})["visitor"] = visitor
        await self._within(scope, receive, send, headers)

    def _refused(self, scope: Scope, headers: dict[str, str]) -> int:
        """Why a request is not even looked at; 0 where it is."""
        names = [name for name, _ in scope["headers"]]
        if headers.get("host") not in self._settings.hosts or names.count(b"host") != 1:
            return 403
        if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > _ADDRESS:
            return 414
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return 405
        if scope["method"] == "POST" and headers.get("origin") != f"http://{headers['host']}":
            return 403
        if headers.get("sec-fetch-site", "none") == "cross-site" and scope["path"] != "/":
            return 403
        size = headers.get("content-length", "0")
        if not size.isascii() or not size.isdigit():
            return 400
        return 413 if int(size) > self._settings.upload + MEGABYTE else 0

    @property
    def _cookie(self) -> str:
        return f"pellucid-{self._settings.port}"  # cookies do not tell ports apart

    def _visitor(self, headers: dict[str, str]) -> str | None:
        """Whose browser asks, if it showed the token once."""
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(self._cookie)
        except CookieError:
            return None
        token, _, visitor = (cookie.value if cookie else "").partition(".")
        known = hmac.compare_digest(token.encode(), self._settings.token.encode())
        return visitor if known and _VISITOR.fullmatch(visitor) else None

    async def _admit(self, token: str, headers: dict[str, str], send: Send) -> None:
        """A right token becomes a cookie, and leaves the address line; a browser that was here stays who it was."""
        if not hmac.compare_digest(token.encode(), self._settings.token.encode()):
            await _short(send, 403)
            return
        visitor = _former(headers.get("cookie", ""), self._cookie) or secrets.token_hex(16)
        cookie = f"{self._cookie}={self._settings.token}.{visitor}; Path=/; HttpOnly; SameSite=Strict; Max-Age=2592000"
        await _short(send, 303, {b"location": b"/", b"set-cookie": cookie.encode()})

    async def _within(self, scope: Scope, receive: Receive, send: Send, headers: dict[str, str]) -> None:
        """Let the application answer, with what comes in counted and what goes out marked."""
        came, begun = 0, False

        async def counted() -> Message:
            nonlocal came
            message = await receive()
            came += len(message.get("body", b""))
            if came > self._settings.upload + MEGABYTE:
                raise _TooLargeError
            return message

        async def marked(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                own = {name.lower() for name, _ in message["headers"]}
                added = {b"content-security-policy": POLICY.encode(), **_HEADERS}
                message["headers"] = [*message["headers"], *((k, v) for k, v in added.items() if k not in own)]
            await send(message)

        try:
            await self._app(scope, counted, marked)
        except _TooLargeError:
            if not begun:
                await _short(send, 413)


def _former(cookies: str, name: str) -> str | None:
    """Who a browser was before the studio was started anew: only that browser knows."""
    try:
        cookie = SimpleCookie(cookies).get(name)
    except CookieError:
        return None
    visitor = cookie.value.partition(".")[2] if cookie else ""
    return visitor if _VISITOR.fullmatch(visitor) else None


async def _short(send: Send, status: int, headers: dict[bytes, bytes] | None = None) -> None:
    """An answer without a word."""
    told = [(b"content-length", b"0"), *_HEADERS.items(), *(headers or {}).items()]
    await send({"type": "http.response.start", "status": status, "headers": told})
    await send({"type": "http.response.body", "body": b""})
