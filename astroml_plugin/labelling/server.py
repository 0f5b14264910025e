"""The page over HTTP: this machine only, one secret per run, nothing from elsewhere.

The secret comes in the address' fragment, which a browser sends to nobody; the page's script sends it as a header with
every question. Requests for other hosts (a name that was rebound to this machine) and from other pages are refused.
"""

from __future__ import annotations

import contextlib
import errno
import json
import secrets
import socket
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs, urlsplit

from astroml_plugin.core.errors import AstromlError, InputError
from astroml_plugin.labelling.session import Session

HOST = "127.0.0.1"
LARGEST_BODY = 65_536
_LINGER, _PIECE = 0.5, 16_384
"""Seconds and bytes that a refused request is still listened to."""

_PAGES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
_LOCAL = ("127.0.0.1", "localhost", "[::1]")
"""Hosts that a request may name, with any port: an SSH tunnel has its own."""


class LabelServer(ThreadingHTTPServer):
    """Serves one session on 127.0.0.1. `serve_forever`, and `shutdown` from another thread.

    Args:
        session: what is shown.
        port: 0 takes a free one.

    Raises:
        InputError: the port is in use or not allowed.
    """

    daemon_threads = True

    def __init__(self, session: Session, port: int = 0) -> None:
        self.session = session
        self.token = secrets.token_urlsafe(24)
        if not 0 <= port <= 65535:
            raise InputError(f"--port is {port}: it must be 0 to 65535, 0 takes a free one")
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            why = {errno.EADDRINUSE: "is in use", errno.EACCES: "is not allowed for this user"}.get(error.errno or 0)
            if why is None:
                raise
            raise InputError(f"port {port} {why}: choose another --port, or 0 for any free one") from error

    @property
    def url(self) -> str:
        """Address with the secret, for a browser on this machine."""
        return f"http://{HOST}:{self.server_address[1]}/#{self.token}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle of an answer is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: LabelServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits 40 ms for the browser's acknowledgement of its head
    server_version = "astroml-plugin"
    sys_version = ""
    timeout = 60

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if not self._from_here():
            return
        if path in _PAGES:
            name, kind = _PAGES[path]
            self._send((files("astroml_plugin.labelling") / "page" / name).read_bytes(), kind)
        elif path == "/api/picture":
            self._answer(self._picture)
        elif path in ("/api/state", "/api/scores"):
            session = self.server.session
            self._answer(session.state if path == "/api/state" else session.scored)
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "nothing is here")

    def do_POST(self) -> None:
        actions: dict[str, Callable[[dict[str, Any]], Any]] = {
            "/api/score": self._score,
            "/api/undo": lambda body: self.server.session.undo(),
            "/api/rank": self._rank,
        }
        action = actions.get(self.path)
        if not self._from_here(writing=True):
            return
        if action is None:
            self._refuse(HTTPStatus.NOT_FOUND, "nothing is here")
            return
        body = self._body()
        if body is not None:
            self._answer(lambda: action(body))

    # What may come in

    def _from_here(self, *, writing: bool = False) -> bool:
        """Whether the request names this machine and comes from this page."""
        host = self.headers.get("Host", "")
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        origin = self.headers.get("Origin")
        if name not in _LOCAL:
            return self._refuse(HTTPStatus.FORBIDDEN, "this page is for this machine only")
        if (writing and origin is None) or (origin is not None and origin != f"http://{host}"):
            return self._refuse(HTTPStatus.FORBIDDEN, "requests come from this page only")
        return True

    def _trusted(self) -> bool:
        given = self.headers.get("X-Token", "")
        if secrets.compare_digest(given.encode(), self.server.token.encode()):
            return True
        return self._refuse(HTTPStatus.UNAUTHORIZED, "open the address that the command printed: it holds the key")

    def _body(self) -> dict[str, Any] | None:
        if not self._trusted():
            return None
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or len(length) > 9 or int(length) > LARGEST_BODY:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a request has {LARGEST_BODY} bytes at most")
            return None
        try:
            value = json.loads(self.rfile.read(int(length)) or b"{}")
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict) or self.headers.get_content_type() != "application/json":
            self._refuse(HTTPStatus.BAD_REQUEST, "a request is a JSON object")
            return None
        return value

    # What is done

    def _score(self, body: dict[str, Any]) -> Any:
        score, note = body.get("score"), body.get("note", "")
        if not isinstance(score, int) or not isinstance(note, str):
            raise InputError("a score needs object_id (text), score (0 to 5) and, where there is one, note (text)")
        return self.server.session.add(_identity(body.get("object_id")), score, note)

    def _rank(self, body: dict[str, Any]) -> Any:
        given = body.get("object_id")
        return self.server.session.rank(str(body.get("kind")), None if given is None else _identity(given))

    def _picture(self) -> bytes:
        asked = {name: values[-1] for name, values in parse_qs(urlsplit(self.path).query).items()}
        try:
            side, contrast = int(asked.get("side", 0)), float(asked.get("contrast", 1.0))
        except ValueError as error:
            raise InputError("side and contrast are numbers") from error
        return self.server.session.picture(_identity(asked.get("id")), side or None, contrast, asked.get("own") == "1")

    def _answer(self, work: Callable[[], Any]) -> None:
        """Bytes are a picture, all else is JSON; errors are one sentence."""
        if self.command == "GET" and not self._trusted():
            return
        try:
            value = work()
        except AstromlError as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
        except OSError as error:  # a full disk: the score is not written, and the page must say so
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, f"{error.strerror or error}: nothing was stored")
        except Exception as error:  # noqa: BLE001 - a request always gets an answer, else the page says the command stopped
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, f"unexpected failure: {type(error).__name__}: {error}")
        else:
            if isinstance(value, bytes):
                self._send(value, "image/png")
            else:
                self._send(json.dumps(value, allow_nan=False).encode(), "application/json")

    def _refuse(self, status: HTTPStatus, sentence: str) -> bool:
        self.close_connection = True  # a body that was not read would be taken for the next request
        self._send(json.dumps({"error": sentence}).encode(), "application/json", status)
        return False

    def _send(self, data: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)

    def finish(self) -> None:
        """Take what is still being sent before the connection closes: else the answer is lost with it."""
        super().finish()
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(_LINGER)
            for _ in range(LARGEST_BODY // _PIECE + 1):
                if not self.connection.recv(_PIECE):
                    break

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: requests are of no interest, and the terminal belongs to the person."""


def _identity(value: Any) -> int:
    """Ids come as text: JavaScript has no 64-bit integers."""
    try:
        return int(str(value))
    except ValueError:
        raise InputError(f"{str(value)[:40]!r} is no object_id") from None
