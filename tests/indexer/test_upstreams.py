"""Partners are named in one setting, and what they are used with in settings of their own."""

import re
from ipaddress import ip_network
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl

import pytest

from api.proxy import problem_of
from indexer.core import profile_reader
from indexer.core.partner_answer import PartnerFailed, Trouble, judge
from indexer.core.partner_request import ask
from indexer.core.profile import Method, PartnerSecrets, Route
from indexer.errors import ConfigError
from indexer.settings import Settings, may_hold_secret, unknown_variables


PAGE: Final = (Path(__file__).parents[2] / "docs/partner-proxy.md").read_text()
ID: Final = "abcDEF123456"
SECRET: Final = "x8f7G6h5j4K3"
AMADEUS: Final = {
    "UPSTREAMS": "amadeus",
    "UPSTREAM_AMADEUS_CLIENT_ID": ID,
    "UPSTREAM_AMADEUS_CLIENT_SECRET": SECRET,
}
SHOP: Final = """
[my-shop]
base_url = "https://api.shop.example"
auth = { kind = "key" }
[my-shop.routes.find]
path = "/find"
"""
LOCAL: Final = SHOP.replace("https://api.shop.example", "http://127.0.0.1:9").replace(
    "auth", 'private_networks = ["127.0.0.0/8"]\nauth'
)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    path = tmp_path / "shop.toml"
    path.write_text(SHOP)
    return path


def read(**variables: str) -> Settings:
    return Settings.from_env({f"AXIOM_{name}": text for name, text in variables.items()}, None)


def problems(**variables: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        read(**variables)
    return caught.value.problems


def test_a_shipped_profile_goes_by_its_name() -> None:
    settings = read(**AMADEUS)

    [amadeus] = settings.upstreams
    assert amadeus.name == "amadeus"
    assert settings.upstream_secrets == {
        "amadeus": PartnerSecrets(client_id=ID, client_secret=SECRET)
    }


def test_profiles_of_the_operator_go_by_their_paths(shop: Path) -> None:
    settings = read(
        **AMADEUS | {"UPSTREAMS": f"amadeus, {shop}", "UPSTREAM_MY_SHOP_KEY": "k3y-of-shop"}
    )

    assert [profile.name for profile in settings.upstreams] == ["amadeus", "my-shop"]
    assert settings.upstream_secrets["my-shop"] == PartnerSecrets(key="k3y-of-shop")


def test_a_partner_may_be_somewhere_else(tmp_path: Path) -> None:
    moved = read(**AMADEUS, UPSTREAM_AMADEUS_BASE_URL="https://api.amadeus.com/")
    local = tmp_path / "local.toml"
    local.write_text(LOCAL)
    near = read(
        UPSTREAMS=str(local),
        UPSTREAM_MY_SHOP_KEY="k3y-of-shop",
        UPSTREAM_MY_SHOP_BASE_URL="http://127.0.0.1:10",
    )

    assert moved.upstreams[0].base_url == "https://api.amadeus.com"
    assert near.upstreams[0].base_url == "http://127.0.0.1:10"
    assert near.upstreams[0].private_networks == (ip_network("127.0.0.0/8"),)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://api.amadeus.com", "must begin with https://"),
        ("https://user:word@api.amadeus.com", "at most a path"),
        ("https://:word@api.amadeus.com", "at most a path"),
        ("https://api.amadeus.com/../x", "at most a path"),
        ("https://api.amadeus.com//evil", "at most a path"),
        ("https://api.amadeus.com?x=1", "at most a path"),
        ("api.amadeus.com", "at most a path"),
    ],
)
def test_but_only_somewhere_that_its_profile_could_have_said(url: str, says: str) -> None:
    [problem] = problems(**AMADEUS, UPSTREAM_AMADEUS_BASE_URL=url)

    assert problem.startswith("AXIOM_UPSTREAM_AMADEUS_BASE_URL: ")
    assert says in problem
    assert "word" not in problem


def test_a_profile_without_its_secrets_is_a_problem(shop: Path) -> None:
    assert problems(UPSTREAMS=f"amadeus,{shop}") == tuple(
        f"AXIOM_UPSTREAM_{name}: missing; the profile {profile} cannot be used without it"
        for name, profile in (
            ("AMADEUS_CLIENT_ID", "amadeus"),
            ("AMADEUS_CLIENT_SECRET", "amadeus"),
            ("MY_SHOP_KEY", "my-shop"),
        )
    )


def test_a_partner_that_asks_for_no_proof_needs_no_secret(tmp_path: Path) -> None:
    path = tmp_path / "open.toml"
    path.write_text(SHOP.replace('kind = "key"', 'kind = "none"'))

    assert read(UPSTREAMS=str(path)).upstream_secrets == {"my-shop": PartnerSecrets()}


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("CLIENT_ID", "two words", "no identifier"),
        ("CLIENT_ID", "a\r\nX: b", "no identifier"),
        ("CLIENT_SECRET", "short", "8 to 512"),
        ("CLIENT_SECRET", "changeme", "placeholder"),
        ("CLIENT_SECRET", "aaaaaaaaaaaa", "repeats itself"),
        ("CLIENT_SECRET", "with\nline-break", "visible ASCII"),
    ],
)
def test_a_secret_that_is_none_is_named_once_and_not_shown(name: str, text: str, says: str) -> None:
    [problem] = problems(**AMADEUS | {f"UPSTREAM_AMADEUS_{name}": text})

    assert problem.startswith(f"AXIOM_UPSTREAM_AMADEUS_{name}: ")
    assert says in problem
    assert name == "CLIENT_ID" or text not in problem


def test_a_secret_may_stand_in_a_file_or_be_a_credential(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    (tmp_path / "axiom_upstream_amadeus_client_id").write_text(f"{ID}\n")
    environ = {
        "AXIOM_UPSTREAMS": "amadeus",
        "AXIOM_UPSTREAM_AMADEUS_CLIENT_SECRET_FILE": str(tmp_path / "secret"),
        "CREDENTIALS_DIRECTORY": str(tmp_path),
    }

    settings = Settings.from_env(environ, None)

    assert settings.upstream_secrets["amadeus"].client_secret == SECRET
    assert settings.upstream_secrets["amadeus"].client_id == ID
    assert unknown_variables(environ, None) == ()


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_text('[shop]\nbase_url = "ftp://a"\nroutes.a.path = "a"\n')
    found = problems(
        UPSTREAMS=f"amadeus,{tmp_path}/broken.toml,{tmp_path}/none.toml,{tmp_path}", PORT="0"
    )

    assert [problem.partition(": ")[0] for problem in found] == (
        ["AXIOM_PORT"]
        + ["AXIOM_UPSTREAMS"] * 4
        + ["AXIOM_UPSTREAM_AMADEUS_CLIENT_ID", "AXIOM_UPSTREAM_AMADEUS_CLIENT_SECRET"]
    )
    assert f"{tmp_path}/broken.toml: shop.base_url: must be a scheme" in found[1]
    assert "No such file" in found[3]
    assert "Is a directory" in found[4]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\xff\xfe", "is not UTF-8 text"),
        (b"#" * (1024 * 1024 + 1), "is larger than"),
        (b"", "must hold 1 to 32 profiles"),
    ],
)
def test_a_file_that_is_no_profile_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "profile.toml"
    path.write_bytes(content)
    [problem] = problems(UPSTREAMS=str(path))

    assert problem.startswith(f"AXIOM_UPSTREAMS: {path}")
    assert says in problem


def test_a_name_that_is_none_of_a_file_is_refused() -> None:
    [unknown] = problems(UPSTREAMS="sabre")
    [strange] = problems(UPSTREAMS="a\0b")

    assert unknown.endswith("shipped are amadeus")
    assert strange == "AXIOM_UPSTREAMS: 'a\\x00b' is no name of a file"


def test_two_profiles_of_one_name_are_refused(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.toml").write_text(SHOP.replace("my-shop", "s"))
    found = problems(
        UPSTREAMS=f"{tmp_path}/one.toml,{tmp_path}/two.toml", UPSTREAM_S_KEY="k3y-of-shop"
    )

    assert found == ("AXIOM_UPSTREAMS: 2 profiles are named s",)


def test_no_secret_of_a_partner_is_ever_printed() -> None:
    settings = read(**AMADEUS)

    assert SECRET not in repr(settings)
    assert SECRET not in repr(settings.upstream_secrets)
    assert "('amadeus',)" in repr(settings)
    assert SECRET in set(settings.secret_values())


def test_a_variable_of_a_partner_is_known_and_a_misspelt_one_is_not() -> None:
    environ = {
        f"AXIOM_UPSTREAM_{name}": "x"
        for name in ("A_KEY", "A_KEY_FILE", "A_B_CLIENT_ID", "A_BASE_URL", "A_CLIENT_SECRET_FILE")
    }

    assert unknown_variables(environ, None) == ()
    for name in ("A_SECRET", "A_BASE_URL_FILE", "KEY", "_KEY", "A_TOKEN"):
        [sentence] = unknown_variables({f"AXIOM_UPSTREAM_{name}": "x"}, None)
        assert sentence.startswith(f"AXIOM_UPSTREAM_{name} is ignored")
    assert may_hold_secret("AXIOM_UPSTREAM_A_KEY")
    assert may_hold_secret("AXIOM_UPSTREAM_A_B_CLIENT_SECRET")
    assert not may_hold_secret("AXIOM_UPSTREAM_A_BASE_URL")


def test_the_profiles_in_the_documents_are_some_and_do_what_is_said(tmp_path: Path) -> None:
    weather_text, rates_text = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    [variables] = re.findall(r"```sh\n(AXIOM_UPSTREAMS=/.*?)```", PAGE, re.DOTALL)
    lines = [line.partition("#")[0].strip().partition("=") for line in variables.splitlines()]
    environment = {name: value for name, _, value in lines} | {
        "AXIOM_UPSTREAMS": str(tmp_path / "weather.toml"),
        "AXIOM_UPSTREAM_WEATHER_KEY": "k3y-of-weather",
    }
    (tmp_path / "weather.toml").write_text(weather_text)
    settings = Settings.from_env(environment, None)
    [rates] = profile_reader.read(rates_text, "docs")

    [weather] = settings.upstreams
    assert unknown_variables(environment) == ()
    assert (rates.auth.header, rates.auth.scheme) == ("X-Api-Key", "")
    forecast = weather.routes["forecast"]
    [asked] = re.findall(r"# GET /api/proxy/weather/forecast\?(\S+)", PAGE)
    assert f"`GET {ask(weather, forecast, parse_qsl(asked), None).url}`" in PAGE
    [shown] = re.findall(r"frontend sees `(\{.*?\})`", PAGE)
    answered = shown.replace('"Cairo"', '"Cairo","id":7').encode()
    assert judge(forecast, 200, answered).body.decode() == shown


def test_the_documents_name_all_that_a_profile_may_say() -> None:
    tables = (
        profile_reader._ProfileTable,
        profile_reader._RouteTable,
        profile_reader._FieldTable,
    )
    keys = {name for table in tables for name in table.__struct_fields__} - {"auth", "routes"}
    keys |= {f"auth.{name}" for name in profile_reader._AuthTable.__struct_fields__}

    assert {key for key in keys if f"`{key}`" not in PAGE} == set()


def test_the_documents_name_every_problem_that_a_frontend_may_be_told() -> None:
    route = Route(name="a", method=Method.GET, path="/a")
    codes = {problem_of(PartnerFailed(trouble, ""), route).code for trouble in Trouble}

    assert {code for code in codes if f"`{code}`" not in PAGE} == set()
