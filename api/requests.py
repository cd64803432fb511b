"""The figures of this process's own requests."""

from typing import Final

from prometheus_client import CollectorRegistry, Histogram


#: Upper bounds of the buckets for the time that a request takes, in seconds. 2 s is where an
#: alert begins.
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0)


class Requests:
    """How many there were, and how long they took.

    Attributes:
        registry: holds the figures, for whoever shows them.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._seconds = Histogram(
            "axiom_http_request_seconds",
            "Time from a request to the end of its answer; streams are not among them.",
            ("method", "route", "status"),
            buckets=_SECONDS,
            registry=self.registry,
        )

    def served(self, method: str, route: str | None, status: int, duration_s: float) -> None:
        """Counts one request. `route` is the template, None where nothing is served."""
        self._seconds.labels(method, route or "none", str(status)).observe(duration_s)
