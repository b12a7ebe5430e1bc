"""Every strategy shows its models the conversation: as turns before its own request, its system text with the rest."""

from __future__ import annotations

from contextlib import suppress

import pytest
from reason.core.errors import InvalidResponse
from reason.core.messages import Message, Prompt, Tool, ToolCall
from reason.core.run import Run
from reason.core.types import Document, Question, Solution
from reason.reasoning.knowledge import Knowledge
from reason.reasoning.prompts import conversation_text, question_prompt, question_text
from reason.reasoning.retrieval.sources.factory import FunctionSource
from reason.reasoning.strategy import Models, create_strategy
from reason.serving.metered.model import MeteredModel
from reason.serving.metered.scorers import MeteredReward
from support.scripted_model import ScriptedModel, replies
from support.scripted_reward import ScriptedReward
from support.stored_runs import run_config

TURNS = (
    Message(role="system", content="Speak plainly."),
    Message(role="user", content="What is a dozen?"),
    Message(role="assistant", content="Twelve."),
    Message(role="system", content="Count eggs alone."),
)
QUESTION = Question(text="And half of it?", kind="number", conversation=TURNS)
CLOSED = QUESTION.model_copy(update={"choices": ("Six", "Five"), "kind": "auto"})
SYSTEM = "Speak plainly.\n\nCount eggs alone."
HISTORY = "System: Speak plainly.\n\nUser: What is a dozen?\n\nAssistant: Twelve.\n\nSystem: Count eggs alone."


class Recording(ScriptedModel):
    """Records every prompt of every kind of call."""

    def __init__(self, **changed):
        super().__init__(replies("Half of twelve is 6.\n\nThe answer is 6."), changed=changed)
        self.prompts = []

    async def generate(self, requests, listener=None):
        self.prompts += [r.prompt for r in requests]
        return await super().generate(requests, listener)

    async def score(self, prompt, continuations):
        self.prompts.append(prompt)
        return await super().score(prompt, continuations)

    async def next_token(self, prompts, top=20):
        self.prompts += prompts
        return await super().next_token(prompts, top)


async def solve(store, name, parameters, question=QUESTION, model=None):
    """Run a strategy; return its prompts, the problems that it had scored, and the context of its knowledge queries."""
    model = model or Recording()
    config = run_config(question=question, strategy=name)
    await store.create_run("r", {})
    run = Run("r", config, store)
    reward, judged = ScriptedReward(lambda step: 0.7), []

    def look_up(text: str, k: int, context: str):
        judged.append(context)
        return ["A dozen is 12."]

    models = Models(
        {"main": MeteredModel(model, "main", run)},
        MeteredReward(reward, "reward", run),
        knowledge=Knowledge(sources=(FunctionSource(look_up),)),
    )
    strategy, _ = create_strategy(name, parameters)
    solution: Solution | None = None
    with suppress(InvalidResponse):  # some strategies cannot use the scripted text; only the prompts matter
        solution = await strategy.solve(question, models, run)
    return model.prompts, [problem for problem, _, _ in reward.asked], judged, solution


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("cot", {"system": "OWN"}),
        ("best-of-n", {"n": 2, "score": "self-evaluation"}),
        ("best-of-n", {"n": 2, "score": "reward"}),
        ("adaptive", {"n": 2}),
        ("best-of-n", {"n": 2, "score": "judge"}),
        ("rag", {}),
        ("beam", {}),
        ("astar", {}),
        ("particle-filter", {}),
        ("coat", {"expansions": 2, "judging": "reward"}),
        ("rlot", {"policy": "fixed"}),
        ("hogwild", {"any_model": True, "level": "interleaved", "max_passes": 100}),
        ("hogwild", {"any_model": True, "level": "blackboard", "max_passes": 100}),
        ("edgejury", {}),
        ("glimprouter", {}),
    ],
)
async def test_every_prompt_begins_with_the_conversation(store, name, parameters):
    prompts, problems, judged, _ = await solve(store, name, parameters)
    assert prompts
    own = parameters.get("system")
    for prompt in prompts:
        head, *turns = prompt.messages
        assert head.role == "system"
        assert head.content == (f"{SYSTEM}\n\n{own}" if own else SYSTEM) or (
            head.content.startswith(f"{SYSTEM}\n\n") and head.content.count(SYSTEM) == 1
        )
        assert tuple(turns[:2]) == (TURNS[1], TURNS[2])
        assert turns[2].role == "user"
        assert QUESTION.text in turns[2].content
        assert not any(turn.role == "system" for turn in turns)
    for problem in problems:
        assert problem == f"{HISTORY}\n\nUser: And half of it?"
    assert set(judged) <= {HISTORY}
    assert bool(judged) == (name in ("rag", "coat"))


@pytest.mark.parametrize("prompt", ["chat", "qa"])
async def test_choices_are_scored_after_the_conversation(store, prompt):
    ((asked, *_), *_) = await solve(store, "logprob", {"prompt": prompt}, CLOSED)
    if prompt == "chat":
        assert [m.content for m in asked.messages] == [SYSTEM, "What is a dozen?", "Twelve.", "And half of it?"]
    else:
        assert asked.text == f"{HISTORY}\n\nQ: And half of it?\nA:"


def test_without_a_conversation_a_prompt_is_what_it_was():
    question = Question(text="Why?", choices=("A thing", "Another"), documents=(Document(name="d", text="t"),))
    assert question_prompt(question, "Say it.", system="S", prefix="P").model_dump(mode="json") == {
        "messages": [
            {"role": "system", "content": "S"},
            {"role": "user", "content": "Document «d»:\nt\n\nWhy?\n\nA) A thing\nB) Another\n\nSay it."},
        ],
        "text": None,
        "prefix": "P",
    }
    assert question_prompt(question) == Prompt.user("Document «d»:\nt\n\nWhy?\n\nA) A thing\nB) Another")
    assert question_text(question) == question_prompt(question).messages[-1].content
    assert (conversation_text(question), question_text(question, "Why?")) == ("", "Why?")


def test_a_continuation_follows_the_question_and_keeps_the_prompt_prefix():
    tools = (Tool(name="weigh"),)
    call = ToolCall(name="weigh", arguments='{"eggs": 6}', id="c1")
    since = (
        Message(role="assistant", tool_calls=(call,)),
        Message(role="tool", content="330 g", tool_call_id="c1", name="weigh"),
    )
    first = question_prompt(QUESTION.model_copy(update={"tools": tools}), "Think.", system="OWN")
    then = question_prompt(QUESTION.model_copy(update={"tools": tools, "continuation": since}), "Think.", system="OWN")
    assert then.messages == (*first.messages, *since)
    assert (then.tools, first.tools, then.tool_choice) == (tools, tools, "auto")
    quiet = QUESTION.model_copy(update={"tools": tools, "tool_choice": "none"})
    assert question_prompt(quiet, "Think.").tools == ()
    problem = question_text(QUESTION.model_copy(update={"continuation": since}))
    assert problem == (
        f'{HISTORY}\n\nUser: And half of it?\n\nAssistant: [{{"arguments":{{"eggs":6}},"name":"weigh"}}]\n\nTool: 330 g'
    )
