"""The rows of the route table about webhooks: the doors, the audit trail, the receivers."""

from typing import Final

from api.calls import Call


CALLS: Final[tuple[Call, ...]] = ()
