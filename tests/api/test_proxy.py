"""A frontend reaches a partner through its table, and hears what it said in words of ours."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import pytest
from prometheus_client import CollectorRegistry, Counter
from structlog.testing import capture_logs
from yarl import URL

from api.limits import PARTNER_RETRY_AFTER_S, PARTNER_RETRY_AFTER_S_MAX
from api.proxy import calls_of, headers_of, problem_of
from indexer.core import profile_reader
from indexer.core.partner_answer import Complaint, PartnerFailed, Passed, Trouble
from indexer.core.partner_request import Asked
from indexer.core.profile import Method, Profile, Route
from indexer.core.rate import Rate
from store.limiter import Limiter
from tests.api.running import Api, Clock, make_key, running


[SHOP] = profile_reader.read(
    """
[shop]
base_url = "https://api.shop.example/v1"
[shop.routes.find]
path = "/items/{kind}"
response = ["items"]
response_headers = ["X-Total-Count"]
[shop.routes.find.fields]
kind = { where = "path", pattern = "[a-z]+" }
word = { upstream_name = "q", most = 20 }
X-Language = { where = "header", pattern = "[a-z]{2}" }
[shop.routes.add]
method = "POST"
path = "/items"
[shop.routes.add.fields]
name = { where = "body", required = true, upstream_name = "title" }
price = { where = "body", type = "number" }
[shop.routes.put]
method = "PUT"
path = "/items"
[shop.routes.change]
method = "PATCH"
path = "/items"
[shop.routes.remove]
method = "DELETE"
path = "/items/{id}"
fields.id = { where = "path", type = "integer" }
[shop.routes.scarce]
path = "/scarce"
rate = "2/10s"
""",
    "shop.toml",
)

FOUND: Final = Passed(
    status=200,
    body=b'{"items":[{"price":1.50}]}',
    headers={"Cache-Status": "axiompay; hit; ttl=7", "X-Total-Count": "1"},
)
ADD: Final = {"name": "tea", "price": 1}


@dataclass
class PartnersDouble:
    """Notes what it is asked, and answers what it was told to.

    Attributes:
        error: raised instead of an answer.
    """

    profiles: Mapping[str, Profile] = field(default_factory=lambda: {"shop": SHOP})
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    answer: Passed = FOUND
    error: Exception | None = None
    asked: list[Asked] = field(default_factory=list)

    async def call(self, profile: Profile, route: Route, asked: Asked) -> Passed:
        assert self.profiles[profile.name].routes[route.name] is route
        self.asked.append(asked)
        if self.error is not None:
            raise self.error
        return self.answer


@dataclass
class Shop:
    """A running API that has one partner, and somebody who may call it."""

    api: Api
    partners: PartnersDouble
    key: Mapping[str, str]

    async def call(
        self,
        path: str,
        method: str = "GET",
        *,
        key: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        **said: Any,
    ) -> tuple[int, Mapping[str, str], Any]:
        """Status, headers and JSON of an answer."""
        given = {**(self.key if key is None else key), **(headers or {})}
        url = URL(f"/api/proxy/{path}", encoded=True)
        async with self.api.session.request(method, url, headers=given, **said) as response:
            body = await response.json(content_type=None) if await response.read() else None
            return response.status, response.headers, body


@asynccontextmanager
async def opened(path: Path, **settings: Any) -> AsyncIterator[Shop]:
    partners = PartnersDouble()
    values: dict[str, Any] = {"upstreams": (SHOP,), "partners": partners} | settings
    async with running(path, **values) as api:
        yield Shop(api, partners, await make_key(api.database, "frontend", "proxy"))


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with opened(tmp_path) as shop:
        yield shop


# ---------------------------------------------------------------------------------- what passes


async def test_a_call_is_made_as_its_table_says(shop: Shop) -> None:
    said = {"X-Language": "de", "X-Own": "x", "Cookie": "c=1", "Host": "pay.example.com"}
    status, headers, body = await shop.call("shop/find?kind=tea&word=a%26b%3D%2F..", headers=said)

    [asked] = shop.partners.asked
    assert asked.method is Method.GET
    assert asked.url == "https://api.shop.example/v1/items/tea?q=a%26b%3D%2F.."
    assert asked.headers == {"Accept": "application/json", "X-Language": "de"}
    assert asked.body is None
    assert (status, body) == (200, {"items": [{"price": 1.5}]})
    assert headers["Content-Type"] == "application/json"
    assert headers["Cache-Status"] == "axiompay; hit; ttl=7"
    assert headers["X-Total-Count"] == "1"
    assert headers["X-Content-Type-Options"] == "nosniff"


async def test_a_number_comes_through_as_it_was_written(shop: Shop) -> None:
    raw = b'{"name": "tea", "price": 12345678901234.100}'
    given = {**shop.key, "Content-Type": "application/json"}
    async with shop.api.session.post("/api/proxy/shop/add", data=raw, headers=given) as response:
        assert await response.read() == FOUND.body

    assert shop.partners.asked[0].body == b'{"title":"tea","price":12345678901234.100}'


async def test_each_method_is_itself(shop: Shop) -> None:
    for path, method, body in (
        ("find?kind=tea", "GET", None),
        ("add", "POST", ADD),
        ("put", "PUT", None),
        ("change", "PATCH", None),
        ("remove?id=7", "DELETE", None),
    ):
        status, _, _ = await shop.call(f"shop/{path}", method, json=body)
        assert status == 200
        assert shop.partners.asked[-1].method == method


async def test_a_head_is_a_get_whose_body_stays_here(shop: Shop) -> None:
    status, headers, body = await shop.call("shop/find?kind=tea", "HEAD")

    assert (status, body) == (200, None)
    assert headers["Content-Length"] == str(len(FOUND.body))
    assert shop.partners.asked[0].method is Method.GET


@pytest.mark.parametrize("status", [200, 201, 202])
async def test_a_success_keeps_its_status(shop: Shop, status: int) -> None:
    shop.partners.answer = replace(FOUND, status=status)

    assert (await shop.call("shop/add", "POST", json=ADD))[0] == status


async def test_what_has_no_body_says_nothing_of_one(shop: Shop) -> None:
    shop.partners.answer = Passed(status=204)

    status, headers, body = await shop.call("shop/remove?id=7", "DELETE")

    assert (status, body) == (204, None)
    assert "Content-Type" not in headers


# ----------------------------------------------------------------------------- what does not pass


@pytest.mark.parametrize(
    "path",
    [
        "bank/find", "shop/other", "shop/", "shop/FIND", "shop/find/", "shop/find/x", "shop",
        "a/b/c", "shop/..%2Ffind", "shop/%2e%2e", "shop%00/find", "shop/find%0d%0aX:1",
        "%ff/find", "//",
    ],
)  # fmt: skip
async def test_what_is_not_in_a_table_is_not_there(shop: Shop, path: str) -> None:
    status, _, body = await shop.call(path)

    assert (status, body["status"]) == (404, 404)
    assert shop.partners.asked == []


async def test_where_nobody_may_be_called_there_is_nobody(tmp_path: Path) -> None:
    async with opened(tmp_path, partners=None, upstreams=()) as shop:
        status, _, body = await shop.call("shop/find?kind=tea")

    assert (status, body["code"]) == (404, "no_such_call")


@pytest.mark.parametrize(
    ("path", "method", "right"),
    [
        ("add", "GET", "POST"), ("add", "HEAD", "POST"), ("add", "PUT", "POST"),
        ("find?kind=tea", "POST", "GET"), ("remove?id=7", "GET", "DELETE"),
    ],
)  # fmt: skip
async def test_another_method_is_told_the_right_one(
    shop: Shop, path: str, method: str, right: str
) -> None:
    status, headers, _ = await shop.call(f"shop/{path}", method)

    assert (status, headers["Allow"]) == (405, right)
    assert shop.partners.asked == []


async def test_a_method_that_no_call_has_is_refused(shop: Shop) -> None:
    assert (await shop.call("shop/find", "TRACE"))[0] == 405
    assert shop.partners.asked == []


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("find", "kind"),
        ("find?kind=", "kind"),
        ("find?kind=..", "kind"),
        ("find?kind=a%2Fb", "kind"),
        ("find?kind=a%252Fb", "kind"),
        ("find?kind=a%0d%0aX-Own:1", "kind"),
        ("find?kind=a%00", "kind"),
        ("find?kind=a&kind=b", "kind"),
        ("find?kind=a&%6bind=b", "kind"),
        ("find?kind=a&word=" + "x" * 21, "word"),
        ("find?kind=a&word=%c2%85", "word"),
        ("find?kind=a&word=%e2%80%a8", "word"),
        ("find?kind=a&word=%ff", ""),
        ("find?kind=a&word=%ed%a0%80", ""),
        ("find?kind=a&q=b", "q"),
        ("find?kind=a&x-language=de", "x-language"),
        ("find?kind", ""),
        ("find?kind=a&", ""),
    ],
)
async def test_a_value_that_the_table_does_not_know_goes_nowhere(
    shop: Shop, path: str, field: str
) -> None:
    status, _, body = await shop.call(f"shop/{path}")

    assert (status, body["code"]) == (422, "invalid_input")
    assert [each["field"] for each in body["errors"]] == [field]
    assert shop.partners.asked == []


async def test_a_query_of_bytes_that_no_query_has_is_refused(shop: Shop) -> None:
    reader, writer = await _connected(shop)
    target = b"/api/proxy/shop/find?kind=t\xc3\xa9a"
    key = shop.key["Authorization"].encode()
    writer.write(b"GET %s HTTP/1.1\r\nHost: pay.example.com\r\n" % target)
    writer.write(b"Authorization: %s\r\nConnection: close\r\n\r\n" % key)
    said = await reader.read()
    writer.close()

    assert said.startswith(b"HTTP/1.1 400 ")
    assert shop.partners.asked == []


async def test_a_header_that_the_table_does_not_know_so_is_refused(shop: Shop) -> None:
    for value in ("DE", "d", "d\te", "dé"):
        said = {"X-Language": value}
        status, _, body = await shop.call("shop/find?kind=tea", headers=said)
        assert (status, body["errors"][0]["field"]) == (422, "X-Language")
    assert shop.partners.asked == []


@pytest.mark.parametrize(
    ("raw", "media_type", "status"),
    [
        (b'{"name": "tea"}', "text/plain", 415),
        (b'{"name": "tea"}', "application/json; charset=latin-1", 415),
        (b'{"name": "%s"}' % (b"x" * 70_000), "application/json", 413),
        (b"[" * 5_000 + b"]" * 5_000, "application/json", 400),
        (b'{"name": "tea", "name": "tea"}', "application/json", 400),
        (b'{"name": "\\ud800"}', "application/json", 422),
        (b'{"name": "tea", "price": NaN}', "application/json", 400),
        (b'{"name": "tea", "price": 1e999}', "application/json", 422),
        (b'{"name": "tea", "price": %s}' % (b"9" * 5_000), "application/json", 422),
        (b'{"name": "tea", "price": "1"}', "application/json", 422),
        (b'{"name": 1}', "application/json", 422),
        (b'{"title": "tea"}', "application/json", 422),
        (b'["tea"]', "application/json", 422),
        (b"\xff", "application/json", 400),
        (b"", "application/json", 422),
    ],
)
async def test_a_body_that_the_table_does_not_know_goes_nowhere(
    shop: Shop, raw: bytes, media_type: str, status: int
) -> None:
    said = {"Content-Type": media_type}

    assert (await shop.call("shop/add", "POST", data=raw, headers=said))[0] == status
    assert shop.partners.asked == []


async def test_a_body_where_none_belongs_is_refused(shop: Shop) -> None:
    for path, method in (("find?kind=tea", "GET"), ("remove?id=7", "DELETE"), ("put", "PUT")):
        status, _, _ = await shop.call(f"shop/{path}", method, json={"a": 1})
        assert status == 422
    assert shop.partners.asked == []


async def test_only_a_key_with_the_scope_reaches_anybody(shop: Shop) -> None:
    for key, status in ((shop.api.reader, 403), (shop.api.writer, 403), ({"Accept": "*/*"}, 401)):
        for path in ("shop/find?kind=tea", "shop/other"):
            assert (await shop.call(path, key=key))[0] == status
    assert shop.partners.asked == []


# ------------------------------------------------------------------------- what went wrong there


@pytest.mark.parametrize(
    ("trouble", "status", "code"),
    [
        (Trouble.REFUSED, 422, "partner_refused"),
        (Trouble.NOT_FOUND, 404, "partner_not_found"),
        (Trouble.BUSY, 503, "partner_busy"),
        (Trouble.AWAY, 503, "partner_away"),
        (Trouble.SLOW, 504, "partner_timeout"),
        (Trouble.FAILED, 502, "partner_failed"),
        (Trouble.LOCKED, 502, "partner_locked"),
    ],
)
async def test_what_went_wrong_is_told_in_words_of_ours(
    shop: Shop, trouble: Trouble, status: int, code: str
) -> None:
    shop.partners.error = PartnerFailed(trouble, "http://10.0.0.7/inner says: Traceback")

    with capture_logs() as logs:
        seen, headers, body = await shop.call("shop/find?kind=tea")

    assert (seen, body["status"], body["code"]) == (status, status, code)
    assert headers["Content-Type"] == "application/problem+json"
    assert "10.0.0.7" not in str(body)
    assert "Traceback" not in str(body)
    assert ("Retry-After" in headers) == (status == 503)
    [told] = [each for each in logs if each["event"] == "partner.failed"]
    of_caller = trouble in {Trouble.REFUSED, Trouble.NOT_FOUND}
    assert told["log_level"] == ("info" if of_caller else "warning")
    assert (told["upstream"], told["call"], told["trouble"]) == ("shop", "find", trouble)


def test_every_trouble_means_something() -> None:
    for trouble in Trouble:
        problem = problem_of(PartnerFailed(trouble, ""), SHOP.routes["find"])
        assert problem.response().status_code >= 400


@pytest.mark.parametrize(
    ("asked_s", "told"),
    [
        (None, PARTNER_RETRY_AFTER_S),
        (0, 1),
        (-5, 1),
        (1.2, 2),
        (30, 30),
        (10**12, PARTNER_RETRY_AFTER_S_MAX),
        (float("inf"), PARTNER_RETRY_AFTER_S_MAX),
    ],
)
def test_a_pause_is_told_in_whole_seconds_that_make_sense(asked_s: float | None, told: int) -> None:
    error = PartnerFailed(Trouble.BUSY, "", retry_after_s=asked_s)

    assert problem_of(error, SHOP.routes["find"]).response().headers["Retry-After"] == str(told)


async def test_what_a_partner_refuses_is_told_by_our_names(shop: Shop) -> None:
    shop.partners.error = PartnerFailed(
        Trouble.REFUSED,
        "HTTP 400",
        complaints=(
            Complaint(code="477", title="INVALID FORMAT", detail="too short", field="q"),
            Complaint(code="", title="same", detail="same", field="/data/0"),
            Complaint(code="12", title="", detail="", field=""),
        ),
    )

    _, _, body = await shop.call("shop/find?kind=tea")

    assert body["errors"] == [
        {"field": "word", "message": "INVALID FORMAT: too short (477)"},
        {"field": "/data/0", "message": "same"},
        {"field": "", "message": "refused (12)"},
    ]


async def test_a_complaint_shows_no_secret_and_no_address(shop: Shop) -> None:
    said = "Bearer abcdef0123456789 at https://inner.example/v1/abcdef0123456789?x=1"
    complaint = Complaint(
        code="client_secret=abcdef0123456789", title=said, detail=said, field=said
    )
    shop.partners.error = PartnerFailed(Trouble.REFUSED, "HTTP 400", complaints=(complaint,))

    _, _, body = await shop.call("shop/find?kind=tea")

    assert "abcdef0123456789" not in str(body)


# --------------------------------------------------------------------------- how often, and figures


async def test_a_call_may_have_a_rate_of_its_own_for_each_caller(tmp_path: Path) -> None:
    clock = Clock(1_000.0)
    limits = {"rate_limit": Rate(3, 10), "rate_limits": {}, "limiter": Limiter(None, clock)}
    async with opened(tmp_path, **limits) as shop:
        other = await make_key(shop.api.database, "other", "proxy")
        scarce = [await shop.call("shop/scarce") for _ in range(3)]
        others = [await shop.call("shop/scarce", key=other) for _ in range(3)]
        # Those were not counted against the default, and what is not there is.
        rest = [await shop.call(path) for path in ("shop/find?kind=tea", "shop/x", "x/y", "x/y")]

    assert [status for status, _, _ in scarce] == [200, 200, 429]
    assert [status for status, _, _ in others] == [200, 200, 429]
    assert scarce[0][1]["RateLimit-Policy"] == '"shop.scarce";q=2;w=10'
    assert scarce[2][2]["violated-policies"] == ["shop.scarce"]
    assert [status for status, _, _ in rest] == [200, 404, 404, 429]
    assert rest[0][1]["RateLimit-Policy"] == '"default";q=3;w=10'
    assert len(shop.partners.asked) == 5


async def test_what_becomes_of_calls_stands_among_the_figures(shop: Shop) -> None:
    Counter("axiom_tea", "Cups.", registry=shop.partners.registry).inc(3)
    await shop.call("shop/find?kind=tea")

    async with shop.api.session.get("/metrics") as response:
        text = await response.text()

    assert "axiom_tea_total 3.0" in text
    assert "/api/proxy/shop/find" in text


def test_each_call_of_a_table_is_a_row_of_its_own() -> None:
    assert {(call.method, call.path, call.access.scope) for call in calls_of((SHOP,))} == {
        (route.method, f"/api/proxy/shop/{name}", "proxy") for name, route in SHOP.routes.items()
    }
    assert calls_of(()) == ()


def test_the_headers_of_a_table_are_known_to_browsers() -> None:
    assert headers_of((SHOP, SHOP)) == (("X-Language",), ("x-total-count",))


async def test_a_page_of_another_origin_may_send_and_read_them(tmp_path: Path) -> None:
    origin = "https://shop.example"
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "x-language,authorization",
    }
    async with opened(tmp_path, cors_origins=(origin,)) as shop:
        preflight = shop.api.session.options("/api/proxy/shop/find", headers=asked)
        async with preflight as response:
            assert response.status == 200
            assert "x-language" in response.headers["Access-Control-Allow-Headers"].lower()
        _, headers, _ = await shop.call("shop/find?kind=tea", headers={"Origin": origin})

    read = headers["Access-Control-Expose-Headers"].lower().replace(" ", "").split(",")
    assert {"x-total-count", "cache-status", "retry-after"} <= set(read)


async def _connected(shop: Shop) -> tuple[Any, Any]:
    return await asyncio.open_connection("127.0.0.1", shop.api.port)
