"""Where calls to all partners come in: each has its own road."""

import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from prometheus_client import CollectorRegistry

from indexer.core.partner_answer import Passed
from indexer.core.partner_request import Asked
from indexer.core.profile import AuthKind, PartnerSecrets, Profile, Route
from indexer.errors import InvariantError
from indexer.partners.figures import Figures
from indexer.partners.road import Road
from indexer.partners.shelf import Shelf
from indexer.partners.tokens import Credentials, Tokens
from indexer.sources.names import Lookup
from indexer.sources.partner import CONNECT_TIMEOUT_S, Partner
from store.limiter import Limiter
from store.shared import Shared


class Partners:
    """The partners that are configured. An async context manager: its connections live inside.

    Attributes:
        profiles: what is allowed with each, by name.
    """

    def __init__(
        self,
        profiles: Sequence[Profile],
        secrets: Mapping[str, PartnerSecrets],
        *,
        shared: Shared | None,
        limiter: Limiter,
        monotonic: Callable[[], float],
        lookup: Lookup | None = None,
        tls: ssl.SSLContext | None = None,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
    ) -> None:
        """Nothing is opened before `async with`.

        Args:
            profiles: of the partners.
            secrets: what proves to each who we are, by the profile's name.
            shared: Redis, where tokens and answers are kept; None: each process keeps its own.
            limiter: counts what the partners allow all callers together.
            monotonic: seconds of a clock that only goes forward.
            lookup: addresses of a name; by default the system's resolver.
            tls: whose certificates are accepted; by default those whom the system trusts.
            connect_timeout_s: for a connection to one address.
        """
        self._profiles = {profile.name: profile for profile in profiles}
        self._secrets = dict(secrets)
        self._shared = shared
        self._limiter = limiter
        self._shelf = Shelf(shared, monotonic)
        self._lookup = lookup
        self._tls = tls
        self._connect_timeout_s = connect_timeout_s
        self._figures = Figures()
        self._stack = AsyncExitStack()
        self._roads: dict[str, Road] = {}

    @property
    def profiles(self) -> Mapping[str, Profile]:
        """What is allowed with each, by name."""
        return self._profiles

    @property
    def registry(self) -> CollectorRegistry:
        """Holds the figures, for whoever shows them."""
        return self._figures.registry

    async def __aenter__(self) -> Self:
        for profile in self._profiles.values():
            partner = await self._stack.enter_async_context(
                Partner(
                    profile.base_url,
                    profile.private_networks,
                    lookup=self._lookup,
                    tls=self._tls,
                    connect_timeout_s=self._connect_timeout_s,
                )
            )
            road = self._road(profile, partner)
            self._stack.push_async_callback(road.close)
            self._roads[profile.name] = road
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._roads.clear()
        await self._stack.aclose()

    async def call(self, profile: Profile, route: Route, asked: Asked) -> Passed:
        """What a frontend is answered.

        Raises:
            PartnerFailed: the call came to nothing, and why.
        """
        road = self._roads.get(profile.name)
        if road is None:
            raise InvariantError(f"there is no road to {profile.name}")
        return await road.call(route, asked)

    def _road(self, profile: Profile, partner: Partner) -> Road:
        secrets = self._secrets.get(profile.name, PartnerSecrets())
        tokens = None
        if profile.auth.kind is AuthKind.OAUTH2:
            credentials = Credentials(
                upstream=profile.name,
                url=f"{profile.base_url}{profile.auth.token_path}",
                client_id=secrets.client_id,
                client_secret=secrets.client_secret,
                scope=profile.auth.scope,
            )
            tokens = Tokens(credentials, partner, self._shared, self._figures)
        return Road(profile, secrets, partner, tokens, self._shelf, self._limiter, self._figures)
