"""Fetch what a ledger serves as a log (https://c2sp.org/tlog-tiles)."""

from __future__ import annotations

import re
import time
import zlib
from collections.abc import Callable, Collection, Mapping
from http import HTTPStatus
from typing import Final

from api.outgoing import BadAddressError, Remote, Reply, UnreachableError
from ledger.domain.merkle import HASH_BYTES
from ledger.domain.notes import NOTE_BYTES
from ledger.domain.tiles import TILE_BYTES, TILE_WIDTH, Tile
from ledger.errors import LedgerError

REQUEST_SECONDS: Final = 60.0
TRIES: Final = 6
LONGEST_WAIT: Final = 30

_ENTRY_BYTES: Final = 2**16
_LENGTH_BYTES: Final = 2
_BUNDLE_BYTES: Final = TILE_WIDTH * (_LENGTH_BYTES + _ENTRY_BYTES)
_GZIP: Final = 16 + zlib.MAX_WBITS
_SECONDS: Final = re.compile(r"[0-9]{1,3}", re.ASCII)
_LATER: Final = frozenset(
    {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT}
)
_NOT_FOR_YOU: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})


class AuditError(LedgerError):
    """The audit could not be done. Nothing was found, and nothing is shown."""


class LogClient:
    """The log below a prefix: ``<base>/v1/ledgers/<ledger>``.

    ``api_key``: of the role auditor; None where checkpoint and tiles are public. Raises ``AuditError`` whenever the
    server does not give what it must.
    """

    def __init__(self, url: str, api_key: str | None, sleep: Callable[[float], None] = time.sleep) -> None:
        try:
            self._remote = Remote(url, seconds=REQUEST_SECONDS)
        except BadAddressError as error:
            raise AuditError(f"the URL of the ledger: {error}") from None
        self._headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._sleep = sleep

    def checkpoint(self) -> str:
        """The newest checkpoint, as it was sent."""
        reply = self._get("checkpoint", limit=NOTE_BYTES)
        try:
            return self._require("checkpoint", reply).decode()
        except UnicodeDecodeError:
            raise AuditError("the checkpoint is no text") from None

    def read(self, tiles: Collection[Tile]) -> Mapping[Tile, bytes]:
        """The hashes of each tile. Satisfies ``ledger.domain.tiles.ReadTiles``."""
        return {tile: self.hashes(tile) for tile in tiles}

    def hashes(self, tile: Tile) -> bytes:
        """The hashes of a tile, one after another."""
        whole = Tile(tile.level, tile.number, TILE_WIDTH)
        content = self._partial_or_whole(tile.path, whole.path, limit=TILE_BYTES)
        if len(content) < tile.width * HASH_BYTES:
            raise AuditError(f"{tile.path} has fewer hashes than it must have")
        return content[: tile.width * HASH_BYTES]

    def entries(self, tile: Tile) -> list[bytes]:
        """The leaves of a tile of level 0."""
        whole = Tile(tile.level, tile.number, TILE_WIDTH)
        content = self._partial_or_whole(tile.entries_path, whole.entries_path, limit=_BUNDLE_BYTES)
        found: list[bytes] = []
        offset = 0
        while len(found) < tile.width:
            begin = offset + _LENGTH_BYTES
            end = begin + int.from_bytes(content[offset:begin], "big")
            if begin > len(content) or end > len(content):
                raise AuditError(f"{tile.entries_path} has fewer entries than it must have")
            found.append(content[begin:end])
            offset = end
        return found

    def close(self) -> None:
        """Give the connection back."""
        self._remote.close()

    def _partial_or_whole(self, partial: str, whole: str, *, limit: int) -> bytes:
        reply = self._get(partial, limit=limit)
        if reply.status == HTTPStatus.NOT_FOUND and partial != whole:
            # A log may throw partial tiles away once the full one is there.
            return self._require(whole, self._get(whole, limit=limit), limit=limit)
        return self._require(partial, reply, limit=limit)

    def _get(self, path: str, *, limit: int) -> Reply:
        headers = {**self._headers, "Accept-Encoding": "gzip, identity"}
        failure = ""
        for number in range(TRIES):
            wait = 2**number
            try:
                reply = self._remote.ask("GET", path, None, headers, limit=limit)
            except UnreachableError as error:
                failure = str(error)
            else:
                if reply.status not in _LATER:
                    return reply
                failure = f"status {reply.status}"
                told = reply.headers.get("retry-after", "")
                wait = int(told) if _SECONDS.fullmatch(told) is not None else wait
            if number < TRIES - 1:
                self._sleep(min(wait, LONGEST_WAIT))
        raise AuditError(f"{path} could not be fetched: {failure}")

    @staticmethod
    def _require(path: str, reply: Reply, *, limit: int = NOTE_BYTES) -> bytes:
        if reply.status in _NOT_FOR_YOU:
            raise AuditError(
                f"{path} is not for everybody (status {reply.status}): give --api-key-file with a key of the role "
                "auditor"
            )
        if reply.status != HTTPStatus.OK:
            raise AuditError(f"{path} could not be fetched: status {reply.status}")
        if reply.headers.get("content-encoding", "identity") == "identity":
            return reply.body
        unpacker = zlib.decompressobj(_GZIP)
        try:
            content = unpacker.decompress(reply.body, limit + 1)
        except zlib.error:
            raise AuditError(f"{path} cannot be unpacked") from None
        if len(content) > limit or not unpacker.eof:
            raise AuditError(f"{path} is longer than it may be, or breaks off")
        return content
