"""What the way to the database has come through in this process, counted since its start."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class ReplicaOutcome(StrEnum):
    """What came of asking a replica once."""

    ANSWERED = "answered"
    BEHIND = "behind"  # it told of the past, and was asked again
    FAILED = "failed"  # no answer, or none that was new enough in time: another one was asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Counts of one process.

    Attributes:
        groups: commits, each of whatever had gathered.
        batches: what was in them.
        answers_lost: groups that a server was sent and did not answer.
        replica_reads: by the replica's host and port, and by what came of it.
    """

    groups: int = 0
    batches: int = 0
    answers_lost: int = 0
    replica_reads: Mapping[tuple[str, ReplicaOutcome], int] = field(default_factory=dict)
