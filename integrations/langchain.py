"""`StrategyMiddleware`: the model turns of a LangChain agent by a strategy of ours."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from langchain.agents.middleware import AgentMiddleware
from langchain_core.messages import AIMessage

from ..agents.loop.tool import tool_of
from ..agents.pipeline import PipelineRun
from ..agents.reasoner import LazyGraph, Reasoner
from ..agents.resources import RunResources
from ..core.concurrency import gather
from ..core.errors import CapabilityMissing, UserError
from ..core.messages import (
    Chunk,
    Completion,
    NextTokenDistribution,
    Prompt,
    Request,
    ScoredContinuation,
    Tool,
    Usage,
)
from ..core.run import Run, new_run_id
from ..core.store.records import NewRun
from ..core.types import Question
from ..reasoning.strategy import STRATEGIES, strategy_config
from ..serving.model import Capabilities, Listener
from .langgraph import to_message

Handler = Callable[[Any], Awaitable[Any]]
_ONLY_SAMPLES = "use a strategy that only samples and votes"


class StrategyMiddleware(AgentMiddleware[Any, Any]):
    """Makes each model turn of `langchain.agents.create_agent` by a strategy, a run of its own.

    The agent's model makes the samples, with its own prompt: strategies that only sample and vote, such as
    self-consistency, can be used. The turn is the response of the chosen sample.

        create_agent(model, tools, middleware=[StrategyMiddleware(reasoner, "self-consistency", n=5)])

    Args:
        reasoner: Has the run store and the budget of each turn.
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
        reasoner = self._reasoner
        config = reasoner.plan(
            question, strategy=self._strategy, parameters=self._parameters, model=model.name, tools=()
        )
        strategy = STRATEGIES.load(self._strategy)(strategy_config(self._strategy, config.parameters))
        run = Run(new_run_id(), config, await reasoner.open_store())
        run.writer.create(NewRun(config, config.tenant))
        answer = await PipelineRun(run, RunResources({"main": model}, strategy), LazyGraph(None)).start()
        for completion, response in model.responses:
            if (completion.text, completion.tool_calls) == (answer.text, answer.tool_calls):
                return response
        raise UserError(f"{self._strategy} writes texts of its own", hint="use a strategy that chooses a sample")


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
        made = [await gather(self._sample(index) for index in request.indices) for request in requests]
        for i, completions in enumerate(made):
            for done in completions:
                if listener is not None:
                    listener(Chunk(request=i, sample_index=done.sample_index, text=done.text, completion=done))
        return made

    async def _sample(self, index: int) -> Completion:
        response = await self._handler(self._request)
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
