"""`BodyCheck`: bodies of requests are read here, bounded in size, time and depth, before anything parses them."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...core.errors import ReasonError, UserError
from ..errors import refuse

MAX_DEPTH = 100
"""Most brackets within one another."""
READ_S = 30.0
"""Longest time that a body may take to come, in seconds."""

_STRINGS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?+', re.DOTALL)
_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS = bytes(b for b in range(256) if b not in b"[]{}")
_DOUBTFUL = re.compile(rb"\\u[dD][89a-fA-F]|NaN|Infinity|(?<![0-9])[0-9]{300}|[eE]\+?[0-9]{3}")
"""What may be half a surrogate pair, or no finite number; most bodies have none of it and are parsed once. Digits are
counted from where they begin alone: else rows of 299 of them would take 150 looks at each."""


class TooLarge(UserError):
    """The body of a request is larger than the server takes."""

    code = "too_large"
    http_status = 413


class TooSlow(UserError):
    """The body of a request did not come in time."""

    code = "too_slow"
    http_status = 408


class BodyCheck:
    """Reads the body of each request whole, and passes on what is UTF-8 and could be JSON.

    A length that the caller claims is only ever believed when it is too large. Responses are not touched.

    Args:
        app: What answers.
        max_bytes: Largest body.
        read_s: Longest time from the request's headers to the body's end, in seconds.
        max_depth: Most brackets within one another.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, read_s: float = READ_S, max_depth: int = MAX_DEPTH) -> None:
        self._app, self._max_bytes, self._read_s, self._max_depth = app, max_bytes, read_s, max_depth

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._read_s):
                body = await self._read(scope, receive)
            if body is None:  # the caller has gone
                return
            check_json(body, self._max_depth)
        except TimeoutError:
            late = TooSlow(f"the body did not come within {self._read_s:g} s")
            await refuse(late, scope, receive, send, close=True)
            return
        except UserError as e:
            await refuse(e, scope, receive, send, close=True)
            return
        told = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def again() -> Message:
            return next(told, None) or await receive()

        await self._app(scope, again, send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        claimed = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if claimed.isdigit() and (len(claimed) > 18 or int(claimed) > self._max_bytes):
            self._too_large()
        pieces: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            piece: bytes = message.get("body", b"")
            size += len(piece)
            if size > self._max_bytes:
                self._too_large()
            pieces.append(piece)
            if not message.get("more_body", False):
                return b"".join(pieces)

    def _too_large(self) -> NoReturn:
        raise TooLarge(f"the body has more than {self._max_bytes} bytes", hint="send less")


def check_json(body: bytes, max_depth: int = MAX_DEPTH) -> None:
    """Refuse what no part behind this should have to deal with; what is no JSON otherwise is left to the parser.

    Args:
        body: The body; may be empty.
        max_depth: Most brackets within one another.

    Raises:
        UserError: It is not UTF-8, nested too deep, has numbers that no float holds, or text that is no Unicode.
    """
    if not body:
        return
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as e:
        raise UserError(f"the body is not UTF-8: byte {e.start} is wrong", hint="send JSON in UTF-8") from None
    if "\0" in text:  # UTF-16 and UTF-32 are full of these; JSON writes the character as \u0000
        raise UserError("the body has a NUL byte", hint="send JSON in UTF-8")
    if is_deeper(body, max_depth):
        raise UserError(f"the body is nested deeper than {max_depth} brackets", hint="send something flatter")
    if _DOUBTFUL.search(body) is None:
        return
    try:
        value = json.loads(text, parse_constant=_no_number, parse_float=_finite)
        for one in _texts(value):
            one.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError("the body has half a surrogate pair, which is no Unicode text") from None
    except ReasonError:
        raise
    except ValueError:  # no JSON, or an integer of thousands of digits: the parser behind this will say so
        return


def is_deeper(body: bytes, depth: int) -> bool:
    """Whether brackets outside strings lie more than `depth` within one another; those that never end count as well.

    Takes time in proportion to the length, whatever the body is.
    """
    if body.count(b"[") + body.count(b"{") <= depth:
        return False
    brackets = _STRINGS.sub(b"", body).translate(_BRACKETS, _NOT_BRACKETS)
    if not brackets:
        return False
    level = np.cumsum(np.where(np.frombuffer(brackets, np.uint8) == ord("["), 1, -1), dtype=np.int64)
    outside = np.minimum(np.minimum.accumulate(level), 0)  # one that closes nothing opens nothing either
    return bool((level - outside).max() > depth)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)
    elif isinstance(value, dict):
        for key, one in value.items():
            yield key
            yield from _texts(one)


def _no_number(name: str) -> NoReturn:
    raise UserError(f"the body has {name}, which is no JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise UserError(f"the body has the number {text[:24]}, which no float holds")
    return value
