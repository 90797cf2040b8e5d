"""What the installation itself says of the erasure: epochs, KEKs, journal, receipts, the proof, ``final_at``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from api.drill.canary import LEDGER
from api.drill.checks import Check, judged, unseen
from api.drill.looking import Scene
from keyvault.errors import KeyVaultError, NotAuthenticError
from ledger.domain.receipts import RECEIPT_DOMAIN, STATEMENT_DOMAIN, canonical_json
from ledger.domain.times import format_time
from ledger.ports import ErasureEntry
from ledger.services.finality import WHY_PENDING, final_states
from ledger.services.receipts import get_receipt
from ledger.services.verifying.running import verify_ledger

_WAITS: Final = ("shared-place", "keeper-waits", "copies-kept")
"""What the operator has arranged so: it is not a fault of the erasure, and it is not final either."""
_NOT_ORDERED: Final = "not shown: --without-destruction was given, so nothing was rotated and nothing destroyed"


def fence_of(entries: Sequence[ErasureEntry]) -> int:
    """The newest epoch under which a copy of the canary's keys can be wrapped."""
    return max((entry.epoch for entry in entries if entry.epoch is not None), default=0)


def check_epochs(scene: Scene, fence: int, kept_before: frozenset[int], obstacles: Sequence[str]) -> list[Check]:
    """Every epoch up to the fence's is destroyed, and the provider has the KEK of none that is."""
    if scene.plan.without_destruction:
        return [
            unseen("old epochs are destroyed", "epochs", _NOT_ORDERED),
            unseen("no KEK is back", "KEKs", _NOT_ORDERED),
        ]
    rows = scene.service.vault.epochs.overview().rows
    destroyed = {row.epoch for row in rows if row.state == "destroyed"}
    current = {row.epoch for row in rows if row.state == "current"}
    kept = scene.service.vault.inspection.kept_epochs()
    alive = [f"epoch {epoch} is not destroyed" for epoch in range(1, fence + 1) if epoch not in destroyed]
    epochs = judged(
        "old epochs are destroyed",
        "epochs",
        faults=[*alive, *(f"in the way: {obstacle}" for obstacle in obstacles)],
        held=f"epochs 1 to {fence}",
        sees=bool(current),
        control="there is a current epoch",
    )
    back = [f"the provider has the KEK of epoch {epoch}, which was destroyed" for epoch in sorted(kept & destroyed)]
    strays = scene.service.vault.inspection.stray_keks()
    back += [f"the folder of KEKs has a KEK under another name, which nobody will destroy: {name}" for name in strays]
    keks = judged(
        "no KEK is back",
        "the key provider",
        faults=back,
        held=f"it has the KEKs of the epochs {', '.join(map(str, sorted(kept)))}",
        sees={row.epoch for row in scene.exhibit.rows} <= kept_before and current <= kept,
        control="it had the KEKs that the canary's keys were wrapped under, and has that of the current epoch",
    )
    return [epochs, keks]


def check_journal(scene: Scene, entries: Sequence[ErasureEntry], destroyed: Sequence[int]) -> Check:
    """Its lines verify, and what was done is among them."""
    name, where = "the journal has its lines", f"the journal, {scene.plan.settings.journal}"
    try:
        lines = list(scene.service.vault.inspection.journal_lines())
    except KeyVaultError as error:
        return judged(name, where, faults=[str(error)], held="")
    shredded = {line.fields.get("erasure_id") for line in lines if line.kind == "shred"}
    ended = {line.fields.get("epoch") for line in lines if line.kind == "epoch-destroyed"}
    faults = [
        f"no line says that {entry.erasure_id} shredded" for entry in entries if str(entry.erasure_id) not in shredded
    ]
    faults += [f"no line says that epoch {epoch} was destroyed" for epoch in destroyed if epoch not in ended]
    return judged(name, where, faults=faults, held=f"{len(lines)} lines, each signed and in its place")


def check_receipts(scene: Scene, entries: Sequence[ErasureEntry]) -> Check:
    """They verify under the ledger's key, and name every key of the canary."""
    deps, inspection, ledger_id = scene.service.deps, scene.service.vault.inspection, scene.canary.ledger_id
    named: set[str] = set()
    faults = []
    for entry in entries:
        receipt = get_receipt(deps, ledger_id, entry.erasure_id)
        named.update(receipt.payload["key_ids"])
        try:
            inspection.verify(ledger_id, RECEIPT_DOMAIN + canonical_json(receipt.payload), receipt.signature)
            for statement in receipt.statements:
                inspection.verify(ledger_id, STATEMENT_DOMAIN + canonical_json(statement.payload), statement.signature)
        except NotAuthenticError as error:
            faults.append(f"of erasure {entry.erasure_id}: {error}")
    missing = {key_id.hex() for key_id in scene.exhibit.key_ids} - named
    faults += [f"{len(missing)} keys of the canary stand in no receipt"] if missing else []
    held = f"{len(entries)} receipts, which name all {len(named)} keys"
    return judged("the receipts verify", "receipts and statements", faults=faults, held=held)


def check_ledger(scene: Scene) -> Check:
    """I6: not a byte of an event has changed."""
    report = verify_ledger(scene.service.deps, scene.canary.ledger_id, lambda done, total: None)
    faults = [] if report.intact else [f"{len(report.findings)} findings; run `audit-ledger verify --ledger {LEDGER}`"]
    held = f"{report.size} events, Merkle root {report.root.hex()}"
    return judged("the ledger is intact", f"the ledger {LEDGER!r}", faults=faults, held=held)


def check_final(scene: Scene, entries: Sequence[ErasureEntry]) -> Check:
    """``final_at`` is signed, or it is said why not."""
    name, where = "the erasure is final", "final_at"
    if scene.plan.without_destruction:
        return unseen(name, where, _NOT_ORDERED)
    states = list(final_states(scene.service.deps, entries).values())
    pending = sorted({state.pending for state in states if state.pending is not None})
    if not pending:
        times = [state.at for state in states if state.at is not None]
        return judged(name, where, faults=(), held=f"since {format_time(max(times))}", sees=bool(times))
    why = "; ".join(f"{word}: {WHY_PENDING[word]}" for word in pending)
    if all(word in _WAITS for word in pending):
        return unseen(name, where, f"not final yet. {why}")
    return judged(name, where, faults=[f"not final. {why}"], held="")
