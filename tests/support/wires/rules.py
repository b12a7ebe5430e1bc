"""What providers refuse, as data: a row has the models, conditions on the request that hold together, and the error.

A condition is (path, operator, value). A path leads into the request (`messages.-1.role`; `*` is every entry, `**` also
every entry of those) or to `path` (of the address), `thinks` (whether the model thinks in it). It holds if it does for
one of the values that the path leads to, `absent` if there is none. A value `"$path"` is that of another path.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

Condition = tuple[Any, ...]
Conditions = tuple[Condition, ...]


class Kept(NamedTuple):
    """What keeps a rule, and a request that breaks it without that.

    Attributes:
        by: "profile", "litellm", or what does it in `reason.serving`.
        instead: What is put in its place: names of the profile's fields of which nothing is known; changes of the body,
            by path (None removes); or, for a name in `reason.serving`, another value or function.
        kind: Name of the kind of model.
        model: Another model of it than its own.
        sent: The request's sampling parameters; and its `prompt`, by name.
    """

    by: str
    instead: Any
    kind: str
    model: str
    sent: Mapping[str, Any]


class Rule(NamedTuple):
    """One refusal.

    Attributes:
        models: Patterns of model strings, of which one matches; after `!`, none of these may.
        when: Conditions, which all hold.
        message: The error; `{value}` is the value of the first condition.
        source: Where the provider says so.
        kept: What keeps it; `test_rules` takes that away.
    """

    models: str
    when: Conditions
    message: str
    source: str
    kept: Kept
    status: int = 400


def by_profile(kind: str, *fields: str, model: str = "", **sent: Any) -> Kept:
    """Kept by fields of the model's profile."""
    return Kept("profile", fields, kind, model, sent)


def by_litellm(kind: str, changes: Mapping[str, Any], *, model: str = "", **sent: Any) -> Kept:
    """Kept by LiteLLM: the body that it sends is changed."""
    return Kept("litellm", changes, kind, model, sent)


def by_code(name: str, instead: Any, kind: str, *, model: str = "", **sent: Any) -> Kept:
    """Kept by what has this name in `reason.serving`."""
    return Kept(name, instead, kind, model, sent)


OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "is": lambda value, other: bool(value == other),
    "is not": lambda value, other: bool(value != other),
    "in": lambda value, other: value in other,
    "not in": lambda value, other: value not in other,
    "<": lambda value, other: bool(value < other),
    ">": lambda value, other: bool(value > other),
    ">=": lambda value, other: bool(value >= other),
    "set": lambda value, _: value not in (None, False, [], {}),
    "blank": lambda value, _: isinstance(value, str) and not value.strip(),
    "longer than": lambda value, other: len(value) > other,
    "not like": lambda value, other: re.fullmatch(other, value) is None,
    "has": lambda value, other: bool(set(other) & set(value)) if isinstance(value, dict) else False,
    "has without": lambda value, other: isinstance(value, dict) and other[0] in value and other[1] not in value,
    "has others than": lambda value, other: bool(set(value) - set(other)),
}


def values_at(scope: Any, path: Sequence[str]) -> Iterator[Any]:
    """The values to which a path leads; an unset one (None) is none."""
    if not path or list(path) == [""]:
        if scope is not None:
            yield scope
        return
    first, rest = path[0], path[1:]
    entries = scope.values() if isinstance(scope, dict) else scope if isinstance(scope, list) else ()
    if first == "**":
        yield from values_at(scope, rest)
    if first in ("*", "**"):
        for one in entries:
            yield from values_at(one, path if first == "**" else rest)
    elif isinstance(scope, dict) and first in scope:
        yield from values_at(scope[first], rest)
    elif isinstance(scope, list) and re.fullmatch(r"-?\d+", first) and -len(scope) <= int(first) < len(scope):
        yield from values_at(scope[int(first)], rest)


def matching(condition: Condition, scope: Mapping[str, Any]) -> list[Any]:
    """The values for which a condition holds."""
    path, operator, *rest = condition
    found = list(values_at(scope, path.split(".")))
    if operator == "absent":
        return [] if found else [None]
    expected = rest[0] if rest else None
    if isinstance(expected, str) and expected.startswith("$"):
        expected = next(values_at(scope, expected[1:].split(".")), None)
        found = [] if expected is None else found
    return [value for value in found if OPERATORS[operator](value, expected)]


def applies(rule: Rule, model: str) -> bool:
    """Whether a rule is of a model."""
    some, _, none = rule.models.partition("!")
    return any(fnmatchcase(model, p) for p in some.split()) and not any(fnmatchcase(model, p) for p in none.split())


def refusal(model: str, scope: Mapping[str, Any]) -> tuple[Rule, str] | None:
    """The first rule that refuses a request to a model, with its message; None if none does."""
    for rule in RULES:
        if applies(rule, model) and all(matching(condition, scope) for condition in rule.when):
            return rule, rule.message.format(value=matching(rule.when[0], scope)[0])
    return None


THINKS: Condition = ("thinks", "is", True)
CHAT: Condition = ("path", "is", "/v1/chat/completions")
RESPONSES: Conditions = (("path", "is", "/v1/responses"),)

_ISSUE = "https://github.com/{}/issues/{}"
_OPENAI = "openai/gpt-[5-9]* openai/o[1-9]* ! openai/gpt-5*-chat*"
_REASONS = f"openai/house-* {_OPENAI}"
"""Also a gateway to such a model under a name of its own."""
_SKIPS = "openai/gpt-5.[1-9]* openai/gpt-[6-9]*"
_REASONING = "https://platform.openai.com/docs/guides/reasoning"
_LATEST = "https://platform.openai.com/docs/guides/latest-model"
_CHAT_REFERENCE = "https://platform.openai.com/docs/api-reference/chat/create"
_RESPONSES = "https://platform.openai.com/docs/api-reference/responses/create"
_CLAUDE = "anthropic/* bedrock/*"
_CLAUDE_5 = "anthropic/claude-opus-4-[78]* anthropic/claude-opus-[5-9]* anthropic/claude-sonnet-[5-9]*"
_THINKING = "https://docs.claude.com/en/docs/build-with-claude/extended-thinking"
_ADAPTIVE = "https://docs.claude.com/en/docs/build-with-claude/adaptive-thinking"
_OPUS_5_5 = "https://platform.claude.com/docs/en/models/opus-5-5/migration-guide"
_MESSAGES = "https://docs.claude.com/en/api/messages"
_DEEPSEEK = "https://api-docs.deepseek.com/guides/thinking_mode"
_CONFIG = "generationConfig.thinkingConfig"
_GEMINI_THINKING = "https://ai.google.dev/gemini-api/docs/thinking"
_OLLAMA = "ollama/* ollama_chat/*"
_GROK = "https://docs.x.ai/developers/model-capabilities/text/reasoning"
_NOT_IN_SCHEMAS = (
    *("$ref", "$defs", "$schema", "const", "oneOf", "allOf", "exclusiveMinimum", "exclusiveMaximum"),
    *("multipleOf", "uniqueItems", "patternProperties"),
)
_MESSAGES_FIELDS = (
    *("model", "messages", "system", "max_tokens", "stream", "temperature", "top_p", "top_k", "stop_sequences"),
    *("tools", "tool_choice", "thinking", "metadata", "service_tier", "output_format", "output_config", "container"),
    *("context_management", "mcp_servers", "cache_control", "speed", "inference_geo", "path", "thinks", "altered"),
)
_MISTRAL_FIELDS = (
    *("model", "messages", "temperature", "top_p", "max_tokens", "stream", "stop", "random_seed", "response_format"),
    *("tools", "tool_choice", "presence_penalty", "frequency_penalty", "n", "prediction", "parallel_tool_calls"),
    *("prompt_mode", "reasoning_effort", "safe_prompt", "metadata", "path", "thinks", "altered", "bare_calls"),
)
_SCHEMA = {"type": "object", "properties": {"a": {"type": "integer", "const": 1}}}
_BODY = "openai_responses.responses_body"


def _no_stops(*_: Any) -> tuple[str, ...]:
    return ()


RULES: tuple[Rule, ...] = (
    # -- OpenAI
    Rule(
        _OPENAI,
        (CHAT, ("max_tokens", "set")),
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
        _ISSUE.format("yoannchb-pro/MoodleGPT", 65),
        by_code("litellm.transport.openai_body", lambda body, target: {"model": target.served, **body}, "gpt-5-mini"),
    ),
    Rule(
        "openai/gpt-5-mini openai/gpt-5-nano openai/gpt-5 openai/house-*",
        (("reasoning_effort", "not in", ("minimal", "low", "medium", "high")),),
        "Unsupported value: 'reasoning_effort' does not support {value!r} with this model.",
        _CHAT_REFERENCE,
        by_profile("gpt-5-mini", "efforts", effort="max"),
    ),
    Rule(
        _SKIPS,
        (("reasoning_effort", "not in", ("none", "low", "medium", "high", "xhigh", "max")),),
        "Unsupported value: 'reasoning_effort' does not support {value!r} with this model.",
        _LATEST,
        by_profile("gpt-5.6", "efforts", effort="minimal"),
    ),
    Rule(
        _REASONS,
        (("temperature", "is not", 1), THINKS),
        "Unsupported value: 'temperature' does not support {value} with this model. Only the default (1) is supported.",
        _ISSUE.format("khoj-ai/khoj", 1377),
        by_profile("gpt-5.6", "refuses_while_thinking", temperature=0.5),
    ),
    *(
        Rule(
            _REASONS,
            ((name, "set"), THINKS),
            f"Unsupported parameter: {name!r} is not supported with this model.",
            _ISSUE.format(*issue),
            kept,
        )
        for name, issue, kept in (
            ("top_p", ("vercel/ai", 10932), by_profile("gpt-5.6", "refuses_while_thinking", top_p=0.5)),
            ("logprobs", ("vercel/ai", 10932), by_profile("gpt-5.6", "refuses_while_thinking", logprobs=True)),
            (
                "stop",
                ("huggingface/smolagents", 1211),
                by_code("litellm.requests.applied_stops", _no_stops, "gpt-5.6", stop=("x",)),
            ),
        )
    ),
    Rule(
        "openai/gpt-5.[6-9]* openai/gpt-[6-9]*",
        (("tools", "set"), CHAT, THINKS),
        "Function tools with reasoning_effort are not supported for gpt-5.6 in /v1/chat/completions. "
        "To use function tools, use /v1/responses or set reasoning_effort to 'none'.",
        _ISSUE.format("BerriAI/litellm", 34569),
        by_profile("gpt-5.6", "responses_api", prompt="tools"),
    ),
    Rule(
        "openai/gpt-* openai/o[1-9]* ! openai/gpt-oss*",
        (("n", ">", 128),),
        "Invalid 'n': integer above maximum value. Expected a value <= 128, but got {value} instead.",
        _ISSUE.format("thisisartium/continuous-alignment-testing", 25),
        by_code("litellm.errors.refused_parameter", lambda *_: None, "gpt-5-mini", n=129),
    ),
    Rule(
        "openai/gpt-* openai/o[1-9]* ! openai/gpt-oss*",
        (("stop", "longer than", 4),),
        "Invalid 'stop': array too long.",
        _CHAT_REFERENCE,
        by_code("litellm.requests.applied_stops", _no_stops, "gpt-4o", stop=(*"vwxyz",)),
    ),
    Rule(
        "openai/gpt-5.[45]*",
        (("tools", "set"), CHAT, ("reasoning_effort", "in", ("low", "medium", "high", "xhigh"))),
        "Function tools with reasoning_effort are not supported for gpt-5.4 in /v1/chat/completions. "
        "Please use /v1/responses instead.",
        _ISSUE.format("openai/openai-openapi", 541),
        by_profile("gpt-5.6", "responses_api", model="gpt-5.4", prompt="tools", effort="low"),
    ),
    # -- its Responses API; what a request lacks is found by `responses.ResponsesStream.normal`
    *(
        Rule("openai/*", (condition, *RESPONSES), message, source, kept)
        for condition, message, source, kept in (
            (
                ("unknown.*", "set"),
                "Unknown parameter: {value!r}.",
                _RESPONSES,
                by_code(_BODY, {"seed": 1}, "gpt-5.6", prompt="tools"),
            ),
            (
                ("max_output_tokens", "<", 16),
                "Invalid 'max_output_tokens': integer below minimum value, got {value}.",
                _ISSUE.format("vectorize-io/hindsight", 58),
                by_code(
                    "openai_responses.MIN_OUTPUT_TOKENS",
                    0,
                    "gpt-5.6",
                    prompt="tools",
                    max_tokens=4,
                    thinking_tokens=4,
                ),
            ),
            (
                ("bare_calls.*", "set"),
                "Item {value!r} of type 'function_call' was provided without its required 'reasoning' item.",
                _ISSUE.format("cline/cline", 12242),
                by_code("openai_responses._reasoning", lambda message: [], "gpt-5.6", prompt="turn"),
            ),
            (
                ("bare_outputs.*", "set"),
                "No tool call found for function call output with call_id {value}.",
                _ISSUE.format("can1357/oh-my-pi", 106),
                by_code(_BODY, {"input.2.call_id": "call_x"}, "gpt-5.6", prompt="turn"),
            ),
            (
                ("unreadable.*", "set"),
                "The encrypted content {value} could not be verified.",
                _ISSUE.format("openai/codex", 8145),
                by_code(
                    "openai_responses._reasoning",
                    lambda message: [
                        {"encrypted_content": one["data"]} for one in message.get("reasoning_details", ())
                    ],
                    "gpt-5.6",
                    prompt="OpenRouter's sealed turn",
                ),
            ),
            (
                ("ids.*", "set"),
                "Item with id {value!r} not found. Items are not persisted when `store` is set to false.",
                _ISSUE.format("maximhq/bifrost", 5410),
                by_code(_BODY, {"input.1.id": "rs_1"}, "gpt-5.6", prompt="turn"),
            ),
            (
                ("no_summary.*", "set"),
                "missing required field `summary`",
                _ISSUE.format("newo-ether/Agora", 141),
                by_code(_BODY, {"input.1.summary": None}, "gpt-5.6", prompt="turn"),
            ),
            (
                ("bare_reasoning.*", "set"),
                "Item of type 'reasoning' was provided without its required following item.",
                _ISSUE.format("continuedev/continue", 8933),
                by_code(_BODY, {"input.3": None, "input.2": None}, "gpt-5.6", prompt="turn"),
            ),
            (
                ("tools.*.function", "set"),
                "Missing required parameter: 'tools[0].name'.",
                _RESPONSES,
                by_code(_BODY, {"tools.0.function": {"name": "look_up"}}, "gpt-5.6", prompt="tools"),
            ),
            (
                ("tool_choice.function", "set"),
                "Missing required parameter: 'tool_choice.name'.",
                _RESPONSES,
                by_code(_BODY, {"tool_choice.function": {"name": "look_up"}}, "gpt-5.6", prompt="chosen tool"),
            ),
            (
                ("input.*.content.*.type", "not in", ("input_text", "input_image", "input_file", "output_text")),
                "Invalid value: {value!r}. Supported values are: 'input_text', 'input_image', 'input_file'.",
                _RESPONSES,
                by_code("openai_responses._input_part", lambda part: part, "gpt-5.6", prompt="image"),
            ),
            (
                ("input.*.content.*.image_url.url", "set"),
                "Invalid type for 'image_url'.",
                _RESPONSES,
                by_code(
                    "openai_responses._input_part",
                    lambda part: {**part, "type": f"input_{part['type'].removesuffix('_url')}"},
                    "gpt-5.6",
                    prompt="image",
                ),
            ),
            (
                ("text.format.json_schema", "set"),
                "Missing required parameter: 'text.format.name'.",
                _RESPONSES,
                by_code(
                    _BODY,
                    {"text.format.json_schema": {"name": "reply"}},
                    "gpt-5.6",
                    prompt="tools",
                    json_schema=_SCHEMA,
                ),
            ),
        )
    ),
    Rule(
        "openai/*-codex* openai/*-pro*",
        (("path", "is not", "/v1/responses"),),
        "This model is only supported in v1/responses and not in v1/chat/completions.",
        "https://platform.openai.com/docs/models/gpt-5-codex",
        by_profile("gpt-5.6", "responses_api", model="gpt-5.6-codex"),
        404,
    ),
    Rule(
        "*gpt-oss*",
        (("reasoning_effort", "not in", ("low", "medium", "high")),),
        "reasoning_effort {value!r} is not supported",
        "https://docs.vllm.ai/projects/recipes/en/latest/OpenAI/GPT-OSS.html",
        by_profile("gpt-oss, parser", "efforts", effort="minimal"),
    ),
    # -- DeepSeek
    Rule(
        "deepseek/*",
        (("logprobs", "set"), THINKS),
        "logprobs is not supported by the thinking mode",
        _DEEPSEEK,
        by_profile("DeepSeek V4", "refuses_while_thinking", logprobs=True),
    ),
    Rule(
        "deepseek/*",
        (("response_format.type", "is", "json_schema"),),
        "This response_format type is unavailable now",
        "https://api-docs.deepseek.com/guides/json_mode",
        by_profile("DeepSeek V4", "refuses", json_schema=_SCHEMA),
    ),
    Rule(
        "deepseek/*",
        (("messages.-1.role", "is", "assistant"),),
        "The last message must be the user's; prefixes are part of the beta address",
        "https://api-docs.deepseek.com/guides/chat_prefix_completion",
        by_profile("DeepSeek V4", "refuses", prompt="prefix"),
    ),
    Rule(
        "deepseek/*",
        (("messages.*", "has without", ("tool_calls", "reasoning_content")), THINKS),
        "The reasoning_content in the thinking mode must be passed back to the API.",
        _DEEPSEEK,
        by_profile("DeepSeek V4", "return_thoughts", prompt="turn"),
    ),
    # -- Anthropic
    Rule(
        f"{_CLAUDE} ! {_CLAUDE_5}",
        (("temperature", "set"), ("top_p", "set")),
        "`temperature` and `top_p` cannot both be specified for this model. Please use only one.",
        _ISSUE.format("BerriAI/litellm", 15097),
        by_profile("Claude 4.5", "refuses", temperature=0.5, top_p=0.5),
    ),
    *(
        Rule(_CLAUDE_5, ((name, "set"),), f"`{name}` is not supported by this model.", _ADAPTIVE, kept)
        for name, kept in (
            ("temperature", by_litellm("Claude 5", {"temperature": 0.5})),
            ("top_p", by_litellm("Claude 5", {"top_p": 0.5})),
            ("top_k", by_litellm("Claude 5", {"top_k": 5})),
        )
    ),
    Rule(
        _CLAUDE_5,
        (("thinking.type", "is", "enabled"),),
        '"thinking.type.enabled" is not supported for this model. Use "thinking.type.adaptive" and '
        '"output_config.effort" to control thinking behavior.',
        _OPUS_5_5,
        by_litellm("Claude 5", {"thinking": {"type": "enabled", "budget_tokens": 1024}}, effort="low"),
    ),
    Rule(
        "anthropic/claude-*-5-5",
        (("thinking.type", "is", "disabled"),),
        '"thinking.type.disabled" is not supported for this model. Use "thinking.type.adaptive" and '
        '"output_config.effort" to control thinking behavior.',
        _OPUS_5_5,
        by_litellm("Claude 5.5, always", {"thinking": {"type": "disabled"}}),
    ),
    Rule(
        _CLAUDE,
        (("thinking.type", "is", "enabled"), ("thinking.budget_tokens", "absent")),
        "thinking.enabled.budget_tokens: Field required",
        _THINKING,
        by_litellm("Claude 4.5", {"thinking.budget_tokens": None}, effort="low"),
    ),
    Rule(
        _CLAUDE,
        (("thinking.budget_tokens", "<", 1024),),
        "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024",
        _ISSUE.format("themaximalist/llm.js", 30),
        by_profile("Claude 4.5", "min_thinking_tokens", effort="low", thinking_tokens=5),
    ),
    Rule(
        _CLAUDE,
        (("thinking.budget_tokens", ">=", "$max_tokens"),),
        "`max_tokens` must be greater than `thinking.budget_tokens`",
        _THINKING,
        by_profile("Claude 4.5", "cap_includes_thoughts", effort="low"),
    ),
    Rule(
        _CLAUDE,
        (("temperature", "is not", 1), THINKS),
        "`temperature` may only be set to 1 when thinking is enabled.",
        _THINKING,
        by_profile("Claude 4.5", "refuses_while_thinking", effort="low", temperature=0.5),
    ),
    Rule(
        _CLAUDE,
        (("top_p", "<", 0.95), THINKS),
        "`top_p` must be greater than or equal to 0.95 when thinking is enabled.",
        _THINKING,
        by_profile("Claude 4.5", "refuses_while_thinking", effort="low", top_p=0.5),
    ),
    Rule(
        _CLAUDE,
        (("top_k", "set"), THINKS),
        "`top_k` must be unset when thinking is enabled.",
        _THINKING,
        by_litellm("Claude 4.5", {"top_k": 5}, effort="low"),
    ),
    Rule(
        _CLAUDE,
        (("messages.-1.role", "is", "assistant"), THINKS),
        "This model does not support assistant message prefill while it thinks.",
        _THINKING,
        by_profile("Claude 5.5, always", "refuses_while_thinking", prompt="prefix"),
    ),
    Rule(
        _CLAUDE,
        (("tool_choice.type", "in", ("any", "tool")), THINKS),
        "Thinking may not be enabled when tool_choice forces tool use.",
        _THINKING,
        by_profile("Claude 4.5", "refuses_while_thinking", effort="low", prompt="forced tools"),
    ),
    Rule(
        _CLAUDE,
        (("stop_sequences.*", "blank"),),
        "stop_sequences: each stop sequence must contain non-whitespace",
        _ISSUE.format("BerriAI/litellm", 3286),
        by_profile("Claude 4.5", "refuses", stop=("\n\n",)),
    ),
    Rule(
        _CLAUDE,
        (("max_tokens", "absent"),),
        "max_tokens: Field required",
        _MESSAGES,
        by_litellm("Claude 4.5", {"max_tokens": None}),
    ),
    Rule(
        _CLAUDE,
        (("temperature", ">", 1),),
        "temperature: Input should be less than or equal to 1",
        _MESSAGES,
        by_litellm("Claude 4.5", {"temperature": 1.5}),
    ),
    Rule(
        _CLAUDE,
        (("", "has others than", _MESSAGES_FIELDS),),
        "Extra inputs are not permitted",
        _MESSAGES,
        by_litellm("Claude 4.5", {"seed": 1}),
    ),
    Rule(
        _CLAUDE,
        (
            ("messages.-2.content.0.type", "is", "tool_use"),
            ("messages.-1.content.0.type", "is", "tool_result"),
            ("thinking.type", "is", "enabled"),
        ),
        "messages.1.content.0.type: Expected `thinking` or `redacted_thinking`, but found `tool_use`.",
        _ISSUE.format("openai/openai-agents-python", 1704),
        by_profile("Claude 4.5", "return_thoughts", effort="low", prompt="signed turn"),
    ),
    *(
        Rule(
            models,
            (("altered.*", "set"),),
            "messages.1.content.0: Invalid `signature` in `thinking` block",
            _ISSUE.format("warpllm/warpllm", 101),
            by_code("litellm.requests.messages_of", {path: "I lo"}, kind, effort="low", prompt=prompt),
        )
        for models, path, kind, prompt in (
            (_CLAUDE, "1.thinking_blocks.0.thinking", "Claude 4.5", "signed turn"),
            ("openrouter/anthropic/*", "1.reasoning_details.0.text", "OpenRouter, Claude", "OpenRouter's signed turn"),
        )
    ),
    # -- Gemini
    Rule(
        "gemini/*",
        ((f"{_CONFIG}.thinkingBudget", "set"), (f"{_CONFIG}.thinkingLevel", "set")),
        "You can only set only one of thinking budget and thinking level.",
        _GEMINI_THINKING,
        by_litellm("Gemini 3", {f"{_CONFIG}.thinkingBudget": 512}, effort="low"),
    ),
    *(
        Rule(
            models,
            ((f"{_CONFIG}.thinkingBudget", "not in", (-1, *allowed)),),
            "The thinking budget {value} is invalid.",
            _GEMINI_THINKING,
            kept,
        )
        for models, allowed, kept in (
            (
                "gemini/gemini-2.5-pro*",
                range(128, 32769),
                by_profile("Gemini 2.5 Pro", "max_thinking_tokens", effort="low", thinking_tokens=99_999),
            ),
            (
                "gemini/gemini-2.5-flash-lite*",
                (0, *range(512, 24577)),
                by_profile(
                    "Gemini 2.5", "min_thinking_tokens", model="gemini-2.5-flash-lite", effort="low", thinking_tokens=5
                ),
            ),
            (
                "gemini/gemini-2.5-flash* ! gemini/gemini-2.5-flash-lite*",
                range(24577),
                by_profile("Gemini 2.5", "max_thinking_tokens", effort="low", thinking_tokens=99_999),
            ),
        )
    ),
    Rule(
        "gemini/gemini-2*",
        ((f"{_CONFIG}.thinkingLevel", "set"),),
        "Thinking level is not supported for this model.",
        _GEMINI_THINKING,
        by_litellm("Gemini 2.5", {_CONFIG: {"thinkingLevel": "low"}}, effort="low"),
    ),
    *(
        Rule(
            "gemini/*",
            ((f"{path}.**", "has", _NOT_IN_SCHEMAS),),
            f"Invalid JSON payload received. Unknown name at '{path}': Cannot find field.",
            _ISSUE.format("pizza-bot-app/pizza-bot", 62),
            kept,
        )
        for path, kept in (
            (
                "generationConfig.responseSchema",
                by_litellm("Gemini 2.5", {"generationConfig.responseSchema": _SCHEMA}, json_schema=_SCHEMA),
            ),
            (
                "tools.*.functionDeclarations.*.parameters",
                by_litellm("Gemini 2.5", {"tools.0.functionDeclarations.0.parameters": _SCHEMA}, prompt="tools"),
            ),
        )
    ),
    Rule(
        "gemini/gemini-2.5* gemini/gemini-[3-9]*",
        (("generationConfig.responseLogprobs", "is", True),),
        "Logprobs is not enabled for this model.",
        _ISSUE.format("googleapis/python-genai", 1921),
        by_profile("Gemini 2.5", "refuses", logprobs=True),
    ),
    Rule(
        "gemini/*",
        (("generationConfig.stopSequences", "longer than", 5),),
        "The number of stop sequences must be in [0, 5].",
        "https://ai.google.dev/api/generate-content#generationconfig",
        by_litellm("Gemini 2.5", {"generationConfig.stop_sequences": [*"abcdef"]}, effort="none", stop=(*"abcdef",)),
    ),
    Rule(
        "gemini/gemini-[3-9]*",
        (("contents.*.parts.0", "has without", ("functionCall", "thoughtSignature")),),
        "Function call is missing a thought_signature in functionCall parts.",
        "https://ai.google.dev/gemini-api/docs/thought-signatures",
        by_litellm("Gemini 3", {"contents.1.parts.0.thoughtSignature": None}, prompt="turn"),
    ),
    # -- xAI
    Rule(
        "xai/*",
        (("stop", "set"), THINKS),
        "Argument not supported on this model: stop",
        _ISSUE.format("BerriAI/litellm", 12635),
        by_code("litellm.requests.applied_stops", _no_stops, "Grok 6", stop=("x",)),
    ),
    Rule(
        "xai/grok-4.[6-9]* xai/grok-[5-9]*",
        (("reasoning_effort", "not in", ("low", "medium", "high", "xhigh")),),
        "Invalid reasoning effort {value}.",
        _GROK,
        by_profile("Grok 4.6", "efforts", effort="minimal"),
    ),
    Rule(
        "xai/grok-4.5*",
        (("reasoning_effort", "not in", ("low", "medium", "high")),),
        "Invalid reasoning effort {value}.",
        _GROK,
        by_profile("Grok 4.6", "efforts", model="grok-4.5", effort="minimal"),
    ),
    # -- Mistral
    Rule(
        "mistral/*",
        (("", "has others than", _MISTRAL_FIELDS),),
        "Extra inputs are not permitted",
        _ISSUE.format("mistralai/platform-docs-public", 7),
        by_litellm("Mistral", {"seed": 1}),
        422,
    ),
    Rule(
        "mistral/*",
        (("messages.*", "has others than", ("role", "content", "tool_calls", "tool_call_id", "name", "prefix")),),
        "Extra inputs are not permitted",
        _ISSUE.format("BerriAI/litellm", 30835),
        by_litellm("Mistral", {"messages.1.reasoning_content": "I look."}, prompt="turn"),
        422,
    ),
    Rule(
        "mistral/*",
        (("reasoning_effort", "not in", ("none", "high")),),
        "reasoning_effort {value} is not supported for this model",
        "https://github.com/mozilla-ai/any-llm/pull/1241",
        by_litellm("Mistral", {"reasoning_effort": "low"}, effort="low"),
    ),
    Rule(
        "mistral/*",
        (("messages.*.tool_calls.*.id", "not like", "[a-zA-Z0-9]{9}"),),
        "Tool call id was {value} but must be a-z, A-Z, 0-9, with a length of 9.",
        _ISSUE.format("mistralai/mistral-vibe", 1075),
        by_code("litellm.requests.shorten_call_ids", lambda messages: None, "Mistral", prompt="turn"),
    ),
    # -- OpenRouter
    Rule(
        "openrouter/google/*",
        (("bare_calls.*", "set"),),
        "Gemini models require OpenRouter reasoning details to be preserved in each request.",
        _ISSUE.format("microsoft/agent-framework", 2947),
        by_profile("OpenRouter, Gemini", "return_thoughts", prompt="OpenRouter's sealed turn"),
    ),
    # -- self-hosted servers
    Rule(
        "openai/*-q4",
        (("n", ">", 1),),
        "Only one completion choice is allowed",
        "https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md",
        by_code("litellm.errors.refused_parameter", lambda *_: None, "llama.cpp", n=2),
    ),
    *(
        Rule(models, (condition,), message, f"https://github.com/ollama/ollama/blob/main/{source}", kept)
        for models, condition, message, source, kept in (
            (
                f"{_OLLAMA} ! *qwen3*",
                ("reasoning_effort", "is not", "none"),
                '"the model" does not support thinking',
                "server/routes.go",
                by_code("litellm.errors.refused_parameter", lambda *_: None, "Ollama", model="llama3.2", effort="low"),
            ),
            (
                _OLLAMA,
                ("top_logprobs", ">", 20),
                "top_logprobs must be between 0 and 20",
                "server/routes.go",
                by_code("litellm.factory.OTHERS_TOP_LOGPROBS", 99, "Ollama", top_logprobs=21),
            ),
        )
    ),
)
