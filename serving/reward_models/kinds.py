"""Which form a reward model takes: by its settings, or else by its architecture and name."""

from __future__ import annotations

from typing import Any

from ...core.errors import DataError, UserError
from ...core.scorer_settings import RewardSettings
from .forms import QWEN_SYSTEM, Form, OutcomeForm, QwenForm, TokensForm


def kind_of(name: str, architecture: str, settings: RewardSettings) -> RewardSettings:
    """The settings with the form decided.

    Args:
        name: The model's string.
        architecture: What its configuration names.
        settings: As the user gave them.

    Raises:
        UserError: It is a plain language model, and nobody said how it scores steps.
        DataError: The form and the architecture do not go together, or the architecture is not known.
    """
    fitting = _fitting(architecture)
    if fitting is None:
        raise DataError(
            f"{name} is no reward model of a known kind: its architecture is {architecture or 'not told'}",
            hint="known: Qwen2ForProcessRewardModel, Qwen2ForRewardModel, …ForSequenceClassification, …ForCausalLM",
        )
    if settings.form != "auto":
        if settings.form != fitting:
            raise DataError(
                f"{name}: a model of architecture {architecture} is asked in the form {fitting!r}, "
                f"not {settings.form!r}",
                hint=f'leave out form in [rewards."{name}"]',
            )
        return settings
    if fitting == "tokens" and settings.step_tag is None and "shepherd" not in name.lower():
        raise UserError(
            f"{name} is a plain language model, and how it scores steps is not known",
            hint=f'ask it as a judge (judge/{name}), or set form = "tokens", step_tag, good_token and bad_token '
            f'in [rewards."{name}"]',
        )
    decided: dict[str, str] = {"form": fitting}
    if architecture == "Qwen2ForRewardModel" and settings.system is None:
        decided["system"] = QWEN_SYSTEM
    return settings.model_copy(update=decided)


def form_of(tokenizer: Any, settings: RewardSettings) -> Form:
    """The form of decided settings."""
    if settings.form == "qwen":
        return QwenForm(tokenizer, settings)
    if settings.form == "tokens":
        return TokensForm(tokenizer, settings)
    return OutcomeForm(tokenizer, settings)


def _fitting(architecture: str) -> str | None:
    if architecture == "Qwen2ForProcessRewardModel":
        return "qwen"
    if architecture == "Qwen2ForRewardModel" or architecture.endswith("ForSequenceClassification"):
        return "outcome"
    return "tokens" if architecture.endswith("ForCausalLM") else None
