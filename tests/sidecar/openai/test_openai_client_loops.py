"""Agent loops whose tools the client executes: all turns of a loop are one run, through every interface."""

from __future__ import annotations

import json

import httpx
import pytest
from support.chats import user
from support.openai_server import scripted_server
from support.scripted_model import replies
from support.scripted_tools import ToolModel, calling

QUESTION = "Is it warmer in Rome or in Oslo?"
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"name": "weather", "description": "What the weather is like.", "parameters": PARAMETERS}
TOOLS = [{"type": "function", "function": WEATHER}]
FLAT_TOOLS = [{"type": "function", **WEATHER, "strict": None}]
DEGREES = {"Rome": "24 degrees", "Oslo": "9 degrees"}
MODEL = "reason/cot:traveller"


def travelling(text):
    """Asks for Rome, then for Oslo, then answers."""
    if DEGREES["Oslo"] in text:
        return replies("Rome is warmer.")(text)
    return replies(f"I look it up.\n{calling(city='Oslo' if DEGREES['Rome'] in text else 'Rome')}")(text)


@pytest.fixture(scope="module")
def models():
    return {"traveller": ToolModel(travelling, name="traveller")}


@pytest.fixture(scope="module")
def server(tmp_path_factory, models):
    with scripted_server(tmp_path_factory.mktemp("loops"), models) as running:
        yield running


@pytest.fixture
def run_of(server):
    """A run, by its id."""
    return lambda run_id: httpx.get(f"{server.url}/v1/runs/{run_id}").json()


def chat_loop(ask, chat, *, stream=False, **fields):
    """The chat to the end, with the completions."""
    made = []
    while True:
        if stream:
            chunks = list(ask(chat, MODEL, tools=TOOLS, stream=True, stream_options={"include_usage": True}, **fields))
            calls = [call for c in chunks if c.choices for call in c.choices[0].delta.tool_calls or ()]
            content = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
            made.append((chunks[0].id, content, chunks[-1].usage))
        else:
            completion = ask(chat, MODEL, tools=TOOLS, **fields)
            calls = completion.choices[0].message.tool_calls or []
            content = completion.choices[0].message.content
            made.append((completion.id, content, completion.usage))
        if not calls:
            return chat, made
        shown = [{"id": c.id, "type": "function", "function": c.function.model_dump()} for c in calls]
        chat = [*chat, {"role": "assistant", "content": content, "tool_calls": shown}]
        chat += [
            {"role": "tool", "tool_call_id": c.id, "content": DEGREES[json.loads(c.function.arguments)["city"]]}
            for c in calls
        ]


@pytest.mark.parametrize("stream", [False, True])
def test_a_loop_of_chat_completions_is_one_run(ask, run_of, stream):
    _, made = chat_loop(ask, [user(QUESTION)], stream=stream)
    first, *others = [name for name, _, _ in made]
    assert others == [f"{first}_2", f"{first}_3"]
    assert [content for _, content, _ in made] == ["I look it up.", "I look it up.", "Rome is warmer."]
    run = run_of(first.removeprefix("chatcmpl-"))
    assert (run["status"], run["result"]["usage"]["turns"], run["result"]["usage"]["tool_calls"]) == ("finished", 3, 2)
    for kind in ("prompt_tokens", "completion_tokens"):
        assert sum(getattr(usage, kind) for _, _, usage in made) == run["result"]["usage"][kind]


def test_a_repeated_request_gets_its_recorded_turn_and_a_fork_a_run_of_its_own(ask, models):
    chat, made = chat_loop(ask, [user(QUESTION)])
    generated = len(models["traveller"].generate_calls)
    again = ask(chat[:3], MODEL, tools=TOOLS)
    assert (again.id, again.usage) == (made[1][0], made[1][2])
    assert again.choices[0].message.tool_calls[0].id == chat[3]["tool_calls"][0]["id"]
    assert ask(chat, MODEL, tools=TOOLS).id == made[2][0]
    assert len(models["traveller"].generate_calls) == generated
    other = [*chat[:2], {**chat[2], "content": "25 degrees"}]
    edited = [user("Is it warm in Rome?"), *chat[1:]]
    unknown = [*chat[:1], {**chat[1], "tool_calls": [{**chat[1]["tool_calls"][0], "id": "x"}]}]
    unknown.append({**chat[2], "tool_call_id": "x"})
    ids = [ask(forked, MODEL, tools=TOOLS).id for forked in (other, edited, unknown)]
    ids.append(ask(chat, MODEL, tools=TOOLS, temperature=0.5).id)
    assert not [name for name in ids if made[0][0] in name]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("limit", ["turns", "tool_calls"])
def test_a_limit_ends_the_loop_with_an_answer(ask, limit):
    options = {"reason": {"budget": {limit: 1}}}
    made = ask(QUESTION, MODEL, tools=TOOLS, **options)
    call = made.choices[0].message.tool_calls[0]
    result = {"role": "tool", "tool_call_id": call.id, "content": DEGREES["Rome"]}
    ended = ask([user(QUESTION), made.choices[0].message.model_dump(), result], MODEL, tools=TOOLS, **options)
    assert (ended.choices[0].finish_reason, ended.reason["stopped"]) == ("length", "budget")
    assert ended.id == f"{made.id}_2"


def test_a_run_whose_client_does_not_return_waits(ask, run_of):
    made = ask(QUESTION, MODEL, tools=TOOLS)
    run = run_of(made.id.removeprefix("chatcmpl-"))
    assert run["status"] == "waiting"
    ((question, tool),) = [(call["question"], call["tool"]) for call in run["result"]["pending"]]
    assert (question, tool) == ("result", "weather")


@pytest.mark.parametrize("stored", [True, False])
def test_a_loop_of_responses_is_one_run(client, run_of, stored):
    items, made = [user(QUESTION)], []
    while True:
        given = {"previous_response_id": made[-1].id} if stored and made else {}
        with client.responses.stream(model=MODEL, input=items, tools=FLAT_TOOLS, **given) as stream:
            list(stream)
            made.append(stream.get_final_response())
        calls = [item for item in made[-1].output if item.type == "function_call"]
        if not calls:
            break
        results = [
            {"type": "function_call_output", "call_id": c.call_id, "output": DEGREES[json.loads(c.arguments)["city"]]}
            for c in calls
        ]
        items = results if stored else [*items, *made[-1].output, *results]
    first, *others = [one.id for one in made]
    assert others == [f"{first}_2", f"{first}_3"]
    run = run_of(first.removeprefix("resp_"))
    assert sum(one.usage.output_tokens for one in made) == run["result"]["usage"]["completion_tokens"]
    for one in made:
        kept = client.responses.retrieve(one.id)
        assert (kept.id, kept.usage, kept.output_text) == (one.id, one.usage, one.output_text)


def test_a_loop_of_messages_is_one_run(server, run_of):
    anthropic = pytest.importorskip("anthropic")
    tools = [{"name": "weather", "description": WEATHER["description"], "input_schema": PARAMETERS}]
    chat, made = [user(QUESTION)], []
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as sdk:
        while not made or made[-1].stop_reason == "tool_use":
            with sdk.messages.stream(model=MODEL, max_tokens=300, messages=chat, tools=tools) as stream:
                made.append(stream.get_final_message())
            results = [
                {"type": "tool_result", "tool_use_id": block.id, "content": DEGREES[block.input["city"]]}
                for block in made[-1].content
                if block.type == "tool_use"
            ]
            chat = [*chat, {"role": "assistant", "content": made[-1].content}, {"role": "user", "content": results}]
    first, *others = [one.id for one in made]
    assert others == [f"{first}_2", f"{first}_3"]
    run = run_of(first.removeprefix("msg_"))
    assert sum(one.usage.output_tokens for one in made) == run["result"]["usage"]["completion_tokens"]
