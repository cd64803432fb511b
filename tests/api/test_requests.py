from prometheus_client import generate_latest

from api.requests import Requests


def test_requests_are_counted_by_route_and_outcome() -> None:
    requests = Requests()
    requests.served("GET", "/api/pay/{id}", 200, 0.02)
    requests.served("GET", "/api/pay/{id}", 200, 3.0)
    requests.served("GET", None, 404, 0.001)

    text = generate_latest(requests.registry).decode()

    route = 'method="GET",route="/api/pay/{id}",status="200"'
    assert f"axiom_http_request_seconds_count{{{route}}} 2.0" in text
    assert f'axiom_http_request_seconds_bucket{{le="2.0",{route}}} 1.0' in text
    assert 'axiom_http_request_seconds_count{method="GET",route="none",status="404"} 1.0' in text
