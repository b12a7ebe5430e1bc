"""`fit_to_thinking`: whether a strategy suits models that think before they answer, decided before anything is spent.

"answers"   reads only answers                     suits every model
"steps"     works on the steps of the answer       the model must not think; one that always does is replaced by
                                                   self-consistency
"thought"   works inside the thought               every model that it uses must continue given thoughts
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, cast

from pydantic import JsonValue

from ..core.errors import UserError
from ..core.run import Run
from ..core.settings import JURY
from ..serving.metered.model import MeteredModel
from .strategy import MAX_CHAINS, NON_LANGUAGE_ROLES, Models, Strategy, Thinking, create_strategy

DEFAULT_CHAINS: Final = 8
"""Chains of the self-consistency that replaces a strategy which names no number."""

SERVE_WITH_VLLM: Final = "serve the model with vLLM (hosted_vllm/MODEL), which continues thoughts"


def thinking_of(strategy: Strategy | type[Strategy]) -> Thinking:
    """What a strategy does with thoughts."""
    return getattr(strategy, "thinking", "answers")


def require_suitable_thinking(strategy: Strategy, models: Models, run: Run) -> None:
    """Refuse a strategy that cannot work with the thoughts of its models.

    Raises:
        UserError: Names the strategy, the model and the remedy.
    """
    thinking = thinking_of(strategy)
    if thinking == "steps":
        _require_no_effort(strategy, models.main, run)
    elif thinking == "thought":
        # a turn with tools is not continued; only the probe of its first token is inside a thought
        is_turn = bool(run.config.tools) or run.question.needs_tools
        _require_continued_thoughts(strategy, [models.small] if is_turn else _language_models(strategy, models))


def fit_to_thinking(strategy: Strategy, models: Models, run: Run) -> Strategy:
    """The strategy, or the self-consistency that replaces it because the main model always thinks, which is reported.

    Raises:
        UserError: The strategy cannot work with the thoughts of its models.
    """
    require_suitable_thinking(strategy, models, run)
    if thinking_of(strategy) != "steps" or models.main.profile.can_skip_thinking or not models.main.thinks:
        return strategy
    chains = min(MAX_CHAINS, int(getattr(strategy, "num_chains", DEFAULT_CHAINS)))
    config = getattr(strategy, "config", None)
    set_by_user: dict[str, JsonValue] = {
        name: value
        for name in ("temperature", "top_p", "top_k", "instruction", "system")
        if (value := getattr(config, name, None)) not in (None, "", 0)
    }
    why = "always thinks" if models.main.profile.is_known else "may always think (--effort none tries it without)"
    run.degrade(f"{models.main.name} {why}: used self-consistency (n={chains}) instead of {strategy.name}")
    return create_strategy("self-consistency", {"n": chains, **set_by_user})[0]


def _language_models(strategy: Strategy, models: Models) -> Sequence[MeteredModel]:
    """The language models of a strategy's roles, each once."""
    found: dict[str, MeteredModel] = {}
    for role in strategy.roles:
        if role not in NON_LANGUAGE_ROLES:
            for model in models.jury if role == JURY else (cast(MeteredModel, getattr(models, role)),):
                found.setdefault(model.identity, model)
    return list(found.values())


def _require_no_effort(strategy: Strategy, model: MeteredModel, run: Run) -> None:
    effort = run.effort
    if not model.profile.can_think or not model.profile.can_skip_thinking or effort in (None, "none"):
        return
    raise UserError(
        f"effort {effort}: {strategy.name} works on the steps of the answer, before which {model.name} does not think",
        hint="leave --effort unset (effort= in Python)",
        param="effort",
    )


def _require_continued_thoughts(strategy: Strategy, models: Sequence[MeteredModel]) -> None:
    thinking = [model for model in models if model.thinks]
    unable = next((model for model in models if model.profile.prefix != "thought"), None)
    if not thinking or unable is None:
        return
    hint = f"name another model, or {SERVE_WITH_VLLM}"
    if all(model.profile.can_skip_thinking for model in thinking):
        hint += "; or --effort none, so that no model thinks"
    if unable in thinking:
        message = f"{strategy.name} works inside thoughts, and {unable.name} cannot continue one that is given"
    else:
        message = (
            f"{strategy.name} works inside thoughts: {thinking[0].name} thinks before it answers, and {unable.name} "
            "cannot continue its thought"
        )
    raise UserError(message, hint=hint, param="strategy")
