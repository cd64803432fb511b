"""Receivers of events: register them, look at them, replace their secrets, let them be.

A secret is derived, never stored: what the ledger keeps of a registration or a rotation is which
secret was shown, and a repetition derives it once more.
"""

import re
import secrets
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from api import filters
from api.body import decode, read_json_body
from api.context import Context
from api.errors import FieldError, Problem, invalid, unavailable
from api.idempotency import Effect, Once, key_of
from api.limits import DOOR_RETRY_AFTER_S
from api.payments import json_response
from api.webhook_schema import (
    AttemptBody,
    DeliveryBody,
    EndpointBody,
    EndpointPageBody,
    NewEndpointBody,
    RotationBody,
    SecretEndpointBody,
)
from indexer.core import receiver, standard_webhooks
from indexer.core.delivery import TEST_TYPE
from indexer.core.events import format_time
from indexer.core.standard_webhooks import SigningKey
from indexer.errors import Conflict, InvariantError
from indexer.log import get_logger
from store import deliveries, webhook_endpoints
from store.database import Database
from store.deliveries import Attempt, Delivery
from store.keys import ApiKey
from store.webhook_endpoints import EndpointState, WebhookEndpoint


log = get_logger(__name__)

ID: Final = re.compile(r"we_[0-9a-z]{26}", re.ASCII)
DELIVERY_PREFIX: Final = "dlv_"

_PATH: Final = "/api/webhooks/endpoints"
_ID_BYTES: Final = 16
