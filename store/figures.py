"""What the way to the database has come through in this process since its start, and how it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class ReplicaOutcome(StrEnum):
    """What came of asking a replica once."""

    ANSWERED = "answered"
    BEHIND = "behind"  # it told of the past, and was asked again
    FAILED = "failed"  # no answer, or none that was new enough in time: another one was asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Figures of one process.

    Attributes:
        groups: commits, each of whatever had gathered.
        batches: what was in them.
        answers_lost: groups that a server was sent and did not answer.
        replica_reads: by the replica's host and port, and by what came of it.
        replicas_failing: those that failed when they were asked last, by host and port.
    """

    groups: int = 0
    batches: int = 0
    answers_lost: int = 0
    replica_reads: Mapping[tuple[str, ReplicaOutcome], int] = field(default_factory=dict)
    replicas_failing: Sequence[str] = ()
