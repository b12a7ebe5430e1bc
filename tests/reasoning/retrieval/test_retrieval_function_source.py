"""Python callables as sources: every form of them, of what they take and of what they give."""

import asyncio
import functools
import threading

import pytest
from reason.core.errors import InvalidResponse, UserError
from reason.reasoning.knowledge import KnowledgeSource, Snippet
from reason.reasoning.retrieval.sources.factory import FunctionSource


async def ask(function, k=3, context="ctx"):
    return [(s.text, s.source_id, s.score) for s in await FunctionSource(function, name="f").query("q", k, context)]


@pytest.mark.parametrize(
    ("gives", "snippets"),
    [
        ([Snippet(text="a", source_id="s", score=0.5)], [("a", "s", 0.5)]),
        (["a", "b"], [("a", "f", 0.0), ("b", "f", 0.0)]),
        ([("a", "s"), ["b", "t"]], [("a", "s", 0.0), ("b", "t", 0.0)]),
        ([{"text": "a", "source_id": "s", "score": 2}, {"text": "b"}], [("a", "s", 2.0), ("b", "f", 0.0)]),
        ({"snippets": ["a"]}, [("a", "f", 0.0)]),
        (("a",), [("a", "f", 0.0)]),
        ([{"text": "a", "source_id": 7, "score": 10**400}], [("a", "7", 0.0)]),
        (["", " ", "a"], [("a", "f", 0.0)]),
        (["a"] * 9, [("a", "f", 0.0)] * 3),
        ([], []),
        (None, []),
    ],
)
async def test_what_it_gives(gives, snippets):
    async def asynchronous(text, k):
        return gives

    assert await ask(lambda text, k: gives) == snippets
    assert await ask(asynchronous) == snippets


@pytest.mark.parametrize(
    "gives",
    [
        *("a text", 5, b"ab", {"text": "a"}, [5], [None], [{"txt": "a"}], [("a", 5)], [("a", "b", "c")]),
        *([{"text": "a", "source_id": []}], [{"text": "a", "score": "high"}], [{"text": "a", "score": True}]),
    ],
)
async def test_what_cannot_be_read_is_an_error(gives):
    with pytest.raises(InvalidResponse, match="f: "):
        await ask(lambda text, k: gives)


class Asked:
    def __call__(self, text, k, /, context):
        return [f"{text} {k} {context}"]


class AskedLater:
    async def __call__(self, text, k):
        return [f"{text} {k}"]

    def method(self, text, k, *, context=""):
        return [f"{text} {k} {context}"]


def positional(text, k, /, context):
    return [f"{text} {k} {context}"]


def defaulted(text, k, other=None):
    return [f"{text} {k} {other}"]


def anything(*args, **kwargs):
    return [f"{args} {kwargs}"]


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (Asked(), "q 3 ctx"),
        (AskedLater(), "q 3"),
        (AskedLater().method, "q 3 ctx"),
        (positional, "q 3 ctx"),
        (defaulted, "q 3 None"),
        (anything, "('q', 3) {}"),
        (functools.partial(positional, context="c"), "q 3 ctx"),
        (lambda text, k=5, *, context: [context], "ctx"),
    ],
)
async def test_what_it_takes(function, text):
    assert (await ask(function))[0][0] == text
    assert isinstance(FunctionSource(function), KnowledgeSource)


@pytest.mark.parametrize("function", [lambda: None, lambda text: [], lambda a, b, c: [], lambda text, k, *, x: [], 5])
def test_what_cannot_be_asked_is_refused(function):
    with pytest.raises(UserError, match="call"):
        FunctionSource(function)


async def test_one_that_blocks_does_not_hold_up_the_loop_and_is_left_when_cancelled():
    begun, go_on = threading.Event(), threading.Event()

    def slow(text, k):
        begun.set()
        go_on.wait(30)
        return ["late"]

    task = asyncio.create_task(FunctionSource(slow).query("q", 1))
    await asyncio.to_thread(begun.wait, 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()


def test_names_and_identities():
    first, second = FunctionSource(positional), FunctionSource(defaulted)
    assert first.name == "python:positional"
    assert first.identity == FunctionSource(positional, name="x").identity != second.identity
    assert FunctionSource(defaulted, identity="v2").identity == "python:v2"
    assert FunctionSource(Asked()).name == "python:Asked"
