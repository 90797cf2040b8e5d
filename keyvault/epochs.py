"""The generations of the KEK."""

from __future__ import annotations

import os
from collections.abc import Callable

from sqlalchemy import Connection, Engine

from keyvault import database, store
from keyvault.envelope import WrapKind
from keyvault.errors import NotInitialisedError, ProviderError
from keyvault.journal import Journal
from keyvault.keyring import SERVICE, Keyring

FIRST_EPOCH = 1


def initialise(engine: Engine, keyring: Keyring, journal: Journal, clock: Callable[[], int]) -> None:
    """Make epoch 1 and the service's signing key; doing it again changes nothing, and two processes at once make one.

    ``preparing`` → KEK durable at the provider → signing key → journal line → ``current``. A crash between any two
    leaves ``preparing``, and the next call does the rest; at worst the journal's line stands there twice. Once an epoch
    is current its KEK is never made again: without it the keys are gone, and a new one would only hide that.
    """
    with database.writing(engine) as connection:
        database.lock_epochs(connection)
        if store.epoch_states(connection).get(FIRST_EPOCH, "preparing") != "preparing":
            return
        store.insert_epoch(connection, FIRST_EPOCH, keyring.provider.name, clock())
    keyring.provider.create(FIRST_EPOCH)
    with database.writing(engine) as connection:
        database.lock_epochs(connection)
        rows = store.secrets_of(connection, SERVICE)
        if WrapKind.SIGNING_KEY not in rows:
            secret = keyring.new_secret(SERVICE, WrapKind.SIGNING_KEY, FIRST_EPOCH)
            store.insert_secrets(connection, [secret], clock())
    rows = database.read(engine, lambda connection: store.secrets_of(connection, SERVICE))
    with database.writing(engine) as connection:
        database.lock_epochs(connection)
        if store.epoch_states(connection)[FIRST_EPOCH] == "preparing":
            key = keyring.open_signing_key(rows)
            journal.append("epoch-created", {"epoch": FIRST_EPOCH}, at=clock(), key=key)
            store.make_epoch_current(connection, FIRST_EPOCH, clock())


def held_epoch(connection: Connection) -> int:
    """The current epoch, held until the transaction ends: a rotation waits for the keys that are being minted."""
    epoch = store.hold_current_epoch(connection)
    if epoch is None:
        raise NotInitialisedError("the vault has no current epoch; run `audit-ledger init`")
    return epoch


def probe(engine: Engine, keyring: Keyring) -> None:
    """Raise unless the provider wraps and unwraps under the current epoch, with the KEK that the vault's keys have."""
    epoch, rows = database.read(
        engine, lambda connection: (store.current_epoch(connection), store.secrets_of(connection, SERVICE))
    )
    if epoch is None:
        raise NotInitialisedError("the vault has no current epoch; run `audit-ledger init`")
    sample, aad = os.urandom(32), b"audit-ledger v1 probe"
    if keyring.provider.unwrap(epoch, keyring.provider.wrap(epoch, sample, aad), aad) != sample:
        raise ProviderError("the key provider does not give back what it wrapped")
    keyring.open_signing_key(rows)
