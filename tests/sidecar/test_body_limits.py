"""Limits on the size, receive time and nesting depth of request bodies."""

from __future__ import annotations

import asyncio
import json

import pytest
from reason.core.errors import UserError
from reason.sidecar.middleware import BodyLimitMiddleware, check_json


@pytest.fixture(autouse=True)
def limits(monkeypatch):
    monkeypatch.setattr("reason.sidecar.middleware.MAX_BODY_BYTES", 1000)


class Exchange:
    """One request through a `BodyLimitMiddleware`: the pieces of its body, and the messages sent."""

    def __init__(self, *pieces, headers=()):
        self.pieces, self.headers, self.sent, self.seen, self.read = list(pieces), list(headers), [], None, 0

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

        await BodyLimitMiddleware(app)({"type": "http", "headers": self.headers}, receive, send)
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


async def test_a_claimed_length_that_is_too_large_is_refused():
    for claimed in (b"1001", b"9" * 5000):
        done = await Exchange(b"{}", headers=[(b"content-length", claimed)]).run()
        assert (done.status, done.error["code"], done.seen) == (413, "too_large", None)
        assert (b"connection", b"close") in done.sent[0]["headers"]


@pytest.mark.parametrize("headers", [[], [(b"content-length", b"2")], [(b"content-length", b"-7")]])
async def test_a_body_larger_than_claimed_is_refused_and_the_rest_dropped(headers):
    done = await Exchange(*[b"x" * 300] * 50, headers=headers).run()
    assert (done.status, done.read, done.seen) == (413, 50, None)


async def test_a_body_that_is_too_large_by_its_last_piece_is_refused_at_once():
    done = await Exchange(b"x" * 900, b"x" * 200).run()
    assert (done.status, done.read, done.seen) == (413, 2, None)  # nothing more is waited for


async def test_a_body_of_just_the_largest_size_passes():
    assert (await Exchange(b'"' + b"x" * 998 + b'"').run()).status == 200


async def test_a_body_that_does_not_come_is_refused(monkeypatch):
    monkeypatch.setattr("reason.sidecar.middleware.BODY_TIMEOUT_S", 0.001)
    done = await Exchange(b"{", None).run()
    assert (done.status, done.error["code"], done.seen) == (408, "too_slow", None)


async def test_a_caller_that_goes_while_sending_gets_no_answer():
    done = await Exchange(b"{", {"type": "http.disconnect"}).run()
    assert (done.sent, done.seen) == ([], None)


REFUSED = {
    "not valid JSON": [
        b"\xff\xfe",
        '{"a": 1}'.encode("utf-16-le"),
        b'"' + b'\\"' * 500_000 + b"[" * 200,  # an unterminated string
        b'{"a": NaN}',
        b"[-Infinity]",
        b"NaN nonsense",
    ],
    "nested deeper": [b"[" * 101 + b"]" * 101, b'{"a":' * 101 + b"0" + b"}" * 101],
    "depth limit": [b"[" * 2000],
    "more than 100,000 JSON values": [
        b"[" + b"{}," * 100_000 + b"0]",
        b"[" * 101 + b'"",' * 1_000_000,
        b'["' + b"," * 200_000 + b'"' + b",0" * 100_001 + b"]",
    ],
    "surrogate": [b'{"a": "\\ud800"}', b'{"\\udc00x": 1}'],
    "infinity": [b"[1e999]", b"[" + b"9" * 400 + b".5]"],
}
TAKEN = [
    b"[" + b"0," * 99_000 + b"0]",
    b'["' + b'\\"' * 500_000 + b'"]',
    b'["' + b"[,{" * 100_000 + b'"]',
    b'["' + b',\\",\\\\' * 510_000 + b'"]',
    b'{"a": "\\ud83d\\ude00 NaN 1e999"}',
    b"[1e308, -1e-999]",
    b"9" * 300,
    b"",
    b"[" * 100 + b"]" * 100,
]


@pytest.mark.parametrize(("body", "says"), [(body, says) for says, bodies in REFUSED.items() for body in bodies])
def test_what_is_refused(body, says):
    with pytest.raises(UserError, match=says):
        check_json(body)


@pytest.mark.parametrize("body", TAKEN)
def test_what_is_taken(body):
    check_json(body)
