"""What a partner is, as far as calls to it are allowed: a table, and nothing beside it passes.

A profile is written by the operator, in TOML, and holds no secret. It names each call that a
frontend may make (`Route`), each value that it may send with it (`Field`), and what of the
answer it is shown. See `profile_reader` for the form, docs/partner-proxy.md for how to write one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from indexer.core.addresses import Networks
from indexer.core.rate import Rate


#: Of an answer, in bytes, where the profile does not say.
RESPONSE_BYTES_MAX: Final = 1024 * 1024
#: For one call, in seconds, where the route does not say.
TIMEOUT_S: Final = 10.0


class AuthKind(StrEnum):
    """How a partner knows us."""

    NONE = "none"
    KEY = "key"
    """A key that stays the same, in a header."""
    OAUTH2 = "oauth2"
    """A bearer token that is bought with client credentials (RFC 6749, section 4.4)."""


class Method(StrEnum):
    """How a route is called, by the frontend and at the partner alike."""

    GET = "GET"
    POST = "POST"
    PUT = "PUT"
    PATCH = "PATCH"
    DELETE = "DELETE"


class Where(StrEnum):
    """Where a value stands in the request to the partner.

    The frontend sends those of the path and of the query in its query, those of the body as
    members of a JSON object, and those of the headers as headers of the same name.
    """

    PATH = "path"
    QUERY = "query"
    BODY = "body"
    HEADER = "header"


class Kind(StrEnum):
    """What a value may be."""

    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    DATE = "date"
    """A day, as RFC 3339 writes it."""
    JSON = "json"
    """Anything, in a body only; bounded in size and in depth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Auth:
    """How a partner knows us; the secrets themselves are settings.

    Attributes:
        token_path: where tokens are bought, below the base URL; for OAuth2 only.
        scope: what a token is asked for; None: nothing is said.
        header: in which the key, or the token, is sent.
        scheme: what stands before it there, such as `Bearer`; empty: nothing.
    """

    kind: AuthKind = AuthKind.NONE
    token_path: str = ""
    scope: str | None = None
    header: str = "Authorization"
    scheme: str = "Bearer"


@dataclass(frozen=True, slots=True, kw_only=True)
class PartnerSecrets:
    """What proves to one partner who we are; what its kind of proof does not need is empty."""

    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    key: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A value that a frontend may send.

    Attributes:
        name: as the frontend sends it.
        upstream_name: as the partner is sent it.
        choices: the only values; empty: any of the kind.
        pattern: what a string must match as a whole; None: any.
        least, most: of a number its value, of a string its length; None: no bound of its own.
        default: sent when the frontend sends none; None: then nothing is sent.
    """

    name: str
    upstream_name: str
    where: Where
    kind: Kind = Kind.STRING
    required: bool = False
    choices: tuple[str, ...] = ()
    pattern: str | None = None
    least: float | None = None
    most: float | None = None
    default: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A call that is allowed.

    Attributes:
        name: in the path of ours, `/api/proxy/{upstream}/{name}`.
        path: at the partner, below the base URL; `{field}` stands for a value.
        fields: what may be sent, by the frontend's name.
        headers: sent with every call, such as `X-HTTP-Method-Override`.
        content_type: of the body that is sent.
        cache_s: seconds for which an answer is kept; 0: not at all.
        rate: of one caller, in place of the deployment's; None: the deployment's.
        timeout_s: for all of it, tries and the token included.
        idempotent: doing it twice is doing it once, so that it may be tried again. GET always is.
        response: dotted paths of what is let through of the answer; arrays are walked, and what
            lies below a path comes with it. Empty: nothing of the body is.
        response_headers: names, in lower case, of what is let through of its headers.
        summary: for the description of the API.
    """

    name: str
    method: Method
    path: str
    fields: Mapping[str, Field] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
    cache_s: int = 0
    rate: Rate | None = None
    timeout_s: float = TIMEOUT_S
    idempotent: bool = True
    response: tuple[str, ...] = ()
    response_headers: tuple[str, ...] = ()
    summary: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A partner, and every call to it that is allowed.

    Attributes:
        name: in the path of ours, and in the names of its secrets' settings.
        base_url: scheme, host, port and the beginning of each path, without a slash at its end.
        rate: of all callers together, as the partner allows us; None: no bound.
        private_networks: that are not public, and where it may be all the same.
        response_bytes_max: of an answer, as it comes and as it is unpacked.
        routes: by name; those that are switched off are left out.
    """

    name: str
    base_url: str
    auth: Auth = field(default_factory=Auth)
    rate: Rate | None = None
    private_networks: Networks = ()
    response_bytes_max: int = RESPONSE_BYTES_MAX
    routes: Mapping[str, Route] = field(default_factory=dict)
