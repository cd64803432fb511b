"""Who may call how often, seen from outside, over the real server."""

import asyncio
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest

from api.limits import DOOR_RATE, STREAM_OVERLOAD_RETRY_MS
from api.rates import QUOTA_EXCEEDED, Limit
from api.routes import CALLS
from indexer.core.ids import new_payment_id
from indexer.core.rate import Rate
from indexer.errors import ConfigError
from ipaddress import ip_network
from store import keys
from store.shared import Shared
from tests.api.running import NOW, Api, make_key, running
from tests.servers.redis_server import RedisServer
