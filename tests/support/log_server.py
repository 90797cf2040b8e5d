"""A log over HTTP that serves whatever history a test gives it: also two of them, or tiles that do not fit."""

from __future__ import annotations

import contextlib
import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from typing_extensions import override

from ledger.domain.tiles import Tile, parse_tile_path
from tests.support.logs import SignedLog

ENTRIES = "/tile/entries/"


class LogServer:
    """Serves ``log`` below ``url``.

    ``tree``: another log, whose tiles and entries are served instead; ``broken``: paths that break off; ``asked``: all
    paths; ``failures``: statuses that come first; ``no_partial``: partial tiles are gone; ``stop_after``: so many
    requests everything is a 500.
    """

    def __init__(self, log: SignedLog) -> None:
        self.log = log
        self.tree: SignedLog | None = None
        self.broken: set[str] = set()
        self.asked: list[str] = []
        self.failures: list[int] = []
        self.no_partial = False
        self.key = "Bearer secret"
        self.stop_after: int | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """The prefix."""
        return f"http://127.0.0.1:{self.port}/v1/ledgers/test"

    @contextlib.contextmanager
    def serving(self) -> Iterator[LogServer]:
        """On a free port, to the end of the block."""
        world = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                path = self.path.removeprefix("/v1/ledgers/test")
                status, body = world.answer(path, self.headers.get("Authorization"))
                packed = path.startswith(ENTRIES) and status == 200
                body = gzip.compress(body) if packed else body
                self.send_response(status)
                if packed:
                    self.send_header("Content-Encoding", "gzip")
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Retry-After", "0")
                self.end_headers()
                self.wfile.write(body[: len(body) // 2] if path in world.broken else body)
                if path in world.broken:
                    self.close_connection = True

            @override
            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        self.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    def answer(self, path: str, authorization: str | None) -> tuple[int, bytes]:
        """Status and body."""
        self.asked.append(path)
        if self.failures:
            return self.failures.pop(0), b""
        if self.stop_after is not None and len(self.asked) > self.stop_after:
            return 500, b""
        if path == "/checkpoint":
            return 200, self.log.note().encode()
        tree = (self.tree or self.log).tree
        if path.startswith(ENTRIES):
            if authorization != self.key:
                return 401, b""
            tile = parse_tile_path("0", path.removeprefix(ENTRIES))
            return self._or_gone(tile, tree.bundle(tile))
        level, _, number = path.removeprefix("/tile/").partition("/")
        tile = parse_tile_path(level, number)
        return self._or_gone(tile, tree.tile(tile))

    def _or_gone(self, tile: Tile, content: bytes) -> tuple[int, bytes]:
        return (404, b"") if self.no_partial and tile.width < 256 else (200, content)
