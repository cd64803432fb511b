"""`webhooks list`, `show` and `redeliver`: what came in, what went out, and both once more."""

import re
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import AsyncIterator
from typing import Any, Final

from api.webhook_events import event_body
from indexer.cli import typed
from indexer.cli.command import (
    Command,
    CommandFailed,
    Commands,
    add_limit,
    clock,
    database_of,
)
from indexer.cli.output import plain, print_fields, print_json, print_table, say
from indexer.cli.payments import payment_id
from indexer.core.types import WebhookSource, WebhookVerdict
from indexer.errors import InvalidInput
from indexer.settings import Settings
from store import webhook_events
from store.database import Database
from store.webhook_events import Entry, WebhookEvent
