"""What can go wrong in the key vault, by who is at fault.

No message holds a name, a key or a statement's parameters (I5): refs, key ids and paths are all that they show.
"""

from __future__ import annotations

from collections.abc import Sequence


class KeyVaultError(Exception):
    """Anything the key vault refuses or cannot do."""


# The caller's


class UnknownLedgerError(KeyVaultError):
    """The vault holds no secrets of this ledger: ``create_ledger`` was never finished for it."""


class UnknownSubjectError(KeyVaultError):
    """No subject has this name or ref."""


class UnknownErasureError(KeyVaultError):
    """No erasure of this ledger has this id."""


class UnknownPurposeError(KeyVaultError):
    """The subject has neither a living key nor a fence for some of the purposes asked for."""

    def __init__(self, purposes: Sequence[str]) -> None:
        super().__init__(f"the subject has no data for {len(purposes)} of the purposes asked for")
        self.purposes = tuple(purposes)


# The state's


class BusyError(KeyVaultError):
    """Another process is at the same work."""


class NotErasedError(KeyVaultError):
    """A name that is in use can neither begin anew nor be forgotten."""


class KeysLiveError(KeyVaultError):
    """The name cannot be forgotten yet: a key of the subject lives, and what it opens tells the name beside the ref."""


class UnlinkedError(KeyVaultError):
    """The subject of this name was erased, and the way from the name to it was cut."""

    def __init__(self) -> None:
        super().__init__(
            "the subject was erased and its name forgotten: nothing leads from this name to what is left of it"
        )


class EpochRefusedError(KeyVaultError):
    """The epoch may not be destroyed as things stand. ``reason``: a stable word; the text says what to do."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


# A dependency's


class VaultUnavailableError(KeyVaultError):
    """The vault's database, journal file or key provider cannot be reached. Ask again later; never a redaction (I9)."""


class ConnectionLostError(VaultUnavailableError):
    """The connection broke off during the work. A read can be repeated; of a write the outcome is unknown."""


class NotInitialisedError(VaultUnavailableError):
    """The vault has no current epoch, so nothing can be wrapped."""


class ProviderError(VaultUnavailableError):
    """The key provider cannot give the KEK of an epoch, or its setting makes no sense."""

    epoch: int | None = None
    """Whose KEK was needed, where a row of the vault was to be unwrapped."""


class InsecureFolderError(ProviderError):
    """A KEK lies where others than the service's own user can reach it."""


# Integrity


class NotAuthenticError(KeyVaultError, ValueError):
    """A sealed part or a wrap is not what was made under this key and AAD."""


class UnknownFormatError(NotAuthenticError):
    """The first byte names a layout that this version does not know. Nothing is ever tried twice."""


class DamagedKeyError(KeyVaultError):
    """A row of the vault does not unwrap to the key that it names."""


class AnotherVaultError(KeyVaultError):
    """The vault's own key is not the one that is pinned: this is another vault, or a new one."""


class JournalError(KeyVaultError):
    """The journal is not the unbroken chain of signed lines that the service wrote."""
