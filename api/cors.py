"""Which pages may call the API from a browser (the Fetch standard's CORS)."""

from collections.abc import Collection
from typing import Final

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from api.errors import Problem


_MAY_BE_SENT: Final = ("Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID")
_MAY_BE_READ: Final = (
    "Location",
    "Cache-Status",
    "Idempotent-Replayed",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
)


class Cors(CORSMiddleware):
    """Pages of named origins may call; never with cookies, of which there are none.

    A preflight that is refused is a problem, as every other refusal.
    """

    def __init__(
        self,
        app: ASGIApp,
        origins: Collection[str],
        methods: Collection[str],
        *,
        sent: Collection[str] = (),
        read: Collection[str] = (),
    ) -> None:
        """Wraps.

        Args:
            app: what is wrapped.
            origins: of the pages; `*` alone is any.
            methods: that they may use.
            sent: headers that they may send, beside those of every API of ours.
            read: headers that they may read of an answer, likewise.
        """
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=methods,
            allow_headers=(*_MAY_BE_SENT, *sent),
            expose_headers=(*_MAY_BE_READ, *read),
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """What the browser is told before it sends the request itself."""
        response = super().preflight_response(request_headers)
        if response.status_code < 400:
            return response
        told = {
            name: value
            for name, value in response.headers.items()
            if name == "vary" or name.startswith("access-control-")
        }
        detail = "the page's origin, the method or a header is not among those that may be sent"
        return Problem(400, "cors_refused", detail, headers=told).response()
