"""Ledgers and API keys: names taken once, secrets shown once, refusals that tell nothing."""

from __future__ import annotations

from hashlib import sha256
from typing import Any
from uuid import UUID

import pytest

from ledger.domain.access import AccessRole
from ledger.errors import AlreadyExistsError, InvalidError, NotFoundError, UnauthenticatedError
from ledger.services.api_keys import IssuedKey, authenticate, create_api_key, list_api_keys, revoke_api_key
from ledger.services.ledgers import create_ledger, describe_ledger, find_ledger, list_ledgers
from tests.support.ledgers import Ledger, a_fact

MINUTE = 60_000_000


def issue(ledger: Ledger, **changes: Any) -> IssuedKey:
    """A new API key."""
    options: dict[str, Any] = {
        "name": "import",
        "principal": "lab system",
        "roles": [AccessRole.WRITER],
        "ledger_id": ledger.ledger_id,
        "expires_at": None,
        **changes,
    }
    return create_api_key(ledger.deps, **options)


def test_a_ledger_has_a_name_of_its_own_and_secrets_of_its_own(ledger: Ledger) -> None:
    """Its name is taken for good; its verifying key is nobody else's; the head is told as it is."""
    first = next(one for one in list_ledgers(ledger.deps) if one.ledger_id == ledger.ledger_id)
    assert find_ledger(ledger.deps, first.name) == first
    with pytest.raises(AlreadyExistsError):
        create_ledger(ledger.deps, first.name)
    second = create_ledger(ledger.deps, f"{first.name}-b")
    ledger.append(a_fact())
    one, other = describe_ledger(ledger.deps, first), describe_ledger(ledger.deps, second)
    assert (one.head.size, other.head.size) == (1, 0)
    assert len(one.verifying_key) == len(other.verifying_key) == 32
    assert one.verifying_key != other.verifying_key


@pytest.mark.parametrize("name", ["", "A", "a b", "a_b", "-a", "x" * 64, "a/b", "ä"])
def test_a_ledger_s_name_fits_a_url(ledger: Ledger, name: str) -> None:
    """Any other is refused when it is made, and not found when it is looked for."""
    with pytest.raises(InvalidError) as caught:
        create_ledger(ledger.deps, name)
    assert [fault.pointer for fault in caught.value.faults] == ["/name"]
    with pytest.raises(NotFoundError):
        find_ledger(ledger.deps, name)


def test_a_ledger_that_nobody_made_is_not_found(ledger: Ledger) -> None:
    """A good name is not enough."""
    with pytest.raises(NotFoundError):
        find_ledger(ledger.deps, "no-such-ledger")


def test_a_secret_is_stored_as_its_hash_alone(ledger: Ledger) -> None:
    """What is shown once opens the door; in the database there is only SHA-256 of it."""
    issued = issue(ledger, roles=[AccessRole.WRITER, AccessRole.AUDITOR])
    assert issued.secret.startswith(f"alk_{issued.key.key_id.hex}_")
    known, _ = authenticate(ledger.deps, issued.secret)
    assert (known.key_id, known.roles, known.ledger_id) == (
        issued.key.key_id,
        frozenset({AccessRole.WRITER, AccessRole.AUDITOR}),
        ledger.ledger_id,
    )
    assert len(issued.key.secret_hash) == len(sha256(b"").digest())
    assert issued.secret not in repr(list_api_keys(ledger.deps))
    other = issue(ledger)
    assert other.secret[-43:] != issued.secret[-43:]


def test_a_key_and_a_ledger_are_found_in_one_look(ledger: Ledger) -> None:
    """Whether the key may enter it is another question; a name that no ledger can have is that of none."""
    issued = issue(ledger)
    other = ledger.backend.new_ledger()
    for one in (ledger, other):
        info = ledger.deps.store.ledger(ledger.deps.store.ledger_name(one.ledger_id))
        assert info is not None
        key, found = authenticate(ledger.deps, issued.secret, info.name)
        assert (key.key_id, found) == (issued.key.key_id, info)
    for name in ("no-such-ledger", "", "nul\0", "x" * 1000, None):
        assert authenticate(ledger.deps, issued.secret, name)[1] is None
    assert ledger.deps.store.entrance(UUID(int=1), "x") == (None, None)


def test_every_wrong_key_is_refused_alike(ledger: Ledger) -> None:
    """Unknown, wrong, revoked, expired or garbled: the same words, so that nothing can be learnt from them."""
    good = issue(ledger)
    revoked = issue(ledger)
    revoke_api_key(ledger.deps, revoked.key.key_id)
    expired = issue(ledger, expires_at=ledger.backend.clock.now + 1)
    ledger.backend.clock.now += 10
    head, secret = good.secret[:-43], good.secret[-43:]
    wrong = [
        "",
        "alk_",
        secret,
        good.secret[:-1],
        good.secret + "A",
        good.secret + "\n",
        good.secret.upper(),
        head + secret[::-1],
        head + ("B" if secret[0] != "B" else "C") + secret[1:],
        f"alk_{'0' * 32}_{secret}",
        f"alk_{revoked.key.key_id.hex}_{secret}",
        revoked.secret,
        expired.secret,
        "é" * 80,
    ]
    told = set()
    for token in wrong:
        with pytest.raises(UnauthenticatedError) as caught:
            authenticate(ledger.deps, token)
        told.add((caught.value.detail, caught.value.faults))
    assert len(told) == 1
    assert authenticate(ledger.deps, good.secret)[0].key_id == good.key.key_id


def test_a_key_works_until_the_microsecond_that_it_expires(ledger: Ledger) -> None:
    """Expiry is a point in time, and a clock that goes back does not bring a revoked key back."""
    expires_at = ledger.backend.clock.now + 1000
    issued = issue(ledger, expires_at=expires_at)
    ledger.backend.clock.now = expires_at - 2
    assert authenticate(ledger.deps, issued.secret)[0].key_id == issued.key.key_id
    with pytest.raises(UnauthenticatedError):
        authenticate(ledger.deps, issued.secret)
    revoke_api_key(ledger.deps, issued.key.key_id)
    ledger.backend.clock.now = expires_at - 500
    with pytest.raises(UnauthenticatedError):
        authenticate(ledger.deps, issued.secret)


def test_last_use_is_noted_once_a_minute(ledger: Ledger) -> None:
    """Reading stays reading: not every request writes."""
    issued = issue(ledger)

    def last_used() -> int | None:
        return next(key.last_used_at for key in list_api_keys(ledger.deps) if key.key_id == issued.key.key_id)

    assert last_used() is None
    authenticate(ledger.deps, issued.secret)
    first = last_used()
    assert first is not None
    authenticate(ledger.deps, issued.secret)
    assert last_used() == first
    ledger.backend.clock.now = first + MINUTE
    authenticate(ledger.deps, issued.secret)
    assert last_used() == first + MINUTE + 1


def test_what_is_not_there_cannot_be_revoked(ledger: Ledger) -> None:
    """And revoking twice changes nothing."""
    with pytest.raises(NotFoundError):
        revoke_api_key(ledger.deps, UUID(int=5))
    issued = issue(ledger)
    revoke_api_key(ledger.deps, issued.key.key_id)
    before = list_api_keys(ledger.deps)
    revoke_api_key(ledger.deps, issued.key.key_id)
    assert list_api_keys(ledger.deps) == before
