"""Agents of real SDKs as clients: all turns of a loop are one run with one budget, on every wire, streamed or not."""

from __future__ import annotations

import asyncio

import anthropic
import httpx
import openai
import pytest
from langchain_openai import ChatOpenAI
from support.openai_server import scripted_server
from support.scripted_model import THINKS, replies, thinking
from support.scripted_tools import ToolModel, calling

agents = pytest.importorskip("agents", reason="openai-agents is not installed")
pydantic_ai = pytest.importorskip("pydantic_ai")
create_agent = pytest.importorskip("langchain.agents").create_agent
langchain_anthropic = pytest.importorskip("langchain_anthropic")

QUESTION = "Is it warmer in Rome, in Oslo or in Bern?"
DEGREES = {"Rome": "24 degrees", "Oslo": "9 degrees", "Bern": "12 degrees"}
ANSWER = "Rome is warmest."


def weather(city: str) -> str:
    """What the weather is like."""
    return DEGREES[city]


def travelling(text):
    """Asks for Rome and Oslo at once, then for Bern, then answers."""
    prompt = text.rpartition("assistant: ")[0]
    if DEGREES["Bern"] in prompt:
        return replies(ANSWER)(text)
    if DEGREES["Rome"] in prompt:
        return replies(f"Now Bern.\n{calling(city='Bern')}")(text)
    return replies(f"I look it up.\n{calling(city='Rome')}\n{calling(city='Oslo')}")(text)


@pytest.fixture(scope="module")
def models():
    return {
        "plain": ToolModel(travelling, name="plain", changed={"prefix": False}),
        "thinker": ToolModel(thinking("Let me think.", travelling), name="thinker", profile=THINKS),
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory, models):
    with scripted_server(tmp_path_factory.mktemp("sdks"), models) as running:
        yield running


@pytest.fixture
def runs_of(server):
    """The runs that a call makes."""

    def listed():
        return {run["id"] for run in httpx.get(f"{server.url}/v1/runs").json()["data"]}

    def call(loop):
        before = listed()
        text = loop()
        return text, [httpx.get(f"{server.url}/v1/runs/{name}").json() for name in listed() - before]

    return call


@pytest.fixture(scope="module")
def run_async():
    """Runs coroutines on one event loop, to which clients that SDKs keep belong."""
    with asyncio.Runner() as runner:
        yield runner.run


def openai_agents(wire, **settings):
    async def loop(url, model, stream):
        kinds = {"chat": agents.OpenAIChatCompletionsModel, "responses": agents.OpenAIResponsesModel}
        client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        agent = agents.Agent(
            name="traveller",
            instructions="Be brief.",
            model=kinds[wire](model=model, openai_client=client),
            model_settings=agents.ModelSettings(**settings),
            tools=[agents.function_tool(weather)],
        )
        config = agents.RunConfig(tracing_disabled=True)
        if not stream:
            return (await agents.Runner.run(agent, QUESTION, run_config=config)).final_output
        running = agents.Runner.run_streamed(agent, QUESTION, run_config=config)
        assert [event async for event in running.stream_events()]
        return running.final_output

    return loop


def pydantic(wire, **settings):
    async def loop(url, model, stream):
        from pydantic_ai.models.anthropic import AnthropicModel
        from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
        from pydantic_ai.providers.anthropic import AnthropicProvider
        from pydantic_ai.providers.openai import OpenAIProvider

        if wire == "messages":
            chosen = AnthropicModel(model, provider=AnthropicProvider(base_url=url, api_key="none"))
        else:
            kind = OpenAIChatModel if wire == "chat" else OpenAIResponsesModel
            chosen = kind(model, provider=OpenAIProvider(base_url=f"{url}/v1", api_key="none"))

        async def read(_, events):
            async for _ in events:
                pass

        agent = pydantic_ai.Agent(chosen, instructions="Be brief.", tools=[weather], model_settings=settings)
        return (await agent.run(QUESTION, event_stream_handler=read if stream else None)).output

    return loop


def langchain(wire, **settings):
    async def loop(url, model, stream):
        if wire == "messages":
            chosen = langchain_anthropic.ChatAnthropic(model=model, base_url=url, api_key="none", max_tokens=3000)
        else:
            chosen = ChatOpenAI(
                model=model, base_url=f"{url}/v1", api_key="none", use_responses_api=wire == "responses", **settings
            )
        agent = create_agent(chosen, [weather], system_prompt="Be brief.")
        question = {"messages": [("user", QUESTION)]}
        if not stream:
            return (await agent.ainvoke(question))["messages"][-1].text
        pieces = [(m.id, m.text) async for m, _ in agent.astream(question, stream_mode="messages") if m.type != "tool"]
        return "".join(text for name, text in pieces if name == pieces[-1][0])

    return loop


def tool_runner(**settings):
    async def loop(url, model, stream):
        async with anthropic.AsyncAnthropic(base_url=url, api_key="none", max_retries=0) as client:

            @anthropic.beta_async_tool
            async def weather(city: str) -> str:
                """What the weather is like."""
                return DEGREES[city]

            question = {"role": "user", "content": QUESTION}
            runner = client.beta.messages.tool_runner(
                model=model, max_tokens=3000, tools=[weather], messages=[question], stream=stream, **settings
            )
            async for turn in runner:
                message = await turn.get_final_message() if stream else turn
            return message.content[-1].text

    return loop


LOOPS = {
    **{f"openai-agents {wire}": openai_agents(wire) for wire in ("chat", "responses")},
    **{f"pydantic-ai {wire}": pydantic(wire) for wire in ("chat", "responses", "messages")},
    **{f"langchain {wire}": langchain(wire) for wire in ("chat", "responses", "messages")},
    "anthropic messages": tool_runner(),
}


@pytest.mark.parametrize("stream", [False, True], ids=["complete", "streamed"])
@pytest.mark.parametrize("sdk", LOOPS)
def test_a_loop_is_one_run(server, runs_of, run_async, sdk, stream):
    text, runs = runs_of(lambda: run_async(LOOPS[sdk](server.url, "reason/cot:thinker", stream)))
    assert text == ANSWER
    (run,) = runs
    usage = run["result"]["usage"]
    assert (run["status"], usage["turns"], usage["tool_calls"]) == ("finished", 3, 3)


ONE_CALL = {
    "chat": openai_agents("chat", parallel_tool_calls=False),
    "responses": openai_agents("responses", parallel_tool_calls=False),
    "messages": tool_runner(tool_choice={"type": "auto", "disable_parallel_tool_use": True}),
}


@pytest.mark.parametrize("wire", ONE_CALL)
def test_a_turn_has_one_call_where_the_client_takes_no_more(server, runs_of, run_async, wire):
    text, (run,) = runs_of(lambda: run_async(ONE_CALL[wire](server.url, "reason/cot:plain", False)))
    usage = run["result"]["usage"]
    assert (text, usage["turns"], usage["tool_calls"]) == (ANSWER, 3, 2)


def looking_up(text):
    """Looks Rome up, then answers from the result."""
    is_looked_up = '"degrees": 24' in text.rpartition("assistant: ")[0].replace("\\", "")
    return replies("Rome has 24 degrees." if is_looked_up else calling(city="Rome"))(text)


@pytest.fixture(scope="module")
def verifying_server(tmp_path_factory):
    models = {"plain": ToolModel(looking_up, name="plain")}
    chosen = {"verify": ("davinci",), "verifiers": {"davinci": {"judge": "lexical"}}}
    with scripted_server(tmp_path_factory.mktemp("verifying"), models, **chosen) as running:
        yield running


@pytest.mark.parametrize("sdk", ["langchain chat", "openai-agents responses", "anthropic messages"])
def test_what_the_client_executed_is_evidence(verifying_server, run_async, monkeypatch, sdk):
    monkeypatch.setitem(DEGREES, "Rome", '{"city": "Rome", "degrees": 24}')
    before = {run["id"] for run in httpx.get(f"{verifying_server.url}/v1/runs").json()["data"]}
    assert run_async(LOOPS[sdk](verifying_server.url, "reason/cot:plain", False)) == "Rome has 24 degrees."
    (name,) = {run["id"] for run in httpx.get(f"{verifying_server.url}/v1/runs").json()["data"]} - before
    (claim,) = httpx.get(f"{verifying_server.url}/v1/runs/{name}").json()["result"]["verification"]["claims"]
    (evidence,) = claim["evidence"]
    assert (claim["verdict"], evidence["text"]) == ("supported", "24")
    assert evidence["source"].startswith("weather:")


BUDGET = {"extra_body": {"reason": {"budget": {"turns": 2}}}}


@pytest.mark.parametrize("sdk", [openai_agents, pydantic, langchain])
def test_a_loop_has_one_budget_and_ends_with_an_answer(server, runs_of, run_async, sdk):
    text, (run,) = runs_of(lambda: run_async(sdk("chat", **BUDGET)(server.url, "reason/cot:plain", False)))
    assert text == f"Therefore, the answer is {ANSWER}"
    assert (run["result"]["stopped"], run["result"]["usage"]["turns"]) == ("budget", 2)


def test_the_loop_of_claude_code_is_one_run(server, runs_of, models):
    """Its first block changes with each request, and so does which block is to be cached; it adds to tool results."""

    def loop():
        cached = {"cache_control": {"type": "ephemeral"}}
        schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
        tools = [{"name": "weather", "description": "What the weather is like.", "input_schema": schema, **cached}]
        chat, made = [{"role": "user", "content": [{"type": "text", "text": QUESTION}]}], []
        with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as client:
            while not made or made[-1].stop_reason == "tool_use":
                billing = f"x-anthropic-billing-header: cc_version=2.1.37.0d9; cc_entrypoint=cli; cch={len(made)}a690;"
                system = [{"type": "text", "text": billing}, {"type": "text", "text": "You are Claude Code.", **cached}]
                last = [*chat[-1]["content"][:-1], {**chat[-1]["content"][-1], **cached}]
                with client.beta.messages.stream(
                    model="reason/cot:thinker",
                    max_tokens=32_000,
                    system=system,
                    messages=[*chat[:-1], {"role": "user", "content": last}],
                    tools=tools,
                    thinking={"type": "adaptive"},
                    metadata={"user_id": "user_1_session_2"},
                    context_management={"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
                    betas=["claude-code-20250219", "context-management-2025-06-27"],
                ) as stream:
                    made.append(stream.get_final_message())
                results = [
                    {"type": "tool_result", "tool_use_id": block.id, "content": DEGREES[block.input["city"]]}
                    for block in made[-1].content
                    if block.type == "tool_use"
                ]
                results.append({"type": "text", "text": "<system-reminder>\nUse the todo list.\n</system-reminder>"})
                chat = [*chat, {"role": "assistant", "content": made[-1].content}, {"role": "user", "content": results}]
        return made[-1].content[-1].text

    text, (run,) = runs_of(loop)
    assert (text, run["result"]["usage"]["turns"]) == (ANSWER, 3)
    (request,) = models["thinker"].generate_calls[-1]
    system, *_, result = request.prompt.messages
    assert system.content == "You are Claude Code."
    assert result.content == f"{DEGREES['Bern']}\n<system-reminder>\nUse the todo list.\n</system-reminder>"
