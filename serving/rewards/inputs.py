"""Forms: how a problem and steps become a reward model's input, and at which tokens its scores stand.

Source: the "qwen" form is that of Qwen2.5-Math-PRM (Zhang et al. 2025, *The Lessons of Developing Process Reward
Models*).

Which form a reward model takes: by its settings, or else by its architecture and name.

What all reward models that are computed here or on vLLM share: inputs of solutions, and scores of inputs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ...core.errors import ContextTooLong, DataError, ReasonError, UserError
from ...core.messages import Failure, Usage
from ...core.settings import RewardSettings
from .model import StepScores, StepSelection

QWEN_TAG = "<extra_0>"
QWEN_SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."
"""The system message that Qwen2.5-Math's reward models were trained with."""


@dataclass(frozen=True)
class RenderedInput:
    """One input.

    Attributes:
        ids: Its tokens.
        positions: Where the scores stand, one for each step that the input scores.
    """

    ids: list[int]
    positions: list[int]


class InputFormat(Protocol):
    """How inputs are made: one input scores all steps (`one_pass`), or only the last."""

    one_pass: bool

    def render(self, problem: str, steps: Sequence[str]) -> RenderedInput:
        """The input of a problem and steps.

        Raises:
            UserError: A text contains the step tag.
        """


def qwen_messages(problem: str, steps: Sequence[str], settings: RewardSettings) -> list[dict[str, str]]:
    """The conversation of the "qwen" form: the steps with a tag after each are the assistant's turn.

    Raises:
        UserError: A text contains the step tag.
    """
    tag = settings.step_tag or QWEN_TAG
    _refuse_tag(tag, problem, steps)
    system = QWEN_SYSTEM if settings.system is None else settings.system
    head = [{"role": "system", "content": system}] if system else []
    answer = "".join(step + tag for step in steps)
    return [*head, {"role": "user", "content": problem}, {"role": "assistant", "content": answer}]


def outcome_messages(problem: str, steps: Sequence[str], settings: RewardSettings) -> list[dict[str, str]]:
    """The conversation that an outcome model scores."""
    head = [{"role": "system", "content": settings.system}] if settings.system else []
    return [*head, {"role": "user", "content": problem}, {"role": "assistant", "content": "\n\n".join(steps)}]


def tag_positions(ids: Sequence[int], tag: int, steps: int) -> list[int]:
    """Positions of a tag.

    Raises:
        DataError: It is not after every step.
    """
    fields = [i for i, token in enumerate(ids) if token == tag]
    if len(fields) != steps:
        raise DataError(
            f"the step tag stands {len(fields)} times in the model's input, after {steps} steps",
            hint="the tokenizer does not know the tag as one token, or the chat template drops it; set step_tag",
        )
    return fields


class QwenFormat:
    """A conversation whose assistant turn has a tag after each step.

    Args:
        tokenizer: transformers' tokenizer.
        settings: The reward model's settings.

    Raises:
        DataError: The tokenizer has no chat template, or the tag is not one token.
    """

    one_pass = True

    def __init__(self, tokenizer: Any, settings: RewardSettings) -> None:
        self._tokenizer, self._settings = tokenizer, settings
        tag = settings.step_tag or QWEN_TAG
        ids = tokenizer.encode(tag, add_special_tokens=False)
        if len(ids) != 1:
            raise DataError(f"the step tag {tag!r} is {len(ids)} tokens of this model", hint="set its step_tag")
        self.tag: int = ids[0]
        """Token of the tag."""
        _require_template(tokenizer)

    def render(self, problem: str, steps: Sequence[str]) -> RenderedInput:
        ids = _templated(self._tokenizer, qwen_messages(problem, steps, self._settings))
        return RenderedInput(ids, tag_positions(ids, self.tag, len(steps)))


class OutcomeFormat:
    """Problem and answer as a conversation, or as a pair of texts where the tokenizer has no chat template.

    Args:
        tokenizer: transformers' tokenizer.
        settings: The reward model's settings.
    """

    one_pass = False

    def __init__(self, tokenizer: Any, settings: RewardSettings) -> None:
        self._tokenizer, self._settings = tokenizer, settings

    def render(self, problem: str, steps: Sequence[str]) -> RenderedInput:
        if getattr(self._tokenizer, "chat_template", None):
            ids = _templated(self._tokenizer, outcome_messages(problem, steps, self._settings))
        else:
            ids = list(self._tokenizer.encode(problem, "\n\n".join(steps)))
        return RenderedInput(ids, [len(ids) - 1])


def _refuse_tag(tag: str, problem: str, steps: Sequence[str]) -> None:
    """Refuse a tag within a text, which would be scored as a step."""
    for what, text in (("the problem", problem), *((f"step {i}", s) for i, s in enumerate(steps))):
        if tag in text:
            raise UserError(f"{what} contains the step tag {tag!r} of the reward model", hint="remove it from the text")


def _require_template(tokenizer: Any) -> None:
    if not getattr(tokenizer, "chat_template", None):
        raise DataError(
            "the reward model's tokenizer has no chat template",
            hint="put chat_template.jinja next to its tokenizer.json",
        )


def _templated(tokenizer: Any, messages: list[dict[str, str]]) -> list[int]:
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False)
    return list(tokenizer.encode(text, add_special_tokens=False))


def resolve_format(name: str, architecture: str, settings: RewardSettings) -> RewardSettings:
    """The settings with the input format resolved.

    Args:
        name: Model string.
        architecture: Architecture in the model's configuration.
        settings: The user's settings.

    Raises:
        DataError: Format and architecture do not match, or the architecture is unknown.
    """
    fitting = _fitting(architecture)
    if fitting is None:
        raise DataError(
            f"{name} is no reward model of a known kind: its architecture is {architecture or 'unknown'}",
            hint="known: Qwen2ForProcessRewardModel, Qwen2ForRewardModel, …ForSequenceClassification; "
            f"use a language model as a judge: judge/{name}",
        )
    if settings.form != "auto":
        if settings.form != fitting:
            raise DataError(
                f"{name}: a model of architecture {architecture} has the form {fitting!r}, not {settings.form!r}",
                hint=f'leave out form in [rewards."{name}"]',
            )
        return settings
    decided: dict[str, str] = {"form": fitting}
    if architecture == "Qwen2ForRewardModel" and settings.system is None:
        decided["system"] = QWEN_SYSTEM
    return settings.model_copy(update=decided)


def make_format(tokenizer: Any, settings: RewardSettings) -> InputFormat:
    """The input format of resolved settings."""
    return QwenFormat(tokenizer, settings) if settings.form == "qwen" else OutcomeFormat(tokenizer, settings)


def _fitting(architecture: str) -> str | None:
    if architecture == "Qwen2ForProcessRewardModel":
        return "qwen"
    if architecture == "Qwen2ForRewardModel" or architecture.endswith("ForSequenceClassification"):
        return "outcome"
    return None


@dataclass(frozen=True)
class SolutionInputs:
    """The inputs of one solution, or why it has none."""

    rendered: tuple[RenderedInput, ...] = ()
    failure: Failure | None = None


def inputs_of(
    form: InputFormat, problem: str, steps: Sequence[str], which: StepSelection, limit: int | None
) -> SolutionInputs:
    """The inputs that score a solution.

    Args:
        form: Input format.
        problem: The problem's text.
        steps: The solution's steps.
        which: Steps to score.
        limit: Maximum tokens of an input; None is no limit.
    """
    ends = [len(steps)] if form.one_pass or which == "last" else range(1, len(steps) + 1)
    inputs = []
    try:
        for end in ends:
            rendered = form.render(problem, steps[:end])
            check_length(len(rendered.ids), limit)
            inputs.append(rendered)
    except ReasonError as e:
        return SolutionInputs(failure=Failure(code=e.code, message=str(e)))
    if form.one_pass and which == "last":
        inputs = [RenderedInput(r.ids, r.positions[-1:]) for r in inputs]
    return SolutionInputs(tuple(inputs))


def check_length(tokens: int, limit: int | None) -> None:
    """Raises `ContextTooLong` if an input does not fit the reward model."""
    if limit is not None and tokens > limit:
        raise ContextTooLong(
            f"the reward model's input has {tokens} tokens; its maximum is {limit}",
            tokens=tokens,
            limit=limit,
            hint="drop the oldest steps, or raise max_tokens if the model can take more",
        )


def scores_of(inputs: SolutionInputs, log_odds: Sequence[Sequence[float]]) -> StepScores:
    """A solution's scores from those of its inputs."""
    if inputs.failure is not None:
        return StepScores(passes=0, failure=inputs.failure)
    return StepScores(
        log_odds=tuple(x for row in log_odds for x in row),
        passes=len(inputs.rendered),
        usage=Usage(prompt_tokens=sum(len(r.ids) for r in inputs.rendered)),
    )


def failed_scores(error: ReasonError, passes: int = 0) -> StepScores:
    """A solution that could not be scored."""
    return StepScores(passes=passes, failure=Failure(code=error.code, message=str(error)))


def settings_digest(settings: RewardSettings) -> str:
    """Part of an identity: a hash of the settings that change a score."""
    text = settings.model_dump_json(exclude={"batch_tokens", "device", "dtype", "max_tokens"})
    return hashlib.sha256(text.encode()).hexdigest()[:12]
