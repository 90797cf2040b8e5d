"""Read the documents of projections: always less what is erased now, whenever they were made.

The rows are read first, then the vault is asked, then the ledger's dead keys, for every page anew (I7). A document that
does not open, or that was made while something was hidden that may be back, is made from its events on the spot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from ledger.domain.cursors import other_question
from ledger.domain.events import JsonObject
from ledger.domain.pages import DocumentsPlace, decode_page, encode_page
from ledger.domain.projection import DocumentFold, Projection
from ledger.domain.query import NameOrRef
from ledger.domain.state import HiddenParts
from ledger.errors import BusyError, NotFoundError
from ledger.ports import Cursor, ReadModelPage, ReadModelRow
from ledger.services.dependencies import Dependencies
from ledger.services.projecting.rebuilding import FoldFailedError, make_document
from ledger.services.projecting.status import wait_for
from ledger.services.projecting.stored import open_rows
from ledger.services.read import stream_ref_of

PAGE_BYTES: Final = 8 * 2**20
"""Stored bytes of a page: one that reaches them ends there, with fewer documents than its limit."""


@dataclass(frozen=True, slots=True)
class ReadDocument:
    """One document as it may be read now. ``position``: of the last event that went into it. ``complete`` is False when
    something hidden could have changed it."""

    key: bytes
    bucket: str
    position: int
    document: JsonObject
    events: int
    unknown_versions: int
    complete: bool
    hidden: tuple[HiddenParts, ...]


@dataclass(frozen=True, slots=True)
class ReadModelAnswer:
    """Documents, all as they were when the projection was at ``cursor.position``. ``next``: of the next page."""

    cursor: Cursor
    documents: Sequence[ReadDocument]
    next: str | None


def key_of_stream(deps: Dependencies, ledger_id: UUID, stream: NameOrRef) -> bytes:
    """The key of the document of a stream. Raises ``NotFoundError``."""
    ref = stream_ref_of(deps, ledger_id, stream)
    if ref is None:
        raise NotFoundError("there is no such stream in this ledger")
    return ref


def key_of_subject(deps: Dependencies, ledger_id: UUID, subject: NameOrRef) -> bytes:
    """The key of the document of a subject. Raises ``NotFoundError``."""
    if subject.name is None:
        entry = deps.vault.subject(ledger_id, subject.ref or b"")
    else:
        entry = deps.vault.find_subjects(ledger_id, [subject.name]).get(subject.name)
    if entry is None:
        raise NotFoundError("there is no such subject in this ledger")
    return entry.ref


def read_document(
    deps: Dependencies,
    ledger_id: UUID,
    projection: Projection,
    key: bytes,
    *,
    min_position: int | None = None,
    timeout: float = 0.0,
) -> ReadModelAnswer:
    """One document. ``min_position``: see ``wait_for``. Raises ``NotFoundError`` when there is none up to the position
    of the projection, ``BusyError`` when nobody has begun with it."""
    if min_position is not None:
        wait_for(deps, ledger_id, projection.name, min_position, timeout)
    page = _begun(deps.derived.read_models.read_documents(ledger_id, projection.name, [key]))
    if not page.rows:
        raise NotFoundError(f"the read model has nothing of this up to position {page.cursor.position}")
    return ReadModelAnswer(page.cursor, _readable(deps, ledger_id, projection, page), None)


def list_documents(
    deps: Dependencies,
    ledger_id: UUID,
    projection: Projection,
    bucket: str | None,
    *,
    cursor: str | None,
    limit: int,
    min_position: int | None = None,
    timeout: float = 0.0,
) -> ReadModelAnswer:
    """A page of the documents of a bucket (None: all), in order of their keys.

    With a cursor the bucket is the one that it pins; another beside it is an error. Raises ``InvalidError`` for a
    cursor that is not of this list, ``BusyError`` when nobody has begun with the projection.
    """
    after = None
    if cursor is not None:
        place = _place(ledger_id, projection.name, bucket, cursor)
        bucket, after = place.bucket, place.after_key
    if min_position is not None:
        wait_for(deps, ledger_id, projection.name, min_position, timeout)
    models = deps.derived.read_models
    # The one too many is how we know that there are more.
    page = _begun(models.list_documents(ledger_id, projection.name, bucket, after, limit + 1, PAGE_BYTES))
    full = len(page.rows) > limit or sum(len(row.body) for row in page.rows) >= PAGE_BYTES
    page = ReadModelPage(page.cursor, page.rows[:limit])
    documents = _readable(deps, ledger_id, projection, page)
    if not full:
        return ReadModelAnswer(page.cursor, documents, None)
    last = DocumentsPlace(read_model=projection.name, bucket=bucket, after_key=page.rows[-1].key)
    return ReadModelAnswer(page.cursor, documents, encode_page(ledger_id, last))


def _begun(page: ReadModelPage | None) -> ReadModelPage:
    if page is None:
        raise BusyError("nobody has begun to build this read model; is a worker running?")
    return page


def _readable(deps: Dependencies, ledger_id: UUID, projection: Projection, page: ReadModelPage) -> list[ReadDocument]:
    # That a document is provisional stands in it, too: a row that denies it is not believed, only opened in vain.
    rows = [row for row in page.rows if not row.provisional]
    opened = open_rows(deps, ledger_id, projection, page.cursor.version, rows)
    usable = {key: fold for key, fold in opened.items() if fold is not None and not fold.provisional}
    return [
        _shown(row, usable.get(row.key) or _made_again(deps, ledger_id, projection, row, page.cursor.position))
        for row in page.rows
    ]


def _made_again(
    deps: Dependencies, ledger_id: UUID, projection: Projection, row: ReadModelRow, position: int
) -> DocumentFold:
    try:
        made = make_document(deps, ledger_id, projection, row.key, position, known_keys=row.key_ids)
    except FoldFailedError:
        raise BusyError("the projection fails on an event of this document; see the list of projections") from None
    except ValueError:
        # No document has such a key: somebody's hand has put it there.
        made = None
    return made or DocumentFold(row.bucket, row.position, row.leaf_hash)


def _shown(row: ReadModelRow, fold: DocumentFold) -> ReadDocument:
    return ReadDocument(
        key=row.key,
        bucket=row.bucket,
        position=fold.position,
        document=fold.document,
        events=fold.events,
        unknown_versions=fold.unknown_versions,
        complete=fold.complete,
        hidden=fold.hidden,
    )


def _place(ledger_id: UUID, name: str, asked: str | None, cursor: str) -> DocumentsPlace:
    place = decode_page(ledger_id, DocumentsPlace, cursor)
    if place.read_model != name or asked not in (None, place.bucket):
        raise other_question()
    return place
