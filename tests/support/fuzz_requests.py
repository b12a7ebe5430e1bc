"""Requests for a fuzz run of the server: each is named, follows from a seed, and is sent alone.

`catalogue` has those that are always tried: long texts of every pattern, deep and wide JSON, JSON Schemas, tools and
conversations at their maximum, every strategy and verifier with its parameters at and beyond theirs. Requests that
the server's OpenAPI description generates are tests/sidecar/test_schema.py's.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote, urlencode

from support.fuzz_patterns import PATTERNS

MAX_QUESTION = 200_000
MIB = 1 << 20
SECONDS = 0.3
"""Budget of a run, so that the fuzz run tries many."""
NUM_PARAMETERS = 2
"""Parameters of each strategy that a short fuzz run tries at and beyond their maximum."""
MAX_BISECTIONS = 60
LAST_RUN = "run_0"
"""ID in paths that stands for the last run's, once there is one."""

Json = Any


@dataclass(frozen=True)
class Case:
    """A request.

    Attributes:
        name: What it tries.
        body: A value that is sent as JSON; bytes are sent as they are.
        shrinks: Whether parameters whose product is refused are halved until it is accepted (see `shrunk`).
    """

    name: str
    method: str
    path: str
    body: Json | bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    shrinks: bool = False

    @property
    def content(self) -> bytes | None:
        """The body as it is sent."""
        if self.body is None or isinstance(self.body, bytes):
            return self.body
        return json.dumps(self.body, ensure_ascii=False).encode("utf-8", "surrogatepass")


@dataclass(frozen=True)
class Kinds:
    """What the server describes: its routes, strategies and verifiers, with their parameters' schemas."""

    openapi: Json
    strategies: Mapping[str, Json]
    verifiers: Mapping[str, Json]


def shrunk(case: Case, param: str) -> Case | None:
    """The case with a parameter, named by an error, halved; None if there is none to halve."""
    body = json.loads(json.dumps(case.body))
    owner: Json = body
    *path, name = param.split(".")
    for part in path:
        owner = owner.get(part) if isinstance(owner, dict) else None
    if not isinstance(owner, dict) or not isinstance(owner.get(name), int) or owner[name] < 2:
        return None
    owner[name] //= 2
    return replace(case, body=body)


def _post(name: str, path: str, body: Json | bytes, *, shrinks: bool = False) -> Case:
    return Case(name, "POST", path, body, {"content-type": "application/json"}, shrinks)


def _reason(name: str, *, shrinks: bool = False, **body: Json) -> Case:
    told = {"question": "What is 6 * 7?", "budget": {"seconds": SECONDS}, **body}
    return _post(name, "/v1/reason", told, shrinks=shrinks)


def _chat(name: str, *, shrinks: bool = False, reason: Json = None, **body: Json) -> Case:
    told = {"model": "reason/cot", "messages": [{"role": "user", "content": "What is 6 * 7?"}], **body}
    told["reason"] = {"budget": {"seconds": SECONDS}, **(reason or {})}
    return _post(name, "/v1/chat/completions", told, shrinks=shrinks)


def _responses(name: str, **body: Json) -> Case:
    told = {"model": "reason/cot", "input": "What is 6 * 7?", "reason": {"budget": {"seconds": SECONDS}}, **body}
    return _post(name, "/v1/responses", told)


def _verify(name: str, **body: Json) -> Case:
    told = {"text": "The bridge was opened in 1932.", "budget": {"seconds": SECONDS}, **body}
    return _post(name, "/v1/verify", told)


def repeated(pattern: str, chars: int) -> str:
    """A pattern repeated to a length, with another end so that nothing that matches the pattern matches all."""
    return (pattern * (chars // len(pattern) + 1))[: chars - 1] + "!"


def catalogue(kinds: Kinds, seed: int, *, complete: bool) -> Iterator[Case]:
    """The fixed cases; unless `complete`, a few parameters of each strategy and one use of each pattern of text."""
    chooser = random.Random(seed)
    yield from _routes(kinds)
    yield from _bodies()
    yield from _schemas()
    yield from _chats()
    yield from _texts(chooser, complete=complete)
    yield from _parameters(kinds, chooser, complete=complete)


def _routes(kinds: Kinds) -> Iterator[Case]:
    for path in kinds.openapi["paths"]:
        for method in ("GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS"):
            for run_id in ("run_0", "%00", "..%2f..%2fetc%2fpasswd", "a" * 4000, "%F0%9F%98%80"):
                if "{" in path or run_id == "run_0":
                    filled = path
                    while "{" in filled:
                        filled = filled[: filled.index("{")] + run_id + filled[filled.index("}") + 1 :]
                    body = b"{}" if method in ("POST", "PUT", "PATCH") else None
                    headers = {"content-type": "application/json"} if body else {}
                    yield Case(f"{method} {path} with id {run_id[:20]}", method, filled, body, headers)
    for path in ("/", "/ui", "/docs", "/openapi.json", "/v1", "/v1/", "//v1/runs", "/v1/runs/", "/%2e%2e/", "/\u00e9"):
        yield Case(f"GET {path}", "GET", quote(path, safe="/%"))
    for name in ("search", "tag", "strategy", "model", "after", "status", "sort", "limit", "order", "nothing"):
        for value in ("", "a" * 200, "%" * 200, "_" * 200, "a:" + "b" * 512, "\x00", "'", '"', "\U00010000" * 50, "-1"):
            yield Case(f"list by {name}={value[:12]!r}", "GET", f"/v1/runs?{urlencode({name: value})}")
    for name in ("idempotency-key", "last-event-id", "x-request-id", "traceparent", "accept", "origin", "range"):
        for value in ("a" * 255, "a" * 8000, "9" * 5000, "\x7f", "%", "-1"):
            yield Case(f"header {name}", "GET", "/v1/runs?limit=1", headers={name: value})
            yield replace(_reason(f"header {name}"), headers={"content-type": "application/json", name: value})
    yield replace(_reason("the same key, another body", seed=1), headers={"idempotency-key": "k"})
    yield replace(_reason("the same key, another body", seed=2), headers={"idempotency-key": "k"})
    for kind in (
        "text/plain",
        "application/xml",
        "multipart/form-data; boundary=x",
        "application/json; charset=utf-16",
    ):
        yield Case(f"body of type {kind}", "POST", "/v1/reason", b'{"question": "x"}', {"content-type": kind})


POSTS = ("/v1/reason", "/v1/runs", "/v1/verify", "/v1/chat/completions", "/v1/responses")


def _bodies() -> Iterator[Case]:
    wide = {
        "a list of numbers": b'{"question":"x","parameters":{"a":[' + b"0," * (2 * MIB - 100) + b"0]}}",
        "a list of lists": b'{"question":"x","parameters":{"a":[' + b"[]," * (MIB + 200_000) + b"0]}}",
        "a list of objects": b'{"question":"x","messages":[' + b"{}," * (MIB + 200_000) + b"{}]}",
        "a list of texts": b'{"question":"x","input":[' + b'"",' * (MIB + 200_000) + b'""]}',
        "many keys": b'{"question":"x",' + b",".join(b'"%x":0' % i for i in range(380_000)) + b"}",
        "many parameters": b'{"question":"x","parameters":{' + b",".join(b'"%x":0' % i for i in range(380_000)) + b"}}",
        "one key many times": b'{"question":"x"' + b',"a":0' * 690_000 + b"}",
        "one known key many times": b'{"question":"x"' + b',"kind":0' * 460_000 + b"}",
        "many metadata": b'{"question":"x","metadata":{' + b",".join(b'"%x":"a"' % i for i in range(300_000)) + b"}}",
        "wrong metadata": b'{"question":"x","metadata":{' + b",".join(b'"%x":[]' % i for i in range(300_000)) + b"}}",
        "a long key": b'{"question":"x","' + b"k" * (4 * MIB - 100) + b'":0}',
        "a long text": b'{"question":"' + b"q" * (4 * MIB - 100) + b'"}',
        "a text of escapes": b'{"question":"' + b"\\u0041" * 690_000 + b'"}',
        "a text of quotes": b'{"question":"' + b'\\"' * (2 * MIB - 100) + b'"}',
        "a long number": b'{"question":"x","seed":' + b"9" * (4 * MIB - 100) + b"}",
        "a number of 4,000 digits": b'{"question":"x","seed":' + b"9" * 4000 + b"}",
        "many long numbers": b'{"question":"x","parameters":{"a":[' + (b"9" * 299 + b",") * 13_000 + b"0]}}",
        "a long float": b'{"question":"x","seed":0.' + b"1" * (4 * MIB - 100) + b"}",
        "exponents": b'{"question":"x","parameters":{"a":[' + b"1e-9999," * 500_000 + b"0]}}",
        "large exponents": b'{"question":"x","parameters":{"a":[' + b"1e999," * 600_000 + b"0]}}",
        "the deepest list": b'{"question":"x","parameters":{"a":' + b"[" * 97 + b"]" * 97 + b"}}",
        "too deep": b'{"question":"x","parameters":{"a":' + b"[" * 2 * MIB + b"]" * (2 * MIB - 100) + b"}}",
        "only brackets": b"[" * (4 * MIB - 10),
        "only quotes": b'"' * (4 * MIB - 10),
        "only escapes": b'"' + b"\\" * (4 * MIB - 10),
        "only blanks": b" " * (4 * MIB - 10),
        "surrogates": b'{"question":"' + b"\\ud800" * 600_000 + b'"}',
        "surrogate pairs": b'{"question":"' + b"\\ud83d\\ude00" * 300_000 + b'"}',
        "not UTF-8": b'{"question":"' + b"\xff" * MIB + b'"}',
        "NUL": b'{"question":"\x00"}',
        "too large": b'{"question":"' + b"q" * (4 * MIB) + b'"}',
        "empty": b"",
        "null": b"null",
        "NaN": b'{"question":"x","budget":{"seconds":NaN}}',
        "half": b'{"question":"x","parameters":{"a":[' + b'{"b":[0,1]},' * 300_000,
    }
    for name, body in wide.items():
        for path in POSTS if len(body) < MIB else ("/v1/reason", "/v1/chat/completions"):
            yield _post(f"{name} to {path}", path, body)
    # the same in fields that take any JSON
    numbers = [0] * 900_000
    objects = [{}] * 600_000
    for name, value in (("numbers", numbers), ("objects", objects), ("names", {f"{i}": i for i in range(200_000)})):
        yield _reason(f"parameters with many {name}", parameters={"n": value})
        yield _reason(f"verifier's parameters with many {name}", verify_parameters={"davinci": {"k": value}})
        yield _chat(f"reason.parameters with many {name}", reason={"parameters": {"n": value}})
        yield _chat(f"logit_bias with many {name}", logit_bias=value)
        yield _chat(f"thoughts with many {name}", messages=[{"role": "user", "content": "x", "reasoning": value}])
        yield _chat(f"a tool with many {name}", tools=[_tool("f", {"type": "object", "default": value})])
        yield _responses(f"prompt_cache_options with many {name}", prompt_cache_options=value)
    for kind in ("auto", "x" * (3 * MIB), 0, None, [], {}):
        yield _reason("kind", kind=kind)
        yield _chat("role", messages=[{"role": kind, "content": "x"}])
        yield _chat("effort", reasoning_effort=kind)
        yield _chat("model", model=kind)
        yield _reason("strategy", strategy=kind)
        yield _reason("verifier", verify=[kind])


REGEXES = (
    "(a+)+$",
    "^(a|a)*$",
    "(a|aa)+$",
    "(.*a){20}",
    "((a{1,100}){1,100}){1,100}",
    "a{0,65535}",
    "(?=(a+))a*b\\1",
    "[",
    "(?R)",
    "(?P<a>a)" * 200,
)


def _nested(depth: int, **leaf: Json) -> Json:
    schema: Json = leaf or {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def json_schemas() -> dict[str, Json]:
    """JSON Schemas that are long, deep, recursive or slow to check."""
    found: dict[str, Json] = {
        "nested": _nested(40),
        "wide": {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(30_000)}},
        "long enum": {"enum": [f"value {i}" for i in range(150_000)]},
        "enum of objects": {"enum": [{"a": i} for i in range(100_000)]},
        "required": {"type": "object", "required": [f"p{i}" for i in range(200_000)]},
        "anyOf": {"anyOf": [{"type": "integer", "minimum": i} for i in range(50_000)]},
        "oneOf of oneOf": {"oneOf": [{"oneOf": [{"type": "string"}] * 200}] * 200},
        "not not": {"not": {"not": {"not": {"type": "string"}}}},
        "reference to itself": {"$ref": "#"},
        "references": {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
        "doubling references": {
            "$defs": {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(100)}
            | {"d100": {"type": "object"}},
            "$ref": "#/$defs/d0",
        },
        "many references": {
            "$defs": {f"d{i}": {"type": "string"} for i in range(20_000)},
            "properties": {f"p{i}": {"$ref": f"#/$defs/d{i}"} for i in range(20_000)},
        },
        "reference to a file": {"$ref": "file:///etc/passwd"},
        "reference to an address": {"$ref": "http://127.0.0.1:9/schema.json"},
        "another dialect": {"$schema": "http://json-schema.org/draft-04/schema#", "type": "object"},
        "an unknown dialect": {"$schema": "x" * 1000, "type": "object"},
        "dynamic": {"$dynamicAnchor": "a", "properties": {"x": {"$dynamicRef": "#a"}}},
        "maximum numbers": {"type": "object", "minProperties": 10**300, "maxProperties": 0},
        "multiple of": {"type": "number", "multipleOf": 1e-300},
        "uniqueItems": {"type": "array", "uniqueItems": True, "contains": {"const": 1}},
        "wrong types": {"type": ["nothing"] * 50_000},
        "wrong everywhere": {"properties": {f"p{i}": {"type": i} for i in range(50_000)}},
        "dependencies": {"dependentRequired": {f"p{i}": [f"p{i + 1}"] for i in range(50_000)}},
        "a long description": {"type": "object", "description": "d" * (2 * MIB)},
    }
    for i, pattern in enumerate(REGEXES):
        found[f"pattern {i}"] = {"type": "object", "properties": {"answer": {"type": "string", "pattern": pattern}}}
        found[f"pattern of names {i}"] = {"type": "object", "patternProperties": {pattern: {"type": "string"}}}
    return found


def _schemas() -> Iterator[Case]:
    for name, schema in json_schemas().items():
        form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema, "strict": True}}
        yield _chat(f"JSON Schema: {name}", response_format=form)
        yield _responses(
            f"JSON Schema: {name}", text={"format": {"type": "json_schema", "name": "a", "schema": schema}}
        )
        yield _chat(f"parameters of a tool: {name}", tools=[_tool("f", schema)])
        if name == "strict" or name.startswith("pattern"):
            yield _chat(
                f"a regular expression and a text: {name}", response_format=form, messages=[_user("a" * 50_000)]
            )


def _user(content: Json) -> Json:
    return {"role": "user", "content": content}


def _tool(name: str, parameters: Json = None, description: str = "") -> Json:
    function = {"name": name, "description": description, "parameters": parameters or {"type": "object"}}
    return {"type": "function", "function": function}


def _chats() -> Iterator[Case]:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    calls = [{**call, "id": f"c{i}"} for i in range(10_000)]
    results = [{"role": "tool", "tool_call_id": f"c{i}", "content": "r"} for i in range(9_000)]
    user = _user("What is 6 * 7?")
    conversations: dict[str, list[Json]] = {
        "10,000 messages": [_user("x")] * 10_000,
        "alternating": [_user("x"), {"role": "assistant", "content": "y"}] * 4_999 + [user],
        "many parts": [_user([{"type": "text", "text": "x"}] * 90_000)],
        "many calls": [user, {"role": "assistant", "tool_calls": calls}, *results[:5000]],
        "a call each": [
            user,
            *(m for i in range(4_999) for m in ({"role": "assistant", "tool_calls": [calls[i]]}, results[i])),
        ],
        "long arguments": [
            user,
            {"role": "assistant", "tool_calls": [{**call, "function": {"name": "f", "arguments": "[" * (2 * MIB)}}]},
            {"role": "tool", "tool_call_id": "c", "content": "x"},
        ],
        "long thoughts": [user, {"role": "assistant", "content": "a", "reasoning_content": "t" * (2 * MIB)}, user],
        "many blocks": [
            user,
            {"role": "assistant", "content": "a", "thinking_blocks": [{"type": "thinking"}] * 90_000},
            user,
        ],
        "a long message": [_user("x" * (3 * MIB))],
    }
    for name, messages in conversations.items():
        yield _chat(f"conversation: {name}", messages=messages)
    tools = [_tool(f"f{i}", {"type": "object", "properties": {"x": {"type": "string"}}}) for i in range(1024)]
    for choice in ("auto", "required", "none", {"type": "function", "function": {"name": "f1023"}}, "f0", "x" * MIB):
        yield _chat("1,024 tools", tools=tools, tool_choice=choice)
    yield _chat("100,000 tools", tools=[{"type": "function"}] * 100_000)
    yield _chat("a long description", tools=[_tool("f", None, "d" * (3 * MIB))])
    yield _chat("long descriptions", tools=[_tool(f"f{i}", None, "d" * 3_000) for i in range(1024)])
    yield _chat("nested parameters", tools=[_tool(f"f{i}", _nested(20)) for i in range(1024)])
    yield _chat("128 answers to a long message", n=128, messages=[{"role": "system", "content": "s" * MIB}, user])
    yield _chat("stop strings", stop=["a" * 999 + "b"] * 16, messages=[_user("a" * 150_000)])
    yield _chat("streamed", stream=True, reason={"strategy": "self-consistency"}, model="instant")
    items = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}]}] * 10_000
    yield _responses("10,000 items", input=items)
    yield _responses(
        "10,000 calls",
        input=[{"type": "function_call", "call_id": f"c{i}", "name": "f", "arguments": "{}"} for i in range(10_000)],
    )
    yield _responses("10,000 outputs", input=[{"type": "function_call_output", "call_id": "c", "output": "x"}] * 10_000)
    yield _responses(
        "10,000 thoughts", input=[*([{"type": "reasoning", "summary": [{"text": "x"}]}] * 9_999), items[0]]
    )
    yield _responses(
        "encrypted thoughts", input=[{"type": "reasoning", "encrypted_content": "A" * (3 * MIB)}, items[0]]
    )
    yield _responses("in the background", background=True)
    yield _responses("streamed", stream=True)
    yield _reason("choices", choices=["c" * 10_000] * 26)
    yield _reason("100,000 choices", choices=["c" * 10] * 200_000)
    yield _reason("choices of one text", choices=["\u0301" * 10_000] * 26, strategy="self-consistency")
    documents = [{"name": f"d{i}", "text": "The bridge was opened in 1932. " * 2_000} for i in range(60)]
    for strategy in ("cot", "rag", "coat"):
        yield _reason(f"documents for {strategy}", documents=documents, strategy=strategy)
        yield _reason(f"documents for {strategy}, verified", documents=documents, strategy=strategy, verify=["davinci"])
        yield _reason(
            f"one long document for {strategy}", documents=[{"name": "d", "text": "a" * 1_000_000}], strategy=strategy
        )
    yield _reason("documents of one name", documents=[{"name": "d", "text": "x"}] * 64, verify=["davinci"])
    yield _verify("documents", documents=documents, text="It was opened in 1932. " * 1_000)
    for budget in (
        {"tokens": 10**30},
        {"seconds": 1e308},
        {"seconds": 1e-300},
        {"usd": 1e-300},
        {"calls": 1},
        {"tokens": 1},
        {"reward_calls": 0},
        {"thinking_tokens": 1},
        {"x": 1},
        [],
    ):
        yield _reason(f"budget {budget}", budget=budget, strategy="self-consistency")
        yield _verify(f"budget {budget}", budget=budget)


def extreme(schema: Json, *, beyond: bool) -> Json:
    """The maximum of a parameter, or a value just beyond it."""
    for one in schema.get("anyOf", ()):
        if one.get("type") != "null":
            return extreme(one, beyond=beyond)
    if "enum" in schema or "const" in schema:
        return "no such value" if beyond else schema.get("enum", [schema.get("const")])[-1]
    kind = schema.get("type")
    if kind in ("integer", "number"):
        step = 1 if kind == "integer" else 1e-9
        if "maximum" in schema:
            return schema["maximum"] + (step if beyond else 0)
        if "exclusiveMaximum" in schema:
            return schema["exclusiveMaximum"] if beyond else schema["exclusiveMaximum"] - step
        return 10**400 if beyond else 2**53
    if kind == "boolean":
        return "perhaps" if beyond else True
    if kind == "string":
        longest = schema.get("maxLength")
        return "x" * (longest + 1 if longest is not None and beyond else longest or 200_000)
    if kind == "array":
        longest = schema.get("maxItems", 10_000) + beyond
        return [extreme(schema.get("items", {"type": "string", "maxLength": 5}), beyond=False)] * longest
    if kind == "object":
        return {f"k{i}": 0 for i in range(100_000 if beyond else 1000)}
    return None


def _properties(schema: Json) -> dict[str, Json]:
    """The parameters, with references inlined."""
    defs = schema.get("$defs", {})

    def inlined(value: Json, depth: int = 0) -> Json:
        if isinstance(value, list):
            return [inlined(one, depth) for one in value]
        if not isinstance(value, dict):
            return value
        if "$ref" in value and depth < 5:
            return inlined(defs.get(value["$ref"].rpartition("/")[2], {}), depth + 1)
        return {k: inlined(v, depth) for k, v in value.items()}

    return {name: inlined(one) for name, one in schema.get("properties", {}).items()}


def _parameters(kinds: Kinds, chooser: random.Random, *, complete: bool) -> Iterator[Case]:
    """Every strategy and verifier with its defaults, with each parameter at its maximum, and with all of them."""
    for name, schema in kinds.strategies.items():
        properties = _properties(schema)
        defaults = {k: v["default"] for k, v in properties.items() if "default" in v}
        yield _reason(f"{name}: defaults", strategy=name)
        yield _chat(f"{name}: defaults, streamed", model=f"reason/{name}", stream=True)
        numbers = {
            k: extreme(v, beyond=False)
            for k, v in properties.items()
            if isinstance(defaults.get(k), int | float) and not isinstance(defaults.get(k), bool)
        }
        yield _reason(f"{name}: all numbers at their maximum", strategy=name, parameters=numbers, shrinks=True)
        counts = {k: v for k, v in numbers.items() if isinstance(v, int) and v <= 100_000}
        yield _reason(f"{name}: all counts at their maximum", strategy=name, parameters=counts, shrinks=True)
        tried = sorted(properties)
        if not complete:
            tried = chooser.sample(tried, min(len(tried), NUM_PARAMETERS))
        for parameter in tried:
            its = properties[parameter]
            for beyond in (False, True):
                value = extreme(its, beyond=beyond)
                how = "beyond its maximum" if beyond else "at its maximum"
                yield _reason(
                    f"{name}: {parameter} {how}", strategy=name, parameters={parameter: value}, shrinks=not beyond
                )
            for option in _options(its):
                if option != defaults.get(parameter):
                    yield _reason(f"{name}: {parameter}={option}", strategy=name, parameters={parameter: option})
    for name, schema in kinds.verifiers.items():
        properties = _properties(schema)
        yield _verify(f"{name}: defaults", verifiers=[name])
        for parameter, its in properties.items():
            for beyond in (False, True):
                value = extreme(its, beyond=beyond)
                how = "beyond its maximum" if beyond else "at its maximum"
                yield _verify(f"{name}: {parameter} {how}", verifiers=[name], parameters={name: {parameter: value}})
            for option in _options(its):
                yield _verify(f"{name}: {parameter}={option}", verifiers=[name], parameters={name: {parameter: option}})


def _options(schema: Json) -> Sequence[Json]:
    if "enum" in schema:
        return list(schema["enum"])
    if schema.get("type") == "boolean":
        return [True, False]
    return [option for one in schema.get("anyOf", ()) for option in _options(one)]


def _texts(chooser: random.Random, *, complete: bool) -> Iterator[Case]:
    """Long texts of every pattern, where texts are taken apart: questions, documents, verified texts, messages."""
    for pattern in PATTERNS:
        text, long = repeated(pattern, MAX_QUESTION), repeated(pattern, 500_000)
        document = {"name": "d", "text": long}
        strategy = chooser.choice(("rag", "coat", "cot", "self-consistency"))
        uses = [
            _reason(f"question of {pattern!r} for {strategy}", question=text, strategy=strategy),
            _verify(f"text of {pattern!r}", text=long),
            _verify(f"document of {pattern!r}", documents=[document]),
            _reason(
                f"document of {pattern!r} for {strategy}", documents=[document], strategy=strategy, verify=["davinci"]
            ),
            _chat(f"message of {pattern!r}", messages=[_user(text)], stop=[pattern], stream=chooser.random() < 0.5),
        ]
        yield from uses if complete else [chooser.choice(uses)]
