import ast
import inspect
import re
from dataclasses import fields, replace
from ipaddress import ip_network
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import indexer.settings
from indexer.core.types import Currency
from indexer.errors import ConfigError
from indexer.log import LogFormat, LogLevel
from indexer.settings import PARSERS, SECRETS, Settings, unknown_variables, variable_names


KEY = "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v"
OTHER_KEY = "Es9vMFrzaCERmJfrF4H2FYD4KCoNkY11McCe8BenwNYB"
EXAMPLE = Path(indexer.settings.__file__).parents[1] / ".env.example"


def read(dotenv: Path | None = None, /, **variables: str) -> Settings:
    return Settings.from_env({f"AXIOM_{name}": text for name, text in variables.items()}, dotenv)


def problems(dotenv: Path | None = None, /, **variables: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        read(dotenv, **variables)
    return caught.value.problems


def test_nothing_set_gives_the_documented_defaults() -> None:
    settings = read()

    assert settings == Settings()
    assert settings.rpc_urls == ("http://127.0.0.1:8899",)
    assert settings.ws_urls == ("ws://127.0.0.1:8900",)
    assert settings.tokens == {"SOL": None, "USDC": KEY}
    assert settings.public_url == "http://127.0.0.1:8000"
    assert (settings.expires_in_s, settings.late_grace_s) == (900, 86_400)


GOOD: list[tuple[str, str, object]] = [
    ("DATABASE_URL", "sqlite:////var/lib/axiom.db", "sqlite:////var/lib/axiom.db"),
    ("RPC_URLS", "https://a.example/?k=1, http://b:1", ("https://a.example/?k=1", "http://b:1")),
    ("WS_URLS", "wss://a.example", ("wss://a.example",)),
    ("RPC_CONCURRENCY", "1", 1),
    ("RPC_RATE", "0", 0),
    ("RECIPIENT", KEY, KEY),
    ("WATCH_KEY", KEY, KEY),
    ("TOKENS", f"USDC={KEY} , SOL", {"USDC": KEY, "SOL": None}),
    ("EXPIRES_IN_S", "604800", 604_800),
    ("LATE_GRACE_S", "0", 0),
    ("HOST", "::1", "::1"),
    ("PORT", "65535", 65_535),
    ("PUBLIC_URL", "https://pay.example/shop/", "https://pay.example/shop"),
    ("HELIUS_WEBHOOK_SECRETS", "Bearer-one-1,another2", ("Bearer-one-1", "another2")),
    ("QUICKNODE_WEBHOOK_SECRETS", "qnsec_12345", ("qnsec_12345",)),
    ("HELIUS_API_URL", "http://127.0.0.1:9/", "http://127.0.0.1:9"),
    ("PAYMOB_BASE_URL", "https://ksa.paymob.com", "https://ksa.paymob.com"),
    ("PAYMOB_CURRENCY", "sar", Currency.SAR),
    ("WEBHOOK_SIGNING_KEYS", f"{'a' * 32},{'b' * 40}", ("a" * 32, "b" * 40)),
    (
        "WEBHOOK_PRIVATE_NETWORKS",
        "127.0.0.1, fd00::/8",
        (ip_network("127.0.0.1/32"), ip_network("fd00::/8")),
    ),
    ("WEBHOOK_RETENTION_DAYS", "1", 1),
    ("CORS_ORIGINS", "https://a.example,http://b:3000", ("https://a.example", "http://b:3000")),
    ("CORS_ORIGINS", "*", ("*",)),
    ("LOG_LEVEL", "WARNING", LogLevel.WARNING),
    ("LOG_FORMAT", "json", LogFormat.JSON),
    ("PORT", "  8080 ", 8080),
    ("PORT", "", 8000),
]


@pytest.mark.parametrize(("name", "text", "value"), GOOD)
def test_good_values_are_taken(name: str, text: str, value: object) -> None:
    assert getattr(read(**{name: text}), name.lower()) == value


BAD: list[tuple[str, str, str]] = [
    ("DATABASE_URL", "postgres://db", "sqlite:///relative"),
    ("DATABASE_URL", "sqlite://axiom.db", "sqlite:///relative"),
    ("DATABASE_URL", "sqlite:///", "sqlite:///relative"),
    ("RPC_URLS", "wss://a.example", "http:// or https://"),
    ("RPC_URLS", "https://a,https://a", "twice"),
    ("RPC_URLS", "https://a,,https://b", "empty item"),
    ("RPC_URLS", "https://a,http://", "URL 2 of 2 has no host"),
    ("RPC_URLS", "https://a:99999", "malformed"),
    ("RPC_URLS", "https://a:0", "port 0"),
    ("RPC_URLS", "https://a/'quoted'", "percent-encoded"),
    ("RPC_URLS", "http://a:65535", "no port after 65535"),
    ("RPC_URLS", ",".join(f"http://h{n}" for n in range(101)), "101 items"),
    ("WS_URLS", "https://a.example", "ws:// or wss://"),
    ("VERIFY_QUORUM", "2", "names 1"),
    ("VERIFY_QUORUM", "0", "from 1"),
    ("RPC_CONCURRENCY", "0", "from 1 to 1000"),
    ("RPC_RATE", "-1", "from 0"),
    ("RPC_RATE", "1.5", "whole number"),
    ("RECIPIENT", "short", "base58"),
    ("WATCH_KEY", "0OIl", "base58"),
    ("TOKENS", "USDC", "SYMBOL=mint"),
    ("TOKENS", f"SOL={KEY}", "SOL alone"),
    ("TOKENS", "SOL,SOL", "twice"),
    ("TOKENS", f"usdc={KEY},USDC={OTHER_KEY}", "twice"),
    ("TOKENS", f"A={KEY},B={KEY}", "mint of another"),
    ("TOKENS", "USDC=nokey", "base58"),
    ("TOKENS", f"two words={KEY}", "no symbol"),
    ("EXPIRES_IN_S", "0", "from 1"),
    ("EXPIRES_IN_S", "604801", "604800"),
    ("EXPIRES_IN_S", "\u0661\u0665", "whole number"),
    ("LATE_GRACE_S", "7776001", "7776000"),
    ("HOST", "http://a", "host name"),
    ("PORT", "0", "from 1"),
    ("PORT", "65536", "65535"),
    ("PUBLIC_URL", "pay.example", "http:// or https://"),
    ("PUBLIC_URL", "https://pay.example/?a=1", "at most a path"),
    ("HELIUS_WEBHOOK_SECRETS", "short", "8 to 512 visible"),
    ("HELIUS_WEBHOOK_SECRETS", "one-secret,two-secret,three-secret", "2 are valid at once"),
    ("QUICKNODE_WEBHOOK_SECRETS", "same-secret,same-secret", "twice"),
    ("HELIUS_API_KEY", "with blank in it", "visible ASCII"),
    ("HELIUS_API_KEY", "changeme", "placeholder"),
    ("HELIUS_WEBHOOK_ID", "../secrets", "no identifier"),
    ("HELIUS_API_URL", "api.helius.xyz", "http:// or https://"),
    ("HELIUS_API_URL", "http://api.helius.xyz", "a secret is sent there"),
    ("PAYMOB_BASE_URL", "https://accept.paymob.com/?x", "at most a path"),
    ("PAYMOB_BASE_URL", "http://127.0.0.1.example", "a secret is sent there"),
    ("PAYMOB_SECRET_KEY", "k\u00e9y-of-paymob", "visible ASCII"),
    ("PAYMOB_PUBLIC_KEY", "a/b", "no identifier"),
    ("PAYMOB_API_KEY", "1234567", "8 to 512"),
    ("PAYMOB_HMAC_SECRET", "password", "placeholder"),
    ("PAYMOB_INTEGRATION_IDS", "4097558,", "empty item"),
    ("PAYMOB_INTEGRATION_IDS", "4097558,4097558", "twice"),
    ("PAYMOB_INTEGRATION_IDS", "0", "from 1"),
    ("PAYMOB_OWNER", "-302852", "from 1"),
    ("PAYMOB_CURRENCY", "USD", "EGP, SAR, AED, OMR"),
    ("WEBHOOK_SIGNING_KEYS", "a" * 31, "32 characters"),
    ("WEBHOOK_PRIVATE_NETWORKS", "10.0.0.1/8", "no network"),
    ("WEBHOOK_PRIVATE_NETWORKS", "localhost", "no network"),
    ("WEBHOOK_RETENTION_DAYS", "0", "from 1"),
    ("CORS_ORIGINS", "https://a.example/", "without a path"),
    ("CORS_ORIGINS", "a.example", "scheme://host"),
    ("CORS_ORIGINS", "*,https://a", "scheme://host"),
    ("LOG_LEVEL", "loud", "debug, info, warning, error"),
    ("LOG_FORMAT", "xml", "auto, console, json"),
]


@pytest.mark.parametrize(("name", "text", "says"), BAD)
def test_a_bad_value_is_refused_by_name_with_what_would_be_right(
    name: str, text: str, says: str
) -> None:
    (problem,) = problems(**{name: text})

    assert problem.startswith(f"AXIOM_{name}: ")
    assert says in problem


def test_every_setting_has_a_bad_value_above() -> None:
    assert {name.lower() for name, _, _ in BAD} == {f.name for f in fields(Settings)}


def test_all_problems_are_reported_together() -> None:
    firsts = {name: text for name, text, _ in reversed(BAD)}

    found = problems(**firsts)

    assert {problem.partition(":")[0] for problem in found} >= {
        f"AXIOM_{name}" for name in firsts if name != "VERIFY_QUORUM"
    }


def test_a_faulty_list_of_endpoints_is_not_also_blamed_on_the_quorum() -> None:
    assert len(problems(RPC_URLS="ftp://a", VERIFY_QUORUM="2")) == 1


def test_the_quorum_may_be_all_endpoints() -> None:
    assert read(RPC_URLS="http://a,http://b", VERIFY_QUORUM="2").verify_quorum == 2


def test_the_watch_key_is_not_the_recipient() -> None:
    (problem,) = problems(WATCH_KEY=KEY, RECIPIENT=KEY)

    assert problem.startswith("AXIOM_WATCH_KEY")


@pytest.mark.parametrize(
    ("rpc", "ws"),
    [
        ("http://127.0.0.1:8899", "ws://127.0.0.1:8900"),
        ("https://rpc.example/v2/key?x=1", "wss://rpc.example/v2/key?x=1"),
        ("http://[::1]:8899/", "ws://[::1]:8900/"),
        ("https://user:word@rpc.example:1/", "wss://user:word@rpc.example:2/"),
    ],
)
def test_the_websocket_endpoint_follows_from_the_rpc_endpoint(rpc: str, ws: str) -> None:
    assert read(RPC_URLS=rpc).ws_urls == (ws,)


def test_websocket_endpoints_that_are_named_win() -> None:
    assert read(RPC_URLS="http://a:65535", WS_URLS="ws://b").ws_urls == ("ws://b",)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:9000"),
        ("::", "http://[::1]:9000"),
        ("pay.example", "http://pay.example:9000"),
    ],
)
def test_the_public_url_follows_from_host_and_port(host: str, url: str) -> None:
    assert read(HOST=host, PORT="9000").public_url == url


PAYMOB = {
    "PAYMOB_SECRET_KEY": "egy_sk_test_1",
    "PAYMOB_PUBLIC_KEY": "egy_pk_test_1",
    "PAYMOB_API_KEY": "ZXhhbXBsZQ==",
    "PAYMOB_HMAC_SECRET": "one-secret,two-secret",
    "PAYMOB_INTEGRATION_IDS": "4097558, 4097559",
    "PAYMOB_OWNER": "302852",
}


def test_cards_are_taken_once_all_of_it_is_set() -> None:
    settings = read(**PAYMOB)

    assert settings.takes_cards
    assert not read().takes_cards
    assert settings.paymob_integration_ids == (4097558, 4097559)
    assert settings.paymob_hmac_secret == ("one-secret", "two-secret")


@pytest.mark.parametrize("name", PAYMOB)
def test_a_part_of_what_cards_need_is_refused_and_named(name: str) -> None:
    (problem,) = problems(**{key: text for key, text in PAYMOB.items() if key != name})

    assert problem.startswith(f"AXIOM_{name}: missing")


def test_integrations_that_could_be_read_into_one_another_are_refused() -> None:
    (problem,) = problems(**PAYMOB | {"PAYMOB_INTEGRATION_IDS": "4097558,97558"})

    assert "4097558 and 97558" in problem
    assert "two ways" in problem


def test_a_webhook_at_helius_is_kept_with_its_key_or_not_at_all() -> None:
    assert read(HELIUS_API_KEY="12345678", HELIUS_WEBHOOK_ID="wh-1").helius_webhook_id == "wh-1"
    assert "AXIOM_HELIUS_API_KEY: missing" in problems(HELIUS_WEBHOOK_ID="wh-1")[0]


def test_no_secret_is_in_the_repr() -> None:
    secret = "canary-" * 6
    names = [name for name in SECRETS if not name.endswith("_urls")]
    variables = PAYMOB | {"HELIUS_WEBHOOK_ID": "1"} | dict.fromkeys(map(str.upper, names), secret)

    settings = read(**variables)

    assert all(secret in str(getattr(settings, name)) for name in names)
    assert "canary" not in repr(settings)


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text('AXIOM_PORT=1111\nexport AXIOM_HOST="10.0.0.1"\nOTHER=${HOME}\n')

    settings = read(dotenv, PORT="2222")

    assert (settings.port, settings.host) == (2222, "10.0.0.1")


def test_a_dollar_in_the_file_is_a_dollar(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("AXIOM_DATABASE_URL=sqlite:///${HOME}.db\n")

    assert read(dotenv).database_url == "sqlite:///${HOME}.db"


def test_a_missing_env_file_is_said(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path / "nowhere")

    assert "nowhere: No such file" in problem


@pytest.mark.parametrize("name", ["RPC_URLS", "WS_URLS"])
def test_a_secret_may_stand_in_a_file(name: str, tmp_path: Path) -> None:
    scheme = "https" if name == "RPC_URLS" else "wss"
    secret = tmp_path / "secret"
    secret.write_text(f"{scheme}://a.example/key\n")

    settings = read(**{f"{name}_FILE": str(secret)})

    assert getattr(settings, name.lower()) == (f"{scheme}://a.example/key",)


def test_a_secret_file_must_be_readable_and_the_only_source(tmp_path: Path) -> None:
    empty, binary, huge = tmp_path / "empty", tmp_path / "binary", tmp_path / "huge"
    empty.touch()
    binary.write_bytes(b"\xff\xfe")
    huge.write_bytes(b"x" * 100_000)

    assert "both set" in problems(RPC_URLS="http://a", RPC_URLS_FILE=str(empty))[0]
    assert "No such file" in problems(RPC_URLS_FILE=str(tmp_path / "no"))[0]
    assert "is empty" in problems(RPC_URLS_FILE=str(empty))[0]
    assert "not UTF-8" in problems(RPC_URLS_FILE=str(binary))[0]
    assert "larger than" in problems(RPC_URLS_FILE=str(huge))[0]


def test_neither_repr_nor_problems_show_a_key() -> None:
    urls = "https://user:SECRET@a.example/v2/SECRET?api-key=SECRET#SECRET"
    long_secret = "4" * 80 + "SECRET"

    shown = repr(read(RPC_URLS=urls))
    said = problems(RPC_URLS=urls + "'", WS_URLS=urls, RECIPIENT=long_secret, CORS_ORIGINS=urls)

    assert "SECRET" not in shown + " ".join(said)
    assert "https://***@a.example/***" in shown
    assert len(said) == 4


def test_every_secret_is_named_for_the_log_to_hide() -> None:
    """Of URLs the parts that are keys: to hide a host or a word everywhere would hide too much."""
    secrets = {name: f"canary-{name}" for name in SECRETS if not name.endswith("_urls")}
    held: dict[str, Any] = {
        name: (value,) if isinstance(getattr(Settings(), name), tuple) else value
        for name, value in secrets.items()
    }
    urls = ("https://rpc.example/mainnet-beta/0123456789abcdef", "https://a.example")

    found = set(replace(Settings(), rpc_urls=urls, **held).secret_values())

    assert found == {*secrets.values(), "0123456789abcdef"}
    assert set(Settings().secret_values()) == set()


def test_an_unknown_variable_is_a_warning_with_the_nearest_name(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("AXIOM_RECIPENT=x\n")

    sentences = unknown_variables({"AXIOM_QQ": "1", "AXIOM_PORT": "1", "PATH": "/"}, dotenv)

    assert sentences == (
        "AXIOM_QQ is ignored: no setting has this name",
        "AXIOM_RECIPENT is ignored: did you mean AXIOM_RECIPIENT?",
    )


def test_every_field_has_a_parser_and_a_docstring() -> None:
    (body,) = (
        node.body
        for node in ast.parse(inspect.getsource(Settings)).body
        if isinstance(node, ast.ClassDef)
    )
    documented = {
        before.target.id
        for before, after in pairwise(body)
        if isinstance(before, ast.AnnAssign)
        and isinstance(before.target, ast.Name)
        and isinstance(after, ast.Expr)
    }

    assert documented == set(PARSERS) == {f.name for f in fields(Settings)}


def test_the_example_file_names_every_variable_with_its_default(tmp_path: Path) -> None:
    lines = EXAMPLE.read_text(encoding="utf-8")
    named = re.findall(r"^#(AXIOM_[A-Z_]+)=", lines, re.MULTILINE)
    switched_on = tmp_path / ".env"
    switched_on.write_text(re.sub(r"^#AXIOM_", "AXIOM_", lines, flags=re.MULTILINE))

    assert sorted(named) == sorted(variable_names())
    assert Settings.from_env({}, switched_on) == Settings()
    assert Settings.from_env({}, EXAMPLE) == Settings()
