"""Every strategy as a solver of Inspect (`inspect_ai`), under the name `reason/<strategy>`.

    inspect eval task.py --model none --solver reason/self-consistency -S model=local/smollm2-135m -S n=8

Inspect finds this module through its entry-point group. The strategy's own model answers, not Inspect's, hence
`--model none`. The log holds, for each sample, the chosen text as the model's output, and in its metadata the extracted
answer, the confidence, the candidates, the ledger and the name of the run in `reason`'s store.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inspect_ai.hooks import Hooks, RunEnd, hooks
from inspect_ai.model import ChatMessageAssistant, Content, ContentReasoning, ContentText, ModelOutput, ModelUsage
from inspect_ai.solver import Generate, Solver, TaskState, solver

from ..agents.reasoner import Reasoner
from ..core.types import Answer, Question
from ..reasoning.prompts import LETTERS
from ..reasoning.strategy import STRATEGIES
from .plan import derive_item_seed

# Inspect puts the package's name before what is in site-packages, and not before an editable install whose
# distribution has another name than its package, as ours has.
_PREFIX = "" if "site-packages" in Path(__file__).parts else "reason/"


_OPTIONS = (
    "small_model",
    "judge_model",
    "reward_model",
    "jurors",
    "budget",
    "effort",
    "thinking_tokens",
)
"""Arguments of `Reasoner`; the others given to a solver are parameters of its strategy."""

# A solver is not notified of the last sample; hooks are notified of the end of a run. Both are per process.
_OPEN: weakref.WeakSet[Reasoner] = weakref.WeakSet()


@hooks(name="reason_close", description="Closes the models that solvers of reason have opened.")
class CloseReasoners(Hooks):
    """Closes models and store at the end of a run; the next question opens them again."""

    async def on_run_end(self, data: RunEnd) -> None:
        """Close them."""
        for reasoner in list(_OPEN):
            await reasoner.aclose()


@solver(name=_PREFIX + "strategy")
def strategy_solver(
    strategy: str,
    model: str | None = None,
    *,
    seed: int = 0,
    parameters: dict[str, Any] | None = None,
    reasoner: Reasoner | None = None,
    **options: Any,
) -> Solver:
    """A strategy as a solver.

    Args:
        model: Its main model; None is the setting.
        seed: Decides, with the sample's name and epoch, the seed of a question.
        reasoner: What answers, instead of a `Reasoner` of the other arguments.
        options: Further arguments of `Reasoner`.

    Raises:
        UnknownName: There is no such strategy or parameter.
        UserError: A value is not allowed.
    """
    if reasoner is None:
        reasoner = Reasoner(model, strategy, parameters=parameters, **options)
        _OPEN.add(reasoner)
    answering = reasoner

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        request = Question(text=state.input_text, choices=tuple(choice.value for choice in state.choices))
        name = f"{state.sample_id}\x1f{state.epoch}"
        return _told(state, await answering.aask(request, seed=derive_item_seed(name, seed)))

    return solve


def _told(state: TaskState, answer: Answer) -> TaskState:
    """Put an answer where Inspect's scorers and its viewer look for it."""
    usage = answer.usage
    state.messages.append(ChatMessageAssistant(content=answer.text, model=answer.model, source="generate"))
    state.output = ModelOutput.from_content(
        model=answer.model, content=answer.text, stop_reason="max_tokens" if answer.stopped == "budget" else "stop"
    )
    if answer.thought:
        content: list[Content] = [ContentReasoning(reasoning=answer.thought), ContentText(text=answer.text)]
        state.messages[-1].content = content
        state.output.message.content = content
    state.output.usage = ModelUsage(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        reasoning_tokens=usage.thinking_tokens or None,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        input_tokens_cache_read=usage.cached_tokens,
    )
    chosen = LETTERS.find(answer.answer) if answer.answer and len(answer.answer) == 1 else -1
    for i in range(len(state.choices)):
        state.choices.mark_choice(i, i == chosen)
    state.metadata["reason"] = {
        "answer": answer.answer,
        "confidence": answer.confidence,
        "stopped": answer.stopped,
        "strategy": answer.strategy,
        "run_id": answer.run_id,
        "seed": answer.seed,
        "degraded": list(answer.degraded),
        "candidates": [
            {"answer": c.answer, "tokens": c.tokens, "thinking_tokens": c.thinking_tokens, "score": c.score}
            for c in answer.candidates
        ],
        "ledger": usage.model_dump(mode="json"),
    }
    return state


def _register(strategy: str) -> Callable[..., Solver]:
    @solver(name=_PREFIX + strategy)
    def of_strategy(model: str | None = None, seed: int = 0, **given: Any) -> Solver:
        options = {name: given.pop(name) for name in _OPTIONS if name in given}
        if isinstance(options.get("jurors"), str):  # Inspect makes no list of one
            options["jurors"] = [options["jurors"]]
        return strategy_solver(strategy, model, seed=seed, parameters=given, **options)

    return of_strategy


SOLVERS = {name: _register(name) for name in STRATEGIES.names()}
"""A solver for every strategy that is installed, ours and other packages'."""
