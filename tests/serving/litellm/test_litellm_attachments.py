"""Images and PDFs on the wire to a server in OpenAI's format, and which models take them."""

from __future__ import annotations

import base64
from contextlib import nullcontext

import pytest
from reason.agents.reasoner import Reasoner
from reason.core.errors import CapabilityMissing
from reason.core.messages import Attachment, Message, Prompt, Request
from reason.core.settings import ProviderSettings, Settings
from reason.core.types import Question
from reason.serving.litellm.profiles import provider_profile
from reason.serving.litellm.prompt_cache import with_marks
from reason.serving.litellm.providers import find_target
from reason.serving.litellm.requests import RequestTraits, check_request, messages_of
from reason.serving.metered.model import with_attachments, with_contents
from reason.serving.model import Capabilities
from reason.serving.profiles.profile import ModelProfile
from support.fault_server import FaultServer
from support.scripted_model import ScriptedModel, replies

pytestmark = pytest.mark.usefixtures("keys")
PNG = b"\x89PNG\r\n\x1a\n" + bytes(16)
NO_ADDRESSES = pytest.raises(CapabilityMissing, match="input by address")
REMOTE = Attachment.at("https://example.org/x.png", "image")
IMAGE = Attachment.of(PNG, name="sign.png", detail="high")
PDF = Attachment.of(b"%PDF-1.7\n%%EOF\n", name="bill.pdf")
IMAGE_PART = {
    "type": "image_url",
    "image_url": {"url": f"data:image/png;base64,{base64.b64encode(PNG).decode()}", "detail": "high"},
}


def look_at(*attachments: Attachment) -> Prompt:
    return Prompt(messages=(Message(role="user", content="Look", attachments=attachments),))


async def test_a_question_with_an_image_reaches_the_server_and_resumes_from_the_store(tmp_path):
    server = FaultServer(ScriptedModel(replies("The answer is 42.")), vllm=False)
    async with server.run() as base:
        settings = Settings(
            model="openai/small",
            providers={"openai": ProviderSettings(api_base=base, timeout_s=60.0)},
            profiles={"openai/small": {"inputs": ["image"]}},
            store=tmp_path / "runs.sqlite3",
            cache_dir=tmp_path / "cache",
        )
        async with Reasoner(settings=settings) as reasoner:
            answer = await reasoner.aask(Question(text="What does it say?", attachments=(IMAGE,)))
            contents = [body["messages"][-1]["content"] for _, body in server.requests if "messages" in body]
            ((text, image),) = [content for content in contents if not isinstance(content, str)]
            assert text["text"].startswith("What does it say?")
            assert image == IMAGE_PART
            again = await reasoner.areplay(answer.run_id)
            assert again.text == answer.text
            for other, missing in ((PDF, "file input"), (REMOTE, "input by address")):
                with pytest.raises(CapabilityMissing, match=missing):
                    await reasoner.aask(Question(text="What does it say?", attachments=(other,)))


@pytest.mark.parametrize(
    ("name", "base", "expected"),
    [
        ("openai/gpt-4o-mini", None, nullcontext()),
        ("openai/gpt-4o-mini", "http://127.0.0.1:1/v1", NO_ADDRESSES),
        ("gemini/gemini-2.5-flash", None, NO_ADDRESSES),
        ("anthropic/claude-sonnet-4-5", None, NO_ADDRESSES),
    ],
)
def test_addresses_are_only_for_providers_that_open_them_themselves(name, base, expected):
    provider = name.partition("/")[0]
    target = find_target(name, Settings(providers={provider: ProviderSettings(api_base=base)}))
    request = Request(prompt=look_at(REMOTE))
    with expected:
        check_request(request, target, Capabilities(inputs=frozenset({"image"})), RequestTraits())


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("openai/gpt-4o-mini", {"image", "file"}),
        ("openai/gpt-3.5-turbo", set()),
        ("anthropic/claude-sonnet-4-5", {"image", "file"}),
        ("gemini/gemini-2.5-flash", {"image", "file"}),
        ("deepseek/deepseek-chat", set()),
    ],
)
def test_what_a_providers_model_takes_is_in_its_profile(name, inputs):
    settings = Settings()
    assert provider_profile(find_target(name, settings), settings).inputs == inputs


def test_parts_in_openais_form():
    (message,) = messages_of(look_at(IMAGE, PDF), ModelProfile())
    file = {"file_data": f"data:application/pdf;base64,{PDF.data}", "filename": "bill.pdf"}
    assert message["content"] == [{"type": "text", "text": "Look"}, IMAGE_PART, {"type": "file", "file": file}]


@pytest.mark.parametrize(
    ("text", "positions", "parts"),
    [
        ("Before:\nAfter:", (7, None), ["Before:", "image", "After:\n\nThink.", "image"]),
        ("After:", (0,), ["image", "After:\n\nThink."]),
        ("One\nTwo", (3, 3), ["One", "image", "image", "Two\n\nThink."]),
        ("\nBefore:\n\nAfter:", (9,), ["Q: \nBefore:\n", "image", "After:\n\nThink."]),
        ("Before:", (None, None), ["Before:\n\nThink.", "image", "image"]),
    ],
)
def test_images_keep_their_positions_in_whatever_prompt_has_the_question(text, positions, parts):
    images = tuple(IMAGE.model_copy(update={"position": position}) for position in positions)
    question = Question(text=text, attachments=images).with_references
    before = "Q: " if text.startswith("\n") else ""
    attached = with_attachments(Prompt.user(f"{before}{text}\n\nThink."), question)
    assert with_attachments(attached, question) is attached
    (message,) = messages_of(with_contents(attached, {IMAGE.sha256: IMAGE}), ModelProfile())
    assert [part["text"] if part["type"] == "text" else "image" for part in message["content"]] == parts
    assert [part for part in message["content"] if part["type"] != "text"] == [IMAGE_PART] * len(positions)
    judged = with_attachments(Prompt.user("Rate it."), question)
    assert {a.position for a in judged.messages[0].attachments} == {None}


def test_a_mark_of_the_prompt_cache_is_on_the_last_part():
    messages = messages_of(look_at(PDF), ModelProfile())
    with_marks(messages, [1])
    text, file = messages[0]["content"]
    assert "cache_control" not in text
    assert file["cache_control"] == {"type": "ephemeral"}


def test_references_are_put_where_the_question_is_and_contents_only_where_they_are_sent():
    question = Question(text="What is it?", attachments=(IMAGE,)).with_references
    assert question.attachments[0].data == ""
    texts = ("Hello", "Hi", "What is it? Think.", "A sign.", "Is that right?")
    roles = ("user", "assistant") * 3
    prompt = Prompt(messages=[Message(role=role, content=text) for role, text in zip(roles, texts, strict=False)])
    attached = with_attachments(prompt, question)
    assert [len(m.attachments) for m in attached.messages] == [0, 0, 1, 0, 0]
    assert IMAGE.data not in attached.model_dump_json()
    assert with_attachments(attached, question) is attached
    assert with_contents(attached, {IMAGE.sha256: IMAGE}).messages[2].attachments == (IMAGE,)
    assert [len(m.attachments) for m in with_attachments(Prompt.user("Rate it."), question).messages] == [1]
    assert with_attachments(Prompt(text="raw"), question) == Prompt(text="raw")


@pytest.mark.parametrize(
    ("content", "media_type", "said"),
    [(b"text", "", "no PNG"), (PNG, "image/jpeg", "image/png, not"), (b"RIFF....WAVE", "", "no PNG")],
)
def test_other_contents_are_refused(content, media_type, said):
    with pytest.raises(ValueError, match=said):
        Attachment.of(content, media_type=media_type)
