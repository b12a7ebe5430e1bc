"""The recorded tool calls of BFCL as a pool that `reason eval pool` reads.

    python benchmarks/recorded/tool_calls.py --pools DIR --side dev --out bfcl.jsonl.gz
    reason eval pool --data bfcl.jsonl.gz -m recorded/bfcl.jsonl.gz:claude-3-5-sonnet-20240620 -s cot

Types of other languages become JSON Schema's, dots in names `_`, and calls that an entry wrote as code or JSON are read
as calls. A text that is none of these is no call, unless it was right: then it equals no other. The commands are on
docs/results/tool_calls.md.
"""

from __future__ import annotations

import ast
import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data import Row, arguments, read
from reason.serving.recorded.pool import PoolSample, write_pool

MODELS = (
    "Salesforce_xLAM-7b-fc-r",
    "claude-3-5-sonnet-20240620",
    "gorilla-openfunctions-v2",
    "gpt-4o-mini-2024-07-18",
    "ibm-granite_granite-20b-functioncalling",
    "meetkai_functionary-small-v3.2-FC",
)
TYPES = {
    "dict": "object",
    "HashMap": "object",
    "Hashtable": "object",
    "tuple": "array",
    "Array": "array",
    "ArrayList": "array",
    "Queue": "array",
    "Stack": "array",
    "String": "string",
    "char": "string",
    "float": "number",
    "double": "number",
    "long": "integer",
    "short": "integer",
    "byte": "integer",
    "Bigint": "integer",
    "Boolean": "boolean",
}
KNOWN = ("object", "array", "string", "number", "integer", "boolean")
FENCED = re.compile(r"```(?:python|json|tool_code)?\n?(.*?)```", re.DOTALL)
LISTED = re.compile(r"\[\s*[\w.]+\(.*\]", re.DOTALL)


def schema_of(given: Any) -> Any:
    """A schema with the types of JSON Schema; an unknown type allows anything."""
    if not isinstance(given, dict):
        return {}
    kind = TYPES.get(str(given.get("type")), given.get("type"))
    schema = {key: given[key] for key in ("description", "enum", "default", "required") if key in given}
    if kind in KNOWN:
        schema["type"] = kind
    if "properties" in given:
        schema["properties"] = {name: schema_of(part) for name, part in given["properties"].items()}
    if "items" in given:
        schema["items"] = schema_of(given["items"])
    return schema


def name_of(name: str) -> str:
    """A tool's name in the characters that all providers take."""
    return re.sub(r"[^\w-]", "_", name)


def written_calls(text: str) -> list[Row] | None:
    """The calls that a text consists of, as JSON or as code; None if it is something else."""
    text = text.strip()
    with contextlib.suppress(ValueError):
        value = json.loads(text)
        value = value.get("tool_calls") if isinstance(value, dict) else value
        if isinstance(value, list) and value and all(isinstance(one, dict) and "name" in one for one in value):
            return [{"name": one["name"], "arguments": one.get("arguments", {})} for one in value]
    fenced = FENCED.search(text)
    text = text if fenced is None else fenced[1].strip()
    listed = LISTED.search(text)
    try:
        code = ast.parse((text if listed is None else listed[0]).rstrip(";"), mode="eval").body
        nodes = code.elts if isinstance(code, ast.List | ast.Tuple) else [code]
        calls = [
            {"name": ast.unparse(node.func), "arguments": {str(k.arg): literal(k.value) for k in node.keywords}}
            for node in nodes
            if isinstance(node, ast.Call)
        ]
        json.dumps(calls)
    except (SyntaxError, ValueError, TypeError):
        return None
    return calls if calls and len(calls) == len(nodes) else None


def literal(node: ast.expr) -> Any:
    """The value of an argument; what is no literal is its own text."""
    if isinstance(node, ast.List | ast.Tuple):
        return [literal(one) for one in node.elts]
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return {str(literal(key)): literal(value) for key, value in pairs if key is not None}
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)


def samples(rows: list[Row], questions: dict[str, Row]) -> Iterator[PoolSample]:
    """The samples of the chosen models."""
    for row in rows:
        if row["model"] not in MODELS:
            continue
        asked = questions.get(row["question_id"])
        functions = [] if asked is None else asked["functions"]
        functions = functions if isinstance(functions, list) else [functions]
        tools = {name_of(one["name"]): one for one in functions} or {"unknown": {"parameters": {}}}
        text = row.get("text") or ""
        calls = row["calls"] if row["calls"] is not None else written_calls(text)
        if not calls and row["correct"] and row["category"] != "relevance":
            calls = [{"name": "unreadable", "arguments": text}]  # right, but not for what can be read here
        yield PoolSample.model_validate(
            {
                **{key: row[key] for key in ("model", "dataset", "question_id", "sample", "correct")},
                "completion_tokens": row["completion_tokens"],
                "question": row["question_id"] if asked is None else f"{row['question_id']}: {asked['question']}",
                "tools": [
                    {
                        "name": name,
                        "description": one.get("description", ""),
                        "parameters": schema_of(one["parameters"]),
                    }
                    for name, one in tools.items()
                ],
                "calls": [
                    {
                        "name": name_of(one["name"]),
                        "arguments": one["arguments"]
                        if isinstance(one["arguments"], dict)
                        else json.dumps(one["arguments"]),
                    }
                    for one in calls or ()
                ],
                "answer": None if calls else "no call",
            }
        )


def main() -> None:
    """Write the pool."""
    parser = arguments(__doc__)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    questions = {row["question_id"]: row for row in read(options.pools, options.side, "bfcl_questions")}
    made = list(samples(read(options.pools, options.side, "bfcl"), questions))
    write_pool(options.out, made)
    print(f"{len(made)} samples of {len(MODELS)} models")


if __name__ == "__main__":
    main()
