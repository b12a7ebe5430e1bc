"""Fixtures of the tests with Anthropic's client: the server and models of the tests with OpenAI's."""

import pytest
from support.chats import user

from ..openai.conftest import models, server

__all__ = ["models", "server"]


@pytest.fixture(scope="module")
def client(server):
    anthropic = pytest.importorskip("anthropic")
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as sdk:
        yield sdk


@pytest.fixture
def ask(client):
    """Create a message; defaults to one question for `reason/cot`, and takes a chat in its place."""

    def call(question="What is 6 * 7?", model="reason/cot", **fields):
        chat = [user(question)] if isinstance(question, str) else question
        return client.messages.create(**{"model": model, "max_tokens": 300, "messages": chat, **fields})

    return call
