"""Logging: one line for each unit of work, a constant event name and its facts as keys.

    log = get_logger(__name__)
    log.info("payment.settled", payment_id=..., signature=..., slot=...)

For people on a terminal, JSON lines everywhere else, always on standard error: standard output
belongs to a command's result. What other libraries say through `logging` takes the same road.
Every value goes through `redact`, and the finished line once more, whatever field or traceback
a secret came in by. What is configured as a secret is hidden by its value: `hide`.

INFO: state changed. WARNING: tried again, or found a gap. ERROR: a person must look.
"""

import json
import logging
import sys
import traceback
from collections.abc import Iterable
from enum import StrEnum
from functools import partial
from types import TracebackType
from typing import Final, TextIO, cast

import structlog
from structlog.types import EventDict, Processor, WrappedLogger
from structlog.typing import FilteringBoundLogger

from indexer.redact import Redactor, redact


class LogLevel(StrEnum):
    """The least that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """How a line is written; `auto` looks whether it goes to a terminal."""

    AUTO = "auto"
    CONSOLE = "console"
    JSON = "json"


#: Libraries that write every frame or every poll at DEBUG, or every request at INFO.
_TALKATIVE: Final = {
    "asyncio": logging.INFO,
    "websockets": logging.INFO,
    "aiohttp.access": logging.WARNING,
    "uvicorn.access": logging.WARNING,
    "httpx2": logging.WARNING,
    "httpcore2": logging.WARNING,
}


#: What this process hides: secrets are those of a process, as its log is.
_redactor: Final = Redactor()


def hide(values: Iterable[str]) -> None:
    """Hides these values wherever they would stand in a line from now on."""
    _redactor.add(values)


def get_logger(name: str) -> FilteringBoundLogger:
    """The logger of a module; usable before `configure`."""
    return cast("FilteringBoundLogger", structlog.get_logger(name))


def configure(level: LogLevel, format_: LogFormat, stream: TextIO | None = None) -> None:
    """Sends all logging of this process to `stream` (standard error when None).

    May be called again: the last call counts.
    """
    stream = sys.stderr if stream is None else stream
    if format_ is LogFormat.AUTO:
        format_ = LogFormat.CONSOLE if stream.isatty() else LogFormat.JSON
    least = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _redact_values,
                _renderer(format_, colors=stream.isatty()),
                _redact_line,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(least)
    for name, floor in _TALKATIVE.items():
        logging.getLogger(name).setLevel(max(floor, least))
    logging.captureWarnings(capture=True)
    sys.excepthook = partial(_last_words, stream)


def _last_words(
    stream: TextIO,
    kind: type[BaseException],
    error: BaseException,
    where: TracebackType | None,
) -> None:
    """The traceback of what ends the process, which Python itself would print as it is."""
    lines = traceback.format_exception(kind, error, where)
    stream.write(_redactor.text("".join(lines)))


def _renderer(format_: LogFormat, *, colors: bool) -> Processor:
    if format_ is LogFormat.JSON:
        return structlog.processors.JSONRenderer(serializer=_to_json)
    return structlog.dev.ConsoleRenderer(
        colors=colors, exception_formatter=structlog.dev.plain_traceback
    )


def _to_json(event: EventDict, **_: object) -> str:
    first = {key: event[key] for key in ("timestamp", "level", "event") if key in event}
    # The standard library's encoder: sums of amounts may be larger than the 64 bits of others.
    return json.dumps({**first, **event}, default=repr, ensure_ascii=False, skipkeys=True)


def _redact_values(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return {_redactor.text(key): _redactor.value(each) for key, each in event.items()}


def _redact_line(_logger: WrappedLogger, _method: str, line: EventDict) -> str:
    # The renderer before this one has made a string of the event; structlog's type for a
    # processor's argument does not know that.
    return redact(cast("str", line))
