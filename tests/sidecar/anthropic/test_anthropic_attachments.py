"""Images and documents in messages: passed on to models that take them, else refused by name."""

import base64

import pytest
from reason.serving.profiles.profile import ModelProfile
from support.chats import text_part, user
from support.scripted_model import ScriptedModel, replies

anthropic = pytest.importorskip("anthropic")

PNG = b"\x89PNG\r\n\x1a\n" + bytes(16)
PDF = b"%PDF-1.7\n%%EOF\n"
TEXT = text_part("What is the sum?")


def source(content, media_type):
    return {"type": "base64", "media_type": media_type, "data": base64.b64encode(content).decode()}


IMAGE = {"type": "image", "source": source(PNG, "image/png")}
DOCUMENT = {"type": "document", "source": source(PDF, "application/pdf"), "title": "bill.pdf"}
NOTE = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "It is in euros."}}


@pytest.fixture(scope="module")
def models():
    sees = ModelProfile(inputs=frozenset({"image", "file"}))
    return {
        "plain": ScriptedModel(replies("42"), name="plain"),
        "seeing": ScriptedModel(replies("42"), name="seeing", profile=sees),
    }


@pytest.fixture
def send(client):
    def call(model, *blocks):
        chat = [user(list(blocks))]
        return client.messages.create(model=model, max_tokens=100, messages=chat)

    return call


def test_images_and_documents_reach_the_model(send, models):
    assert send("reason/cot:seeing", NOTE, TEXT, IMAGE, DOCUMENT).content[0].text == "42"
    (message,) = models["seeing"].last_request.prompt.messages
    assert message.content.startswith("It is in euros.\nWhat is the sum?")
    assert [(a.kind, a.name, base64.b64decode(a.data)) for a in message.attachments] == [
        ("image", "", PNG),
        ("file", "bill.pdf", PDF),
    ]


def test_blocks_keep_their_order(send, models):
    send("reason/cot:seeing", IMAGE, TEXT, DOCUMENT, NOTE)
    (message,) = models["seeing"].last_request.prompt.messages
    assert message.content.startswith("What is the sum?\nIt is in euros.")
    assert [(a.kind, a.position) for a in message.attachments] == [("image", 0), ("file", len("What is the sum?"))]


def test_a_model_that_takes_none_is_named(send):
    with pytest.raises(anthropic.BadRequestError, match="plain"):
        send("reason/cot", TEXT, IMAGE)
