"""Reading ``/metrics`` as Prometheus does."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from tests.support.server import Client


def scrape(client: Client, metric: str, **labels: str) -> float | None:
    """The sum of the samples of a metric that have these labels; None when there are none."""
    answer = client.with_key(None).get("/metrics")
    assert answer.status == 200
    found = [
        sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
        if sample.name == metric and labels.items() <= sample.labels.items()
    ]
    return sum(found) if found else None
