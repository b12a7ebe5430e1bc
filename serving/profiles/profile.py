"""`ModelProfile`: what a model accepts, and how it thinks, shows its thoughts and takes them back.

A profile is merged field by field from layers, the stronger first: the user's settings (`[profiles."MODEL"]`), what was
measured when the model was opened, what its endpoint has refused, the profiles shipped here (`*.toml`), and LiteLLM's
map of models. A request that a profile forbids is never sent.
"""

from __future__ import annotations

import fnmatch
import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, JsonValue, ValidationError

from ...core.errors import UnknownName, UserError
from ...core.messages import EFFORTS, AttachmentKind, Effort, Frozen, Prompt, Request, SamplingParams
from ...core.registry import nearest

Parameter = Literal[
    "temperature",
    "top_p",
    "temperature_with_top_p",
    "top_k",
    "stop",
    "blank_stop",  # of white space
    "logprobs",
    "n",
    "seed",
    "json_schema",
    "tools",
    "tool_choice",
    "prefix",
    "effort",
]
"""A parameter that a model may refuse: `temperature_with_top_p` is both in one request, `tool_choice` any but auto."""

THINKING_TOKENS: Final[Mapping[Effort | None, int]] = {
    "none": 0,
    "minimal": 1024,
    "low": 4096,
    "medium": 8192,
    None: 8192,
    "high": 16384,
    "max": 32768,
}
"""Maximum tokens of a thought by effort, where the caller sets none; None is the model's default effort."""

QUICK_THINKING_TOKENS: Final = 1024
"""Room for the thought of a quick call, if the model cannot answer without thinking."""


class ModelProfile(Frozen):
    """What a model accepts, and how it thinks.

    Attributes:
        thinks: Whether it thinks before it answers: "never"; "opt-in", if a request asks for it; "default", unless a
            request turns it off; "always".
        efforts: Efforts that it accepts, each with the request fields that ask for it; fields of
            `chat_template_kwargs` are also arguments of a chat template that is rendered here.
        thinking_budget: Request fields that limit the tokens of a thought, with `"$tokens"` for the number; empty if
            the model takes no such limit, so that only the limit of the complete sample holds.
        max_thinking_tokens: Maximum limit that it takes; None if unknown.
        min_thinking_tokens: Minimum limit that it takes.
        refuses: Parameters that it refuses in every request.
        refuses_while_thinking: Parameters that it refuses in a request in which it thinks, or that would act on the
            thought instead of the answer.
        left_out: Parameters that its endpoint has refused (`serving/refusals.py`): what a caller sets of them is left
            out of requests, and reported.
        is_known: Whether the model is known. To another one nothing optional is sent: no default temperature, no seed,
            and an effort only if the caller names it.
        thought: How a thought is shown: "hidden", in a "field" of the response, between "tags" in the text, or in a
            "channel" of the text (harmony).
        open_tag: Opens a thought in the text.
        close_tag: Closes it.
        opened_by_template: Whether the chat template opens the thought, so that the text begins inside it.
        prefix: What can be given and is continued exactly: "none", the beginning of the "answer", or also that of the
            "thought".
        cap_includes_thoughts: Whether the request's maximum tokens include the thought.
        prompt_cache: What the provider's prompt cache is told: "none"; a "key" that prompts with the same beginning
            share (OpenAI's `prompt_cache_key`); "marks" after blocks that calls share (Anthropic's `cache_control`).
        min_cached_tokens: Minimum tokens of a prefix that is marked.
        inputs: What a message of the user may have besides text: an "image", a "file" (PDF).
        return_thoughts: When the thoughts of earlier turns are returned to the model: "never", in turns "with-tools",
            or "signed" blocks unchanged.
        responses_api: Which requests go to OpenAI's Responses API: "never" any; those with "tools" and with returned
            thoughts, while it thinks; "always" all.
        sources: Where each field comes from, by its name.
    """

    thinks: Literal["never", "opt-in", "default", "always"] = "never"
    efforts: dict[Effort, dict[str, JsonValue]] = Field(default_factory=dict)
    thinking_budget: dict[str, JsonValue] = Field(default_factory=dict)
    max_thinking_tokens: Annotated[int, Field(ge=1)] | None = None
    min_thinking_tokens: Annotated[int, Field(ge=0)] = 0
    refuses: frozenset[Parameter] = frozenset()
    refuses_while_thinking: frozenset[Parameter] = frozenset()
    left_out: frozenset[Parameter] = frozenset()
    is_known: bool = True
    thought: Literal["hidden", "field", "tags", "channel"] = "tags"
    open_tag: Annotated[str, Field(min_length=1)] = "<think>"
    close_tag: Annotated[str, Field(min_length=1)] = "</think>"
    opened_by_template: bool = False
    prefix: Literal["none", "answer", "thought"] = "none"
    cap_includes_thoughts: bool = True
    prompt_cache: Literal["none", "key", "marks"] = "none"
    min_cached_tokens: Annotated[int, Field(ge=0)] = 1024
    inputs: frozenset[AttachmentKind] = Field(default=frozenset(), exclude_if=lambda value: not value)
    return_thoughts: Literal["never", "with-tools", "signed"] = "never"
    responses_api: Literal["never", "tools", "always"] = "never"
    sources: dict[str, str] = Field(default_factory=dict, exclude=True)

    @property
    def can_think(self) -> bool:
        """Whether it thinks in any request."""
        return self.thinks != "never"

    @property
    def takes_no_thought(self) -> bool:
        """Whether it may be asked not to think: it takes the effort "none", or a prompt can close the thought."""
        has_switch = "none" in self.efforts and "effort" not in self.left_out
        return self.thinks in ("never", "opt-in") or has_switch or self.prefix == "thought"

    @property
    def can_skip_thinking(self) -> bool:
        """Whether it is known to answer without thinking, whoever asks for it."""
        return self.takes_no_thought and (self.is_known or self.thinks != "default")

    @property
    def lowest_effort(self) -> Effort | None:
        """The least effort that it is known to accept; None if there is none."""
        is_taken = self.is_known and "effort" not in self.left_out
        return next((effort for effort in EFFORTS if effort in self.efforts and is_taken), None)

    @property
    def quick_thinking_tokens(self) -> int:
        """Maximum tokens of the thought of a quick call; 0 if the model can answer without one."""
        return 0 if self.can_skip_thinking else max(QUICK_THINKING_TOKENS, self.min_thinking_tokens)

    @property
    def quick_fields(self) -> dict[str, Any]:
        """Fields of `SamplingParams` with which it thinks as little as it can: not at all, or with the least effort."""
        if not self.can_think:
            return {}
        if self.can_skip_thinking and self.is_known:
            return {"effort": "none"}
        return {"effort": self.lowest_effort, "thinking_tokens": self.quick_thinking_tokens}

    def starts_thinking(self, prompt: Prompt, effort: Effort | None) -> bool:
        """Whether the response to a prompt begins with a thought, or inside one."""
        if prompt.text is not None or not self.can_think:
            return False
        if prompt.thought is not None:
            return not prompt.thought.closed
        if prompt.prefix:
            return False
        if effort is None:
            return self.thinks in ("default", "always")
        return effort != "none" or not self.takes_no_thought

    def forbids(self, parameter: Parameter, *, thinking: bool) -> bool:
        """Whether a request in which the model thinks, or does not, may not have a parameter."""
        return parameter in self.refuses or (thinking and parameter in self.refuses_while_thinking)

    def refused(self, parameter: Parameter, *, thinking: bool) -> bool:
        """Whether a parameter is not sent in a request in which the model thinks, or does not."""
        return parameter in self.left_out or self.forbids(parameter, thinking=thinking)

    def thinking_tokens(self, effort: Effort | None) -> int:
        """Maximum tokens of a thought with this effort, where the caller sets none."""
        tokens = max(THINKING_TOKENS[effort], self.min_thinking_tokens)
        return tokens if self.max_thinking_tokens is None else min(tokens, self.max_thinking_tokens)

    def effort_fields(self, effort: Effort | None, thinking_tokens: int | None = None) -> dict[str, JsonValue]:
        """Request fields for an effort and a limit of the thought's tokens.

        Args:
            effort: None is the model's default; a model that thinks only if asked gets none.
            thinking_tokens: Sent where the model takes a limit and thinks with this effort.
        """
        fields = dict(self.efforts.get(effort, {})) if effort is not None else {}
        thinks = self.thinks in ("default", "always") if effort is None else effort != "none"
        if thinks and thinking_tokens and self.thinking_budget:
            limit = max(thinking_tokens, self.min_thinking_tokens)
            fields |= _with_tokens(self.thinking_budget, limit)
        return fields

    def template_arguments(self, effort: Effort | None) -> dict[str, JsonValue]:
        """Arguments of the chat template for an effort."""
        arguments = self.efforts.get(effort, {}).get("chat_template_kwargs") if effort is not None else None
        return dict(arguments) if isinstance(arguments, dict) else {}

    def temperature(self, sampling: SamplingParams, *, thinking: bool) -> float | None:
        """The temperature to send; None leaves it to the model."""
        if sampling.temperature is not None:
            return sampling.temperature
        if thinking or not self.is_known or self.forbids("temperature", thinking=thinking):
            return None
        if sampling.top_p is not None and self.forbids("temperature_with_top_p", thinking=thinking):
            return None
        return sampling.default_temperature

    @property
    def digest(self) -> str:
        """Identifies how the model thinks, as a part of its identity; empty for one that never does."""
        if not self.can_think:
            return ""
        text = self.model_dump_json(include={"thinks", "efforts", "thought", "open_tag", "close_tag"})
        return "+thinks" + hashlib.sha256(text.encode()).hexdigest()[:8]


def quick_sampling(profile: ModelProfile, *, max_tokens: int, **params: Any) -> SamplingParams:
    """Parameters of a quick call on a model, without a budget (see `MeteredModel.quick`)."""
    return SamplingParams(**{"default_temperature": 0.0, "max_tokens": max_tokens, **profile.quick_fields, **params})


def check_sampling(profile: ModelProfile, model: str, sampling: SamplingParams, *, thinking: bool) -> None:
    """Refuse the parameters of the caller that the model does not take.

    Raises:
        UserError: Names the parameter, its value, the model and the remedy.
    """
    check_effort(profile, model, sampling.effort, sampling.thinking_tokens)
    given: dict[Parameter, object] = {}
    if sampling.temperature is not None:
        given["temperature"] = sampling.temperature
    if sampling.top_p is not None:
        given["top_p"] = sampling.top_p
        if sampling.temperature is not None:
            given["temperature_with_top_p"] = sampling.temperature
    if sampling.top_k:
        given["top_k"] = sampling.top_k
    if sampling.logprobs or sampling.top_logprobs:
        given["logprobs"] = sampling.top_logprobs or True
    if sampling.json_schema is not None:
        given["json_schema"] = "a schema"
    for parameter, value in given.items():
        if profile.forbids(parameter, thinking=thinking):
            only_thinking = parameter not in profile.refuses
            remedy = "set only one of them" if parameter == "temperature_with_top_p" else "leave it unset"
            if only_thinking and profile.can_skip_thinking:
                remedy += ", or set the effort to none"
            name = "temperature together with top_p" if parameter == "temperature_with_top_p" else parameter
            raise UserError(
                f"model {model!r} does not take {name}{' while it thinks' if only_thinking else ''}, got {value}",
                hint=remedy,
                param=parameter,
            )


def check_effort(profile: ModelProfile, model: str, effort: Effort | None, thinking_tokens: int | None) -> None:
    """Refuse an effort or a limit of the thought's tokens that does not suit a model.

    Raises:
        UserError: Names the value, what the model accepts, and the remedy.
    """
    if effort not in (None, "none") and not profile.can_think:
        raise UserError(
            f"effort {effort}: model {model!r} does not think before it answers",
            hint=f"leave the effort unset, choose a model that thinks, or describe it under [profiles.{model!r}]",
            param="effort",
        )
    if effort == "none" and not profile.takes_no_thought:
        raise UserError(
            f"effort none: model {model!r} always thinks",
            hint=f"its efforts are {', '.join(profile.efforts) or 'not adjustable'}",
            param="effort",
        )
    if effort not in (None, "none", *profile.efforts) and profile.efforts:
        raise UserError(
            f"effort {effort}: model {model!r} accepts {', '.join(e for e in EFFORTS if e in profile.efforts)}",
            hint="choose one of these, or leave it unset",
            param="effort",
        )
    if thinking_tokens and profile.max_thinking_tokens is not None and thinking_tokens > profile.max_thinking_tokens:
        raise UserError(
            f"thinking_tokens={thinking_tokens}: model {model!r} takes at most {profile.max_thinking_tokens}",
            hint="lower --thinking-tokens (thinking_tokens= in Python)",
            param="thinking_tokens",
        )


@dataclass(frozen=True)
class OwnSampling:
    """How a model samples where a request leaves it open, as its makers recommend."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0

    def resolve(self, request: Request, profile: ModelProfile) -> Request:
        """A request with every sampling parameter set, for an engine that samples itself."""
        sampling = request.sampling
        temperature = profile.temperature(sampling, thinking=profile.starts_thinking(request.prompt, sampling.effort))
        is_own = temperature is None
        changes = {
            "temperature": self.temperature if temperature is None else temperature,
            "top_p": sampling.top_p if sampling.top_p is not None else self.top_p if is_own else 1.0,
            "top_k": sampling.top_k or (self.top_k if is_own else 0),
        }
        return request.model_copy(update={"sampling": sampling.model_copy(update=changes)})


def _with_tokens(value: Any, tokens: int) -> Any:
    if value == "$tokens":
        return tokens
    if isinstance(value, dict):
        return {key: _with_tokens(one, tokens) for key, one in value.items()}
    return value


def switch_efforts(argument: str) -> dict[str, JsonValue]:
    """The efforts of a chat template with an argument that turns thinking on and off."""
    return {effort: {"chat_template_kwargs": {argument: effort != "none"}} for effort in EFFORTS}


# -- layers

ProfileLayer = tuple[str, Mapping[str, JsonValue]]
"""Where fields come from, and the fields."""


def merge_profile(layers: Sequence[ProfileLayer]) -> ModelProfile:
    """The profile of a model from layers, the stronger first.

    Raises:
        UnknownName: A layer has an unknown field.
        UserError: A field has an invalid value.
    """
    fields: dict[str, JsonValue] = {}
    sources: dict[str, str] = {}
    for source, layer in layers:
        parse_profile(layer, source)
        for name, value in layer.items():
            if name not in fields:
                fields[name], sources[name] = value, source
    efforts = fields.get("efforts")
    if isinstance(efforts, dict) and fields.get("thinks", "never") in ("never", "always"):
        # a weaker layer knows efforts of the model, and not that it has no choice
        kept = {} if fields.get("thinks", "never") == "never" else {e: v for e, v in efforts.items() if e != "none"}
        fields["efforts"] = kept
    return ModelProfile.model_validate({**fields, "sources": sources})


def parse_profile(fields: Mapping[str, JsonValue], source: str) -> ModelProfile:
    """Check the fields of one layer.

    Raises:
        UnknownName: A field is unknown.
        UserError: A field has an invalid value.
    """
    known = [name for name in ModelProfile.model_fields if name != "sources"]
    unknown = next((name for name in fields if name not in known), None)
    if unknown is not None:
        raise UnknownName("profile field", unknown, nearest(unknown, known), hint=f"in {source}; {', '.join(known)}")
    try:
        return ModelProfile.model_validate(dict(fields))
    except ValidationError as e:
        error = e.errors()[0]
        where = ".".join(map(str, error["loc"]))
        raise UserError(
            f"{source}: profile field {where}: {error['msg']}, got {error['input']!r}", hint="see docs/thinking.md"
        ) from e


def user_layer(profiles: Mapping[str, Mapping[str, JsonValue]], name: str) -> list[ProfileLayer]:
    """The user's settings for a model: those of its exact model string, then those of the patterns that match it."""
    matching = [key for key in profiles if key == name] + [
        key for key in profiles if key != name and fnmatch.fnmatchcase(name.lower(), key.lower())
    ]
    return [(f'settings [profiles."{key}"]', profiles[key]) for key in matching]


def shipped_layers(*names: str | None, table: Literal["profile", "unknown"] = "profile") -> list[ProfileLayer]:
    """The shipped profiles that match a model under any of its names, the first file's first.

    Args:
        names: The model string, the served name, and what is known of the weights' origin (vLLM's `root`).
        table: "unknown" has those of models that LiteLLM does not know, by the family of the name.
    """
    lowered = [name.lower() for name in names if name]
    return [
        (f"shipped {file}", fields)
        for file, patterns, fields in _shipped(table)
        if any(fnmatch.fnmatchcase(name, pattern) for name in lowered for pattern in patterns)
    ]


@lru_cache(maxsize=2)
def _shipped(table: str) -> tuple[tuple[str, tuple[str, ...], dict[str, JsonValue]], ...]:
    """(file, patterns, fields) of each shipped profile."""
    rows = []
    for path in sorted(Path(__file__).parent.glob("*.toml")):
        for entry in tomllib.loads(path.read_text(encoding="utf-8")).get(table, ()):
            if switch := entry.pop("switch", None):
                entry["efforts"] = switch_efforts(switch)
            rows.append((path.name, tuple(entry.pop("match")), entry))
    return tuple(rows)
