"""What the models write: a thought with wrong numbers, and the right answer, whatever is asked of them.

The vocabulary is that of words, digits and marks; ids are given in the order of use.
"""

from __future__ import annotations

import hashlib
import json
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

QUESTION = "A shop sells 5 kinds of apples and 7 kinds of pears. How many kinds of fruit does it sell?"
RIGHT = "12"
DECOY = "13"
"""The number that stands only in thoughts."""
CHOICES, RIGHT_CHOICE = ("35", RIGHT, DECOY, "40"), "B"
"""Options of the same question, and the letter of the right one."""

STEPS = (
    "Step 1: The shop sells 5 kinds of apples.",
    "Step 2: It also sells 7 kinds of pears.",
    "Step 3: Together these are 5 + 7 = 12 kinds.",
    "The answer is 12.",
)
_THOUGHT = (
    "Let me think. Apples and pears are fruit, so perhaps I add 5 and 8.",
    f"That is {DECOY}. The answer is {DECOY}.",
    f'Final answer: \\boxed{{{DECOY}}}. Is it right? No. Yes? {{"step": 0, "A1": 0}}',
    f"Wait, the pears are 7 and not 8. Therefore, the answer is {DECOY}? I look again.",
    "Let me count once more, apples first and pears afterwards, slowly and one by one.",
)

Body = dict[str, Any]
T = TypeVar("T")
Part = Literal["thought", "mark", "answer", "call"]

_TOKEN = re.compile(r"<\|[a-z_]+\|>|</?think>|\[/?THINK\]|\n\n|\n| ?[A-Za-z]+| ?\d| ?[^\sA-Za-z\d]|\s")
_IDS: dict[str, int] = {}
_TEXTS: list[str] = []


def token_id(text: str) -> int:
    """Id of a token's text; the vocabulary grows with use."""
    if text not in _IDS:
        _IDS[text] = len(_TEXTS) + 1000
        _TEXTS.append(text)
    return _IDS[text]


def tokens_of(text: str) -> list[str]:
    """A text as tokens: words, digits, marks; their concatenation is the text."""
    return _TOKEN.findall(text)


def signature_of(thought: str) -> str:
    """The signature of a thought, with which a provider knows it again."""
    return "signed" + hashlib.sha256(thought.encode()).hexdigest()[:8]


def text_of(ids: Sequence[int]) -> str:
    """The text of tokens."""
    return "".join(_TEXTS[i - 1000] for i in ids)


def instance(schema: Any, name: str = "") -> Any:
    """Something small that satisfies a schema, and says the right thing where it says anything."""
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        return instance(schema["anyOf"][0], name)
    kind = schema["type"]
    if kind == "object":
        return {key: instance(one, key) for key, one in schema.get("properties", {}).items()}
    if kind == "array":
        return [instance(schema["items"], name)] * schema.get("minItems", 0)
    text = f"The answer is {RIGHT}." if name in ("answer", "text", "claim", "quote") else "It follows from the sum."
    return {"string": text, "integer": 8, "number": 8, "boolean": True, "null": None}[kind]


def script_answer(messages: Sequence[Body], schema: Any, seed: int) -> str:
    """The complete answer to a conversation."""
    if schema is not None:
        return json.dumps(instance(schema))
    last = next((content_of(m) for m in reversed(messages) if m["role"] == "user"), "")
    if "conform to this JSON Schema:\n" in last:
        return json.dumps(instance(json.loads(last.partition("JSON Schema:\n")[2])))
    if "There is no time left" in last:  # whatever the conversation was about before
        return f"The answer is {RIGHT}."
    if "conform to this JSON Schema:\n" in last:
        return json.dumps(instance(json.loads(last.partition("conform to this JSON Schema:\n")[2])))
    if names := re.findall(r'"(\w+)": digit', last):
        return json.dumps(dict.fromkeys(names, 2))
    if "Reply with one digit" in last or "single digit" in last:
        return "8"
    if "Reply with JSON alone: {" in last:
        return json.dumps(dict.fromkeys(re.findall(r'"(\w+)": 0-10', last), 8))
    if '"items"' in last:
        source = {"source": 1} if '"source"' in last else {}
        return json.dumps({"items": [{"text": "Kinds of apples and pears are kinds of fruit.", **source}]})
    if letters := sorted(set(re.findall(r'"candidate": "(\w)"', last))):
        marks = [{"candidate": x, "accuracy": 8, "insight": 7, "clarity": 9} for x in letters]
        return json.dumps({"scores": marks, "issues": [], "keep": []})
    if "most consistent" in last or "agrees best with the majority" in last:
        return "The most consistent response is Response 1."
    if "Say one word" in last or "Answer Yes or No" in last or "Is the last step right?" in last:
        return "No" if re.search(r"wrong|mistake|false|incorrect|started over", last.splitlines()[-1]) else "Yes"
    if "search query" in last:
        return "adding kinds of fruit"
    if "numbered list" in last:
        return "1. Count the kinds of apples.\n2. Add the kinds of pears."
    if "Begin with its number" in last:
        return "1, since it is direct."
    if worker := re.findall(r"Write your step (\d+) now", last):
        return STEPS[min(int(worker[0]), len(STEPS)) - 1].replace("is 12", "is \\boxed{12}")
    if "Write the first step" in last or "Write the next step" in last:
        return STEPS[min(sum(m["role"] == "assistant" for m in messages), len(STEPS) - 1)]
    if "next single step" in last or "nothing else: the one next step" in last:
        number = re.findall(r"[Ww]rite step (\d+)", last)
        done = sum(m["role"] == "assistant" for m in messages) if not number else int(number[-1]) - 1
        return STEPS[min(done, len(STEPS) - 1)]
    if "final answer that follows" in last or "final answer based on" in last:
        return f"The answer is {RIGHT}."
    if "response above is incomplete" in last:
        given = next((content_of(m) for m in reversed(messages) if m["role"] == "assistant"), "")
        return rest_of_answer(STEPS[0], given).lstrip()
    # samples differ, so that equal measurements of them are no accident
    return f"I go way {string.ascii_lowercase[seed % 26]}.\n\n" + "\n\n".join(STEPS)


def content_of(message: Body) -> str:
    """The text of a message."""
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def rest_of_answer(answer: str, given: str) -> str:
    """What follows the beginning of an answer."""
    if not given.strip():
        return answer
    if answer.startswith(given):
        return answer[len(given) :]
    if given.rstrip().endswith((RIGHT, f"{RIGHT}.")):
        return "" if given.rstrip().endswith(".") else "."
    if re.search(r"(answer( \([^)]*\))? is:?|\\boxed\{|Answer:)\s*(\\boxed\{)?$", given):
        return RIGHT + ("}." if given.endswith("{") else ".") if given.endswith((" ", "{")) else f" {RIGHT}."
    if given.endswith("["):
        return "8]"
    if given.endswith("Response"):
        return " 1."
    if given.endswith('"accuracy": '):
        return '8, "insight": 7, "clarity": 9}], "issues": [], "keep": []}'
    if given.endswith('{"A1":'):
        return ' 2, "A2": 2, "A3": 2, "B1": 2, "B2": 2, "C1": 2, "C2": 2}'
    steps = [s for s in STEPS if s not in given]
    if not steps:
        return ""
    gap = "" if given.endswith("\n") else "\n\n" if given.rstrip().endswith(".") else " "
    return gap + "\n\n".join(steps)


def script_thought(words: int) -> list[str]:
    """Paragraphs of a thought of about this many words."""
    paragraphs: list[str] = []
    count = 0
    while count < words or len(paragraphs) < 2:
        paragraph = _THOUGHT[len(paragraphs) % len(_THOUGHT)]
        paragraphs.append(paragraph)
        count += len(paragraph.split())
    return paragraphs


@dataclass(frozen=True)
class Token:
    """One generated token.

    Attributes:
        text: What is shown of it.
        sampled: Its own text, if that of a stop string is not shown.
        call: Number of the tool call to whose arguments it belongs.
    """

    text: str
    part: Part
    sampled: str = ""
    call: int = 0

    @property
    def id(self) -> int:
        return token_id(self.sampled or self.text or "<|im_end|>")


@dataclass(frozen=True)
class Sample:
    """One generated sample.

    Attributes:
        finish: Why it ended: "stop", "length" or "tool_calls".
        stop: The stop string that ended it.
        tools: Names of the tools that it calls.
    """

    tokens: list[Token]
    finish: str
    stop: str | None = None
    tools: tuple[str, ...] = ()

    @property
    def thought(self) -> str:
        """Text of its thought."""
        return "".join(token.text for token in self.tokens if token.part == "thought")


def batched(tokens: Sequence[T], size: int = 4) -> list[Sequence[T]]:
    """Tokens in pieces, as Anthropic streams them."""
    return [tokens[i : i + size] for i in range(0, len(tokens), size)]
