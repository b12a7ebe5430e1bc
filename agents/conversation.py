"""`Conversation`: several questions of a user with one set of tools and, if requested, one budget; each is a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from ..core.budget import AMOUNTS, Budget
from ..core.errors import BudgetExceeded, UnknownName, UserError
from ..core.events import Sink
from ..core.messages import ApprovalMode, Message
from ..core.run import RunConfig, read_config
from ..core.store.group_commit import Row
from ..core.store.records import RunRecord
from ..core.store.sql import RunStore
from ..core.types import Answer, Question
from .loop.records import Decision, StoredToolCall, ToolCallStore

if TYPE_CHECKING:
    from .reasoner import Reasoner
    from .resources import ToolLike


class Conversation:
    """A conversation; `Reasoner.conversation` creates it, and `async with` loads it.

    Every question is a run of its own, which the run store lists under the conversation's ID, and has the messages
    before it as `Question.conversation`. A killed process loses nothing: the next one loads the conversation by its ID.

        async with reasoner.conversation(tools=[search]) as chat:
            answer = await chat.ask("Which flights leave tomorrow?")
            answer = await chat.ask("Book the first one.")

    Attributes:
        id: The conversation's ID.
        runs: Names of the runs whose messages these are, oldest first.
        budget: Limits of all its questions together, those of its last run unless others are given.
        last: Configuration of its last run; None before the first.
        unfinished: A run that was interrupted, or waits for decisions; `resume` continues it. Empty if there is none.
    """

    def __init__(
        self,
        reasoner: Reasoner,
        conversation_id: str,
        *,
        system: str = "",
        budget: Budget | None = None,
        tools: Sequence[ToolLike] | None = None,
        approve: ApprovalMode | None = None,
        tenant: str | None = None,
    ) -> None:
        self.id = conversation_id
        self.messages: tuple[Message, ...] = (Message(role="system", content=system),) if system else ()
        self.runs: tuple[str, ...] = ()
        self.budget = budget
        self.last: RunConfig | None = None
        self.unfinished = ""
        self._reasoner, self._tenant = reasoner, tenant
        self._tools, self._approve = tools, approve
        self._spent: list[Answer] = []

    taken_back = ""
    """The question before, which failed without effects, and which the last one has replaced."""

    _asked = ""

    async def __aenter__(self) -> Conversation:
        if self._tools is not None or self._approve is not None:
            self._reasoner = await self._reasoner.variant(tools=self._tools, approve=self._approve)
        for record in await conversation_runs(await self._reasoner.open_store(), self.id, self._tenant):
            config = self.last = read_config(record)
            self.messages = config.question.conversation
            self.unfinished = record.id
            if record.status == "finished":
                self._append(config.question, Answer.model_validate(record.answer))
        if self.budget is None and self.last is not None:
            self.budget = self.last.conversation_budget
        return self

    async def __aexit__(self, *_: object) -> None:
        pass  # the runs are in the store

    async def ask(
        self, question: str | Question, *, sinks: Sequence[Sink] = (), stream_text: bool = False, **options: Any
    ) -> Answer:
        """Ask the next question; arguments as `Reasoner.aask`.

        Raises:
            UserError: The run before has not ended. One that failed before it executed a call that changes something
                is undone (`taken_back`).
            BudgetExceeded: The conversation's budget is spent.
        """
        self.taken_back = await self._take_back() if self.unfinished else ""
        if isinstance(question, str):
            question = Question(text=question)
        question = question.model_copy(update={"conversation": (*self.messages, *question.conversation)})
        if (left := self.left()) is not None:
            options["budget"] = left
        config = self.joined(self._reasoner.plan(question, **options))
        self._asked = question.text

        def started(run_id: str) -> None:
            self.unfinished = run_id

        answer = await self._reasoner.arun(
            config, sinks=sinks, stream_text=stream_text, on_start=lambda run: started(run.id)
        )
        self._append(config.question, answer)
        return answer

    async def _take_back(self) -> str:
        """Undo the unfinished question, which failed without effects; returns its text.

        Raises:
            UserError: It may have had effects, or can be resumed.
        """
        store = await self._reasoner.open_store()
        try:
            record = await store.get_run(self.unfinished)
        except UnknownName:  # it failed before anything was stored
            self.unfinished = ""
            return self._asked
        calls = await ToolCallStore(store).list(self.unfinished)
        if record.status != "failed" or any(call.effect != "read" and call.attempts for call in calls):
            raise UserError(
                f"run {self.unfinished} of the conversation has not ended",
                hint="resume it, or undo its question (/resume, /undo in a chat)",
            )
        await self.undo()
        return read_config(record).question.text

    def left(self) -> Budget | None:
        """What its questions have left of its budget; None without one.

        Raises:
            BudgetExceeded: Nothing of one of its limits.
        """
        return None if self.budget is None else remaining_budget(self.budget, self._spent)

    def joined(self, config: RunConfig) -> RunConfig:
        """The configuration of the next question's run, as one of the conversation."""
        parent = self.unfinished or (self.runs[-1] if self.runs else "")
        return config.model_copy(update={"conversation": self.id, "parent": parent, "conversation_budget": self.budget})

    async def resume(
        self,
        *,
        decisions: Mapping[str, Decision] | None = None,
        assume: Literal["done", "failed"] | None = None,
        sinks: Sequence[Sink] = (),
        stream_text: bool = False,
    ) -> Answer:
        """Continue the unfinished run; arguments as `Reasoner.aresume`.

        Raises:
            UserError: There is no unfinished run.
        """
        if not self.unfinished:
            raise UserError("no run of the conversation is unfinished", hint="ask the next question")
        run_id = self.unfinished
        answer = await self._reasoner.aresume(
            run_id, decisions=decisions or {}, assume=assume, sinks=sinks, stream_text=stream_text
        )
        store = await self._reasoner.open_store()
        self._append(read_config(await store.get_run(run_id)).question, answer)
        return answer

    async def undo(self) -> list[StoredToolCall]:
        """Remove the last question and all that followed it; the next question takes its place.

        Returns:
            The removed question's calls of tools that change something: what they have done stays done.

        Raises:
            UserError: There is no question.
        """
        run_id = self.unfinished or (self.runs[-1] if self.runs else "")
        if not run_id:
            raise UserError("the conversation has no question to undo", hint="ask one")
        store = await self._reasoner.open_store()
        config = read_config(await store.get_run(run_id))
        self.messages, self.unfinished = config.question.conversation, ""
        self.runs = self.runs[: self.runs.index(config.parent) + 1] if config.parent else ()
        calls = await ToolCallStore(store).list(run_id)
        return [call for call in calls if call.effect != "read" and call.attempts]

    def _append(self, question: Question, answer: Answer) -> None:
        """Add a run that has ended, or keep it as unfinished."""
        if answer.stopped == "waiting":
            return
        asked = Message(role="user", content=question.text, attachments=question.attachments)
        made = answer.messages or (answer.message,)
        self.messages = (*question.conversation, asked, *question.continuation, *made)
        self.runs, self.unfinished = (*self.runs, answer.run_id), ""
        self._spent.append(answer)


async def conversation_runs(store: RunStore, conversation_id: str, tenant: str | None = None) -> list[RunRecord]:
    """The runs of a conversation, the oldest first, without questions that were undone.

    Args:
        tenant: Their owner; None is any.
    """
    of_tenant = ("", ()) if tenant is None else (" AND tenant = ?", (tenant,))
    newest = await _newest_run(store, f"conversation = ?{of_tenant[0]}", conversation_id, *of_tenant[1])
    chain: list[RunRecord] = []
    run_id = newest[0] if newest else ""
    while run_id:
        try:
            chain.append(await store.get_run(run_id, exact=True))
        except UnknownName:  # older runs were deleted; their messages are in this one's question
            break
        run_id = str(chain[-1].config.get("parent", ""))
    return chain[::-1]


async def last_conversation(store: RunStore) -> str | None:
    """ID of the conversation with the newest run; None if there is no conversation."""
    newest = await _newest_run(store, "conversation <> ?", "")
    return newest[1] if newest else None


async def _newest_run(store: RunStore, condition: str, *values: str) -> Row:
    """Name and conversation of the newest run; empty if there is none."""
    sql = f"SELECT id, conversation FROM runs WHERE {condition} ORDER BY created DESC, id DESC LIMIT 1"  # noqa: S608
    rows = await store.commits.read(lambda db: db.execute(sql, values))
    return rows[0] if rows else ()


def remaining_budget(budget: Budget, answers: Sequence[Answer]) -> Budget:
    """What answers have left of a budget.

    Raises:
        BudgetExceeded: Nothing of one of its limits.
    """
    left: dict[str, float] = {}
    for kind, field in {**AMOUNTS, "seconds": "wall_seconds", "turns": "turns", "tool_calls": "tool_calls"}.items():
        limit = getattr(budget, kind)
        if limit is None:
            continue
        used = sum(getattr(answer.usage, field) or 0 for answer in answers)
        if used >= limit:
            raise BudgetExceeded(kind, used, limit, answers[-1] if answers else None)
        left[kind] = limit - used
    return budget.model_copy(update=left)
