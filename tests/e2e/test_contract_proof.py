"""The proof part of the contract over HTTP: checkpoint, tiles, entries, proofs; and who may read what."""

from __future__ import annotations

import base64
import gzip
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from keyvault.signatures import verify_ed25519
from ledger.domain.checkpoints import Checkpoint, open_checkpoint, parse_tlog_proof
from ledger.domain.merkle import EMPTY_ROOT, hash_leaf, verify_consistency, verify_inclusion
from ledger.domain.notes import VerifierKey, parse_verifier_key
from ledger.domain.tiles import consistency_proof, inclusion_proof, root_from_tiles
from tests.e2e.conftest import Tenant, make_tenant
from tests.support.server import Answer, Client, ServedLedger

IMMUTABLE = "max-age=31536000, immutable"
COUNT = 300


@pytest.fixture(params=["sqlite", "postgres"], scope="module")
def grown(request: pytest.FixtureRequest) -> Tenant:
    """A ledger of more than one tile, on each engine in turn."""
    server: ServedLedger = request.getfixturevalue(f"{request.param}_server")
    tenant = make_tenant(server)
    append(tenant, COUNT)
    return tenant


def append(tenant: Tenant, count: int) -> list[str]:
    """Append so many events; gives their ids."""
    event = {"stream": "ward-1", "type": "Noted", "nonpersonal": {}}
    answer = tenant.client.post(f"{tenant.path}/events", {"events": [event] * count})
    return [made["id"] for made in answer.json()["events"]]


def key_of(tenant: Tenant) -> VerifierKey:
    """The key that the ledger's statements verify under."""
    return parse_verifier_key(tenant.client.get(tenant.path).json()["verifier_key"])


def checkpoint_of(tenant: Tenant, client: Client | None = None) -> Checkpoint:
    """The newest checkpoint, verified."""
    answer = (client or tenant.client).get(f"{tenant.path}/checkpoint")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    return open_checkpoint(answer.body.decode(), key_of(tenant), verify_ed25519)


def settled_checkpoint(tenant: Tenant, size: int) -> Checkpoint:
    """The checkpoint of so many events, which a proof of the newest has published."""
    tenant.client.get(f"{tenant.path}/consistency?from={size}")
    checkpoint = checkpoint_of(tenant)
    assert checkpoint.size == size
    return checkpoint


def problem(answer: Answer) -> tuple[int, str | None]:
    """Status and code."""
    return answer.status, answer.code


def test_a_checkpoint_is_that_of_the_ledger(grown: Tenant) -> None:
    """Its origin is the name of the key; it verifies, and may be cached for a second."""
    checkpoint = settled_checkpoint(grown, COUNT)
    answer = grown.client.get(f"{grown.path}/checkpoint")

    assert checkpoint.origin == key_of(grown).name == f"localhost/{grown.name}"
    assert answer.headers["cache-control"] == "private, max-age=1"


def test_an_empty_ledger_has_a_checkpoint_and_no_tiles(sqlite_server: ServedLedger) -> None:
    """Of size 0."""
    tenant = make_tenant(sqlite_server)

    assert (checkpoint_of(tenant).size, checkpoint_of(tenant).root) == (0, EMPTY_ROOT)
    assert problem(tenant.client.get(f"{tenant.path}/tile/0/000")) == (404, "not-found")
    assert tenant.client.get(f"{tenant.path}/consistency?from=0").json() == {"from": 0, "to": 0, "proof": []}


def test_whoever_has_the_tiles_can_prove_everything(grown: Tenant) -> None:
    """Root, inclusion and growth come out of the tiles alone, and are those of the service."""
    checkpoint = settled_checkpoint(grown, COUNT)

    def read(tiles: Any) -> dict[Any, bytes]:
        found = {tile: grown.client.get(f"{grown.path}/{tile.path}") for tile in tiles}
        assert {answer.headers["cache-control"] for answer in found.values()} == {f"private, {IMMUTABLE}"}
        return {tile: answer.body for tile, answer in found.items()}

    asked = grown.client.get(f"{grown.path}/consistency?from=17&to={COUNT}").json()
    assert root_from_tiles(read, COUNT) == checkpoint.root
    assert [base64.b64encode(node).decode() for node in consistency_proof(read, 17, COUNT)] == asked["proof"]
    leaf_hash = read_leaf_hash(grown, 256)
    path = inclusion_proof(read, 256, COUNT)
    verify_inclusion(index=256, size=COUNT, leaf_hash=leaf_hash, proof=path, root=checkpoint.root)


def read_leaf_hash(tenant: Tenant, position: int) -> bytes:
    """The hash of one leaf, out of the entries."""
    return hash_leaf(list(entries(tenant, COUNT))[position])


def entries(tenant: Tenant, size: int) -> Iterator[bytes]:
    """All leaves, out of the bundles."""
    for number in range(0, size, 256):
        suffix = "" if size - number >= 256 else f".p/{size - number}"
        body = tenant.client.get(f"{tenant.path}/tile/entries/{number // 256:03}{suffix}").body
        while body:
            (length,) = struct.unpack_from(">H", body)
            yield body[2 : 2 + length]
            body = body[2 + length :]


def test_entries_are_the_leaves_of_the_tree(grown: Tenant) -> None:
    """Each hashes to what stands in the tile of hashes; they are for auditors, and come packed to who asks for it."""
    settled_checkpoint(grown, COUNT)
    tile = grown.client.get(f"{grown.path}/tile/0/000").body
    plain = grown.client.get(f"{grown.path}/tile/entries/000")
    packed = grown.client.send("GET", f"{grown.path}/tile/entries/000", None, {"Accept-Encoding": "gzip"})

    assert b"".join(hash_leaf(leaf) for leaf in list(entries(grown, COUNT))[:256]) == tile
    assert plain.headers["cache-control"] == f"private, {IMMUTABLE}"
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed.body) == plain.body


@pytest.mark.parametrize(
    "path",
    ["0/001", "0/001.p/45", "0/000.p/256", "0/0", "0/002", "1/000", "1/000.p/2", "2/000.p/1", "64/000", "x/000"],
)
def test_what_is_not_in_the_published_tree_is_not_there(grown: Tenant, path: str) -> None:
    """Nor is another way to write it."""
    settled_checkpoint(grown, COUNT)

    assert problem(grown.client.get(f"{grown.path}/tile/{path}")) == (404, "not-found")
    if path.startswith("0/"):
        assert problem(grown.client.get(f"{grown.path}/tile/entries/{path[2:]}")) == (404, "not-found")


def test_partial_tiles_are_the_beginning_of_full_ones(grown: Tenant) -> None:
    """For every smaller tree that a checkpoint may have been of."""
    settled_checkpoint(grown, COUNT)
    full = grown.client.get(f"{grown.path}/tile/0/000").body

    assert grown.client.get(f"{grown.path}/tile/0/000.p/3").body == full[: 3 * 32]
    assert len(grown.client.get(f"{grown.path}/tile/1/000.p/1").body) == 32


def test_an_event_has_a_proof_as_soon_as_it_is_recorded(grown: Tenant) -> None:
    """A file that verifies offline; it holds the leaf, and the checkpoint that was published for it."""
    tenant = make_tenant(grown.server)
    for expected in range(3):
        (event_id,) = append(tenant, 1)
        answer = tenant.client.get(f"{tenant.path}/events/{event_id}/proof")
        proof = parse_tlog_proof(answer.body.decode())
        checkpoint = open_checkpoint(proof.checkpoint, key_of(tenant), verify_ed25519)

        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert (proof.index, checkpoint.size) == (expected, expected + 1)
        assert proof.extra is not None
        verify_inclusion(
            index=proof.index,
            size=checkpoint.size,
            leaf_hash=hash_leaf(proof.extra),
            proof=proof.hashes,
            root=checkpoint.root,
        )


def test_growth_is_proven_between_checkpoints(sqlite_server: ServedLedger) -> None:
    """Of two that somebody has kept, one is the beginning of the other."""
    tenant = make_tenant(sqlite_server)
    append(tenant, 5)
    old = settled_checkpoint(tenant, 5)
    append(tenant, 7)
    new = settled_checkpoint(tenant, 12)
    answer = tenant.client.get(f"{tenant.path}/consistency?from=5&to=12").json()

    proof = [base64.b64decode(node) for node in answer["proof"]]
    verify_consistency(old_size=5, new_size=12, old_root=old.root, new_root=new.root, proof=proof)


@pytest.mark.parametrize("query", ["", "?from=-1", "?from=1&to=0", "?from=0&to=1000", "?from=1000", "?from=x", "?to=1"])
def test_sizes_that_make_no_sense_are_refused(grown: Tenant, query: str) -> None:
    """With what is wrong."""
    answer = grown.client.get(f"{grown.path}/consistency{query}")

    assert problem(answer) == (422, "invalid")
    assert answer.json()["errors"]


def test_checkpoints_and_hashes_are_public_where_policy_says_so(sqlite_server: ServedLedger) -> None:
    """Entries, proofs and everything else never are; and nobody learns whether there is another ledger."""
    tenant = make_tenant(sqlite_server)
    (event_id,) = append(tenant, 1)
    nobody = tenant.client.with_key(None)
    writer = tenant.client.with_key(tenant.client_with("writer").key)
    assert problem(nobody.get(f"{tenant.path}/checkpoint")) == (401, "unauthenticated")

    tenant.client.send(
        "PUT", f"{tenant.path}/policy", b'{"public_checkpoints": true}', {"Content-Type": "application/json"}
    )

    assert checkpoint_of(tenant, nobody).size == checkpoint_of(tenant, writer).size == 1
    tile = nobody.get(f"{tenant.path}/tile/0/000.p/1")
    assert (tile.status, tile.headers["cache-control"]) == (200, f"public, {IMMUTABLE}")
    assert nobody.get(f"{tenant.path}/checkpoint").headers["cache-control"] == "public, max-age=1"
    for path in ("tile/entries/000.p/1", f"events/{event_id}/proof", "consistency?from=0", f"events/{event_id}"):
        assert problem(nobody.get(f"{tenant.path}/{path}")) == (401, "unauthenticated")
    assert problem(nobody.get("/v1/ledgers/nobody-made-this/checkpoint")) == (401, "unauthenticated")
