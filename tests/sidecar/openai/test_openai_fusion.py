"""`fusion` behind the chat API: the synthesis is streamed as content, and a client that leaves stops all drafts."""

from __future__ import annotations

from contextlib import contextmanager

import openai
from support.openai_server import scripted_server
from support.scripted_model import THINKS, ScriptedModel, replies, thinking

DRAFTS = {"one": "I add. The answer is 4.", "two": "I count. The answer is 5."}
SYNTHESIS = "We add them. 2 + 2 = 4. The answer is 4."


@contextmanager
def fusing(folder, chair, drafts=None):
    """A server whose jurors write the drafts, and its client."""
    drafts = drafts or {name: ScriptedModel(replies(text), name=name) for name, text in DRAFTS.items()}
    models = {"main": chair, **drafts}
    with (
        scripted_server(folder, models, jurors=tuple(drafts)) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield server, client


def ask(client, **fields):
    given = {"model": "reason/fusion", "messages": [{"role": "user", "content": "What is 2 + 2?"}], **fields}
    return client.chat.completions.create(**given)


def streamed(client, **options):
    """The pieces of content and of thoughts, and the end."""
    content, thoughts = [], []
    for chunk in ask(client, stream=True, extra_body={"reason": options}):
        delta = chunk.choices[0].delta
        if delta.content:
            content.append(delta.content)
        if getattr(delta, "reasoning", None):
            thoughts.append(delta.reasoning)
        last = chunk
    return content, "".join(thoughts), last


def test_the_synthesis_is_streamed_as_content_and_the_drafts_as_thoughts(tmp_path):
    with fusing(tmp_path, ScriptedModel(replies(SYNTHESIS), name="main")) as (_, client):
        content, thoughts, last = streamed(client)
        whole = ask(client).choices[0].message
    assert "".join(content) == whole.content == SYNTHESIS
    assert len(content) > 3  # as it is generated
    assert all(text in thoughts for text in DRAFTS.values())
    assert SYNTHESIS not in thoughts
    assert "Stage: drafts." in thoughts
    assert "Stage: synthesis." in thoughts
    assert (last.choices[0].finish_reason, last.reason["answer"], last.reason["degraded"]) == ("stop", "4", [])


def test_the_thought_of_the_synthesiser_is_streamed_as_a_thought(tmp_path):
    chair = ScriptedModel(thinking("Four is right.", SYNTHESIS), name="main", profile=THINKS)
    with fusing(tmp_path, chair) as (_, client):
        content, thoughts, _ = streamed(client)
        whole = ask(client).choices[0].message
    assert "".join(content) == whole.content == SYNTHESIS
    assert thoughts.count("Four is right.") == whole.reasoning.count("Four is right.") == 1


def test_max_tokens_limits_drafts_and_synthesis(tmp_path):
    chair = ScriptedModel(replies(SYNTHESIS), name="main")
    with fusing(tmp_path, chair) as (_, client):
        made = ask(client, max_tokens=12)
    assert made.choices[0].message.content.startswith(SYNTHESIS[:12])
    assert chair.generate_calls[0][0].sampling.max_tokens == 12
