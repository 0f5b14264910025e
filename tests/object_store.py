"""An S3 server over HTTP that can go away and come back, and a network in front of it that is slow and fails."""

from __future__ import annotations

import http.client
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.test_cli import forget_stores

KEY, SECRET = "AKIDEXAMPLE77", "s3cretS3CRETs3cret"


class S3Server:
    """moto's S3 over HTTP on loopback. What it stores outlives a restart; connections do not."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._connections: list[socket.socket] = []
        self._server: Any = None
        self.start()

    def start(self) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

        connections = self._connections

        class Handler(WSGIRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                connections.append(self.request)
                super().setup()

            def log(self, type: str, message: str, *args: object) -> None:
                pass

        self._server = ThreadedWSGIServer(
            "127.0.0.1", self.port, DomainDispatcherApplication(create_backend_app), Handler
        )
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        """As a killed server: nothing listens any more, and what was under way is cut off."""
        self._server.shutdown()
        self._server.server_close()
        for connection in self._connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        self._connections.clear()


class Network:
    """A proxy on loopback: every request takes `delay` seconds more, and one in `every` fails.

    It fails in turn with 503 SlowDown, 500, and a connection cut without an answer.
    """

    def __init__(self, upstream: int, delay: tuple[float, float] = (0.02, 0.05), every: int = 100) -> None:
        self.upstream, self.delay, self.every = upstream, delay, every
        self.requests = self.failed = 0
        self._lock, self._random = threading.Lock(), random.Random(1)
        network = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                network.handle(self)

            do_PUT = do_POST = do_HEAD = do_DELETE = do_GET  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        with self._lock:
            self.requests += 1
            failing = self.requests % self.every == self.every // 2
            self.failed += failing
            wait, kind = self._random.uniform(*self.delay), self.failed % 3
        time.sleep(wait)
        if not failing:
            self._forward(request, body)
        elif kind == 0:
            request.close_connection = True
            request.connection.shutdown(socket.SHUT_RDWR)
        else:
            _refuse(request, *((503, "SlowDown") if kind == 1 else (500, "InternalError")))

    def _forward(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        own = {"connection", "expect", "transfer-encoding"}
        headers = {name: value for name, value in request.headers.items() if name.lower() not in own}
        connection = http.client.HTTPConnection("127.0.0.1", self.upstream, timeout=30)
        try:
            connection.request(request.command, request.path, body or None, headers)
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        request.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in (own if request.command == "HEAD" else own | {"content-length"}):
                request.send_header(name, value)
        if request.command != "HEAD":
            request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)


def _refuse(request: BaseHTTPRequestHandler, status: int, code: str) -> None:
    data = b"" if request.command == "HEAD" else f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
    request.send_response(status)
    request.send_header("Content-Type", "application/xml")
    request.send_header("Content-Length", str(len(data)))
    request.end_headers()
    request.wfile.write(data)


@contextmanager
def in_environment(port: int) -> Iterator[Any]:
    """The S3 server at `port` and its keys in the environment, as users give them; its filesystem."""
    import fsspec

    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            patch.setenv(name, value)
        forget_stores()
        yield fsspec.filesystem("s3", skip_instance_cache=True)
        forget_stores()
