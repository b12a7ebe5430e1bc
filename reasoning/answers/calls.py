"""Tool calls as votes: when two turns call the same, and which of many turns is chosen.

Two turns are equal when their calls are equal under the tools' schemas (`normalized_calls`). A vote decides in three
steps, each over what the one before left: whether to answer or to call, which tools to call, with which arguments. So
six different searches are not beaten by two equal deletions. Calls that change something must be wanted by more than
half of all samples (`WRITE_QUORUM`), else the next choice is taken, and without any the user is asked.

Source: Wang et al., "Soft Self-Consistency Improves Language Model
Agents" (ACL 2024), which shows that exact voting over actions fails where actions are diverse; the steps are our own.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time
from math import fsum
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import JsonValue

from ...core.errors import UserError
from ...core.json_schema import JsonSchema, schema_fault
from ...core.messages import Tool, ToolCall, canonical_calls
from ...core.types import Candidate, Question, Solution

WRITE_QUORUM: Final = 0.5
"""Share of all samples that calls which change something must exceed."""
MAX_SHOWN_PROPOSALS: Final = 3
"""Proposals that a question to the user lists."""
_MAX_DEPTH = 32


# -- equality


def normalized_calls(calls: Sequence[ToolCall], tools: Sequence[Tool]) -> str:
    """The calls as one text, equal for equal calls.

    Under a tool's schema, defaults are filled in, numbers are compared by value, the order of keys does not matter, nor
    does that of an array with unique items; strings are compared as their `format` says. The order of the calls matters
    only if two of them change something. Arguments that are not a JSON object stay text.
    """
    by_name = {tool.name: tool for tool in tools}
    forms = [canonical_calls([_normalized(call, by_name.get(call.name))])[1:-1] for call in calls]
    if sum(call.name in by_name and _changes(by_name[call.name]) for call in calls) < 2:
        forms.sort()
    return f"[{','.join(forms)}]"


def _normalized(call: ToolCall, tool: Tool | None) -> ToolCall:
    arguments = call.parsed_arguments
    if arguments is None:
        return call
    schema: JsonSchema = {} if tool is None else tool.parameters
    return ToolCall(name=call.name, arguments=json.dumps(_value(arguments, schema, schema, 0)))


def _value(value: Any, schema: Any, root: JsonSchema, depth: int) -> Any:
    """The normal form of a value under a schema; what lies too deep stays as it is."""
    if depth > _MAX_DEPTH:
        return value
    schema = _resolved(value, schema, root, depth)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        return _text(value, schema.get("format"))
    if isinstance(value, list):
        first = schema.get("prefixItems") or []
        rest = schema.get("items", {})
        items = [_value(v, first[i] if i < len(first) else rest, root, depth + 1) for i, v in enumerate(value)]
        return sorted(items, key=_sort_key) if schema.get("uniqueItems") is True else items
    if isinstance(value, dict):
        properties = schema.get("properties") or {}
        other = schema.get("additionalProperties", {})
        defaults = {k: s["default"] for k, s in properties.items() if isinstance(s, dict) and "default" in s}
        return {k: _value(v, properties.get(k, other), root, depth + 1) for k, v in {**defaults, **value}.items()}
    return value


def _resolved(value: Any, schema: Any, root: JsonSchema, depth: int) -> Mapping[str, Any]:
    """The schema with references followed, and of alternatives the first that the value satisfies."""
    if not isinstance(schema, dict) or depth > _MAX_DEPTH:
        return {}
    own = {key: part for key, part in schema.items() if key not in ("$ref", "anyOf", "oneOf", "allOf")}
    parts: list[Any] = list(schema.get("allOf") or [])
    if isinstance(reference := schema.get("$ref"), str):
        parts.append(_referred(reference, root))
    for alternatives in (schema.get("anyOf"), schema.get("oneOf")):
        parts += [part for part in alternatives or [] if _satisfies(value, part, root)][:1]
    for part in parts:
        own = {**_resolved(value, part, root, depth + 1), **own}
    return own


def _referred(reference: str, root: JsonSchema) -> Any:
    target: Any = root
    for key in reference.removeprefix("#").split("/")[1:]:
        target = target.get(key.replace("~1", "/").replace("~0", "~")) if isinstance(target, dict) else None
    return target if reference.startswith("#") else None


def _satisfies(value: Any, schema: Any, root: JsonSchema) -> bool:
    if not isinstance(schema, dict):
        return False
    definitions: JsonSchema = {key: root[key] for key in root if key in ("$defs", "definitions")}
    try:
        return not schema_fault(json.dumps(value), {**definitions, **schema})
    except UserError:
        return False


def _text(text: str, form: Any) -> str:
    """A string in the normal form of its JSON Schema `format`; as it is, if it has none or does not follow it."""
    try:
        match form:
            case "date-time":
                moment = datetime.fromisoformat(text)
                return (moment if moment.tzinfo is None else moment.astimezone(UTC)).isoformat()
            case "date":
                return date.fromisoformat(text).isoformat()
            case "time":
                return time.fromisoformat(text).isoformat()
            case "uuid":
                return str(UUID(text))
            case "ipv4" | "ipv6":
                return str(ipaddress.ip_address(text))
            case "email":
                local, _, domain = text.rpartition("@")
                return f"{local}@{domain.lower()}"
            case "uri":
                parts = urlsplit(text)
                return parts._replace(scheme=parts.scheme.lower(), netloc=parts.netloc.lower()).geturl()
    except (ValueError, OverflowError):
        pass
    return text


def _sort_key(value: JsonValue) -> str:
    return json.dumps(value, sort_keys=True)


# -- votes


def settle_calls(
    solution: Solution, classes: Sequence[Sequence[int]], shares: Sequence[float], question: Question
) -> Solution:
    """A vote's solution with its choice settled by the steps above, if a candidate calls tools.

    Args:
        classes: Positions of equal answers; of equally good classes the first one wins.
        shares: Share of the votes of each class, which is the confidence in it.

    Returns:
        The solution; if no class may be chosen, with a question to the user as its answer.
    """
    candidates = solution.candidates
    tools = [tuple(sorted(call.name for call in candidates[members[0]].tool_calls)) for members in classes]
    if not any(tools):
        return solution
    by_tools = {names: fsum(s for s, other in zip(shares, tools, strict=True) if other == names) for names in tools}
    best_call = max(share for share, names in zip(shares, tools, strict=True) if names)
    answers = by_tools.get((), -1.0)
    prefers_answer = answers > best_call or (answers == best_call and not tools[0])
    refused = ineligible(classes, candidates, question)
    eligible = [k for k, own in enumerate(classes) if own[0] not in refused]
    if not eligible:
        return with_quorum(solution, classes, question)
    best = max(eligible, key=lambda k: ((not tools[k]) == prefers_answer, by_tools[tools[k]], shares[k]))  # the first
    if solution.chosen in classes[best]:
        return solution
    return solution.model_copy(update={"chosen": classes[best][0], "confidence": shares[best]})


def ineligible(classes: Sequence[Sequence[int]], candidates: Sequence[Candidate], question: Question) -> frozenset[int]:
    """Positions of the candidates whose calls change something and lack the quorum."""
    changing = {tool.name for tool in question.offered_tools if _changes(tool)}
    quorum = WRITE_QUORUM * len(candidates)
    return frozenset(
        i
        for own in classes
        if len(own) <= quorum and not changing.isdisjoint(call.name for call in candidates[own[0]].tool_calls)
        for i in own
    )


def with_quorum(solution: Solution, classes: Sequence[Sequence[int]], question: Question) -> Solution:
    """The solution, with a question to the user in place of calls that change something and lack the quorum."""
    candidates = solution.candidates
    if solution.chosen not in ineligible(classes, candidates, question):
        return solution
    largest = sorted(classes, key=lambda own: -len(own))[:MAX_SHOWN_PROPOSALS]
    proposals = "".join(
        f"\n- {len(own)} of {len(candidates)}: {', '.join(map(_shown, candidates[own[0]].tool_calls))}"
        for own in largest
    )
    text = f"The attempts do not agree on what to change, so nothing was changed:{proposals}\nWhat should be done?"
    asking = Candidate(text=text, answer=text)
    return solution.model_copy(
        update={
            "candidates": (*candidates, asking),
            "chosen": len(candidates),
            "confidence": None,
            "stopped": "abstained",
        }
    )


def _shown(call: ToolCall) -> str:
    arguments = call.parsed_arguments
    if arguments is None:
        return f"{call.name}({call.arguments})"
    return f"{call.name}({', '.join(f'{k}={json.dumps(v, ensure_ascii=False)}' for k, v in arguments.items())})"


def _changes(tool: Tool) -> bool:
    """Whether it is known to change something; of a client's tool it is not known, and the client decides."""
    return tool.effect is not None and tool.effect != "read"
