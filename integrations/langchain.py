"""`StrategyMiddleware`: the model turns of a LangChain agent by a strategy of ours."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from langchain.agents.middleware import AgentMiddleware, ModelResponse
from langchain_core.messages import AIMessage
from langgraph.config import get_config

from ..agents.loop.records import ToolCallStore, client_results, question_history
from ..agents.loop.tool import tool_of
from ..agents.pipeline import PipelineRun
from ..agents.reasoner import Reasoner
from ..agents.resources import RunResources
from ..core.concurrency import gather
from ..core.errors import CapabilityMissing, UnknownName, UserError
from ..core.events import RunFinished
from ..core.messages import (
    TOOL_CHOICE_NONE,
    Chunk,
    Completion,
    NextTokenDistribution,
    Prompt,
    Request,
    ScoredContinuation,
    Tool,
    Usage,
)
from ..core.run import Run, RunConfig, new_run_id, read_config
from ..core.store.records import RunRecord
from ..core.types import Answer, Question
from ..reasoning.strategy import STRATEGIES, strategy_config
from ..serving.model import Capabilities, Listener
from .langgraph import from_message, to_message

Handler = Callable[[Any], Awaitable[Any]]
_ONLY_SAMPLES = "use a strategy that only samples and votes"


class StrategyMiddleware(AgentMiddleware[Any, Any]):
    """Makes the model turns of `langchain.agents.create_agent` by a strategy.

    The turns of one question are one run, with one budget and one trace; it waits while the agent executes its tools.
    In a thread, a model call that is repeated, since the process was killed, takes the stored turn.

    The agent's model makes the samples, with its own prompt: strategies that only sample and vote, such as
    self-consistency, can be used. The turn is the response of the chosen sample.

        create_agent(model, tools, middleware=[StrategyMiddleware(reasoner, "self-consistency", n=5)])

    Args:
        reasoner: Has the run store and the budget of each run.
        parameters: Parameters of the strategy.
    """

    def __init__(self, reasoner: Reasoner, strategy: str = "self-consistency", **parameters: Any) -> None:
        super().__init__()
        self._reasoner, self._strategy, self._parameters = reasoner, strategy, parameters

    async def awrap_model_call(self, request: Any, handler: Handler) -> Any:
        """The response of the sample that the strategy chooses."""
        model = _HandlerModel(request, handler)
        messages = [to_message(message) for message in request.messages]
        last = max((i for i, message in enumerate(messages) if message.role == "user"), default=None)
        if last is None:
            raise UserError("there is no user message", hint="give the agent one")
        question = Question(
            text=messages[last].content,
            conversation=tuple(messages[:last]),
            continuation=tuple(messages[last + 1 :]),
            tools=tuple(map(_declaration, request.tools)),
        )
        config = self._reasoner.plan(
            question, strategy=self._strategy, parameters=self._parameters, model=model.name, tools=(), verify=()
        )
        thread = str(get_config().get("configurable", {}).get("thread_id") or "")
        answer = await self._answer(config.for_client_loop(thread), model, thread)
        for completion, response in model.responses:
            if (completion.text, completion.tool_calls) == (answer.text, answer.tool_calls):
                return response
        if model.responses and answer.stopped in ("done", "waiting"):
            raise UserError(f"{self._strategy} writes texts of its own", hint="use a strategy that chooses a sample")
        name = hashlib.sha256(question_history(question, question.continuation).encode()).hexdigest()[:24]
        return ModelResponse(result=[from_message(answer.message, f"{answer.run_id}-{name}")])

    async def _answer(self, config: RunConfig, model: _HandlerModel, thread: str) -> Answer:
        """The turn, of the run whose calls the messages end with, or of a new one."""
        store, question = await self._reasoner.open_store(), config.question
        calls = ToolCallStore(store)
        call_id, results = client_results(question)
        joined = await calls.client_runs(next(iter(results)), call_id, config.tenant) if results else ()
        for run_id in joined:
            with suppress(UnknownName):  # deleted meanwhile
                record = await store.get_run(run_id, exact=True)
                if record.config.get("client_loop") != config.client_loop:
                    continue
                if await calls.return_results(run_id, results) != "other":
                    return await self._continue(record, frozenset(results), model)
        run_id = new_run_id()
        if thread:  # a killed process may have begun it
            history = question_history(question, question.continuation)
            run_id = f"lc-{hashlib.sha256(f'{config.client_loop}{history}'.encode()).hexdigest()[:24]}"
            with suppress(UnknownName):
                return await self._continue(await store.get_run(run_id, exact=True), frozenset(), model)
        await store.create_run(run_id, config, tenant=config.tenant)
        return await self._pipeline(Run(run_id, config, store), model).start()

    async def _continue(self, record: RunRecord, results: frozenset[str], model: _HandlerModel) -> Answer:
        """The turn that a stored run's results led to before, or lead to now."""
        store = await self._reasoner.open_store()
        events = await store.list_events(record.id)
        ends = [event.answer for event in events if isinstance(event, RunFinished)]
        ends = [end for end in ends if end.stopped != "cancelled"]
        asked = [frozenset[str](), *(frozenset(call.id for call in end.pending) for end in ends)]
        for before, end in zip(asked, ends, strict=False):
            if before == results:
                return end
        await store.claim_run(record.id, allowed=("running", "waiting", "interrupted", "failed"))
        run = Run(record.id, read_config(record), store, previous_events=events, has_started=bool(record.identities))
        return await self._pipeline(run, model).resume(ends[-1] if ends else None)

    def _pipeline(self, run: Run, model: _HandlerModel) -> PipelineRun:
        config = run.config
        strategy = STRATEGIES.load(config.strategy)(strategy_config(config.strategy, config.parameters))
        return PipelineRun(run, RunResources({"main": model}, strategy))


class _HandlerModel:
    """A language model whose samples are calls of a middleware's handler."""

    def __init__(self, request: Any, handler: Handler) -> None:
        self._request, self._handler = request, handler
        chat_model = request.model
        named = getattr(chat_model, "model_name", None) or getattr(chat_model, "model", None)
        self.name = f"langchain/{named or type(chat_model).__name__}"
        self.identity = self.name
        self.capabilities = Capabilities(tools=True, usd_per_prompt_token=None, usd_per_completion_token=None)
        self.responses: list[tuple[Completion, Any]] = []

    async def generate(self, requests: Sequence[Request], listener: Listener | None = None) -> list[list[Completion]]:
        made = [await gather(self._sample(request.prompt, index) for index in request.indices) for request in requests]
        for i, completions in enumerate(made):
            for done in completions:
                if listener is not None:
                    listener(Chunk(request=i, sample_index=done.sample_index, text=done.text, completion=done))
        return made

    async def _sample(self, prompt: Prompt, index: int) -> Completion:
        request = self._request
        if request.tools and (prompt.tool_choice == TOOL_CHOICE_NONE or not prompt.tools):  # the answer at the end
            shown = [from_message(message, "") for message in prompt.messages if message.role != "system"]
            request = request.override(messages=shown, tool_choice=TOOL_CHOICE_NONE)
        response = await self._handler(request)
        said = next(message for message in response.result if isinstance(message, AIMessage))
        used = said.usage_metadata
        message = to_message(said)
        usage = Usage(
            prompt_tokens=0 if used is None else used["input_tokens"],
            completion_tokens=0 if used is None else used["output_tokens"],
            cost_usd=None,
        )
        done = Completion(
            text=message.content,
            tool_calls=message.tool_calls,
            finish_reason="stop",
            usage=usage,
            sample_index=index,
        )
        self.responses.append((done, response))
        return done

    async def score(self, prompt: Prompt, continuations: Sequence[Any]) -> list[ScoredContinuation]:
        raise CapabilityMissing("scoring", self.name, hint=_ONLY_SAMPLES)

    async def next_token(self, prompts: Sequence[Prompt], top: int = 20) -> list[NextTokenDistribution]:
        raise CapabilityMissing("next_token", self.name, hint=_ONLY_SAMPLES)

    def count_tokens(self, prompt: Prompt) -> int | None:
        return None

    async def aclose(self) -> None:
        pass


def _declaration(tool: Any) -> Tool:
    if isinstance(tool, dict):
        raise UserError("tools of the provider cannot be voted on", hint="give the agent tools that it executes")
    return tool_of(tool).declaration
