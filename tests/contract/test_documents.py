"""What the ledger adds to the vault's derived documents: its own word on dead keys, and the log they were made from."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ledger.ports import Document
from ledger.services.documents import DocumentKind, Draft, Sealed, open_, seal
from tests.support.ledgers import Ledger, a_visit

CONTENT = {"state": {"name": "Ägidius", "n": [1, None]}}


def sealed_by(ledger: Ledger, *names: str) -> Sealed:
    """A document of these subjects, bound to the first event of the ledger."""
    key_ids = [ledger.key_of(name) for name in names]
    leaf = ledger.recorded()[0].leaf_hash
    draft = Draft("merge-patch/1", b"stream", 0, leaf, key_ids, CONTENT)
    (body,) = seal(ledger.deps, ledger.ledger_id, DocumentKind.SNAPSHOT, [draft])
    assert body is not None
    return Sealed(draft.fold_label, draft.key, draft.position, draft.leaf_hash, draft.key_ids, body)


@pytest.fixture
def document(ledger: Ledger) -> Sealed:
    """A document of two people."""
    ledger.append(a_visit("A"), a_visit("B"))
    return sealed_by(ledger, "patient:A", "patient:B")


def opened(ledger: Ledger, document: Sealed, kind: DocumentKind = DocumentKind.SNAPSHOT) -> object:
    return open_(ledger.deps, ledger.ledger_id, kind, [document])[0]


def test_a_document_gives_back_what_was_sealed(ledger: Ledger, document: Sealed) -> None:
    """In whatever order its keys are named; its size is a multiple of 64 bytes of text and its frame."""
    assert opened(ledger, document) == CONTENT
    assert opened(ledger, replace(document, key_ids=[*reversed(document.key_ids)])) == CONTENT
    assert (len(document.body) - 33) % 64 == 0


def test_a_document_is_bound_to_what_it_is_and_to_the_log_that_it_was_made_from(
    ledger: Ledger, document: Sealed
) -> None:
    """Another kind, fold, key, position or leaf: it has to be computed again."""
    assert opened(ledger, document, DocumentKind.READ_MODEL) is None
    for other in (
        replace(document, fold_label="merge-patch/2"),
        replace(document, key=b"another"),
        replace(document, position=1),
        replace(document, leaf_hash=ledger.recorded()[1].leaf_hash),
        replace(document, key_ids=document.key_ids[:1]),
    ):
        assert opened(ledger, other) is None


def test_an_erasure_closes_every_document_that_the_person_went_into(ledger: Ledger, document: Sealed) -> None:
    """And nobody else's."""
    of_b = sealed_by(ledger, "patient:B")
    ledger.erase("patient:A")
    assert opened(ledger, document) is None
    assert opened(ledger, of_b) == CONTENT


def test_a_key_that_the_ledger_calls_dead_opens_nothing_even_if_the_vault_has_it_back(
    ledger: Ledger, document: Sealed
) -> None:
    """I9: a vault restored from an old backup would still open the document."""
    before = ledger.deps.vault.open_documents

    class Restored:
        """Answers as the vault did before the erasure."""

        def __init__(self, documents: list[Document]) -> None:
            self.answers = before(ledger.ledger_id, documents)

        def open_documents(self, *_: object) -> object:
            return self.answers

    captured: list[Document] = []

    class Capturing:
        def open_documents(self, _: object, documents: list[Document]) -> object:
            captured.extend(documents)
            return before(ledger.ledger_id, documents)

    assert opened(ledger.with_parts(vault=Capturing()), document) == CONTENT
    restored = Restored(captured)
    ledger.erase("patient:A")
    assert opened(ledger.with_parts(vault=restored), document) is None
