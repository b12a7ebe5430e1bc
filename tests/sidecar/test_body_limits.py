"""Limits on the size, receive time and nesting depth of request bodies."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reason.core.errors import UserError
from reason.sidecar.middleware import BodyLimitMiddleware, check_json, is_suspicious, is_too_deep


class Exchange:
    """One request through a `BodyLimitMiddleware`: the pieces of its body, and the messages sent."""

    def __init__(self, *pieces, headers=(), **options):
        self.pieces, self.headers, self.sent, self.seen, self.read = list(pieces), list(headers), [], None, 0
        self.options = {"max_bytes": 1000, **options}

    async def run(self):
        async def app(scope, receive, send):
            message = await receive()
            assert not message["more_body"]
            self.seen = message["body"]
            self.after = await receive()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"first", "more_body": True})
            assert self.sent[-1]["body"] == b"first"  # the response is not buffered
            await send({"type": "http.response.body", "body": b""})

        async def receive():
            self.read += 1
            if not self.pieces:
                return {"type": "http.disconnect"}
            piece = self.pieces.pop(0)
            if isinstance(piece, dict):
                return piece
            if piece is None:
                await asyncio.Event().wait()
            return {"type": "http.request", "body": piece, "more_body": bool(self.pieces)}

        async def send(message):
            self.sent.append(message)

        await BodyLimitMiddleware(app, **self.options)({"type": "http", "headers": self.headers}, receive, send)
        return self

    @property
    def status(self):
        return self.sent[0]["status"] if self.sent else None

    @property
    def error(self):
        return json.loads(self.sent[1]["body"])["error"]


async def test_a_body_is_handed_on_whole_and_then_the_disconnect():
    done = await Exchange(b'{"a"', b": 1}").run()
    assert (done.status, done.seen) == (200, b'{"a": 1}')
    assert done.after == {"type": "http.disconnect"}


async def test_a_claimed_length_that_is_too_large_is_refused_unread():
    for claimed in (b"1001", b"9" * 5000):
        done = await Exchange(b"{}", headers=[(b"content-length", claimed)]).run()
        assert (done.status, done.error["code"], done.read) == (413, "too_large", 0)
        assert (b"connection", b"close") in done.sent[0]["headers"]


@pytest.mark.parametrize("headers", [[], [(b"content-length", b"2")], [(b"content-length", b"-7")]])
async def test_a_body_larger_than_claimed_is_refused_as_soon_as_it_is(headers):
    done = await Exchange(*[b"x" * 300] * 50, headers=headers).run()
    assert (done.status, done.read, done.seen) == (413, 4, None)


async def test_a_body_of_just_the_largest_size_passes():
    assert (await Exchange(b'"' + b"x" * 998 + b'"').run()).status == 200


async def test_a_body_that_does_not_come_is_refused():
    done = await Exchange(b"{", None, read_s=0.001).run()
    assert (done.status, done.error["code"], done.seen) == (408, "too_slow", None)


async def test_a_caller_that_goes_while_sending_gets_no_answer():
    done = await Exchange(b"{", {"type": "http.disconnect"}).run()
    assert (done.sent, done.seen) == ([], None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='[]{}"\\ax', max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='[{"\\', max_size=3), inner, max_size=3)
    ),
    max_leaves=25,
)


def depth_of(value):
    if isinstance(value, list | dict):
        inside = value.values() if isinstance(value, dict) else value
        return 1 + max(map(depth_of, inside), default=0)
    return 0


@given(value=JSON, most=st.integers(0, 6), spaced=st.booleans())
def test_depth_is_that_of_the_parsed_value(value, most, spaced):
    body = json.dumps(value, indent=1 if spaced else None).encode()
    assert is_too_deep(body, most) == (depth_of(value) > most)


@settings(max_examples=200)
@given(body=st.text(alphabet='[]{}"\\,a', max_size=40))
def test_what_passes_is_no_deeper_for_any_parser_whatever_it_is(body):
    deepest = level = 0
    inside = escaped = False
    for c in body:
        if inside:
            inside = escaped or c != '"'
            escaped = not escaped and c == "\\"
        elif c == '"':
            inside = True
        elif c in "[{":
            level += 1
            deepest = max(deepest, level)
        elif c in "]}":
            level = max(0, level - 1)
    assert deepest <= 3 or is_too_deep(body.encode(), 3)


@pytest.mark.parametrize("level", [100, 101])
def test_depth_is_counted_across_the_pieces_of_a_long_body(level):
    body = b"[" * 50 + b"[]" * 32_730 + b"[" * (level - 50)
    assert is_too_deep(body, 100) == (level > 100)


def test_bodies_that_are_parsed_twice():
    for plain in (b"1" * 299 + b" " + b"1" * 299, b"[1e99, 1E+9]", b"\\u0041", b"nan e+ 12"):
        assert not is_suspicious(plain)
    for special in (b"1" * 299 + b" " + b"1" * 300, b"[1e100]", b"1E+308", b"\\uD800", b"NaN", b"-Infinity"):
        assert is_suspicious(special)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"\xff\xfe", "not UTF-8"),
        ('{"a": 1}'.encode("utf-16-le"), "NUL byte"),
        (b"[" * 101, "nested deeper"),
        (b'{"a":' * 200_000, "nested deeper"),
        (b'"' + b'\\"' * 500_000 + b"[" * 200, ""),  # an unterminated string
        (b"[" + b"{}," * 50_000 + b"0]", "more than 100,000 JSON values"),
        (b"[" + b"0," * 99_000 + b"0]", ""),
        (b"[" * 101 + b'"",' * 500_000, "more than 100,000 JSON values"),
        (b'["' + b'\\"' * 500_000 + b'"]', ""),
        (b'["' + b"[,{" * 100_000 + b'"]', ""),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"\\udc00x": 1}', "surrogate"),
        (b'{"a": NaN}', "NaN"),
        (b"[-Infinity]", "-Infinity"),
        (b"[1e999]", "1e999"),
        (b"[" + b"9" * 400 + b".5]", "no float holds"),
        (b'{"a": "\\ud83d\\ude00 NaN 1e999"}', ""),
        (b"[1e308, -1e-999]", ""),
        (b"9" * 5000, ""),
        (b"NaN nonsense", "NaN"),
        (b"", ""),
        ("[" * 100 + "]" * 100, ""),
    ],
)
def test_what_is_refused(body, says):
    body = body if isinstance(body, bytes) else body.encode()
    if not says:
        check_json(body)
        return
    with pytest.raises(UserError, match=says):
        check_json(body)
