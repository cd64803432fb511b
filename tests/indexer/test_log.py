import io
import json
import logging
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from indexer import log as module
from indexer.log import LogFormat, LogLevel, configure, get_logger, hide
from indexer.redact import Redactor


SECRETS = (
    "https://rpc.example/v2/SECRET",
    "wss://user:SECRET@rpc.example/?api-key=SECRET",
    "axk_SECRET",
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, hook = list(root.handlers), root.level, sys.excepthook
    yield
    sys.excepthook = hook
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_json_off_a_terminal() -> None:
    stream = io.StringIO()
    configure(LogLevel.INFO, LogFormat.AUTO, stream)

    get_logger("indexer.sweep").info("sweep.done", slot=5, received=2**64, raw=b"\x00")

    (line,) = lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "info",
        "event": "sweep.done",
        "logger": "indexer.sweep",
        "slot": 5,
        "received": 2**64,
        "raw": "b'\\x00'",
    }


def test_a_line_is_for_people_on_a_terminal() -> None:
    stream = Terminal()
    configure(LogLevel.INFO, LogFormat.AUTO, stream)

    get_logger("indexer.sweep").info("sweep.done")

    assert "sweep.done" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


@pytest.mark.parametrize("format_", [LogFormat.JSON, LogFormat.CONSOLE])
@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_is_hidden_wherever_it_comes_in(format_: LogFormat, secret: str) -> None:
    stream = io.StringIO()
    configure(LogLevel.DEBUG, format_, stream)
    log = get_logger("indexer.test")

    log.info("source.failed", url=secret, nested={"list": [secret]})
    log.info(secret)
    logging.getLogger("aiohttp.client").warning("cannot reach %s", secret, extra={"url": secret})
    try:
        int(secret)
    except ValueError:
        log.exception("task.failed")
        logging.getLogger("asyncio").exception("unhandled")

    assert stream.getvalue().count("ValueError") >= 2
    assert "***" in stream.getvalue()
    assert "SECRET" not in stream.getvalue()


@pytest.mark.parametrize("format_", [LogFormat.JSON, LogFormat.CONSOLE])
def test_what_is_configured_as_a_secret_is_hidden_by_its_value(
    format_: LogFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_redactor", Redactor())
    stream = io.StringIO()
    configure(LogLevel.DEBUG, format_, stream)
    secret = 'no form, "quoted"'
    get_logger("indexer.test").info("said before", said=secret)
    assert "quoted" in stream.getvalue()
    stream.truncate(0)
    hide([secret, "x"])

    get_logger("indexer.test").info(secret, **{secret: [secret], "n": {"x": secret}})
    logging.getLogger("aiohttp.client").warning("%s", secret, extra={"given": (secret,)})
    try:
        int(secret)
    except ValueError:
        get_logger("indexer.test").exception("task.failed")

    assert stream.getvalue().count("***") >= 6
    assert "quoted" not in stream.getvalue()


@pytest.mark.parametrize("format_", [LogFormat.JSON, LogFormat.CONSOLE])
def test_a_card_number_is_hidden_and_an_amount_is_not(format_: LogFormat) -> None:
    stream = io.StringIO()
    configure(LogLevel.INFO, format_, stream)

    get_logger("indexer.test").info("charged 4111 1111 1111 1111", amount=5123456789012346)

    assert "4111 1111" not in stream.getvalue()
    assert "5123456789012346" in stream.getvalue()


def test_the_last_words_of_a_process_are_without_secrets_too() -> None:
    stream = io.StringIO()
    configure(LogLevel.INFO, LogFormat.JSON, stream)

    error = RuntimeError("cannot reach https://rpc.example/v2/KEY")
    sys.excepthook(RuntimeError, error, None)

    assert stream.getvalue() == "RuntimeError: cannot reach https://rpc.example/***\n"


@pytest.mark.parametrize(
    "name", ["uvicorn.error", "aiohttp.server", "asyncio", "websockets.client"]
)
def test_other_libraries_take_the_same_road(name: str) -> None:
    stream = io.StringIO()
    configure(LogLevel.INFO, LogFormat.JSON, stream)

    logging.getLogger(name).warning("%s happened", "it")

    (line,) = lines(stream)
    assert (line["event"], line["level"], line["logger"]) == ("it happened", "warning", name)


def test_warnings_are_logged() -> None:
    stream = io.StringIO()
    configure(LogLevel.INFO, LogFormat.JSON, stream)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("axk_SECRET is old", stacklevel=1)

    (line,) = lines(stream)
    assert line["logger"] == "py.warnings"
    assert "axk_*** is old" in line["event"]


def test_what_is_below_the_level_is_not_written() -> None:
    stream = io.StringIO()
    configure(LogLevel.WARNING, LogFormat.JSON, stream)

    get_logger("indexer.test").info("quiet")
    logging.getLogger("uvicorn.error").info("quiet")
    get_logger("indexer.test").warning("loud")

    assert [line["event"] for line in lines(stream)] == ["loud"]


@pytest.mark.parametrize("name", ["websockets", "asyncio", "uvicorn.access"])
def test_talkative_libraries_stay_quiet_at_debug(name: str) -> None:
    stream = io.StringIO()
    configure(LogLevel.DEBUG, LogFormat.JSON, stream)

    logging.getLogger(name).debug("every frame")

    assert stream.getvalue() == ""


def test_the_last_call_counts() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure(LogLevel.INFO, LogFormat.JSON, first)
    log = get_logger("indexer.test")
    log.info("one")
    configure(LogLevel.INFO, LogFormat.JSON, second)
    log.info("two")

    assert [line["event"] for line in lines(first) + lines(second)] == ["one", "two"]


def test_what_is_bound_to_the_context_is_in_every_line() -> None:
    stream = io.StringIO()
    configure(LogLevel.INFO, LogFormat.JSON, stream)

    with structlog.contextvars.bound_contextvars(payment_id="pay_x"):
        get_logger("indexer.test").info("inside")

    assert lines(stream)[0]["payment_id"] == "pay_x"
