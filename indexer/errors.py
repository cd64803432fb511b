"""Everything that can go wrong, as one tree. Imports nothing.

    AxiomError                  says what, which, and how to fix it
    ├── ConfigError             at start: every faulty setting at once; exit code 2
    ├── InvalidInput            a caller's value is wrong; names the field
    │   └── MalformedInput      what it stands in cannot be read at all
    ├── SourceError             the chain side
    │   ├── SourceUnavailable   try again: timeout, 429, 5xx, closed stream, a node that is behind
    │   │   └── OutcomeUnknown  sent and never answered: ask what became of it, then send again
    │   └── SourceRejected      trying again is useless: bad parameters, unknown method, refused
    ├── DecodeError             unreadable chain data: keep the bytes, raise the alarm, go on
    ├── StoreError
    │   ├── StoreUnavailable    try again: locked, lost connection, disk full
    │   ├── StoreBroken         the file is damaged, or is no database: a person must act
    │   ├── SharedUnavailable   Redis is away: what it holds may be lost, go on without it
    │   ├── Conflict            a condition of the batch did not hold; nothing was written
    │   └── SchemaMismatch      refuse to start; says whether to migrate or to upgrade
    └── InvariantError          our own bug: end the process

A payment that does not satisfy its terms is no error: it is a `Verdict` with reasons.
A library's error is wrapped once, at its edge, with `from`.
"""


class AxiomError(Exception):
    """The root of every error that this project raises on purpose."""


class ConfigError(AxiomError):
    """One or more settings are wrong.

    Attributes:
        problems: one sentence each, naming the variable.
    """

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class InvalidInput(AxiomError):
    """A value given by a caller is not acceptable.

    Attributes:
        field: the name of the field as the caller wrote it, `""` for the whole body.
        message: what is wrong with it, and what would be right.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field
        self.message = message


class MalformedInput(InvalidInput):
    """What a caller sent is not even JSON."""


class SourceError(AxiomError):
    """The chain side did not give what was asked."""


class SourceUnavailable(SourceError):
    """Nothing can be concluded now; the same question may be answered later.

    Attributes:
        retry_after_s: what the server asked us to wait, in seconds; None when it did not say.
        code: the JSON-RPC error code, where the server gave one.
    """

    def __init__(
        self, message: str, *, retry_after_s: float | None = None, code: int | None = None
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.code = code


class OutcomeUnknown(SourceUnavailable):
    """What was asked for may have been done: no answer came.

    Asking for it again may do it twice: ask first what became of it.
    """


class SourceRejected(SourceError):
    """The server understood and refused; the same question will be refused again.

    Attributes:
        code: the JSON-RPC error code, or the HTTP status, or None.
    """

    def __init__(self, message: str, *, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class DecodeError(AxiomError):
    """Bytes from the chain side that do not have the shape they should have.

    Attributes:
        payload: the bytes themselves, for the dead letter; None where they are not at hand.
    """

    def __init__(self, message: str, *, payload: bytes | None = None) -> None:
        super().__init__(message)
        self.payload = payload


class StoreError(AxiomError):
    """The database did not do what was asked."""


class StoreUnavailable(StoreError):
    """The database is busy or out of reach; the outcome of a write is unknown: read it."""


class SharedUnavailable(StoreError):
    """Redis is not there: nothing in it is the truth, so whoever asked goes on without it."""


class StoreBroken(StoreError):
    """The database file is damaged, or is none: trying again is useless, and writing harmful."""


class Conflict(StoreError):
    """A unique key or a version did not match: nothing of the batch was written."""


class SchemaMismatch(StoreError):
    """The database's schema is not the one that this code was written for."""


class InvariantError(AxiomError):
    """Something that cannot be false is false: a bug here, not the world's fault."""
