"""What is counted of calls to partners, and what that may cost."""

from prometheus_client import generate_latest

from indexer.partners.breaker import State
from indexer.partners.figures import Figures, Outcome, TokenOutcome


def test_figures_are_told_by_partner_route_and_outcome() -> None:
    figures = Figures()
    figures.called("amadeus", "locations", Outcome.HIT)
    figures.called("amadeus", "locations", Outcome.HIT)
    figures.token("amadeus", TokenOutcome.BOUGHT)
    figures.took("amadeus", "locations", 0.2)
    figures.watch("amadeus", lambda: State.OPEN)
    text = generate_latest(figures.registry).decode()

    for line in (
        'axiom_partner_calls_total{outcome="hit",route="locations",upstream="amadeus"} 2.0',
        'axiom_partner_tokens_total{outcome="bought",upstream="amadeus"} 1.0',
        'axiom_partner_request_seconds_count{route="locations",upstream="amadeus"} 1.0',
        'axiom_partner_request_seconds_bucket{le="0.25",route="locations",upstream="amadeus"} 1.0',
        'axiom_partner_breaker{upstream="amadeus"} 2.0',
    ):
        assert line in text


def test_the_state_of_a_breaker_is_that_of_now() -> None:
    figures, states = Figures(), [State.OPEN, State.HALF_OPEN, State.CLOSED]
    figures.watch("amadeus", lambda: states.pop(0))

    found = [
        figures.registry.get_sample_value("axiom_partner_breaker", {"upstream": "amadeus"})
        for _ in range(3)
    ]
    assert found == [2, 1, 0]
