"""Conversations: messages and budget over several questions, other processes, and the removal of a question."""

from __future__ import annotations

import pytest
from reason.agents.conversation import last_conversation
from reason.agents.loop.tool import tool_of
from reason.core.budget import Budget
from reason.core.errors import BudgetExceeded, CapabilityMissing, UserError
from reason.core.messages import Attachment
from reason.core.types import Question
from support.agent_model import call


def book(flight: str) -> str:
    """Book a flight."""
    return f"booked {flight}"


TURNS = ["Which flight?", [call("book", flight="A1")], "The answer is A1.", "The answer is bye."]


def contents(chat):
    return [(m.role, m.content) for m in chat.messages]


BOOKED = [
    ("system", "Be brief."),
    ("user", "Hello"),
    ("assistant", "Which flight?"),
    ("user", "A1"),
    ("assistant", ""),
    ("tool", "booked A1"),
    ("assistant", "The answer is A1."),
]


async def test_a_question_has_the_messages_before_it(agent):
    async with agent(TURNS, tools=[book], approve="never") as reasoner:
        async with reasoner.conversation(system="Be brief.") as chat:
            await chat.ask("Hello")
            answer = await chat.ask("A1")
        assert (answer.answer, contents(chat)) == ("A1", BOOKED)
        assert [m.content for m in reasoner.model.prompts[-1]] == [text for _, text in BOOKED[:-1]]
        store = await reasoner.open_store()
        first, second = [(await store.get_run(run)).config for run in chat.runs]
        assert (first["conversation"], second["conversation"], second["parent"]) == (chat.id, chat.id, chat.runs[0])
        assert "parent" not in first


async def test_it_is_continued_in_another_process(agent):
    async with (
        agent(TURNS, tools=[book], approve="never") as reasoner,
        reasoner.conversation(system="Be brief.") as chat,
    ):
        await chat.ask("Hello")
        await chat.ask("A1")
    async with agent(TURNS, tools=[book], approve="never") as again:
        assert await last_conversation(await again.open_store()) == chat.id
        async with again.conversation(conversation_id=chat.id) as continued:
            assert (continued.runs, contents(continued)) == (chat.runs, BOOKED)
            assert (await continued.ask("Thanks")).answer == "bye"


async def test_a_waiting_question_is_resumed_or_undone(agent):
    async with agent(TURNS, tools=[book], approve="writes") as reasoner, reasoner.conversation() as chat:
        await chat.ask("Hello")
        waiting = await chat.ask("A1")
        assert (waiting.stopped, chat.unfinished) == ("waiting", waiting.run_id)
        with pytest.raises(UserError, match="has not ended"):
            await chat.ask("Well?")
    again = agent(TURNS, tools=[book], approve="never")
    async with again, again.conversation(conversation_id=chat.id) as continued:
        assert continued.unfinished == waiting.run_id
        assert await continued.undo() == []
        assert contents(continued) == BOOKED[1:3]
        assert (await continued.ask("A1")).answer == "A1"
        (executed,) = await continued.undo()
        assert (executed.tool, executed.status) == ("book", "done")
        assert continued.runs == chat.runs[:1]


async def test_tools_and_approval_may_be_the_conversations_own(agent):
    async with agent(TURNS) as reasoner:
        async with reasoner.conversation(tools=[tool_of(book)], approve="never") as chat:
            await chat.ask("Hello")
            assert (await chat.ask("A1")).usage.tool_calls == 1
        assert reasoner.settings.tools.use == ()


async def test_its_budget_is_that_of_all_questions(agent):
    reasoner = agent(TURNS, tools=[book], approve="never")
    async with reasoner, reasoner.conversation(budget=Budget(calls=3)) as chat:
        await chat.ask("Hello")
        await chat.ask("A1")
        with pytest.raises(BudgetExceeded, match="the budget of 3 calls is spent"):
            await chat.ask("Thanks")
        assert len(chat.runs) == 2


async def test_a_question_that_failed_without_effects_is_taken_back_by_the_next(agent):
    async with agent(TURNS, tools=[book], approve="never") as reasoner, reasoner.conversation() as chat:
        await chat.ask("Hello")
        with pytest.raises(CapabilityMissing):
            await chat.ask(
                Question(
                    text="Look",
                    attachments=(Attachment(kind="image", media_type="image/png", sha256="0" * 64, data="AA=="),),
                )
            )
        assert chat.unfinished
        assert (await chat.ask("A1")).answer == "A1"
        assert (chat.taken_back, len(chat.runs)) == ("Look", 2)
        assert "Look" not in [text for _, text in contents(chat)]
        await chat.ask("Thanks")
        assert chat.taken_back == ""
