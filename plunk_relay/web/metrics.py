"""What does Prometheus see? Requests by route and status with their durations, and gauges that features add."""

from collections.abc import Awaitable, Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from plunk_relay.relay import Relay

ReadGauges = Callable[[Relay], Awaitable[Mapping[tuple[str, str], float]]]
"""Return values by (gauge name, label); names end in a unit."""


class HttpMetrics:
    """One registry a server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._requests = Counter(
            "plunk_relay_http_requests_total",
            "Requests answered",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram("plunk_relay_http_request_seconds", "Time to answer", ["route"], registry=self.registry)
        self._gauges: dict[str, Gauge] = {}

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answer."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def set_gauges(self, values: Mapping[tuple[str, str], float]) -> None:
        """Set all gauges anew; the label is `state`, or `provider`."""
        for gauge in self._gauges.values():
            gauge.clear()
        for (name, label), value in values.items():
            self._gauge(name).labels(label).set(value)

    def _gauge(self, name: str) -> Gauge:
        if name not in self._gauges:
            label = "provider" if "_provider_" in name else "state"
            self._gauges[name] = Gauge(name, name.replace("_", " "), [label], registry=self.registry)
        return self._gauges[name]

    def render(self) -> bytes:
        """Return the text exposition."""
        return generate_latest(self.registry)
