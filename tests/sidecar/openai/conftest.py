"""Fixtures for the OpenAI API tests: one server with a scripted model for each scenario."""

from __future__ import annotations

import openai
import pytest
from reason.core.errors import BackendUnavailable
from reason.core.messages import Thought
from reason.reasoning.json_answers import JSON_INSTRUCTION
from support.chats import user
from support.held_model import Held
from support.openai_server import scripted_server
from support.scripted_model import THINKS, ScriptedModel, replies, thinking
from support.scripted_tools import ToolModel, calling

CONCLUSION = "Therefore, the answer is 42."
"""Begins as the request for the answer after a thought that was cut."""
THOUGHTS, SAID = "Six sevens.", "The answer is 42."


class Unreachable(ScriptedModel):
    """A model that fails after `after` characters."""

    def __init__(self, *args, after=0, **options):
        self.left = self.after = after
        super().__init__(*args, step=self.fail, **options)

    async def generate(self, requests, listener=None):
        self.left = self.after
        return await super().generate(requests, listener)

    def fail(self):
        if self.left <= 0:
            raise BackendUnavailable("the engine is gone")
        self.left -= 1


class Flaky(ScriptedModel):
    """A model whose every second call fails."""

    calls = 0

    async def generate(self, requests, listener=None):
        self.calls += 1
        if self.calls % 2 == 0:
            raise BackendUnavailable("the engine is gone")
        return await super().generate(requests, listener)


BLOCKS = ({"type": "thinking", "thinking": "I look it up.", "signature": "c2lnbmVk"},)


class Signing(ToolModel):
    """A model whose provider signs its thoughts."""

    async def generate(self, requests, listener=None):
        def hear(chunk):
            done = None if chunk.completion is None else self.sign(chunk.completion)
            listener(chunk.model_copy(update={"completion": done}))

        samples = await super().generate(requests, None if listener is None else hear)
        return [[self.sign(done) for done in row] for row in samples]

    def sign(self, done):
        return done.model_copy(update={"thought": Thought(text="I look it up.", tokens=4, blocks=BLOCKS)})


def formed(text):
    """Answers in text, or in JSON if the prompt has the JSON instruction."""
    return replies('{"answer": 42}' if JSON_INSTRUCTION in text else SAID)(text)


def correcting(text):
    """Answers in text, then in JSON of another form than was asked for, and in the right form when it is told so."""
    if JSON_INSTRUCTION not in text:
        return replies(SAID)(text)
    written = '```json\n{"answer": 42}\n```' if "That is not valid" in text else '{"answer": "42"}'
    return replies(written)(text)


def ending(completion):
    """Content and finish reason of the only choice."""
    (choice,) = completion.choices
    return choice.message.content, choice.finish_reason


@pytest.fixture(scope="module")
def models():
    opened = THINKS.model_copy(update={"opened_by_template": True})
    return {
        "plain": ScriptedModel(replies(SAID), name="plain"),
        "thinking": ScriptedModel(thinking(THOUGHTS, SAID), name="thinking", profile=THINKS),
        "opened": ScriptedModel(thinking(THOUGHTS, SAID), name="opened", profile=opened),
        "asked": ScriptedModel(
            thinking(THOUGHTS, SAID), name="asked", profile=THINKS.model_copy(update={"thinks": "opt-in"})
        ),
        "torn": ScriptedModel(replies(SAID, "The answer is 43.", weights=[2, 1]), name="torn"),
        "lengthy": ScriptedModel(thinking("on and on " * 20, SAID), name="lengthy", profile=THINKS),
        "concluding": ScriptedModel(thinking("on and on " * 20, CONCLUSION), name="concluding", profile=THINKS),
        "gone": Unreachable(replies(SAID), name="gone"),
        "breaking": Unreachable(replies(SAID), after=12, name="breaking"),
        "flaky": Flaky(replies(SAID), name="flaky"),
        "held": Held(replies(SAID), name="held"),
        "caller": ToolModel(replies(f"I look it up.\n{calling(city='Rome')}"), name="caller"),
        "signing": Signing(replies(f"Wait.\n{calling(city='Rome')}"), name="signing"),
        "formed": ScriptedModel(formed, name="formed", json_schema=True),
        "correcting": ScriptedModel(correcting, name="correcting"),
        "silent": Held(replies(SAID), written=0, name="silent"),
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory, models):
    aliases = {"careful": {"strategy": "self-consistency", "parameters": {"n": 3, "temperature": 0.5}}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reason.sidecar.sse.KEEPALIVE_S", 0.2)
        with scripted_server(tmp_path_factory.mktemp("openai"), models, serve={"aliases": aliases}) as running:
            yield running


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as sdk:
        yield sdk


@pytest.fixture
def ask(client):
    """Create a chat completion; defaults to one question for `reason/cot`, and takes a chat in its place."""

    def call(question="What is 6 * 7?", model="reason/cot", *, reason=None, **fields):
        chat = [user(question)] if isinstance(question, str) else question
        given = {"model": model, "messages": chat, **fields}
        return client.chat.completions.create(**given, **({"extra_body": {"reason": reason}} if reason else {}))

    return call


@pytest.fixture
def respond(client):
    """Create a response; defaults to one question for `reason/cot`."""

    def call(given="What is 6 * 7?", model="reason/cot", **fields):
        return client.responses.create(**{"model": model, "input": given, **fields})

    return call
