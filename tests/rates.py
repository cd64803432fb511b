"""Rates that no test of something else ever reaches."""

from typing import Final

from indexer.core.rate import QUOTA_MAX, Rate


UNLIMITED: Final = Rate(QUOTA_MAX, 1)

#: Of the doors for webhooks, which have a rate of their own.
UNLIMITED_DOORS: Final = dict.fromkeys(
    ("receiveFromHelius", "receiveFromQuickNode", "receiveFromPaymob", "returnFromPaymob"),
    UNLIMITED,
)
