"""A small contract with the real endpoint of a model: what runs rely on, tried through the calls that they make.

All cells are calls of one `MeteredModel` in one run, whose budget bounds them together. A parameter that an endpoint
ignores is remembered as if it had been refused (`serving/refusals`), so that later runs do without it, and say so. What
the user's settings say takes precedence over that, and is never changed.
"""

from __future__ import annotations

import asyncio
import json
import struct
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal, NamedTuple

from ..core.budget import Budget
from ..core.concurrency import cancel_and_wait
from ..core.errors import (
    BudgetExceeded,
    CapabilityMissing,
    InvalidResponse,
    ReasonError,
    SchemaNotSatisfied,
    UserError,
)
from ..core.messages import (
    TOOL_CHOICE_AUTO,
    TOOL_CHOICE_REQUIRED,
    Attachment,
    Chunk,
    Completion,
    Message,
    Prompt,
    Request,
    SamplingParams,
    Tool,
)
from ..core.run import Run, RunConfig, new_run_id
from ..core.settings import Settings
from ..core.store import open_store
from ..core.types import Candidate, Question, RunUsage, Solution
from ..reasoning.json_answers import with_json_answer
from ..serving.factory import load_model
from ..serving.litellm.model import LiteLLMModel
from ..serving.litellm.providers import find_settings
from ..serving.litellm.transport import Transport
from ..serving.metered.model import MeteredModel
from ..serving.model import UNCOUNTED, Listener
from ..serving.output_schemas import object_schema
from ..serving.profiles.profile import Parameter
from ..serving.quick_calls import quick_params
from ..serving.refusals import remember_refusal
from ..serving.thoughts import COMMON_TAGS

BUDGET: Final = Budget(tokens=16_384, calls=24)
MAX_USD: Final = 0.045
"""Maximum cost where the prices are known, reserved before each call. The probes of one's own server come before."""
ANSWER_TOKENS, TEXT_TOKENS, CALL_TOKENS, THOUGHT_TOKENS = 48, 256, 192, 512
SEED: Final = 1
IGNORED_EFFORT: Final = "the effort none is ignored"

COUNT: Final = "Count from 1 to 12 in digits, separated by commas."
SENTENCES: Final = "Write two short sentences about apples."
STORY: Final = "Write a story of ten sentences about a lighthouse."
PUZZLE: Final = "How many of the numbers from 1 to 30 are divisible by 4 or by 6?"
SCHEMA: Final = object_schema({"answer": {"type": "string"}, "certain": {"type": "boolean"}})
WEATHER: Final = Tool(
    name="get_weather",
    description="Returns the weather of a city.",
    parameters=object_schema({"city": {"type": "string"}}),
)

State = Literal["ok", "absent", "note", "fail", "skipped"]
"""Whether a cell holds: yes; the model lacks it; it prevents nothing; it is broken; the budget had no room for it."""
Result = tuple[State, str]


class Cell(NamedTuple):
    """The result of one cell."""

    name: str
    state: State
    detail: str


class LiveContract:
    """The cells of one model.

    Args:
        model: The model, whose requests are observed.
        run: The run that pays.

    Attributes:
        learned: The parameters that later runs leave out, with the reasons.
    """

    def __init__(self, model: LiteLLMModel, run: Run) -> None:
        self._backend, self._run = model, run
        self._wire = model.wire = _ObservedTransport(model.wire)
        self._model = MeteredModel(model, "main", run)
        self._known = model.capabilities.profile.left_out
        self._answer: Completion | None = None
        self._cancelled: Result = ("skipped", "no text was streamed")
        self.endpoint = model.target.endpoint
        self.learned: dict[Parameter, str] = {}

    @property
    def budget(self) -> Budget:
        """What the cells may cost together."""
        return self._run.config.budget

    @property
    def usage(self) -> RunUsage:
        """What the cells have cost so far."""
        return self._run.ledger.usage()

    async def check(self) -> AsyncIterator[Cell]:
        """Try the cells one after another; without an answer, no other one."""
        for name, trial in CELLS.items():
            cell = await self._try(name, trial)
            left_out = self._backend.capabilities.profile.left_out - self._known
            self.learned |= dict.fromkeys(sorted(left_out - self.learned.keys()), "refused")
            yield cell
            if name == "answer" and cell.state != "ok":
                return

    async def _try(self, name: str, trial: Callable[[LiveContract], Awaitable[Result]]) -> Cell:
        try:
            return Cell(name, *await trial(self))
        except BudgetExceeded as e:
            return Cell(name, "skipped", e.message)
        except (CapabilityMissing, UserError) as e:
            return Cell(name, "fail" if name == "answer" else "absent", e.message)
        except ReasonError as e:
            return Cell(name, "fail", e.message)

    async def _ask(
        self,
        prompt: str | Prompt,
        *,
        max_tokens: int = ANSWER_TOKENS,
        listener: Listener | None = None,
        sampling: SamplingParams | None = None,
        **params: Any,
    ) -> list[Completion]:
        """The samples of a call, by default with as little thought as the model allows."""
        asked = Prompt.user(prompt) if isinstance(prompt, str) else prompt
        sampling = sampling or quick_params(self._model, max_tokens=max_tokens, **params)
        (samples,) = await self._model.generate([Request(prompt=asked, sampling=sampling)], listener)
        for sample in samples:
            if sample.failure is not None:
                raise InvalidResponse(sample.failure.message)
            if sample.finish_reason == "budget":
                raise self._run.ledger.exceeded(self._run.ledger.exhausted or "tokens")
        return samples

    def _thinking(self, max_tokens: int) -> SamplingParams:
        """Parameters of a call in which a model that can think does, with a low effort where it has one."""
        profile = self._model.profile
        if not profile.can_think:
            return quick_params(self._model, max_tokens=max_tokens)
        effort = "low" if "low" in profile.efforts and "effort" not in profile.left_out else None
        return SamplingParams(
            max_tokens=max_tokens, effort=effort, thinking_tokens=max(THOUGHT_TOKENS, profile.min_thinking_tokens)
        )

    async def _learn(self, parameter: Parameter, why: str) -> None:
        target = self._backend.target
        where = (target.data_dir, target.name, target.endpoint)
        await asyncio.to_thread(remember_refusal, *where, parameter, f"reason doctor --live: {why}")
        self.learned[parameter] = why

    # -- cells

    async def answer(self) -> Result:
        """Text comes back, without a thought in it."""
        (self._answer,) = await self._ask(COUNT)
        text = self._answer.text.strip()
        if not text:
            is_thought = self._answer.finish_reason == "thinking"
            if is_thought and self._model.profile.quick_fields.get("effort") == "none":
                await self._learn("effort", IGNORED_EFFORT)
            return "fail", "a thought takes all tokens" if is_thought else "the answer is empty"
        tag = next((opening.strip() for opening, _ in COMMON_TAGS if opening.strip() in text), None)
        return ("fail", f"the answer has a thought in it: {tag}") if tag else ("ok", json.dumps(text[:60]))

    async def counted(self) -> Result:
        """The endpoint sends a usage that fits its response."""
        assert self._answer is not None
        booked, priced = self._answer.usage, self._backend.prices.completion is not None
        sent = self._wire.usages[-1] if self._wire.usages else {}
        generated = sent.get("completion_tokens") or 0
        thinking = (sent.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
        if not generated:
            return "fail" if priced else "note", "the endpoint sends no usage; tokens are counted or estimated here"
        if booked.completion_tokens not in (generated, generated + thinking):
            why = f"the usage has {generated} tokens, the response about {booked.completion_tokens}"
            return "fail" if priced else "note", f"{why}, which are counted"
        return "ok", f"{booked.prompt_tokens} prompt tokens, {booked.completion_tokens} generated"

    async def streaming(self) -> Result:
        """Text comes in pieces, after which the call is cancelled."""
        pieces, tokens, several = 0, 0, asyncio.Event()

        def listen(chunk: Chunk) -> None:
            nonlocal pieces, tokens
            pieces += chunk.completion is None and bool(chunk.text or chunk.thought)
            tokens += chunk.tokens or len(chunk.token_ids) or bool(chunk.text or chunk.thought)
            if pieces >= 2:
                several.set()

        work = asyncio.create_task(self._ask(STORY, max_tokens=TEXT_TOKENS, listener=listen))
        watch = asyncio.create_task(several.wait())
        try:
            await asyncio.wait((work, watch), return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel_and_wait(work, watch)
        if not work.cancelled():
            work.result()
            self._cancelled = ("note", "the response had ended before it was cancelled")
        if pieces < 2:
            return (
                "fail",
                "a long text comes in one piece: nothing is shown, and nothing saved by stopping, before its end",
            )
        if work.cancelled():
            self._cancelled = ("ok", f"stopped after about {tokens} of {TEXT_TOKENS} tokens")
        return "ok", "text comes in pieces"

    async def cancellation(self) -> Result:
        """A call ends when it is cancelled."""
        return self._cancelled

    async def sampled(self) -> Result:
        """Temperature and seed are taken, or left out."""
        await self._ask(SENTENCES, max_tokens=16, temperature=0.5)
        sent = self._wire.bodies[-1]
        left_out = [name for name in ("temperature", "seed") if name not in sent]
        return "note" if "temperature" in left_out else "ok", (
            f"left out: {', '.join(left_out)}" if left_out else "temperature and seed are sent"
        )

    async def samples(self) -> Result:
        """A call may have several samples."""
        samples = await self._ask(SENTENCES, n=2)
        if any(not sample.text.strip() for sample in samples):
            return "fail", "a sample is empty"
        return "ok", "in one request" if self._wire.bodies[-1].get("n") == 2 else "in a request each"

    async def stop(self) -> Result:
        """A stop string ends the text."""
        (sample,) = await self._ask(SENTENCES, stop=(".",))
        if "." in sample.text:
            await self._learn("stop", "stop strings are ignored")
            return "fail", f"ignored: {json.dumps(sample.text[:60])}"
        return "ok", "applied by the endpoint" if "stop" in self._wire.bodies[-1] else "applied here"

    async def logprobs(self) -> Result:
        """Log-probabilities of the generated tokens come back."""
        if not self._model.quick_capabilities.logprobs:
            return "absent", "the model shows none"
        (sample,) = await self._ask(COUNT, max_tokens=8, logprobs=True)
        if not sample.logprobs:
            await self._learn("logprobs", "no log-probabilities are sent")
            return "fail", "none are sent"
        if max(sample.logprobs) > 1e-6:
            return "fail", f"one is positive: {max(sample.logprobs):.3g} nats"
        return "ok", f"of {len(sample.logprobs)} tokens"

    async def schema(self) -> Result:
        """The answer is written as JSON that satisfies a schema."""
        is_constrained = self._model.quick_capabilities.json_schema
        question = Question(text="Do lemons taste sour?", answer_schema=SCHEMA)
        given = Solution(chosen=0, candidates=(Candidate(text="Yes, they do."),))
        try:
            solution = await with_json_answer(given, question, self._model, self._run, max_tokens=ANSWER_TOKENS * 2)
        except SchemaNotSatisfied as e:
            if not is_constrained:
                return "note", f"by a prompt: {e.message}"
            await self._learn("json_schema", "the schema is ignored")
            return "fail", e.message
        if solution.stopped == "budget":
            raise self._run.ledger.exceeded("tokens")
        best = solution.best
        if best is None or best.answer is None:
            return "note", "the JSON is cut at its maximum of tokens"
        return "ok", f"{'held to by the endpoint' if is_constrained else 'by a prompt'}: {best.answer}"

    async def thought(self) -> Result:
        """A thought is told from the answer, and counted."""
        if not self._model.profile.can_think:
            return "absent", "the model does not think"
        (sample,) = await self._ask(PUZZLE, sampling=self._thinking(ANSWER_TOKENS))
        tokens = sample.usage.thinking_tokens
        if UNCOUNTED in sample.extras:
            return "fail", "hidden, and the endpoint sends no count of its tokens"
        if not tokens:
            return "note", "the model did not think"
        return "ok", f"{'shown' if sample.thought and sample.thought.text else 'hidden'}, {tokens} tokens"

    async def no_effort(self) -> Result:
        """The effort none leaves the thought out."""
        profile = self._model.profile
        if not profile.can_think:
            return "absent", "the model does not think"
        if not profile.takes_no_thought:
            return "absent", "the model always thinks"
        (sample,) = await self._ask(PUZZLE, sampling=SamplingParams(max_tokens=ANSWER_TOKENS, effort="none"))
        if sample.usage.thinking_tokens or (sample.thought is not None and sample.thought.text):
            await self._learn("effort", IGNORED_EFFORT)
            return "fail", f"ignored: the model thought for {sample.usage.thinking_tokens} tokens"
        return "ok", "the model answers without a thought"

    async def low_effort(self) -> Result:
        """The effort low is taken."""
        profile = self._model.profile
        if not profile.can_think or "low" not in profile.efforts:
            return "absent", "the model has no efforts" if profile.can_think else "the model does not think"
        (sample,) = await self._ask(COUNT, sampling=self._thinking(ANSWER_TOKENS))
        if "effort" in profile.left_out or "effort" in self._model.profile.left_out:
            return "note", "left out"
        return "ok", f"{sample.usage.thinking_tokens} tokens of thought"

    async def tools(self) -> Result:
        """A tool is called, and its result answered in a second turn."""
        if not self._model.capabilities.tools:
            return "absent", "the model takes none"
        messages = Prompt.user("What is the weather in Oslo? Call get_weather.").messages
        sampling = self._thinking(CALL_TOKENS)
        called, is_forced = await self._called(Prompt(messages=messages, tools=(WEATHER,)), sampling)
        if not called.tool_calls:
            return "fail" if is_forced else "note", f"the model called none: {json.dumps(called.text[:60])}"
        for call in called.tool_calls:
            if call.name != WEATHER.name or not _is_object(call.arguments):
                return "fail", f"an invalid call: {call.name}({call.arguments[:60]})"
        said = Message(role="assistant", content=called.text, tool_calls=called.tool_calls, thought=called.thought)
        results = [
            Message(role="tool", content="18 degrees, sunny", tool_call_id=call.id, name=call.name)
            for call in called.tool_calls
        ]
        (reply,) = await self._ask(Prompt(messages=(*messages, said, *results), tools=(WEATHER,)), sampling=sampling)
        if not reply.text.strip():
            return "fail", "the second turn has no text"
        return "ok", f"{called.tool_calls[0].arguments}, and {json.dumps(reply.text.strip()[:40])} in the second turn"

    async def _called(self, prompt: Prompt, sampling: SamplingParams) -> tuple[Completion, bool]:
        """The response to a prompt with tools, and whether a call was forced."""
        try:
            forced = prompt.model_copy(update={"tool_choice": TOOL_CHOICE_REQUIRED})
            return (await self._ask(forced, sampling=sampling))[0], True
        except CapabilityMissing:
            asked = prompt.model_copy(update={"tool_choice": TOOL_CHOICE_AUTO})
            return (await self._ask(asked, sampling=sampling))[0], False

    async def image(self) -> Result:
        """An image is read."""
        if "image" not in self._model.capabilities.inputs:
            return "absent", "the model takes none"
        message = Message(role="user", content="Which colour is this?", attachments=(Attachment.of(red_png()),))
        (sample,) = await self._ask(Prompt(messages=(message,)))
        return ("ok", json.dumps(sample.text[:60])) if sample.text.strip() else ("fail", "the answer is empty")


CELLS: Final[Mapping[str, Callable[[LiveContract], Awaitable[Result]]]] = {
    "answer": LiveContract.answer,
    "usage": LiveContract.counted,
    "streaming": LiveContract.streaming,
    "cancellation": LiveContract.cancellation,
    "temperature": LiveContract.sampled,
    "samples": LiveContract.samples,
    "stop strings": LiveContract.stop,
    "log-probabilities": LiveContract.logprobs,
    "JSON schema": LiveContract.schema,
    "thought": LiveContract.thought,
    "effort none": LiveContract.no_effort,
    "effort low": LiveContract.low_effort,
    "tools": LiveContract.tools,
    "image": LiveContract.image,
}
"""The cells, the most important first: the budget may end before the last."""


@asynccontextmanager
async def open_contract(name: str, settings: Settings) -> AsyncIterator[LiveContract]:
    """The contract with a model, which is closed at the end.

    Raises:
        UserError: The model has no endpoint, or several.
        ReasonError: It cannot be opened.
    """
    hint = "name one as in openai/… or NAME@http://…"
    if find_settings(name, settings).endpoints:
        raise UserError(f"--live checks a model at one endpoint, and {name!r} has several", hint=hint)
    model = await load_model(name, settings)
    try:
        if not isinstance(model, LiteLLMModel):
            raise UserError(f"--live checks a model at an endpoint, and {name!r} has none", hint=hint)
        can = model.capabilities
        has_prices = None not in (can.usd_per_prompt_token, can.usd_per_completion_token)
        budget = BUDGET.model_copy(update={"usd": MAX_USD}) if has_prices else BUDGET
        config = RunConfig(
            question=Question(text=COUNT),
            strategy="doctor",
            parameters={},
            models={"main": name},
            budget=budget,
            seed=SEED,
            reuse="none",
        )
        with TemporaryDirectory() as directory:
            store = await open_store(Path(directory) / "runs.sqlite3")
            try:
                run = Run(new_run_id(), config, store)
                await store.create_run(run.id, config.model_dump(mode="json"))
                yield LiveContract(model, run)
                await run.writer.flush()
            finally:
                await store.aclose()
    finally:
        await model.aclose()


class _ObservedTransport(Transport):
    """A connection that keeps the bodies of chat requests, and the usages of their responses.

    Args:
        wire: Sends the requests.
    """

    def __init__(self, wire: Transport) -> None:
        self._observed, self.client = wire, wire.client
        self.bodies: list[Mapping[str, Any]] = []
        self.usages: list[Mapping[str, Any]] = []

    def chat(self, body: Mapping[str, Any]) -> AbstractAsyncContextManager[AsyncIterator[list[Any]]]:
        return self._observe(self._observed.chat(body), body)

    def complete(self, body: Mapping[str, Any]) -> AbstractAsyncContextManager[AsyncIterator[list[Any]]]:
        return self._observe(self._observed.complete(body), body)

    async def aclose(self) -> None:
        await self._observed.aclose()

    @asynccontextmanager
    async def _observe(
        self, response: AbstractAsyncContextManager[AsyncIterator[list[Any]]], body: Mapping[str, Any]
    ) -> AsyncIterator[AsyncIterator[list[Any]]]:
        self.bodies.append(body)
        async with response as batches, aclosing(self._read(batches)) as observed:
            yield observed

    async def _read(self, batches: AsyncIterator[Sequence[Any]]) -> Any:
        async for batch in batches:
            self.usages += [event["usage"] for event in batch if isinstance(event, dict) and event.get("usage")]
            yield batch


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def red_png(size: int = 32) -> bytes:
    """A red square as a PNG."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    rows = (b"\0" + b"\xff\0\0" * size) * size
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
