"""What the ledger database tells of the witnesses."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric

from ledger.domain.witness_policy import satisfied
from ledger.services.dependencies import Dependencies
from ledger.services.proving.witnessing import kept_cosigners


def witness_metrics(deps: Dependencies) -> Iterator[Metric]:
    """Of each ledger how far each witness is, and whether enough have cosigned what was published last. Nothing where
    no witnesses are configured."""
    witnesses = deps.witnesses
    if witnesses is None:
        return
    cosigned = GaugeMetricFamily(
        "audit_ledger_witness_cosigned_size",
        "Size of the checkpoint that a witness has cosigned last.",
        labels=["ledger", "witness"],
    )
    quorum = GaugeMetricFamily(
        "audit_ledger_witness_quorum",
        "Whether the quorum has cosigned the checkpoint that was published last: 1 or 0.",
        labels=["ledger"],
    )
    for ledger in deps.store.ledgers():
        ledger_id, origin = ledger.ledger_id, f"{deps.origin}/{ledger.name}"
        last = deps.transparency.latest_published(ledger_id, origin)
        if last is None:
            continue
        having = kept_cosigners(deps, witnesses, last)
        quorum.add_metric([str(ledger_id)], satisfied(witnesses.policy, having))
        for witness in witnesses.policy.witnesses:
            size = deps.transparency.last_cosigned(ledger_id, origin, witness.key.name)
            cosigned.add_metric([str(ledger_id), witness.label], size)
    yield from (cosigned, quorum)
