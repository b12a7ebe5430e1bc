"""Images and PDFs in chats and responses, through OpenAI's client: passed on to models that take them, else refused."""

import base64
from functools import partial

import openai
import pytest
from reason.serving.profiles.profile import ModelProfile
from support.chats import assistant, text_part, user
from support.scripted_model import ScriptedModel, replies

SAID = "The answer is 42."
PNG = b"\x89PNG\r\n\x1a\n" + bytes(16)
PDF = b"%PDF-1.7\n%%EOF\n"


def data_url(content, media_type):
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


IMAGE = {"type": "image_url", "image_url": {"url": data_url(PNG, "image/png"), "detail": "low"}}
FILE = {"type": "file", "file": {"file_data": data_url(PDF, "application/pdf"), "filename": "bill.pdf"}}
TEXT = text_part("What is the sum?")


@pytest.fixture(scope="module")
def models():
    sees = ModelProfile(inputs=frozenset({"image", "file"}))
    looks = ModelProfile(inputs=frozenset({"image"}))
    return {
        "plain": ScriptedModel(replies(SAID), name="plain"),
        "seeing": ScriptedModel(replies(SAID), name="seeing", profile=sees),
        "looking": ScriptedModel(replies(SAID), name="looking", profile=looks),
    }


@pytest.fixture
def ask(ask):
    return partial(ask, model="reason/cot:seeing")


def sent_to(model):
    """The last prompt that a model got."""
    return model.last_request.prompt


def test_images_and_files_reach_the_model_with_their_contents(ask, models, server):
    made = ask([user([TEXT, IMAGE, FILE])])
    assert made.choices[0].message.content == SAID
    (message,) = sent_to(models["seeing"]).messages
    assert message.content.startswith("What is the sum?")
    assert [(a.kind, a.name, a.detail, base64.b64decode(a.data)) for a in message.attachments] == [
        ("image", "", "low", PNG),
        ("file", "bill.pdf", "", PDF),
    ]
    # stored once, with the run's configuration: neither its calls nor its events repeat the contents
    record = server.call(server.run_manager.store.get_run(made.reason["run_id"]))
    assert record.config["question"]["attachments"][0]["data"] == base64.b64encode(PNG).decode()
    events = server.call(server.run_manager.store.list_events(made.reason["run_id"]))
    assert base64.b64encode(PDF).decode() not in str(events)
    assert message.attachments[0].sha256 in str(events)


def test_parts_keep_their_order(ask, models, server):
    parts = [text_part("Before:"), IMAGE, text_part("After:"), IMAGE]
    made = ask([user(parts)])
    (message,) = sent_to(models["seeing"]).messages
    assert message.content.startswith("Before:\nAfter:")
    assert [a.position for a in message.attachments] == [len("Before:"), None]
    record = server.call(server.run_manager.store.get_run(made.reason["run_id"]))
    assert [a.get("position") for a in record.config["question"]["attachments"]] == [len("Before:"), None]


def test_every_call_of_a_strategy_has_them(ask, models):
    models["seeing"].generate_calls.clear()
    parameters = {"n": 3, "stopping": "agreement", "mode": "race"}
    ask([user([TEXT, IMAGE])], model="reason/self-consistency:seeing", reason={"parameters": parameters})
    calls = [request.prompt for call in models["seeing"].generate_calls for request in call]
    assert len(calls) > 1
    assert all(sum(len(m.attachments) for m in prompt.messages) == 1 for prompt in calls)


def test_those_of_earlier_turns_stay_with_their_messages(ask, models):
    ask([user([text_part("What is this?"), IMAGE]), assistant("A bill."), user("What is the sum?")])
    first, _, last = sent_to(models["seeing"]).messages
    assert [len(first.attachments), len(last.attachments)] == [1, 0]
    assert base64.b64decode(first.attachments[0].data) == PNG


def test_responses_take_them_and_remember_them(client, models):
    parts = [
        {"type": "input_text", "text": "What is the sum?"},
        {"type": "input_image", "image_url": data_url(PNG, "image/png")},
        {"type": "input_file", "file_data": data_url(PDF, "application/pdf"), "filename": "bill.pdf"},
    ]
    made = client.responses.create(model="reason/cot:seeing", input=[user(parts)])
    assert len(sent_to(models["seeing"]).messages[0].attachments) == 2
    client.responses.create(model="reason/cot:seeing", input="And half of it?", previous_response_id=made.id)
    first, *_, last = sent_to(models["seeing"]).messages
    assert [len(first.attachments), len(last.attachments)] == [2, 0]
    assert base64.b64decode(first.attachments[1].data) == PDF


@pytest.mark.parametrize(
    ("model", "part", "feature"), [("plain", IMAGE, "image"), ("looking", FILE, "file"), ("plain", FILE, "file")]
)
def test_a_model_that_does_not_take_them_is_named(ask, models, model, part, feature):
    before = len(models[model].generate_calls)
    with pytest.raises(openai.BadRequestError, match=f"'{model}' cannot do '{feature} input'") as refused:
        ask([user([TEXT, part])], model=f"reason/cot:{model}")
    assert refused.value.code == "capability_missing"
    assert len(models[model].generate_calls) == before


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"type": "image_url", "image_url": {"url": "http://10.0.0.1/x.png"}}, "neither a data URL nor https"),
        ({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}, "neither a data URL nor https"),
        ({"type": "image_url", "image_url": {"url": data_url(b"<svg/>", "image/svg+xml")}}, "no PNG, JPEG"),
        ({"type": "image_url", "image_url": {"url": data_url(PDF, "image/png")}}, "application/pdf, not image/png"),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,%%%"}}, "no base64"),
        ({"type": "file", "file": {"file_id": "file-1"}}, "keeps no files"),
        ({"type": "file", "file": {"filename": "x.pdf"}}, "needs its content"),
        ({"type": "input_audio", "input_audio": {}}, "not supported"),
    ],
)
def test_what_cannot_be_passed_on_is_refused_with_its_place(ask, part, said):
    with pytest.raises(openai.BadRequestError, match=said) as refused:
        ask([user([TEXT, part])])
    assert refused.value.param.startswith("messages.0.content.1")


def test_only_users_have_them(ask):
    chat = [{"role": "system", "content": [IMAGE]}, user("What is this?")]
    with pytest.raises(openai.BadRequestError, match="role system") as refused:
        ask(chat)
    assert refused.value.param == "messages.0.content.0"


def test_too_many_are_refused(ask):
    with pytest.raises(openai.BadRequestError, match="21 attachments"):
        ask([user([TEXT, *[IMAGE] * 21])])
