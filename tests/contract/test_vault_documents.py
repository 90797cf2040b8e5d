"""What the key vault promises about derived documents, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from keyvault.errors import UnknownLedgerError
from keyvault.vault import Vault
from ledger.ports import Document
from tests.contract.vault_world import (
    LEDGER,
    NOW,
    OTHER_LEDGER,
    World,
    begin,
    erase,
    erasure_id,
    key_of,
    postgresql_world,
    set_up,
    sqlite_world,
)

AAD = b"what it is bound to"


@pytest.fixture(params=["sqlite", "postgresql"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A database of the vault's own."""
    if request.param == "sqlite":
        with sqlite_world(tmp_path) as opened:
            yield opened
    else:
        with postgresql_world(request.getfixturevalue("postgres"), tmp_path) as opened:
            yield opened


@pytest.fixture
def vault(world: World) -> Vault:
    """A vault with two ledgers."""
    return set_up(world)


def sealed_by(vault: Vault, *names: str) -> Document:
    """A document into which these subjects' keys went, sealed."""
    key_ids = tuple(sorted(key_of(vault, name) for name in names))
    document = Document(key_ids, b"a secret of " + b" and ".join(name.encode() for name in names), AAD)
    (body,) = vault.seal_documents(LEDGER, [document])
    assert body is not None
    return replace(document, body=body)


def opened(vault: Vault, *documents: Document) -> list[bytes | None]:
    return list(vault.open_documents(LEDGER, documents))


def test_a_document_opens_for_every_process_while_all_its_keys_live(world: World, vault: Vault) -> None:
    """Under none, one or several subjects' keys; sealed anew it has other bytes."""
    documents = [sealed_by(vault), sealed_by(vault, "A"), sealed_by(vault, "A", "B")]
    again = [sealed_by(vault), sealed_by(vault, "A"), sealed_by(vault, "A", "B")]
    expected = [b"a secret of ", b"a secret of A", b"a secret of A and B"]
    assert expected == opened(vault, *documents)
    assert expected == opened(world.open(), *documents)
    assert not {document.body for document in documents} & {document.body for document in again}
    assert not any(b"secret" in document.body for document in documents)


def test_a_document_dies_with_any_one_of_its_keys(world: World, vault: Vault) -> None:
    """At once, in every process, those with a warm cache too; documents of others live on (I7)."""
    other = world.open()
    both, only_b = sealed_by(vault, "A", "B"), sealed_by(vault, "B")
    assert opened(other, both, only_b) == [b"a secret of A and B", b"a secret of B"]
    erase(vault, "A")
    assert opened(other, both, only_b) == [None, b"a secret of B"]
    assert vault.seal_documents(LEDGER, [replace(both, body=b"again")]) == [None]


def test_a_document_is_closed_while_a_key_is_restricted_or_being_erased(vault: Vault) -> None:
    """It opens again when the restriction is lifted."""
    key_of(vault, "A")
    ref = vault.find_subjects(LEDGER, ["A"])["A"].ref
    document = sealed_by(vault, "A")
    vault.restrict(LEDGER, ref, NOW)
    assert opened(vault, document) == [None]
    assert vault.seal_documents(LEDGER, [replace(document, body=b"again")]) == [None]
    vault.lift_restriction(LEDGER, ref, NOW)
    assert opened(vault, document) == [b"a secret of A"]
    begin(vault, "A", 1)
    assert opened(vault, document) == [None]


def test_a_document_is_bound_to_its_keys_its_ledger_and_its_aad(vault: Vault) -> None:
    """One altered bit, another AAD, another set of keys, another ledger, an unknown layout: computed again."""
    document = sealed_by(vault, "A")
    a, b = key_of(vault, "A"), key_of(vault, "B")
    flipped = bytes((document.body[-1] ^ 1,))
    assert (
        opened(
            vault,
            replace(document, body=document.body[:-1] + flipped),
            replace(document, aad=b"something else"),
            replace(document, key_ids=()),
            replace(document, key_ids=tuple(sorted((a, b)))),
            replace(document, body=b"\x02" + document.body[1:]),
            replace(document, body=document.body[:20]),
            replace(document, body=b""),
        )
        == [None] * 7
    )
    assert vault.open_documents(OTHER_LEDGER, [document]) == [None]


def test_a_key_of_which_the_vault_knows_nothing_opens_nothing(vault: Vault) -> None:
    """Neither for sealing nor for opening."""
    assert vault.seal_documents(LEDGER, [Document((bytes(32),), b"x", AAD)]) == [None]
    assert opened(vault, Document((bytes(32),), bytes(64), AAD)) == [None]


def test_the_order_and_number_of_key_ids_do_not_matter(vault: Vault) -> None:
    """A set of keys is what counts."""
    document = sealed_by(vault, "A", "B")
    doubled = (*reversed(document.key_ids), *document.key_ids)
    assert opened(vault, replace(document, key_ids=doubled)) == [b"a secret of A and B"]


def test_an_unknown_ledger_is_told(vault: Vault) -> None:
    """It has no key of its own to seal under."""
    with pytest.raises(UnknownLedgerError):
        vault.seal_documents(erasure_id(7), [Document((), b"x", AAD)])
    assert vault.seal_documents(erasure_id(7), []) == []
