"""The backend for frontends: calls to partners, through a table of what is allowed.

A frontend calls `/api/proxy/{upstream}/{route}`. Which partners and which calls there are, and what
may be sent and is shown of the answer, stands in their profiles (`indexer.core.profile`); what is
not in a table does not exist here. The partner's keys never leave this side.

    here           who calls, how often, and whether the values are as the table says
    `Partners`     the call itself: kept answers, tokens, limits of the partner, tries, time
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final, Protocol

from prometheus_client import CollectorRegistry
from starlette.requests import Request
from starlette.responses import Response

from api.auth import needs
from api.body import read_json_body
from api.calls import JSON, Answer, Call, Parameter
from api.context import Context
from api.errors import FieldError, Problem, invalid
from api.limits import PARTNER_RETRY_AFTER_S, PARTNER_RETRY_AFTER_S_MAX
from api.rates import Limit, Policy
from indexer.core import lexemes, partner_request
from indexer.core.partner_answer import Complaint, PartnerFailed, Passed, Trouble
from indexer.core.partner_request import Asked
from indexer.core.profile import Method, Profile, Route, Where
from indexer.errors import InvalidInput
from indexer.log import get_logger
from indexer.redact import redact
from store.keys import ApiKey


log = get_logger(__name__)

PATH: Final = "/api/proxy/{upstream}/{route}"


class Partners(Protocol):
    """Those who may be called."""

    @property
    def profiles(self) -> Mapping[str, Profile]:
        """What is allowed with each, by name."""
        ...

    @property
    def registry(self) -> CollectorRegistry:
        """Figures of what became of calls."""
        ...

    async def call(self, profile: Profile, route: Route, asked: Asked) -> Passed:
        """What the partner answers, as far as it is let through.

        Raises:
            PartnerFailed: it does not.
        """
        ...


async def pass_on(context: Context, request: Request, key: ApiKey | None) -> Response:
    """Calls a partner, and answers with what it said."""
    found = _found(context.partners, request)
    call = _BY_METHOD[Method.GET if request.method == "HEAD" else Method(request.method)]
    policy = context.rates.policy_of(call, key)
    if found is not None and found[1].rate is not None:
        policy = Policy(f"{found[0].name}.{found[1].name}", found[1].rate)
    await context.rates.charge(request, key, policy)
    if found is None or context.partners is None:
        raise Problem(404, "no_such_call", "there is no such partner, or no such call to it")
    profile, route = found
    if route.method is not call.method:
        raise Problem(
            405,
            "method_not_allowed",
            f"this call is made with {route.method}",
            headers={"Allow": route.method},
        )
    body = await read_json_body(request) if _has_body(request) else None
    query = lexemes.decode_query(_query(request))
    asked = partner_request.ask(profile, route, query.items(), body, request.headers.items())
    try:
        passed = await context.partners.call(profile, route, asked)
    except PartnerFailed as error:
        say = log.info if error.trouble in _OF_THE_CALLER else log.warning
        say(
            "partner.failed",
            upstream=profile.name,
            call=route.name,
            trouble=error.trouble,
            error=str(error),
        )
        raise problem_of(error, route) from error
    headers = dict(passed.headers)
    if passed.body:
        headers["Content-Type"] = JSON
    return Response(passed.body, int(passed.status), headers)


def _found(partners: Partners | None, request: Request) -> tuple[Profile, Route] | None:
    if partners is None:
        return None
    upstream, name = request.scope["path"].split("/")[-2:]
    profile = partners.profiles.get(upstream)
    route = None if profile is None else profile.routes.get(name)
    return None if profile is None or route is None else (profile, route)


def _query(request: Request) -> str:
    """The query as it was sent, in which a byte that is not ASCII would be percent-encoded.

    Raises:
        InvalidInput: it is not.
    """
    raw: bytes = request.scope["query_string"]
    try:
        return raw.decode("ascii")
    except UnicodeDecodeError:
        raise InvalidInput("", "the query must be percent-encoded") from None


def _has_body(request: Request) -> bool:
    headers = request.headers
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


# ------------------------------------------------------------------------- what went wrong there


#: What comes to nothing because of what a caller asks for.
_OF_THE_CALLER: Final = frozenset({Trouble.REFUSED, Trouble.NOT_FOUND})


def problem_of(error: PartnerFailed, route: Route) -> Problem:
    """What a call of that route that came to nothing means for the caller."""
    match error.trouble:
        case Trouble.REFUSED:
            return _refused(error, route)
        case Trouble.NOT_FOUND:
            return Problem(404, "partner_not_found", "the partner knows nothing of this")
        case Trouble.BUSY:
            return _later(error, "partner_busy", "the partner takes no more for now; try again")
        case Trouble.AWAY:
            return _later(error, "partner_away", "the partner cannot be reached now; try again")
        case Trouble.SLOW:
            return Problem(504, "partner_timeout", "the partner did not answer in time")
        case Trouble.FAILED:
            return Problem(502, "partner_failed", "the partner answered with an error of its own")
        case Trouble.LOCKED:
            detail = "the partner does not let us in: this deployment's account must be looked at"
            return Problem(502, "partner_locked", detail)


def _later(error: PartnerFailed, code: str, detail: str) -> Problem:
    pause_s = PARTNER_RETRY_AFTER_S if error.retry_after_s is None else error.retry_after_s
    retry_after_s = math.ceil(min(max(1, pause_s), PARTNER_RETRY_AFTER_S_MAX))
    return Problem(503, code, detail, headers={"Retry-After": str(retry_after_s)})


def _refused(error: PartnerFailed, route: Route) -> Problem:
    ours = {field.upstream_name: field.name for field in route.fields.values()}
    errors = [
        FieldError(ours.get(each.field) or redact(each.field), _sentence(each))
        for each in error.complaints
    ]
    if not errors:
        return Problem(422, "partner_refused", "the partner refuses these values")
    return invalid(*errors, code="partner_refused")


def _sentence(complaint: Complaint) -> str:
    """What a partner said, in one line, without what might be a secret in it."""
    said = [text for text in (complaint.title, complaint.detail) if text]
    text = ": ".join(dict.fromkeys(said)) or "refused"
    return redact(f"{text} ({complaint.code})" if complaint.code else text)


# ------------------------------------------------------------------------- the route table's rows

_WHERE: Final = (
    Parameter(
        name="upstream",
        where="path",
        description="The partner's name.",
        required=True,
        example="amadeus",
    ),
    Parameter(
        name="route",
        where="path",
        description="The call's name.",
        required=True,
        example="flight-offers",
    ),
)


def _call(method: Method, name: str, summary: str) -> Call:
    return Call(
        method=method,
        path=PATH,
        name=name,
        access=needs("proxy"),
        handler=pass_on,
        summary=summary,
        description="Which partners and calls there are is for the deployment to say; each of "
        "them has a path of its own in this description. Values are checked before anything is "
        "sent, and only named members of the answer come back.",
        parameters=_WHERE,
        answers={
            200: Answer(
                description="What the partner answered, as far as it is let through.",
                headers={"Cache-Status": "Whether the answer was kept from before (RFC 9211)."},
            ),
            201: Answer(description="The same, of something new."),
            202: Answer(description="The same, of something that is still to be done."),
            204: Answer(description="Done; the partner said nothing.", media_type=None),
        },
        problems=(404, 405, 408, 413, 415, 422, 502, 504),
        limit=Limit.HANDLER,
    )


CALLS: Final[tuple[Call, ...]] = (
    _call(Method.GET, "getFromPartner", "Ask a partner"),
    _call(Method.POST, "postToPartner", "Ask a partner, with a body"),
    _call(Method.PUT, "putToPartner", "Replace something at a partner"),
    _call(Method.PATCH, "patchAtPartner", "Change something at a partner"),
    _call(Method.DELETE, "deleteAtPartner", "Delete something at a partner"),
)
_BY_METHOD: Final = {Method(call.method): call for call in CALLS}


def calls_of(profiles: Iterable[Profile]) -> tuple[Call, ...]:
    """A row for each call that is allowed, to stand before those for any.

    The log and the figures of requests then say which call it was.
    """
    return tuple(
        replace(
            _BY_METHOD[route.method],
            path=PATH.format(upstream=profile.name, route=route.name),
        )
        for profile in profiles
        for route in profile.routes.values()
    )


def headers_of(profiles: Iterable[Profile]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The headers that a page may send with some call, and those that it may read of an answer."""
    routes = [route for profile in profiles for route in profile.routes.values()]
    sent = [
        field.name
        for route in routes
        for field in route.fields.values()
        if field.where is Where.HEADER
    ]
    read = [name for route in routes for name in route.response_headers]
    return tuple(dict.fromkeys(sent)), tuple(dict.fromkeys(read))
