"""The disk is full for a while: clients are told so, nothing is lost, and it recovers by itself (I11, I12)."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

from tests.support.server import Client, ServedLedger

ROOM = 400_000


def test_a_full_disk_is_a_503_and_costs_nothing(tmp_path: Path) -> None:
    """Appends and erasures are refused until there is room; reading goes on; what was acknowledged is there."""
    with ServedLedger() as server:
        path = server.make_ledger("hospital")
        client = server.client
        acknowledged = append(client, path, 1)
        # A limit on the size of files stands in for a full disk: the write fails in the same place.
        largest = max(file.stat().st_size for file in server.home.rglob("*.db*"))
        limit_files(server, largest + ROOM)
        refused = None
        for _ in range(200):
            told = append(client, path, 5)
            if told is None:
                refused = client.post(f"{path}/events", batch(5))
                break
            acknowledged = [*(acknowledged or []), *told]
        assert refused is not None
        assert (refused.status, refused.code) in ((503, "store-unavailable"), (503, "vault-unavailable"))
        assert refused.headers["retry-after"]
        assert client.post(f"{path}/query", {"limit": 1}).status == 200

        limit_files(server, resource.RLIM_INFINITY)
        assert append(client, path, 1) is not None
        erasure = client.post(f"{path}/erasures", {"subject": "person:1"})
        assert (erasure.status, erasure.json()["state"]) == (201, "erased")
        lines = client.post(f"{path}/query", {}, {"Accept": "application/x-ndjson"}).lines()
        assert set(acknowledged or []) <= {line["id"] for line in lines[:-1]}
        assert "intact" in server.run("verify", "--ledger", "hospital").stdout


def append(client: Client, path: str, count: int) -> list[str] | None:
    """The ids of events that were acknowledged; None: refused."""
    answer = client.post(f"{path}/events", batch(count))
    return [told["id"] for told in answer.json()["events"]] if answer.status == 201 else None


def batch(count: int) -> dict[str, Any]:
    """Some large events."""
    event = {"stream": "case-1", "type": "Noted", "subject": "person:1", "data": {"text": "x" * 3000}}
    return {"events": [event] * count}


def limit_files(server: ServedLedger, size: int) -> None:
    """Let none of the server's processes write a file beyond this size."""
    for process in [server.process_id, *children(server.process_id)]:
        hard = resource.prlimit(process, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(process, resource.RLIMIT_FSIZE, (size, hard))


def children(process: int) -> list[int]:
    """The worker processes."""
    tasks = Path(f"/proc/{process}/task")
    return [int(child) for task in tasks.iterdir() for child in (task / "children").read_text().split()]
