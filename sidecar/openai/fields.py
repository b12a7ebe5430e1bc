"""What becomes of each field of OpenAI's requests: one table, by which the code refuses and the documentation tells.

A field is honoured, ignored where nothing is lost by that, or refused by name. Nothing is dropped silently: what stands
in no table is refused too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ...core.errors import UserError

Treatment = Literal["honoured", "ignored", "refused"]


@dataclass(frozen=True)
class FieldRule:
    """What becomes of a field.

    Attributes:
        treatment: Whether it is honoured, ignored or refused.
        why: How it is honoured, why it may be ignored, or why it is refused.
        neutral: Values of a refused field that ask for nothing, and so are taken: clients send them unasked.
        instead: What to do instead of a refused field.
    """

    treatment: Treatment
    why: str
    neutral: tuple[Any, ...] = ()
    instead: str = ""


def _honoured(why: str) -> FieldRule:
    return FieldRule("honoured", why)


def _ignored(why: str) -> FieldRule:
    return FieldRule("ignored", why)


def _refused(why: str, *neutral: Any, instead: str = "leave it out") -> FieldRule:
    return FieldRule("refused", why, neutral, instead)


_MANY_CALLS = "an answer is made of many model calls"
_NO_LOGPROBS = f"{_MANY_CALLS}, and chosen among them: its tokens have no one distribution"
_TEXT_ALONE = "strategies read and write text"
_PENALTY = "no strategy has a parameter of that meaning"
_CACHE = "prefixes are kept by what they are, and shared within a key's own requests"

SHARED: dict[str, FieldRule] = {
    "model": _honoured("`reason/STRATEGY`, `reason/STRATEGY:MODEL`, an alias, or a model that the server offers"),
    "stream": _honoured("server-sent events"),
    "temperature": _honoured("the strategy's parameter of that name; refused where it has none"),
    "top_p": _honoured("likewise; 1 is taken everywhere"),
    "tools": _honoured("functions; by strategies that take tools, others refuse them"),
    "tool_choice": _honoured("`auto`, `none`, `required` or a function"),
    "parallel_tool_calls": _honoured("with `false`, of several calls the first alone is returned"),
    "metadata": _honoured("kept with the run"),
    "user": _honoured("kept with the run"),
    "safety_identifier": _honoured("kept with the run"),
    "reason": _honoured("our own object: strategy, parameters, budget, verify and the like"),
    "store": _ignored("every run is kept in the run store"),
    "service_tier": _ignored("there is one"),
    "prompt_cache_key": _ignored(_CACHE),
    "prompt_cache_options": _ignored(_CACHE),
    "prompt_cache_retention": _ignored(_CACHE),
    "top_logprobs": _refused(_NO_LOGPROBS, 0, instead="`reason runs show RUN` has the samples' own"),
    "moderation": _refused("nothing is moderated here"),
}
"""Fields that both endpoints have."""

CHAT: dict[str, FieldRule] = {
    "messages": _honoured("roles developer, system, user, assistant and tool; content as text or parts of type text"),
    **SHARED,
    "n": _honoured("independent runs with seeds of their own, all counted in `usage`"),
    "stream_options": _honoured("`include_usage`"),
    "max_tokens": _honoured("most tokens of the reply that becomes the answer, or of the whole run (see below)"),
    "max_completion_tokens": _honoured("the same; the newer name"),
    "stop": _honoured("`content` ends before the first of them"),
    "seed": _honoured("the run's seed, from which every random choice follows"),
    "response_format": _honoured("`text`; `json_schema` by `cot`, which writes it behind its chain, others refuse it"),
    "reasoning_effort": _ignored("strategy, parameters and budget say how much is thought"),
    "logprobs": _refused(_NO_LOGPROBS, False, instead="`reason runs show RUN` has the samples' own"),
    "logit_bias": _refused(f"{_MANY_CALLS}, and tokens differ from model to model", {}),
    "frequency_penalty": _refused(_PENALTY, 0),
    "presence_penalty": _refused(_PENALTY, 0),
    "audio": _refused(_TEXT_ALONE),
    "modalities": _refused(_TEXT_ALONE, ["text"]),
    "prediction": _refused("no text is predicted for a model"),
    "functions": _refused("this is the form before tools", [], instead="use tools"),
    "function_call": _refused("this is the form before tools", "none", instead="use tool_choice"),
    "verbosity": _refused("no strategy has a parameter of that meaning", "medium", instead="ask for it in words"),
    "web_search_options": _refused("nothing is looked up in the web", instead="use a strategy that asks brains"),
}
"""Fields of `POST /v1/chat/completions`."""

RESPONSES: dict[str, FieldRule] = {
    "input": _honoured("a text, or messages, function calls and their outputs; content of type text alone"),
    "instructions": _honoured("a system message"),
    "previous_response_id": _honoured("the conversation goes on from there, without that response's instructions"),
    **SHARED,
    "max_output_tokens": _honoured("as `max_completion_tokens` of chat completions"),
    "text": _honoured("`format` as `response_format` of chat completions"),
    "reasoning": _ignored("strategy, parameters and budget say how much is thought; thoughts are always told"),
    "include": _ignored("there is nothing to be included that is not there"),
    "stream_options": _ignored("events are not padded"),
    "truncation": _refused("a conversation that does not fit is an error, and never cut", "disabled"),
    "background": _refused("a response is waited for", False, instead="`POST /v1/runs` starts a run in the background"),
    "background_options": _refused("a response is waited for"),
    "conversation": _refused("no conversation is kept here", instead="send the whole conversation as input"),
    "context_management": _refused("no conversation is kept here"),
    "max_tool_calls": _refused("tools are called by the client"),
    "prompt": _refused("no prompts are kept here", instead="send the text as input"),
    "image": _refused(_TEXT_ALONE),
    "access_programs": _refused("there are none"),
}
"""Fields of `POST /v1/responses`."""


def refuse_fields(given: Mapping[str, Any], rules: Mapping[str, FieldRule]) -> None:
    """Refuse what a request asks for and would not get.

    Args:
        given: The fields that were sent, but for our own.
        rules: The endpoint's table.

    Raises:
        UserError: Names the first such field, and why.
    """
    for name, value in given.items():
        rule = rules[name]
        if rule.treatment == "refused" and value is not None and not _neutral(value, rule.neutral):
            raise UserError(f"{name} is not supported: {rule.why}", hint=rule.instead, param=name)


def table(rules: Mapping[str, FieldRule]) -> str:
    """The table as it stands in the documentation (Markdown)."""
    order: tuple[Treatment, ...] = ("honoured", "ignored", "refused")
    rows = ["| field | what becomes of it | how, or why |", "| --- | --- | --- |"]
    for treatment in order:
        for name, rule in rules.items():
            if rule.treatment == treatment:
                taken = " or ".join(f"`{json.dumps(v)}`" for v in rule.neutral)
                rows.append(f"| `{name}` | {treatment}{f', but {taken}' if taken else ''} | {rule.why} |")
    return "\n".join(rows)


def _neutral(value: Any, neutral: tuple[Any, ...]) -> bool:
    # True == 1 and False == 0 in Python, and not in JSON
    return any(value == n and isinstance(value, bool) == isinstance(n, bool) for n in neutral)
