"""What is counted of calls to partners, in the text format of Prometheus.

The names of partners and of their routes come from profiles, so there are only so many.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from indexer.partners.breaker import State


#: Upper bounds of the buckets for the time that a partner takes, in seconds.
_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Outcome(StrEnum):
    """How a call ended."""

    HIT = "hit"
    """The answer was kept from before."""
    MERGED = "merged"
    """An equal call was under way, and had an answer."""
    ANSWERED = "answered"
    DECLINED = "declined"
    """The partner finds the question wrong."""
    LIMITED = "limited"
    """More calls than the partner allows, by our count or by its own."""
    AWAY = "away"
    """The partner cannot be reached, or is left alone because it could not be."""
    UNAUTHORIZED = "unauthorized"
    """The partner does not accept our credentials, or the token that it sold."""
    TIMEOUT = "timeout"
    FAILED = "failed"


class TokenOutcome(StrEnum):
    """How a request for a token ended."""

    BOUGHT = "bought"
    REFUSED = "refused"
    FAILED = "failed"


class Figures:
    """The figures of one process.

    Attributes:
        registry: holds them, for whoever shows them.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._calls = Counter(
            "axiom_partner_calls",
            "Calls to partners, by how they ended.",
            ("upstream", "route", "outcome"),
            registry=self.registry,
        )
        self._tokens = Counter(
            "axiom_partner_tokens",
            "Requests for access tokens of partners, by how they ended.",
            ("upstream", "outcome"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "axiom_partner_request_seconds",
            "Time from a request to a partner to the end of its answer.",
            ("upstream", "route"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._breakers = Gauge(
            "axiom_partner_breaker",
            "How a partner's breaker stands: 0 closed, 1 tries again, 2 open.",
            ("upstream",),
            registry=self.registry,
        )

    def called(self, upstream: str, route: str, outcome: Outcome) -> None:
        """One call has ended."""
        self._calls.labels(upstream, route, outcome).inc()

    def token(self, upstream: str, outcome: TokenOutcome) -> None:
        """One request for a token has ended."""
        self._tokens.labels(upstream, outcome).inc()

    def took(self, upstream: str, route: str, duration_s: float) -> None:
        """One request was answered, or was not."""
        self._seconds.labels(upstream, route).observe(duration_s)

    def watch(self, upstream: str, state: Callable[[], State]) -> None:
        """How that partner's breaker stands is asked whenever figures are."""
        self._breakers.labels(upstream).set_function(lambda: float(state()))
