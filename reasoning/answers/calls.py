"""Tool calls as votes: when two turns call the same, and which of many turns is chosen.

Two turns are equal when their calls are equal under the tools' schemas (`normalized_calls`). A vote decides in three
steps, each over what the one before left: whether to answer or to call, which tools to call, with which arguments. So
six different searches are not beaten by two equal deletions. Calls that change something must be wanted by more than
half of all samples (`WRITE_QUORUM`), else the next choice is taken, and without any the user is asked.

Source: Wang et al., "Soft Self-Consistency Improves Language Model Agents" (ACL 2024), which shows that exact voting
over actions fails where actions are diverse; the steps are our own.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from math import fsum
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID

from ...core.errors import UserError
from ...core.json_schema import JsonSchema, schema_fault
from ...core.messages import Tool, ToolCall, canonical_calls
from ...core.store.records import canonical_json
from ...core.types import Candidate, Question, Solution

WRITE_QUORUM: Final = 0.5
"""Share of all samples that calls which change something must exceed."""
MAX_SHOWN_PROPOSALS: Final = 3
"""Proposals that a question to the user lists."""
_MAX_STEPS: Final = 20_000
"""Steps of the normal form of a call: a schema that refers to itself can ask for any number."""


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
    with suppress(RecursionError):
        value = _Normalizer({} if tool is None else tool.parameters).value(arguments)
        return ToolCall(name=call.name, arguments=json.dumps(value))
    return call


@dataclass
class _Normalizer:
    """Brings values into their normal forms under a schema; raises `RecursionError` where that takes too long."""

    root: JsonSchema
    steps: int = 0

    def value(self, value: Any, schema: Any = None) -> Any:
        """The normal form of a value under a part of the schema; by default, under the whole."""
        schema = self._resolved(value, self.root if schema is None else schema)
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if isinstance(value, str):
            return _text(value, schema.get("format"))
        if isinstance(value, list):
            first = schema.get("prefixItems") or []
            rest = schema.get("items", {})
            items = [self.value(v, first[i] if i < len(first) else rest) for i, v in enumerate(value)]
            return sorted(items, key=canonical_json) if schema.get("uniqueItems") is True else items
        if isinstance(value, dict):
            properties = schema.get("properties") or {}
            other = schema.get("additionalProperties", {})
            defaults = {k: s["default"] for k, s in properties.items() if isinstance(s, dict) and "default" in s}
            return {k: self.value(v, properties.get(k, other)) for k, v in {**defaults, **value}.items()}
        return value

    def _resolved(self, value: Any, schema: Any) -> Mapping[str, Any]:
        """The schema with references followed, and of alternatives the first that the value satisfies."""
        self.steps += 1
        if self.steps > _MAX_STEPS:
            raise RecursionError
        if not isinstance(schema, dict):
            return {}
        own = {key: part for key, part in schema.items() if key not in ("$ref", "anyOf", "oneOf", "allOf")}
        parts: list[Any] = list(schema.get("allOf") or [])
        if isinstance(reference := schema.get("$ref"), str):
            parts.append(self._referred(reference))
        for alternatives in (schema.get("anyOf"), schema.get("oneOf")):
            parts += self._chosen(value, alternatives or [])
        for part in parts:
            own = {**self._resolved(value, part), **own}
        return own

    def _chosen(self, value: Any, alternatives: Sequence[Any]) -> Sequence[Any]:
        """The first alternative that a value satisfies, if any; one of a simple type is found without validation."""
        known = [part for part in alternatives if isinstance(part, dict)]
        fitting = [part for part in known if isinstance(value, _TYPES.get(str(part.get("type")), object))]
        if len(fitting) == 1 and fitting[0].get("type") in _TYPES:
            return fitting
        return [part for part in fitting if self._satisfies(value, part)][:1]

    def _referred(self, reference: str) -> Any:
        target: Any = self.root
        for key in reference.removeprefix("#").split("/")[1:]:
            target = target.get(key.replace("~1", "/").replace("~0", "~")) if isinstance(target, dict) else None
        return target if reference.startswith("#") else None

    def _satisfies(self, value: Any, schema: Any) -> bool:
        definitions = {key: part for key, part in self.root.items() if key in ("$defs", "definitions")}
        self.steps += 100  # it takes milliseconds
        with suppress(UserError):
            return not schema_fault(json.dumps(value), {**definitions, **schema})
        return False


_TYPES: Final = {"string": str, "boolean": bool, "null": type(None)}
"""Types that no other rule of a schema needs to be told apart by."""


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


# -- votes


def settle_calls(
    solution: Solution, classes: Sequence[Sequence[int]], shares: Sequence[float], question: Question
) -> Solution:
    """A vote's solution; if a candidate calls tools, with its choice settled by the steps above.

    Args:
        classes: Positions of equal answers; of equally good classes the first one wins.
        shares: Share of the votes of each class, which is the confidence in it.
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
    proposals = "".join(
        f"\n- {len(own)} of {len(candidates)}: {', '.join(call.text for call in candidates[own[0]].tool_calls)}"
        for own in sorted(classes, key=len, reverse=True)[:MAX_SHOWN_PROPOSALS]  # stable
    )
    text = f"The attempts do not agree on what to change, so nothing was changed:{proposals}\nWhat should be done?"
    candidates = (*candidates, Candidate(text=text, answer=text))
    update = {"chosen": len(candidates) - 1, "confidence": None, "stopped": "abstained"}
    return solution.model_copy(update={**update, "candidates": candidates})


def _changes(tool: Tool) -> bool:
    """Whether it is known to change something; of a client's tool it is not known, and the client decides."""
    return tool.effect is not None and tool.effect != "read"
