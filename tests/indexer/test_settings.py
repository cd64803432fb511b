import ast
import inspect
import re
from dataclasses import fields, replace
from ipaddress import ip_network
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given, strategies as st

import indexer.settings
from indexer.core.rate import Rate
from indexer.core.types import Currency
from indexer.errors import ConfigError
from indexer.log import LogFormat, LogLevel
from indexer.redact import Redactor
from indexer.settings import (
    PARSERS,
    SECRETS,
    Settings,
    may_hold_secret,
    unknown_variables,
    variable_names,
)


KEY = "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v"
LONG = "0123456789abcdef0123456789ABCDEF"
OTHER_KEY = "Es9vMFrzaCERmJfrF4H2FYD4KCoNkY11McCe8BenwNYB"
#: Read from variables that are named after partners.
OF_PARTNERS = {"upstream_secrets"}
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
    ("WEBHOOK_SIGNING_KEYS", f"{LONG},{LONG}{LONG}", (LONG, LONG + LONG)),
    (
        "WEBHOOK_PRIVATE_NETWORKS",
        "127.0.0.1, fd00::/8",
        (ip_network("127.0.0.1/32"), ip_network("fd00::/8")),
    ),
    ("WEBHOOK_RETENTION_DAYS", "1", 1),
    ("CORS_ORIGINS", "https://a.example,http://b:3000", ("https://a.example", "http://b:3000")),
    ("CORS_ORIGINS", "*", ("*",)),
    ("ALLOWED_HOSTS", "Pay.Example, [::1]", ("pay.example", "::1")),
    ("ALLOWED_HOSTS", "*", ("*",)),
    ("TRUSTED_PROXIES", "10.0.0.0/8, ::1", (ip_network("10.0.0.0/8"), ip_network("::1/128"))),
    ("REDIS_URL", "redis://cache", "redis://cache"),
    ("REDIS_URL", "rediss://u:p%40ssw0rd@h:1/15?db=2", "rediss://u:p%40ssw0rd@h:1/15?db=2"),
    ("REDIS_URL", "unix://:pa55words@/run/r.sock?db=1", "unix://:pa55words@/run/r.sock?db=1"),
    ("RATE_LIMIT", "5/2m", Rate(5, 120)),
    ("RATE_LIMITS", "getPayment=60/10s, pay=1/s", {"getPayment": Rate(60, 10), "pay": Rate(1, 1)}),
    ("STREAMS_PER_ADDRESS", "10000", 10_000),
    ("LOG_LEVEL", "WARNING", LogLevel.WARNING),
    ("LOG_FORMAT", "json", LogFormat.JSON),
    ("PORT", "  8080 ", 8080),
    ("PORT", "", 8000),
]


@pytest.mark.parametrize(("name", "text", "value"), GOOD)
def test_good_values_are_taken(name: str, text: str, value: object) -> None:
    assert getattr(read(**{name: text}), name.lower()) == value


#: A server, with what it needs.
SERVER = {"DATABASE_URL": "libsql://db.example", "WEBHOOK_SIGNING_KEYS": LONG}


def test_a_server_is_taken_with_its_token_and_its_replicas() -> None:
    settings = read(
        **SERVER,
        DATABASE_TOKEN="ey.J0.token",
        DATABASE_REPLICA_URLS="https://b.example/, http://c:8080",
    )

    assert settings.database_url == "libsql://db.example"
    assert settings.database_token == "ey.J0.token"
    assert settings.database_replica_urls == ("https://b.example", "http://c:8080")
    assert "ey.J0.token" not in repr(settings)


def test_a_server_needs_keys_that_all_processes_share() -> None:
    (problem,) = problems(DATABASE_URL="http://db:8080")

    assert problem.startswith("AXIOM_WEBHOOK_SIGNING_KEYS: must be set")


BAD: list[tuple[str, str, str]] = [
    ("DATABASE_URL", "postgres://db", "sqlite:///relative"),
    ("DATABASE_URL", "libsql://", "has no host"),
    ("DATABASE_URL", "libsql://token@db.example", "AXIOM_DATABASE_TOKEN"),
    ("DATABASE_URL", "https://db.example?authToken=x", "AXIOM_DATABASE_TOKEN"),
    ("DATABASE_TOKEN", "two words", "without spaces"),
    ("DATABASE_TOKEN", "eyJ0-token", "is a file"),
    ("DATABASE_REPLICA_URLS", "sqlite:///b.db", "libsql://"),
    ("DATABASE_REPLICA_URLS", "https://b.example", "is a file"),
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
    ("PAYMOB_HMAC_SECRET", "<Your Secret Here>".replace(" ", "-"), "placeholder"),
    ("PAYMOB_SECRET_KEY", "aaaaaaaa", "repeats itself"),
    ("WEBHOOK_SIGNING_KEYS", "0123456789abcdef0123456789abcde", "32 characters"),
    ("WEBHOOK_SIGNING_KEYS", "0123456789abcdef" * 3, "repeats itself"),
    ("WEBHOOK_PRIVATE_NETWORKS", "10.0.0.1/8", "no network"),
    ("WEBHOOK_PRIVATE_NETWORKS", "localhost", "no network"),
    ("WEBHOOK_RETENTION_DAYS", "0", "from 1"),
    ("CORS_ORIGINS", "https://a.example/", "without a path"),
    ("CORS_ORIGINS", "a.example", "scheme://host"),
    ("CORS_ORIGINS", "*,https://a", "scheme://host"),
    ("ALLOWED_HOSTS", "pay.example:8000", "host name"),
    ("ALLOWED_HOSTS", "https://pay.example", "host name"),
    ("ALLOWED_HOSTS", "*,pay.example", "host name"),
    ("ALLOWED_HOSTS", "a,a", "twice"),
    ("TRUSTED_PROXIES", "10.0.0.1/8", "no network"),
    ("TRUSTED_PROXIES", "proxy.example", "no network"),
    ("TRUSTED_PROXIES", "10.0.0.0/8,0.0.0.0/0", "is everybody"),
    ("TRUSTED_PROXIES", "::/0", "is everybody"),
    ("REDIS_URL", "http://cache", "redis:// or rediss:// or unix://"),
    ("REDIS_URL", "redis://", "no host"),
    ("REDIS_URL", "redis://cache:0", "port 0"),
    ("REDIS_URL", "redis://cache/first", "number of a database"),
    ("REDIS_URL", "redis://cache/#0", "no more than"),
    ("REDIS_URL", "redis://cache?socket_timeout=9", "no more than db"),
    ("REDIS_URL", "unix://cache/run/r.sock", "needs a path"),
    ("REDIS_URL", "unix:///", "needs a path"),
    ("REDIS_URL", "redis://:pa@ssw0rd@cache", "write %40"),
    ("REDIS_URL", "redis://:short@cache", "8 characters"),
    ("REDIS_URL", "redis://:changeme@cache", "placeholder"),
    ("RATE_LIMIT", "10", "10/10s"),
    ("RATE_LIMIT", "0/s", "10/10s"),
    ("RATE_LIMIT", "1/25h", "must be 1 to"),
    ("RATE_LIMITS", "60/10s", "getPayment=60/10s"),
    ("RATE_LIMITS", "getPayment=", "10/10s"),
    ("RATE_LIMITS", "getPayment=1/s,getPayment=2/s", "twice"),
    ("RATE_LIMITS", "getPayment=fast", "10/10s"),
    ("STREAMS_PER_ADDRESS", "0", "from 1 to 10000"),
    ("UPSTREAMS", "/nowhere/shop.toml", "cannot read /nowhere/shop.toml: No such file"),
    ("UPSTREAMS", "sabre", "shipped are amadeus"),
    ("UPSTREAMS", "amadeus,amadeus", "twice"),
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
    # The secrets of partners have names of their own: see test_upstreams.
    assert {name.lower() for name, _, _ in BAD} == {f.name for f in fields(Settings)} - OF_PARTNERS


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
    secret = "canary-" * 4 + LONG
    names = [name for name in SECRETS if not name.endswith(("_url", "_urls"))]
    variables = PAYMOB | SERVER | {"HELIUS_WEBHOOK_ID": "1"}
    variables |= dict.fromkeys(map(str.upper, names), secret)

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
    words = [name for name in SECRETS if not name.endswith(("_url", "_urls"))]
    secrets = {name: f"canary-{name}" for name in words}
    held: dict[str, Any] = {
        name: (value,) if isinstance(getattr(Settings(), name), tuple) else value
        for name, value in secrets.items()
    }
    urls = ("https://rpc.example/mainnet-beta/0123456789abcdef", "https://a.example")

    found = set(replace(Settings(), rpc_urls=urls, **held).secret_values())

    assert found == {*secrets.values(), "0123456789abcdef"}
    assert set(Settings().secret_values()) == set()


#: What a password in a URL may consist of: RFC 3986's userinfo without what settings refuse.
PASSWORD = st.from_regex(r"([A-Za-z0-9\-._~!$&*+=:]|%[0-9A-F]{2}){8,40}", fullmatch=True)


@given(PASSWORD)
def test_the_password_of_redis_is_a_secret_whatever_it_looks_like(password: str) -> None:
    url = f"redis://user:{password}@cache:6379/0"
    settings = replace(Settings(), redis_url=url)

    assert {password, unquote(password)} <= set(settings.secret_values())
    assert "redis_url='redis://***@cache:6379/***'" in repr(settings)
    assert Redactor(settings.secret_values()).text(f"tried {password}") == "tried ***"


def test_an_unknown_variable_is_a_warning_with_the_nearest_name(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("AXIOM_RECIPENT=x\n")

    sentences = unknown_variables({"AXIOM_QQ": "1", "AXIOM_PORT": "1", "PATH": "/"}, dotenv)

    assert sentences == (
        "AXIOM_QQ is ignored: no setting has this name",
        "AXIOM_RECIPENT is ignored: did you mean AXIOM_RECIPIENT?",
    )


def test_what_may_hold_a_secret_is_known_by_its_name() -> None:
    names = {name for name in variable_names() if may_hold_secret(name)}

    assert names == {f"AXIOM_{name.upper()}" for name in SECRETS} | {"AXIOM_AGE_IDENTITY"}
    assert may_hold_secret("AXIOM_UPSTREAM_AMADEUS_CLIENT_SECRET")
    assert not may_hold_secret("AXIOM_UPSTREAM_AMADEUS_BASE_URL")
    assert not may_hold_secret("AXIOM_REDIS_URL_FILE"), "a path is no secret"


def test_a_credential_that_is_no_secret_of_ours_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "axiom_redis_ur").touch()
    (tmp_path / "axiom_redis_url").touch()

    (sentence,) = unknown_variables({"CREDENTIALS_DIRECTORY": str(tmp_path)})

    assert sentence.startswith("AXIOM_REDIS_UR is ignored: did you mean AXIOM_REDIS_URL")


def test_every_secret_may_be_handed_over_by_systemd(tmp_path: Path) -> None:
    for name in SECRETS:
        place = tmp_path / name
        place.mkdir()
        (place / f"axiom_{name}").write_text("\n")

        with pytest.raises(ConfigError) as caught:
            Settings.from_env({"CREDENTIALS_DIRECTORY": str(place)})

        (problem,) = caught.value.problems
        assert problem.startswith(f"the credential axiom_{name}: ")
        assert "is empty" in problem


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

    assert documented == set(PARSERS) | OF_PARTNERS == {f.name for f in fields(Settings)}


def test_the_example_file_names_every_variable_with_its_default(tmp_path: Path) -> None:
    lines = EXAMPLE.read_text(encoding="utf-8")
    named = re.findall(r"^#(AXIOM_[A-Z_]+)=", lines, re.MULTILINE)
    switched_on = tmp_path / ".env"
    switched_on.write_text(re.sub(r"^#AXIOM_", "AXIOM_", lines, flags=re.MULTILINE))

    assert sorted(named) == sorted(variable_names())
    assert Settings.from_env({}, switched_on) == Settings()
    assert Settings.from_env({}, EXAMPLE) == Settings()


@pytest.mark.parametrize(
    ("given", "hosts"),
    [
        ({}, {"127.0.0.1", "localhost", "::1"}),
        ({"HOST": "127.0.0.2"}, {"127.0.0.2", "127.0.0.1", "localhost", "::1"}),
        ({"HOST": "0.0.0.0"}, None),
        ({"HOST": "10.1.2.3"}, None),
        (
            {"HOST": "0.0.0.0", "PUBLIC_URL": "https://Pay.Example.com:8443/api"},
            {"pay.example.com", "127.0.0.1", "localhost", "::1"},
        ),
        ({"ALLOWED_HOSTS": "shop.example,[::1]"}, {"shop.example", "::1"}),
        ({"ALLOWED_HOSTS": "*", "PUBLIC_URL": "https://pay.example.com"}, None),
    ],
)
def test_the_api_answers_under_its_own_names(given: dict[str, str], hosts: set[str] | None) -> None:
    settings = Settings.from_env({f"AXIOM_{name}": value for name, value in given.items()})

    assert settings.hosts == hosts
