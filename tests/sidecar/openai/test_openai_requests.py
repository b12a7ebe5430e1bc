"""Request fields compared with OpenAI's types, and their conversion to questions and parameters."""

import string
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat.completion_create_params import CompletionCreateParamsBase
from openai.types.responses.response_create_params import ResponseCreateParamsBase
from reason.agents.planner import check_question
from reason.core.errors import ModelNotFound, UserError
from reason.core.messages import Thought
from reason.core.settings import AliasSettings, ServeSettings, Settings
from reason.core.types import MAX_CONVERSATION_CHARS
from reason.reasoning.strategy import STRATEGIES
from reason.sidecar.openai.models import model_ids, resolve_model
from reason.sidecar.openai.requests import ChatMessage, ChatRequest, ResponsesRequest
from reason.sidecar.openai.run_config import PARAMETER_NAMES, SamplingField, question_of, sampling_parameters
from reason.sidecar.openai.streaming import line_of


@pytest.mark.parametrize(
    ("body", "documented", "path"),
    [
        (ChatRequest, CompletionCreateParamsBase, "chat/completions"),
        (ResponsesRequest, ResponseCreateParamsBase, "responses"),
    ],
)
def test_every_field_that_openai_documents_is_taken_or_refused_and_documented(body, documented, path):
    known = set(get_type_hints(documented)) | {"stream", "reason"}
    assert set(body.model_fields) | set(body.refused) == known
    page = (Path(__file__).parents[3] / "docs" / "openai-api.md").read_text()
    section = page[page.index(f"`POST /v1/{path}`") :]
    assert all(f"| `{name}` | refused" in section for name in body.refused)


def test_the_table_of_parameters_names_real_ones():
    for strategy, names in PARAMETER_NAMES.items():
        fields = STRATEGIES.load(strategy).Config.model_fields
        assert set(names) <= set(get_args(SamplingField))
        assert all(name in fields for several in names.values() for name in several)


@pytest.mark.parametrize("strategy", STRATEGIES.names())
def test_a_length_bounds_every_strategy(strategy):
    parameters, tokens = sampling_parameters(strategy, {"max_tokens": 64}, {})
    assert bool(parameters) != (tokens == 64)
    STRATEGIES.load(strategy).Config.model_validate(parameters)


def settings(**serve):
    return Settings(model="local/a", serve=ServeSettings(models=("ollama_chat/q:8b",), **serve))


def test_model_names():
    chosen = settings(aliases={"quick": AliasSettings(strategy="cot", model="hosted_vllm/c")})
    assert (resolve_model("reason/coat", chosen).strategy, resolve_model("reason/coat", chosen).model) == (
        "coat",
        "local/a",
    )
    assert resolve_model("reason/coat:ollama_chat/q:8b", chosen).model == "ollama_chat/q:8b"
    assert resolve_model("ollama_chat/q:8b", chosen).strategy is None
    assert resolve_model("quick", chosen).model == "hosted_vllm/c"
    for name in model_ids(chosen):
        assert resolve_model(name.id, chosen) == name


@given(st.text(alphabet=string.ascii_lowercase + "/:.-", max_size=30))
def test_nothing_else_is_a_model(name):
    chosen = settings()
    if name not in {n.id for n in model_ids(chosen)}:
        with pytest.raises(ModelNotFound):
            resolve_model(name, chosen)


TURNS = st.lists(
    st.builds(
        ChatMessage,
        role=st.sampled_from(["system", "developer", "user", "assistant"]),
        content=st.text(alphabet="ab ", min_size=1, max_size=4),
    ),
    max_size=8,
)


@given(TURNS)
def test_no_turn_of_a_chat_is_lost_or_moved(chat):
    try:
        question = question_of(chat)
    except UserError:
        last = [m for m in chat if m.role not in ("system", "developer")]
        asked = [m for m in chat if m.role == "user"]
        assert not asked or not asked[-1].content.strip() or last[-1].role == "assistant"
        return
    system = [m.content for m in chat if m.role in ("system", "developer")]
    others = [(m.role, m.content) for m in chat if m.role in ("user", "assistant")]
    turns = [(m.role, m.content) for m in question.conversation]
    assert [content for role, content in turns if role == "system"] == system
    assert [t for t in turns if t[0] != "system"] + [("user", question.text)] == others
    assert question.continuation == ()


@pytest.mark.parametrize(
    ("fields", "thought"),
    [
        ({"reasoning_content": "hm"}, Thought(text="hm")),
        ({"reasoning": "hm"}, Thought(text="hm")),
        ({"reasoning": {"effort": "low"}}, None),
        (
            {"thinking_blocks": [{"type": "thinking", "signature": "s"}]},
            Thought(blocks=({"type": "thinking", "signature": "s"},)),
        ),
        ({"reasoning_content": ""}, None),
    ],
)
def test_thoughts_of_earlier_turns(fields, thought):
    said = ChatMessage.model_validate({"role": "assistant", "content": "1", **fields})
    asked = ChatMessage.model_validate({"role": "user", "content": "One?", **fields})
    question = question_of([asked, said, ChatMessage(role="user", content="Two?")])
    assert [turn.thought for turn in question.conversation] == [None, thought]


def test_thoughts_count_for_the_length_of_a_conversation():
    said = ChatMessage(role="assistant", content="1", reasoning_content="x" * MAX_CONVERSATION_CHARS)
    chat = [ChatMessage(role="user", content="One?"), said, ChatMessage(role="user", content="Two?")]
    with pytest.raises(UserError, match="the conversation and its tools have"):
        check_question(question_of(chat), (), ())


def test_every_event_has_a_line_or_none(monkeypatch):
    from reason.core.events import Degraded, EventsDropped, VoteUpdated

    assert line_of(EventsDropped(count=3)) == ""
    assert line_of(Degraded(what="less was done")) == "Note: less was done."
    assert line_of(VoteUpdated(votes={"4\n2": 3, "x" * 99: 1}, total=4)) == f"Votes: 4 2 (3), {'x' * 59}… (1)."
