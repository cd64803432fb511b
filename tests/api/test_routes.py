from collections import Counter

from starlette.applications import Starlette
from starlette.routing import Route

from api.auth import Access
from api.routes import CALLS
from tests.api.running import Api


def served(app: Starlette) -> set[tuple[str, str]]:
    """Method and path of everything that the application routes."""
    return {
        (method, route.path)
        for route in app.routes
        if isinstance(route, Route)
        for method in route.methods or ()
        if method != "HEAD"
    }


async def test_what_is_served_is_what_is_in_the_table(api: Api) -> None:
    assert served(api.app) == {(call.method, call.path) for call in CALLS}
    assert len(api.app.routes) == len({call.path for call in CALLS})


def test_every_call_stands_once_and_has_a_rule() -> None:
    calls = Counter((call.method, call.path) for call in CALLS)
    names = Counter(call.name for call in CALLS)

    assert set(calls.values()) == set(names.values()) == {1}
    assert all(isinstance(call.access, Access) for call in CALLS)


def test_the_parameters_of_a_path_are_described() -> None:
    for call in CALLS:
        described = {p.name for p in call.parameters if p.where == "path"}
        in_path = {part[1:-1] for part in call.path.split("/") if part.startswith("{")}
        assert described == in_path, call.name
