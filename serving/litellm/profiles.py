"""The profile of a provider's model: settings, what was measured or refused, shipped data, and LiteLLM's map.

LiteLLM's part is queried, not hard-coded: the flags of its model map, and its own check of a request's parameters
(`get_optional_params`, offline), with and without a thought. So a model that next month's LiteLLM knows needs no code
here. For OpenAI's models the flags are enough, and LiteLLM is not imported.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from pydantic import JsonValue

from ...core.messages import EFFORTS
from ...core.settings import Settings
from ..profiles.profile import ModelProfile, Parameter, ProfileLayer, merge_profile, shipped_layers, user_layer
from ..refusals import refusal_layers
from .providers import Target, load_litellm, map_entry, reasoning_series

MAP_SOURCE: Final = "LiteLLM's map"
PROVIDERS_FILE: Final = "providers.toml"
"""The shipped profiles of providers' services; the others are those of open models, whatever serves them."""
PROVIDER_EFFORTS: Final = ("minimal", "low", "medium", "high", "xhigh", "max")
"""Providers' efforts, the least first."""
FLAGGED_EFFORTS: Final = frozenset({"none", "minimal", "xhigh", "max"})
"""Efforts that LiteLLM sends unchecked where its map does not say whether the model takes them."""
_TRIAL_MAX_TOKENS, _TRIAL_THINKING_TOKENS = 20_000, 4096
_ANSWER_SHARE = 1024
"""Tokens of a model's longest response that a thought leaves to the answer."""

_TRIALS: Final[Mapping[Parameter, Mapping[str, Any]]] = {
    "temperature": {"temperature": 0.7},
    "top_p": {"top_p": 0.9},
    "temperature_with_top_p": {"temperature": 0.7, "top_p": 0.9},
    "stop": {"stop": ["\n"]},
    "logprobs": {"logprobs": True},
    "n": {"n": 2},
    "json_schema": {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "reply", "schema": {"type": "object", "properties": {}}},
        }
    },
}


def provider_profile(
    target: Target,
    settings: Settings,
    *,
    measured: Mapping[str, JsonValue] | None = None,
    root: str | None = None,
) -> ModelProfile:
    """The profile of a provider's model."""
    services = [layer for layer in shipped_layers(target.name) if layer[0].endswith(PROVIDERS_FILE)]
    models = [
        layer for layer in shipped_layers(target.name, target.served, root) if not layer[0].endswith(PROVIDERS_FILE)
    ]
    if not target.is_own_server:  # a provider's service renders no template for us, and shows thoughts its own way
        models = [(source, {"thinks": fields["thinks"]}) for source, fields in models if "thinks" in fields]
    shipped = [*services, *models]
    is_known = map_entry(target.provider, target.served) or any("thinks" in fields for _, fields in shipped)
    if not is_known and (not target.is_own_server or reasoning_series(target.served)):
        shipped += shipped_layers(target.name, table="unknown")
    known = [*shipped, (MAP_SOURCE, map_fields(target))]
    layers = [
        *user_layer(settings.profiles, target.name),
        *([("measured", measured)] if measured else []),
        *refusal_layers(target.data_dir, target.name, target.endpoint),
        *_joined_refusals(known),
        *known,
    ]
    return merge_profile(layers)


def _joined_refusals(layers: Sequence[ProfileLayer]) -> list[ProfileLayer]:
    """What any of the layers says is refused: one that knows of a parameter does not know that all others are taken."""
    joined: list[ProfileLayer] = []
    for name in ("refuses", "refuses_while_thinking"):
        parts = [(source, fields[name]) for source, fields in layers if fields.get(name)]
        refused = sorted({str(one) for _, values in parts if isinstance(values, list) for one in values})
        if refused:
            joined.append((", ".join(dict.fromkeys(source for source, _ in parts)), {name: list(refused)}))
    return joined


def map_fields(target: Target) -> dict[str, JsonValue]:
    """The fields of a profile that LiteLLM knows."""
    fields: dict[str, JsonValue] = {}
    if target.vllm:  # LiteLLM checks nothing for a vLLM server
        return fields
    known = map_entry(target.provider, target.served)
    flags = {"image": "supports_vision", "file": "supports_pdf_input"}
    if inputs := [kind for kind, flag in flags.items() if known.get(flag)]:
        fields["inputs"] = list[JsonValue](inputs)
    if target.openai_wire:
        return fields | _openai_fields(target.served, known)
    if isinstance(shortest := known.get("prompt_cache_min_tokens"), int):
        fields["min_cached_tokens"] = shortest
    with _silent_litellm():
        base = _mapped(target)
        by_effort = {effort: _mapped(target, reasoning_effort=effort) for effort in ("none", *PROVIDER_EFFORTS)}
        accepted = [e for e in PROVIDER_EFFORTS if _takes_effort(e, by_effort[e], known)]
        budgeted = {"thinking": {"type": "enabled", "budget_tokens": _TRIAL_THINKING_TOKENS}}
        budget = _mapped(target, **budgeted)
        has_budget = budget is not None and str(_TRIAL_THINKING_TOKENS) in str(budget)
        can_think = bool(accepted or has_budget) and bool(known.get("supports_reasoning") or not known)
        if not can_think and known.get("supports_reasoning"):
            fields["thinks"] = "always"  # and it cannot be told how much
        none = by_effort["none"]
        skips = (
            can_think
            and not known.get("thinking_always_on")
            and _takes_effort("none", none, known)
            and "thinkingLevel" not in str(none)
        )
        thinking: list[dict[str, Any]] = []
        plain: list[dict[str, Any]] = []
        if can_think:
            on: dict[str, Any] = {"reasoning_effort": accepted[0]} if accepted else budgeted
            fields["thinks"] = thinks = _when_it_thinks(known, base, none if skips else None)
            is_plain = thinks == "opt-in" and bool(known)
            fields["efforts"] = _efforts(accepted, has_budget=has_budget, skips=skips, opt_in=is_plain)
            fields["thought"] = "field"
            if has_budget and known:
                fields["thinking_budget"] = {"thinking": {"type": "enabled", "budget_tokens": "$tokens"}}
            thinking = [on, *([{}] if thinks in ("default", "always") else [])]
            plain = [*([{}] if thinks == "opt-in" else []), *([{"reasoning_effort": "none"}] if skips else [])]
            fields |= _longest_thought(known)
        else:
            plain = [{}]
        fields |= _refusals(target, known, thinking, plain)
    return fields


def _openai_fields(served: str, known: Mapping[str, Any]) -> dict[str, JsonValue]:
    """The fields of a model in OpenAI's format, of which one that is in no map may be able to think.

    OpenAI's models that reason take sampling parameters only in requests without a thought, and the later ones no stop
    strings at all.
    """
    fields: dict[str, JsonValue] = {}
    series = reasoning_series(served)
    accepted = [e for e in PROVIDER_EFFORTS if _takes_effort(e, {"reasoning_effort": e}, known)]
    skips = bool(series) and (not known or _takes_effort("none", {"reasoning_effort": "none"}, known))
    if known and not series:
        if known.get("supports_reasoning"):
            fields["thinks"] = "always"  # and it cannot be told how much
    elif not known or known.get("supports_reasoning"):
        opt_in = not series or (skips and known.get("default_reasoning_effort") == "none")
        fields["thinks"] = "opt-in" if opt_in else "default" if skips else "always"
        fields["efforts"] = _efforts(accepted, has_budget=False, skips=skips, opt_in=opt_in)
        fields["thought"] = "field"
        fields |= _longest_thought(known)
    if series:
        sampling: list[JsonValue] = ["temperature", "top_p", "logprobs"]
        stop: list[JsonValue] = ["stop"] if series == "gpt" else []
        fields["refuses"] = stop if skips else [*sampling, *stop]
        if skips:
            fields["refuses_while_thinking"] = [*sampling, "temperature_with_top_p"]
    return fields


def _longest_thought(known: Mapping[str, Any]) -> dict[str, JsonValue]:
    longest = known.get("max_output_tokens")
    if isinstance(longest, int) and longest > 2 * _ANSWER_SHARE:
        return {"max_thinking_tokens": longest - _ANSWER_SHARE}
    return {}


def _takes_effort(effort: str, mapped: dict[str, Any] | None, known: Mapping[str, Any]) -> bool:
    levels = known.get("reasoning_effort_levels")
    flag = known.get(f"supports_{effort}_reasoning_effort")
    if mapped is None or flag is False:
        return False
    if isinstance(levels, list):
        return effort in levels
    if effort == "none" and str(mapped.get("thinking")) == "{'type': 'disabled'}":
        return True
    # what LiteLLM translates is checked by it; what it passes on unchanged is not
    return effort not in FLAGGED_EFFORTS or flag is True or mapped.get("reasoning_effort") != effort


def _when_it_thinks(known: Mapping[str, Any], base: dict[str, Any] | None, none: dict[str, Any] | None) -> str:
    if known.get("thinking_always_on"):
        return "always"
    default = known.get("default_reasoning_effort")
    if default == "none" or not known:
        return "opt-in"
    if none is None:
        return "always"
    if known.get("thinking_on_by_default") or default is not None:
        return "default"
    return "opt-in" if none == base else "default"


def _efforts(accepted: Sequence[str], *, has_budget: bool, skips: bool, opt_in: bool) -> dict[str, JsonValue]:
    """Our efforts, each as the nearest of the provider's; a budget of tokens takes the place of an effort."""
    efforts: dict[str, JsonValue] = {"none": {"reasoning_effort": "none"}} if skips else {}
    if opt_in and not skips:
        efforts["none"] = {}
    for effort in EFFORTS[1:]:
        if has_budget:
            efforts[effort] = {}
        elif accepted:
            at = PROVIDER_EFFORTS.index(effort)
            nearest = min(accepted, key=lambda one: abs(PROVIDER_EFFORTS.index(one) - at))
            efforts[effort] = {"reasoning_effort": nearest}
    return efforts


def _refusals(
    target: Target, known: Mapping[str, Any], thinking: list[dict[str, Any]], plain: list[dict[str, Any]]
) -> dict[str, JsonValue]:
    """The parameters that are refused in each request, and those that are refused only in one with a thought."""
    always: list[JsonValue] = []
    while_thinking: list[JsonValue] = []
    for parameter, trial in _TRIALS.items():
        in_thought = [_mapped(target, **trial, **state) is not None for state in thinking]
        without = [_mapped(target, **trial, **state) is not None for state in plain]
        if known.get("supports_sampling_params") is False and parameter.startswith(("temperature", "top_p")):
            in_thought, without = [False], [False]
        if not any((*in_thought, *without)):
            always.append(parameter)
        elif in_thought and not all(in_thought):
            while_thinking.append(parameter)
        if parameter == "temperature_with_top_p" and parameter in always:
            always = [p for p in always if p != parameter or not {"temperature", "top_p"} & set(map(str, always))]
    named = {"refuses": always, "refuses_while_thinking": while_thinking}
    return {name: values for name, values in named.items() if values}


def _mapped(target: Target, **parameters: Any) -> dict[str, Any] | None:
    """What LiteLLM makes of the parameters of a request; None if it refuses them."""
    try:
        sent = {"model": target.served, "custom_llm_provider": target.provider, "max_tokens": _TRIAL_MAX_TOKENS}
        return dict(load_litellm().get_optional_params(**sent, drop_params=False, **parameters))
    except Exception:  # noqa: BLE001 (whatever it raises, it would raise for a request)
        return None


@contextmanager
def _silent_litellm() -> Iterator[None]:
    """LiteLLM warns of parameters that it drops, which are trials here."""
    logger = logging.getLogger("LiteLLM")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
