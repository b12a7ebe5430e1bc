"""Parameters that an endpoint has refused: recognised in its errors, remembered, and left out of later requests.

A refusal is remembered in the user's data directory, one small file each, so that processes that learn different ones
at the same time keep both. Deleting the directory `refused` forgets all of them; `left_out = []` in the settings'
profile of a model overrides them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from ..core.files import write_file
from ..core.messages import Request
from .profiles.profile import ModelProfile, Parameter, ProfileLayer

FIELDS: Final[Mapping[Parameter, tuple[str, ...]]] = {
    "temperature": ("temperature",),
    "top_p": ("top_p",),
    "top_k": ("top_k",),
    "stop": ("stop",),
    "logprobs": ("logprobs", "top_logprobs"),
    "n": ("n",),
    "seed": ("seed",),
    "json_schema": ("response_format",),
    "tool_choice": ("tool_choice",),
    "effort": ("reasoning_effort", "thinking"),
}
"""Fields of a request's body by parameter."""

EFFECTS: Final[Mapping[Parameter, str]] = {
    "temperature": "it samples at its own temperature",
    "top_p": "it samples with its own top_p",
    "top_k": "it samples with its own top_k",
    "stop": "stop strings are applied to its answers here",
    "logprobs": "there are no log-probabilities",
    "n": "each sample is a request of its own",
    "seed": "its samples have no seed",
    "json_schema": "its answers are not held to the schema",
    "effort": "it thinks as it does by default",
}
"""What a run does without a parameter."""

_NAMES: Final[tuple[tuple[Parameter, str], ...]] = (
    ("temperature", r"temperature"),
    ("top_p", r"top_?p"),
    ("top_k", r"top_?k"),
    ("logprobs", r"(top_|response_?)?logprobs"),
    ("stop", r"stop([_ ]?sequences?)?"),
    ("tool_choice", r"tool_?choice"),
    ("n", r"['\"`]n['\"`]|candidate_?count|completion choices?"),
    ("seed", r"(random_)?seed"),
    ("json_schema", r"response_?format|response_?(json_?)?schema|json_schema|output_format"),
    ("prefix", r"prefill|prefix"),
    ("effort", r"(reasoning[._ ]?)?effort|thinking([._ ]?(level|budget|type|config))?|output_config"),
)
"""Names of parameters in the providers' formats; of an error that names several, the first is the one at fault."""

_REFUSALS: Final = (
    # OpenAI, https://platform.openai.com/docs/guides/error-codes: "Unsupported parameter: 'top_p' is not supported with
    # this model", "Unsupported value: 'temperature' does not support 0.7 with this model", "Unknown parameter: 'seed'"
    r"unsupported|(does|do|is|are)(n't| not) support|not supported|unknown parameter|unrecognized",
    # Anthropic, https://docs.claude.com/en/docs/build-with-claude/extended-thinking: "`temperature` may only be set to
    # 1 when thinking is enabled"; and Mistral, mistralai/platform-docs-public#7: "Extra inputs are not permitted"
    r"may only|may not|must be unset|cannot both|deprecated|extra inputs|not permitted",
    # Gemini, googleapis/python-genai#1921: "Logprobs is not enabled", and "The thinking budget 0 is invalid"
    r"not enabled|(thinking )?(budget|level) \S+ is invalid|only works in thinking mode",
    r"cannot be (disabled|turned off)",
    # xAI, https://docs.x.ai/developers/model-capabilities/text/reasoning: "Invalid reasoning effort none"
    r"invalid reasoning effort",
    # DeepSeek, https://api-docs.deepseek.com/guides/json_mode: "This response_format type is unavailable now"
    r"unavailable",
    # llama.cpp's server, tools/server/README.md: "Only one completion choice is allowed"
    r"only one",
    # OpenAI, thisisartium/continuous-alignment-testing#25: "Invalid 'n': integer above maximum value"
    r"invalid 'n'",
)
_REFUSED = re.compile("|".join(_REFUSALS), re.IGNORECASE)
_OWN_FAULT = re.compile(r"(invalid|unsupported)[ _](json[ _])?schema|cannot find field|in context=", re.IGNORECASE)
"""A schema that is not in the form that the provider takes: a fault of the request, not a refused parameter."""
MAX_CHARS: Final = 2000
"""Characters of an error that are read."""


def refused_parameter(message: str, param: str | None = None) -> Parameter | None:
    """The parameter that an endpoint's error of status 400 or 422 says it does not take; None if it says no such thing.

    Args:
        message: The endpoint's message.
        param: The field at fault, where the endpoint names it.
    """
    text = message[:MAX_CHARS]
    if not _REFUSED.search(text) or _OWN_FAULT.search(text):
        return None
    named = (
        parameter
        for where in (f"'{param}'", text)
        for parameter, name in _NAMES
        if re.search(rf"(?<![\w-])({name})(?![\w-])", where, re.IGNORECASE)
    )
    return next(named, None)


def without_refused(body: dict[str, Any], profile: ModelProfile) -> dict[str, Any]:
    """A request's body without the parameters that the endpoint has refused."""
    left_out = {field for parameter in profile.left_out for field in FIELDS.get(parameter, ())}
    return {name: value for name, value in body.items() if name not in left_out} if left_out else body


def is_sent(parameter: Parameter, body: Mapping[str, Any], request: Request) -> bool:
    """Whether a request's body has a parameter."""
    return bool(request.prompt.prefix) if parameter == "prefix" else any(name in body for name in FIELDS[parameter])


def left_out_notes(name: str, profile: ModelProfile, request: Request) -> Iterator[str]:
    """What a run reports of a request of which parameters were left out."""
    sampling = request.sampling
    requested: Mapping[Parameter, bool] = {
        "temperature": sampling.temperature is not None or sampling.default_temperature is not None,
        "top_p": sampling.top_p is not None,
        "top_k": sampling.top_k > 0,
        "stop": bool(sampling.stop),
        "logprobs": sampling.logprobs or sampling.top_logprobs > 0,
        "n": len(request.indices) > 1,
        "seed": sampling.seed is not None,
        "json_schema": sampling.json_schema is not None,
        "effort": sampling.effort is not None,
    }
    for parameter, effect in EFFECTS.items():
        if parameter in profile.left_out and requested[parameter]:
            yield f"{name} refuses {parameter}: {effect}"


# -- memory


def remember_refusal(directory: Path, model: str, endpoint: str, parameter: Parameter, message: str) -> None:
    """Remember that a model at an endpoint refuses a parameter."""
    fields = {
        "model": model,
        "endpoint": endpoint,
        "parameter": parameter,
        "date": datetime.now(UTC).date().isoformat(),
        "message": message,
    }
    file = _directory_of(directory, model, endpoint) / f"{parameter}.json"
    with suppress(OSError):  # without a directory that can be written, it is refused again by the next process
        file.parent.mkdir(parents=True, exist_ok=True)
        write_file(file, json.dumps(fields, indent=2).encode())


def refusal_layers(directory: Path, model: str, endpoint: str) -> list[ProfileLayer]:
    """The layer of a profile with what a model at an endpoint has refused; its source has the first and last date."""
    dates: dict[str, str] = {}
    for file in sorted(_directory_of(directory, model, endpoint).glob("*.json")):
        with suppress(OSError, ValueError, KeyError, TypeError):
            entry = json.loads(file.read_bytes())
            if entry["parameter"] in FIELDS or entry["parameter"] == "prefix":
                dates[entry["parameter"]] = str(entry["date"])
    if not dates:
        return []
    return [(f"refused on {', '.join(sorted(set(dates.values())))}", {"left_out": list(dates)})]


def _directory_of(directory: Path, model: str, endpoint: str) -> Path:
    digest = hashlib.sha256(f"{model}\n{endpoint}".encode()).hexdigest()[:16]
    return directory / "refused" / digest
