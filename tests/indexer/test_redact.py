import pytest

from indexer.redact import redact


CASES = [
    ("https://a.example", "https://a.example"),
    ("http://127.0.0.1:8000/", "http://127.0.0.1:8000"),
    ("https://a.example/v2/KEY", "https://a.example/***"),
    ("https://a.example?api-key=KEY", "https://a.example/***"),
    ("https://a.example#KEY", "https://a.example/***"),
    ("https://KEY@a.example:9", "https://***@a.example:9"),
    ("https://user:KEY@a.example/KEY", "https://***@a.example/***"),
    ("wss://[::1]:8900/KEY", "wss://[::1]:8900/***"),
    ("WSS://A.example/KEY", "WSS://A.example/***"),
    ("('http://a/KEY', 'http://b/KEY')", "('http://a/***', 'http://b/***')"),
    ('{"url":"https://a/KEY?b=%20&c"}', '{"url":"https://a/***"}'),
    ("redis://:KEY@cache:6379/0", "redis://***@cache:6379/***"),
    ("sqlite:////var/lib/axiom.db", "sqlite:////var/lib/axiom.db"),
    ("key axk_AbC-1_2 is wrong", "key axk_*** is wrong"),
    ("Authorization: Bearer KEYKEYKEY", "Authorization: Bearer ***"),
    ("authorization: basic S0VZOktFWQ==", "authorization: basic ***"),
    ("no secret: a/b, c?d, e://", "no secret: a/b, c?d, e://"),
]


@pytest.mark.parametrize(("text", "shown"), CASES)
def test_urls_end_after_the_port_and_keys_are_hidden(text: str, shown: str) -> None:
    assert redact(text) == shown
