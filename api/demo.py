"""A small made-up ledger: one year of a mail-order shop for paper lanterns. Nobody in it exists.

It has what a reader wants to try: customers with several purposes, orders owned by customers, staff who act, a gift
whose receiver is a further part, stock that concerns no person. It is recorded in another order than it happened in.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

DEMO_LEDGER: Final = "demo"
DEMO_SUBJECT: Final = "customer:mila"


def demo_lines() -> Iterator[bytes]:
    """The events as NDJSON lines, always the same ones in the same order."""
    for event in _events():
        yield json.dumps(event).encode() + b"\n"


def _events() -> Iterator[dict[str, Any]]:
    for name, when, clerk, data in _CUSTOMERS:
        yield _event(f"customer-{name}", "CustomerRegistered", when, name, clerk, data)
    for name, when, purpose, event_type, data in _CONSENTS:
        yield _event(f"customer-{name}", event_type, when, name, "web", data) | {"purpose": purpose}
    yield from _orders()
    for name, when, clerk, event_type, data in _CHANGES:
        yield _event(f"customer-{name}", event_type, when, name, clerk, data)
    for number, (when, stock) in enumerate(_STOCK, 1):
        yield {"stream": f"stock-{number}", "type": "StockCounted", "occurred_at": when, "nonpersonal": stock}


def _orders() -> Iterator[dict[str, Any]]:
    for number, name, when, lanterns, cents, receiver in _ORDERS:
        stream = f"order-2025.{number:03}"
        goods = {"lanterns": lanterns, "total_cents": cents}
        placed = _event(
            stream, "OrderPlaced", f"{when}T10:15:00Z", name, "web", {"note": f"order {number} from the web shop"}
        )
        if receiver is not None:
            gift = {"subject": f"customer:{receiver}", "data": {"gift_card": "With a light for long evenings."}}
            placed["parts"] = [gift]
        yield placed | {"nonpersonal": goods}
        paid = _event(stream, "OrderPaid", f"{when}T10:20:30Z", name, "web", {"account": f"demo account of {name}"})
        yield paid | {"purpose": "accounting", "nonpersonal": {"total_cents": cents}}
        packed = _event(
            stream, "OrderShipped", f"{when}T16:40:00Z", name, "ben", {"parcel": f"made-up parcel {number}"}
        )
        yield packed | {"nonpersonal": goods}


def _event(stream: str, event_type: str, when: str, name: str, clerk: str, data: dict[str, Any]) -> dict[str, Any]:
    return {
        "stream": stream,
        "type": event_type,
        "occurred_at": when,
        "subject": f"customer:{name}",
        "actor": f"staff:{clerk}",
        "data": data,
    }


_CUSTOMERS: Final = (
    (
        "mila",
        "2025-01-08T09:12:00Z",
        "web",
        {"name": "Mila Example", "town": "Lantern Bay", "street": "1 Invented Lane"},
    ),
    (
        "noor",
        "2025-02-03T18:40:00Z",
        "web",
        {"name": "Noor Example", "town": "Paperfield", "street": "22 Made-up Road"},
    ),
    (
        "otto",
        "2025-03-19T11:05:00Z",
        "ana",
        {"name": "Otto Example", "town": "Glowmouth", "street": "3 Fiction Square"},
    ),
    (
        "pia",
        "2025-04-27T20:31:00Z",
        "web",
        {"name": "Pia Example", "town": "Wickham Nowhere", "street": "44 Fable Row"},
    ),
)

_CONSENTS: Final = (
    ("mila", "2025-01-08T09:13:00Z", "newsletter", "NewsletterSubscribed", {"email": "mila@example.invalid"}),
    ("noor", "2025-02-03T18:41:00Z", "newsletter", "NewsletterSubscribed", {"email": "noor@example.invalid"}),
    ("noor", "2025-05-11T07:02:00Z", "newsletter", "NewsletterCancelled", {"why": "too many lanterns"}),
    ("pia", "2025-04-27T20:32:00Z", "newsletter", "NewsletterSubscribed", {"email": "pia@example.invalid"}),
)

_ORDERS: Final = (
    (1, "mila", "2025-01-09", {"round, red": 2}, 2980, None),
    (2, "noor", "2025-02-04", {"star, white": 1}, 1890, None),
    (3, "otto", "2025-03-21", {"round, red": 12}, 17880, None),
    (4, "mila", "2025-05-30", {"moon, blue": 1}, 2190, "noor"),
    (5, "pia", "2025-08-14", {"star, white": 3, "moon, blue": 1}, 7860, None),
    (6, "noor", "2025-11-02", {"round, green": 4}, 5960, "pia"),
    (7, "mila", "2025-12-06", {"star, white": 6}, 11340, None),
)  # fmt: skip

_CHANGES: Final = (
    ("otto", "2025-04-02T13:00:00Z", "ana", "ComplaintReceived", {"about": "two of twelve lanterns were torn"}),
    ("otto", "2025-04-03T08:30:00Z", "ana", "ComplaintSettled", {"how": "two lanterns sent again"}),
    ("mila", "2025-06-17T15:45:00Z", "web", "AddressChanged", {"town": "Paperfield", "street": "9 Imaginary Hill"}),
    ("noor", "2025-07-01T12:00:00Z", "ana", "PhoneCall", {"asked": "whether lanterns may hang in the rain"}),
    ("pia", "2025-09-01T10:00:00Z", "ben", "ParcelReturned", {"why": "nobody was at home"}),
    ("mila", "2025-12-08T09:00:00Z", "ana", "AddressChanged", {"town": "Glowmouth", "street": "12 Pretend Pier"}),
)

_STOCK: Final = (
    ("2025-01-02T07:00:00Z", {"round, red": 60, "star, white": 40, "moon, blue": 15}),
    ("2025-07-01T07:00:00Z", {"round, red": 46, "star, white": 39, "moon, blue": 14}),
    ("2025-12-31T17:00:00Z", {"round, red": 46, "star, white": 30, "moon, blue": 13, "round, green": 21}),
)
