"""Of what a partner answers a frontend sees what the table names, and nothing else."""

import json
from typing import Any, Final

import pytest
from hypothesis import given, strategies as st

from indexer.core.partner_answer import (
    COMPLAINT_CHARS_MAX,
    COMPLAINTS_MAX,
    DEPTH_MAX,
    Complaint,
    PartnerFailed,
    Passed,
    Trouble,
    complaints,
    judge,
)
from indexer.core.profile import Method, Route


TOKEN: Final = "tok-3f9a/77b1"


def route(*response: str, headers: tuple[str, ...] = ()) -> Route:
    return Route(
        name="find",
        method=Method.GET,
        path="/find",
        response=response,
        response_headers=headers,
    )


def shown(body: Any, *response: str) -> str:
    """The body that a frontend sees."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return judge(route(*response), 200, raw).body.decode()


def failure(status: int, body: bytes = b"", **others: Any) -> PartnerFailed:
    with pytest.raises(PartnerFailed) as caught:
        judge(route("data"), status, body, **others)
    return caught.value


# ------------------------------------------------------------------------------ what is let through


@pytest.mark.parametrize(
    ("body", "paths", "seen"),
    [
        ({"a": 1, "b": 2}, ["a"], {"a": 1}),
        ({"a": 1}, [], {}),
        ({"a": 1}, ["b"], {}),
        ({"a": {"b": 1, "c": 2}}, ["a"], {"a": {"b": 1, "c": 2}}),
        ({"a": {"b": 1, "c": 2}}, ["a.c"], {"a": {"c": 2}}),
        ({"a": {"b": 1, "c": 2}}, ["a.c", "a"], {"a": {"b": 1, "c": 2}}),
        ({"a": {"b": 1}, "a-b": 2}, ["a.b", "a-b", "a"], {"a": {"b": 1}, "a-b": 2}),
        ({"a": [{"b": 1, "c": 2}, {"c": 3}]}, ["a.b"], {"a": [{"b": 1}, {}]}),
        ({"a": [1, "x", None, {"b": 1}]}, ["a.b"], {"a": [{"b": 1}]}),
        ({"a": [[{"b": 1, "c": 1}]]}, ["a.b"], {"a": [[{"b": 1}]]}),
        ({"a": "text"}, ["a.b"], {}),
        ({"a": None}, ["a.b"], {}),
        ({"a": None}, ["a"], {"a": None}),
        ([{"a": 1, "b": 2}], ["a"], [{"a": 1}]),
        ("text", ["a"], {}),
        (12, ["a"], {}),
        (None, ["a"], {}),
    ],
)
def test_only_what_is_named_is_shown(body: Any, paths: list[str], seen: Any) -> None:
    assert json.loads(shown(body, *paths)) == seen


@pytest.mark.parametrize(
    "number",
    ["0", "-0", "-0.0", "1.50", "1e400", "1E+2", "18446744073709551616", "0.1000000000000000055"],
)
def test_numbers_stay_as_they_were_written(number: str) -> None:
    assert shown(b'{"n": %s, "m": [%s]}' % ((number.encode(),) * 2), "n", "m") == (
        f'{{"n":{number},"m":[{number}]}}'
    )


def test_texts_are_written_so_that_nothing_can_break_out() -> None:
    assert shown({"a": '</script>\u2028"\r\n\x7f\U0001f4a3'}, "a") == (
        '{"a":"</script>\\u2028\\"\\r\\n\\u007f\\ud83d\\udca3"}'
    )


@pytest.mark.parametrize(
    ("status", "seen"), [(200, 200), (201, 201), (202, 202), (203, 200), (206, 200), (299, 200)]
)
def test_a_success_is_one_that_means_something(status: int, seen: int) -> None:
    assert judge(route("a"), status, b'{"a":1}').status == seen


@pytest.mark.parametrize("body", [b"", b" \r\n"])
def test_an_answer_without_a_body_is_204(body: bytes) -> None:
    assert judge(route("a"), 200, body) == Passed(status=204)


def test_a_header_is_let_through_only_if_it_is_named() -> None:
    headers = {"x-total-count": "17", "set-cookie": "a=b", "server": "nginx/1.0", "etag": 'W/"a"'}
    passed = judge(
        route("a", headers=("x-total-count", "x-missing")), 200, b'{"a":1}', headers=headers
    )

    assert passed.headers == {"x-total-count": "17"}
    assert judge(route("a"), 200, b"{}", headers=headers).headers == {}


@pytest.mark.parametrize("value", ["a\r\nX: b", "", " a", "d\u00e9", "a" * 257, "a\0"])
def test_a_header_that_is_no_line_of_ascii_is_left_out(value: str) -> None:
    named = route("a", headers=("etag",))

    assert judge(named, 200, b"{}", headers={"etag": value}).headers == {}


# --------------------------------------------------------------------------- what cannot be shown


@pytest.mark.parametrize(
    "body",
    [
        b"<html>down</html>",
        b"{",
        b'{"a":1,"a":2}',
        b'{"a":NaN}',
        b'{"a":"\xff"}',
        b"\xef\xbb\xbf{}",
        b"[" * (DEPTH_MAX + 1) + b"]" * (DEPTH_MAX + 1),
        b"[" * 100_000,
        b'{"a":1} trailing',
    ],
)
def test_what_cannot_be_read_is_not_shown(body: bytes) -> None:
    error = failure(200, body)

    assert error.trouble is Trouble.FAILED
    assert "the partner's answer" in str(error)
    assert len(str(error)) < 300


@pytest.mark.parametrize("body", [TOKEN.encode(), b"tok-3f9a\\/77b1", b"Bearer tok-3f9a/77b1!"])
def test_what_repeats_a_secret_is_not_shown(body: bytes) -> None:
    raw = b'{"data":{"echo":["%s"]}}' % body
    with pytest.raises(PartnerFailed) as caught:
        judge(route("data"), 200, raw, secrets=(TOKEN, ""))

    assert caught.value.trouble is Trouble.FAILED
    assert TOKEN not in str(caught.value)
    assert judge(route("other"), 200, raw, secrets=(TOKEN,)).body == b"{}"
    assert judge(route("data"), 200, b'{"data":1}', secrets=("",)).status == 200


def test_a_secret_that_json_writes_in_another_way_is_found() -> None:
    secret = 'a"b\\c'
    raw = json.dumps({"data": secret}).encode()

    with pytest.raises(PartnerFailed):
        judge(route("data"), 200, raw, secrets=(secret,))


def test_a_secret_as_the_name_of_a_member_is_found() -> None:
    with pytest.raises(PartnerFailed):
        judge(route("data"), 200, json.dumps({"data": {TOKEN: 1}}).encode(), secrets=(TOKEN,))


def test_a_header_that_repeats_a_secret_is_left_out() -> None:
    named = route("a", headers=("etag",))

    assert judge(named, 200, b"{}", headers={"etag": f"x{TOKEN}"}, secrets=(TOKEN,)).headers == {}


# --------------------------------------------------------------------------------- what went wrong


@pytest.mark.parametrize(
    ("status", "trouble"),
    [
        (100, Trouble.FAILED),
        (301, Trouble.FAILED),
        (304, Trouble.FAILED),
        (400, Trouble.REFUSED),
        (401, Trouble.LOCKED),
        (402, Trouble.FAILED),
        (403, Trouble.LOCKED),
        (404, Trouble.NOT_FOUND),
        (405, Trouble.FAILED),
        (409, Trouble.REFUSED),
        (410, Trouble.FAILED),
        (413, Trouble.REFUSED),
        (415, Trouble.FAILED),
        (422, Trouble.REFUSED),
        (429, Trouble.BUSY),
        (500, Trouble.FAILED),
        (503, Trouble.FAILED),
        (999, Trouble.FAILED),
    ],
)
def test_every_status_means_one_thing(status: int, trouble: Trouble) -> None:
    assert failure(status, b'{"secret": "stack trace"}').trouble is trouble


def test_a_pause_that_is_asked_for_is_known() -> None:
    assert failure(429, retry_after_s=7.5).retry_after_s == 7.5
    assert failure(503, retry_after_s=3).retry_after_s == 3
    assert failure(429).retry_after_s is None


def test_a_complaint_is_told_in_four_texts() -> None:
    body = {
        "errors": [
            {
                "status": "400",
                "code": 477,
                "title": "INVALID FORMAT",
                "detail": "invalid query\r\nparameter\0 format \u202e",
                "source": {"parameter": "max", "example": "1"},
                "stack": "at com.partner.Secret",
            },
            {"code": "x1", "source": {"pointer": "/data/0/id"}},
            {"status": 400},
            "text",
            {"title": ["no", "text"], "detail": True, "code": "c"},
        ]
    }

    assert failure(400, json.dumps(body).encode()).complaints == (
        Complaint(
            code="477",
            title="INVALID FORMAT",
            detail="invalid query parameter format",
            field="max",
        ),
        Complaint(code="x1", title="", detail="", field="/data/0/id"),
        Complaint(code="c", title="", detail="", field=""),
    )


def test_a_problem_of_the_rfc_is_a_complaint() -> None:
    raw = b'{"type":"about:blank","title":"Bad","status":422,"detail":"no such day"}'

    assert failure(422, raw).complaints == (
        Complaint(code="", title="Bad", detail="no such day", field=""),
    )


def test_complaints_are_few_and_short() -> None:
    raw = json.dumps({"errors": [{"title": "x" * 10_000, "detail": "y"}] * 10_000}).encode()
    found = complaints(raw)

    assert len(found) == COMPLAINTS_MAX
    assert {len(each.title) for each in found} == {COMPLAINT_CHARS_MAX}


def test_who_does_not_let_us_in_is_not_quoted() -> None:
    raw = json.dumps({"errors": [{"title": "bad token", "detail": TOKEN}]}).encode()

    for status in (401, 403, 429, 500):
        error = failure(status, raw)
        assert error.complaints == ()
        assert TOKEN not in str(error)


def test_a_complaint_that_repeats_a_secret_is_left_out() -> None:
    # Cut short, it would be a part of the secret that nobody recognises.
    long = "x" * (COMPLAINT_CHARS_MAX - 4) + TOKEN
    raw = json.dumps(
        {"errors": [{"title": "a", "detail": long}, {"title": "b"}, {"code": "c", "z": TOKEN}]}
    ).encode()

    assert [each.title for each in failure(400, raw, secrets=(TOKEN,)).complaints] == ["b"]


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"12", b'{"errors":{"a":1}}', b"\xff"])
def test_a_refusal_that_cannot_be_read_has_no_complaints(body: bytes) -> None:
    assert failure(400, body).complaints == ()


# ---------------------------------------------------------------------------- whatever is answered

NAMES: Final = st.sampled_from(["a", "b", "c", "data", "errors", "title", "detail", "source"])
JSONS: Final = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
PATHS: Final = st.lists(st.lists(NAMES, min_size=1, max_size=3).map(".".join), max_size=4)


@given(status=st.integers(100, 599), body=st.binary(max_size=60) | JSONS, paths=PATHS)
def test_any_answer_is_let_through_in_part_or_is_a_failure(
    status: int, body: Any, paths: list[str]
) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body, allow_nan=False).encode()
    try:
        passed = judge(route(*paths), status, raw)
    except PartnerFailed as error:
        texts = [text for each in error.complaints for text in (each.title, each.detail, each.code)]
    else:
        texts = []
        assert passed.status in {200, 201, 202, 204}
        assert not passed.body or is_part(json.loads(passed.body), json.loads(raw), paths)

    assert all(text.isprintable() for text in texts)


def is_part(part: Any, whole: Any, paths: list[str]) -> bool:
    """Whether each member of the part stands in the whole, and below one of the paths."""
    if "" in paths:
        return bool(part == whole)
    if isinstance(part, list):
        kept = [each for each in whole if isinstance(each, (dict, list))]
        return len(part) == len(kept) and all(
            is_part(each, of, paths) for each, of in zip(part, kept, strict=True)
        )
    if not isinstance(whole, dict):
        return bool(part == {})
    return all(
        name in whole
        and (below := [path.partition(".")[2] for path in paths if path.split(".")[0] == name])
        and is_part(value, whole[name], below)
        for name, value in part.items()
    )


def test_the_judge_of_this_test_knows_too_much_from_enough() -> None:
    assert is_part({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}, ["a.b"])
    assert not is_part({"a": {"c": 2}}, {"a": {"b": 1, "c": 2}}, ["a.b"])
    assert not is_part({"b": 1}, {"a": 1, "b": 1}, ["a"])
