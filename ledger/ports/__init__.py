"""What the ledger needs from outside, as Protocols whose docstrings are the contracts.

Nothing here is implemented by inheriting: ``keyvault.vault.Vault`` happens to satisfy :class:`KeyVault`, and
``api/wiring.py`` is where the type checker sees that it does.
"""

from ledger.ports.catalogue import CatalogueMark, Catalogues, EventType
from ledger.ports.derived import (
    Cursor,
    CursorKey,
    CursorKind,
    Cursors,
    CursorState,
    Derived,
    HeldEvents,
    ParkedEvent,
    ReadModelPage,
    ReadModelRow,
    ReadModels,
    Snapshot,
    Snapshots,
    Subscription,
    Subscriptions,
    Timer,
    Timers,
)
from ledger.ports.outside import Alarms, Clock, Entropy
from ledger.ports.overview import Follower, Overview
from ledger.ports.store import HeadLock, KeyRow, KeyUsage, Shredding, Store
from ledger.ports.streams import Between, Occurrence, StreamPlace, StreamRange, Streams
from ledger.ports.vault import (
    DataKey,
    Document,
    ErasureEntry,
    KeyStatus,
    KeyVault,
    KeyView,
    Refusal,
    Reservation,
    StreamEntry,
    SubjectEntry,
    SubjectState,
)

__all__ = [
    "Alarms",
    "Between",
    "CatalogueMark",
    "Catalogues",
    "Clock",
    "Cursor",
    "CursorKey",
    "CursorKind",
    "CursorState",
    "Cursors",
    "DataKey",
    "Derived",
    "HeldEvents",
    "Document",
    "Entropy",
    "ErasureEntry",
    "EventType",
    "Follower",
    "HeadLock",
    "KeyRow",
    "KeyStatus",
    "KeyUsage",
    "KeyVault",
    "KeyView",
    "Occurrence",
    "Overview",
    "ParkedEvent",
    "ReadModelPage",
    "ReadModelRow",
    "ReadModels",
    "Refusal",
    "Reservation",
    "Shredding",
    "Snapshot",
    "Snapshots",
    "Store",
    "StreamEntry",
    "StreamPlace",
    "StreamRange",
    "Streams",
    "SubjectEntry",
    "SubjectState",
    "Subscription",
    "Subscriptions",
    "Timer",
    "Timers",
]
