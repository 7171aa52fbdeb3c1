# SPDX-License-Identifier: Apache-2.0
"""Figures for Prometheus, of one process: `/metrics`.

Counters and histograms are kept as requests end; what is a state (machines by status, certificates) is read when it is
asked for, so that nothing runs for figures that nobody collects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

Reading = tuple[str, str, str, Callable[[], dict[tuple[tuple[str, str], ...], float]]]
"""(`gauge` or `counter`, name, help, what gives the values by their labels)."""


class _Readings(Collector):
    def __init__(self, readings: Iterable[Reading]) -> None:
        self._readings = tuple(readings)

    def collect(self) -> Iterable[Metric]:
        """The values of now."""
        for kind, name, text, read in self._readings:
            values = read()
            labels = [label for label, _ in next(iter(values), ())]
            family = (CounterMetricFamily if kind == "counter" else GaugeMetricFamily)(name, text, labels=labels)
            for found, value in values.items():
                family.add_metric([item for _, item in found], value)
            yield family


class Metrics:
    """One registry for each process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "hawser_requests", "Requests answered.", ["part", "method", "status"], registry=self._registry
        )
        self._durations = Histogram(
            "hawser_request_seconds",
            "Time to answer, without held check-ins and streams.",
            ["part"],
            buckets=_SECONDS,
            registry=self._registry,
        )

        self._refusals = Counter(
            "hawser_refusals",
            "Sign-ins, joins and questions about an identity that were refused.",
            ["action", "code"],
            registry=self._registry,
        )

    def read(self, readings: Iterable[Reading]) -> None:
        """States to show beside the counters."""
        self._registry.register(_Readings(readings))

    def answered(self, part: str, method: str, status: int, seconds: float | None) -> None:
        """Count a request; `seconds` None: one that is held by design."""
        known = method if method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE") else "other"
        self._requests.labels(part, known, str(status)).inc()
        if seconds is not None:
            self._durations.labels(part).observe(seconds)

    def refused(self, action: str, code: str) -> None:
        """Count a caller without a proof who was refused."""
        self._refusals.labels(action, code).inc()

    def text(self) -> bytes:
        """The exposition. Reads the database: not on the loop."""
        return generate_latest(self._registry)
