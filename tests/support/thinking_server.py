"""A server that plays each kind of model that thinks, over a script, and refuses what the real one refuses.

Kinds are data (`KINDS`): how thoughts are asked for and shown, and the requests that the provider's documents say are
answered with status 400. The script thinks wrong numbers (`DECOY`) and answers right (`RIGHT`), so that an answer that
was read out of a thought is recognised. Every generated token is counted, also of samples whose client went away.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from support.fault_server import FaultServer, _Reply
from support.scripted_model import ScriptedModel, replies

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
Part = Literal["thought", "mark", "answer"]

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


def text_of(ids: Sequence[int]) -> str:
    """The text of tokens."""
    return "".join(_TEXTS[i - 1000] for i in ids)


# -- kinds


@dataclass(frozen=True)
class Kind:
    """A kind of model at a kind of server.

    Attributes:
        name: Its name in tables.
        model: Model string.
        thinks: Whether it thinks in a request.
        shows: Where thoughts are shown: not at all, in a field of the message, in the content between tags or as
            harmony's channels, or as signed blocks (Anthropic).
        refusal: What the documents say is refused, given the request and whether it thinks; None if nothing is.
        root: The weights, as vLLM reports them.
        tags: Open and close tag.
        template_opens: Whether the chat template opens the thought.
        inserts_empty_thought: Whether the template puts an empty thought before a given beginning of the answer.
        stop_ends_thoughts: Whether stop strings also end thoughts.
        has_logprobs: Whether log-probabilities are shown where they are not refused.
        many: Whether a request may have several samples.
        reports_thinking_tokens: Whether the usage has the tokens of thoughts.
        small: Model string of a smaller model of the same kind.
        anthropic: Whether it speaks Anthropic's format.
    """

    name: str
    model: str
    thinks: Callable[[Body], bool]
    shows: Literal["never", "hidden", "reasoning", "reasoning_content", "tags", "channel", "blocks"]
    refusal: Callable[[Body, bool], str | None] = lambda body, thinking: None
    root: str = ""
    tags: tuple[str, str] = ("<think>", "</think>")
    template_opens: bool = False
    inserts_empty_thought: bool = False
    stop_ends_thoughts: bool = False
    has_logprobs: bool = True
    many: bool = True
    reports_thinking_tokens: bool = False
    anthropic: bool = False
    small: str = ""

    @property
    def small_kind(self) -> Kind:
        """The smaller model, at a server of its own."""
        known = next((kind for kind in KINDS if kind.model == self.small), None)
        return known or replace(self, model=self.small)

    @property
    def served(self) -> str:
        """The served name."""
        return self.model.split("/", 1)[1]

    @property
    def provider(self) -> str:
        """The provider."""
        return self.model.split("/", 1)[0]

    @property
    def vllm(self) -> bool:
        """Whether it runs on a vLLM server."""
        return self.provider == "hosted_vllm"

    @property
    def is_visible(self) -> bool:
        """Whether a client sees every token, so that its own count can be exact."""
        return self.shows not in ("hidden", "blocks")


def _always(body: Body) -> bool:
    return True


def _never(body: Body) -> bool:
    return False


def _qwen_thinks(body: Body) -> bool:
    return bool((body.get("chat_template_kwargs") or {}).get("enable_thinking", True))


def _deepseek_v4_thinks(body: Body) -> bool:
    return bool((body.get("thinking") or {}).get("type", "enabled") != "disabled")


def _claude_thinks(body: Body) -> bool:
    return bool((body.get("thinking") or {}).get("type", "disabled") != "disabled")


def _claude_5_thinks(body: Body) -> bool:
    return bool((body.get("thinking") or {}).get("type", "adaptive") != "disabled")


def _given(body: Body, *names: str) -> str | None:
    """The first of the parameters that a request sets to a value."""
    return next((n for n in names if body.get(n) not in (None, False, [])), None)


def _openai_refusal(efforts: Sequence[str]) -> Callable[[Body, bool], str | None]:
    """Source: OpenAI, "Reasoning models" and the API reference of chat completions (parameters by model)."""

    def refusal(body: Body, thinking: bool) -> str | None:
        if body.get("max_tokens") is not None:
            return "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
        effort = body.get("reasoning_effort")
        if effort is not None and effort not in efforts:
            return f"Unsupported value: 'reasoning_effort' does not support {effort!r} with this model."
        if thinking and body.get("temperature") not in (None, 1, 1.0):
            return "Unsupported value: 'temperature'. Only the default (1) value is supported."
        name = _given(body, "top_p", "logprobs", "top_logprobs", "stop") if thinking else None
        return f"Unsupported parameter: {name!r} is not supported with this model." if name else None

    return refusal


def _gpt_oss_refusal(body: Body, thinking: bool) -> str | None:
    effort = body.get("reasoning_effort")
    return None if effort in (None, "low", "medium", "high") else f"reasoning_effort {effort!r} is not supported"


def _deepseek_refusal(body: Body, thinking: bool) -> str | None:
    """Source: DeepSeek's documents, "Reasoning model" and "Thinking mode"."""
    if thinking and (name := _given(body, "logprobs", "top_logprobs")):
        return f"{name} is not supported by the thinking mode"
    if (body.get("response_format") or {}).get("type") == "json_schema":
        return "This response_format type is unavailable now"
    if body["messages"][-1]["role"] == "assistant":
        return "The last message must be the user's; prefixes are part of the beta address"
    return None


def _claude_refusal(body: Body, thinking: bool) -> str | None:
    """Source: Anthropic's documents, "Extended thinking" and "Migrating to Claude 4.5"."""
    if body.get("temperature") is not None and body.get("top_p") is not None:
        return "`temperature` and `top_p` cannot both be specified for this model."
    if not thinking:
        return None
    budget = body["thinking"].get("budget_tokens")
    if body["thinking"]["type"] == "enabled" and (budget is None or budget < 1024):
        return "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024"
    if budget is not None and budget >= body["max_tokens"]:
        return "`max_tokens` must be greater than `thinking.budget_tokens`"
    if body.get("temperature") not in (None, 1, 1.0):
        return "`temperature` may only be set to 1 when thinking is enabled."
    if body.get("top_p") is not None and body["top_p"] < 0.95:
        return "`top_p` must be greater than or equal to 0.95 when thinking is enabled."
    return _claude_thinking_refusal(body)


def _claude_5_refusal(body: Body, thinking: bool) -> str | None:
    name = _given(body, "temperature", "top_p", "top_k")
    if name:
        return f"`{name}` is not supported by this model."
    if (body.get("thinking") or {}).get("type") == "enabled":
        return "thinking.type: this model takes adaptive or disabled"
    return _claude_thinking_refusal(body) if thinking else None


def _claude_thinking_refusal(body: Body) -> str | None:
    if _given(body, "top_k"):
        return "`top_k` must be unset when thinking is enabled."
    if body["messages"][-1]["role"] == "assistant":
        return "This model does not support assistant message prefill while it thinks."
    if (body.get("tool_choice") or {}).get("type") in ("any", "tool"):
        return "Thinking may not be enabled when tool_choice forces tool use."
    return None


KINDS: tuple[Kind, ...] = (
    Kind("plain", "hosted_vllm/plain", _never, "never", small="hosted_vllm/plain-small"),
    Kind(
        "gpt-5-mini",
        "openai/gpt-5-mini",
        _always,
        "hidden",
        _openai_refusal(("minimal", "low", "medium", "high")),
        has_logprobs=False,
        reports_thinking_tokens=True,
        small="openai/gpt-5-nano",
    ),
    Kind(
        "gpt-5.6",
        "openai/gpt-5.6",
        lambda body: body.get("reasoning_effort") != "none",
        "hidden",
        _openai_refusal(("none", "low", "medium", "high", "xhigh", "max")),
        reports_thinking_tokens=True,
        small="openai/gpt-5.6-luna",
    ),
    Kind(
        "Qwen3, parser",
        "hosted_vllm/qwen3-8b",
        _qwen_thinks,
        "reasoning",
        root="Qwen/Qwen3-8B",
        inserts_empty_thought=True,
        stop_ends_thoughts=True,
        small="hosted_vllm/qwen3-0.6b",
    ),
    Kind(
        "Qwen3, raw",
        "hosted_vllm/qwen3-8b-raw",
        _qwen_thinks,
        "tags",
        root="Qwen/Qwen3-8B",
        inserts_empty_thought=True,
        stop_ends_thoughts=True,
        small="hosted_vllm/qwen3-0.6b-raw",
    ),
    Kind(
        "R1 distill, template opens",
        "hosted_vllm/deepseek-r1-distill-qwen-7b",
        _always,
        "tags",
        root="deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",
        template_opens=True,
        stop_ends_thoughts=True,
        small="hosted_vllm/deepseek-r1-distill-qwen-1.5b",
    ),
    Kind(
        "raw tags, not vLLM",
        "openai/qwq-32b",
        _always,
        "tags",
        template_opens=True,
        stop_ends_thoughts=True,
        small="openai/qwq-7b",
    ),
    Kind(
        "gpt-oss, parser",
        "hosted_vllm/gpt-oss-20b",
        _always,
        "reasoning",
        _gpt_oss_refusal,
        root="openai/gpt-oss-20b",
        tags=("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
        stop_ends_thoughts=True,
        small="hosted_vllm/gpt-oss-small",
    ),
    Kind(
        "gpt-oss, raw harmony",
        "openai/gpt-oss-20b",
        _always,
        "channel",
        _gpt_oss_refusal,
        tags=("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
        stop_ends_thoughts=True,
        small="openai/gpt-oss-small",
    ),
    Kind(
        "Magistral",
        "hosted_vllm/magistral-small-2509",
        _always,
        "tags",
        root="mistralai/Magistral-Small-2509",
        tags=("[THINK]", "[/THINK]"),
        stop_ends_thoughts=True,
        small="hosted_vllm/magistral-tiny",
    ),
    Kind(
        "DeepSeek R1",
        "deepseek/deepseek-reasoner",
        _always,
        "reasoning_content",
        _deepseek_refusal,
        has_logprobs=False,
        many=False,
        reports_thinking_tokens=True,
        small="deepseek/deepseek-v4-flash",
    ),
    Kind(
        "DeepSeek V4",
        "deepseek/deepseek-v4-flash",
        _deepseek_v4_thinks,
        "reasoning_content",
        _deepseek_refusal,
        many=False,
        reports_thinking_tokens=True,
        small="deepseek/deepseek-v4-pro",
    ),
    Kind(
        "Claude 4.5",
        "anthropic/claude-sonnet-4-5",
        _claude_thinks,
        "blocks",
        _claude_refusal,
        has_logprobs=False,
        many=False,
        anthropic=True,
        small="anthropic/claude-haiku-4-5",
    ),
    Kind(
        "Claude 5",
        "anthropic/claude-opus-5",
        _claude_5_thinks,
        "blocks",
        _claude_5_refusal,
        has_logprobs=False,
        many=False,
        anthropic=True,
        small="anthropic/claude-sonnet-5",
    ),
    Kind(
        "Claude 5.5, always",
        "anthropic/claude-opus-5-5",
        _always,
        "blocks",
        lambda body, thinking: (
            "thinking.type: this model always thinks"
            if (body.get("thinking") or {}).get("type") == "disabled"
            else _claude_5_refusal(body, thinking)
        ),
        has_logprobs=False,
        many=False,
        anthropic=True,
        small="anthropic/claude-sonnet-5-5",
    ),
)


# -- the script


def _instance(schema: Any, name: str = "") -> Any:
    """Something small that satisfies a schema, and says the right thing where it says anything."""
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        return _instance(schema["anyOf"][0], name)
    kind = schema["type"]
    if kind == "object":
        return {key: _instance(one, key) for key, one in schema.get("properties", {}).items()}
    if kind == "array":
        return [_instance(schema["items"], name)] * schema.get("minItems", 0)
    text = f"The answer is {RIGHT}." if name in ("answer", "text", "claim", "quote") else "It follows from the sum."
    return {"string": text, "integer": 8, "number": 8, "boolean": True, "null": None}[kind]


def script_answer(messages: Sequence[Body], schema: Any, seed: int) -> str:
    """The complete answer to a conversation."""
    if schema is not None:
        return json.dumps(_instance(schema))
    last = next((_content(m) for m in reversed(messages) if m["role"] == "user"), "")
    if "There is no time left" in last:  # whatever the conversation was about before
        return f"The answer is {RIGHT}."
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
    if "next single step" in last or "nothing else: the one next step" in last:
        number = re.findall(r"[Ww]rite step (\d+)", last)
        done = sum(m["role"] == "assistant" for m in messages) if not number else int(number[-1]) - 1
        return STEPS[min(done, len(STEPS) - 1)]
    if "final answer that follows" in last:
        return f"The answer is {RIGHT}."
    if "response above is incomplete" in last:
        given = next((_content(m) for m in reversed(messages) if m["role"] == "assistant"), "")
        return rest_of_answer(STEPS[0], given).lstrip()
    # samples differ, so that equal measurements of them are no accident
    return f"I go way {string.ascii_lowercase[seed % 26]}.\n\n" + "\n\n".join(STEPS)


def _content(message: Body) -> str:
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
class State:
    """Where a response begins: (thought so far, whether it is open; None if there is none), and the answer so far."""

    thought: str | None
    is_open: bool
    answer: str


@dataclass(frozen=True)
class Token:
    """One generated token.

    Attributes:
        text: What is shown of it.
        sampled: Its own text, if that of a stop string is not shown.
    """

    text: str
    part: Part
    sampled: str = ""

    @property
    def id(self) -> int:
        return token_id(self.sampled or self.text or "<|im_end|>")


@dataclass
class Choice:
    """A generated sample.

    Attributes:
        thinking: Tokens of the thought that have been sent, with its tags.
        tokens: All tokens that have been sent.
        finish: How it ended; None if its client went away before.
    """

    thinking: int = 0
    tokens: int = 0
    finish: str | None = None


@dataclass
class Generation:
    """A request for text.

    Attributes:
        refused: Why it was refused; None if it was not.
    """

    path: str
    body: Body
    choices: list[Choice] = field(default_factory=list)
    refused: str | None = None
    prompt_tokens: int = 0


def batched(tokens: Sequence[T], size: int = 4) -> list[Sequence[T]]:
    """Tokens in pieces, as Anthropic streams them."""
    return [tokens[i : i + size] for i in range(0, len(tokens), size)]


class ThinkingServer(FaultServer):
    """Serves one kind of model.

    Args:
        kind: The kind.
        thought_words: Minimum words of a thought without an effort, which differs among samples; a low effort has half
            of them.
        pause_s: Seconds before each token.

    Attributes:
        generations: Requests for text since `reset`.
        cuts: Tokens after which the next streams in OpenAI's format are cut, one for each.
    """

    def __init__(self, kind: Kind, *, thought_words: int = 40, pause_s: float = 0.0) -> None:
        super().__init__(ScriptedModel(replies("unused")), served=kind.served, vllm=kind.vllm, pause_s=pause_s)
        self.kind = kind
        self.thought_words = thought_words
        self.generations: list[Generation] = []
        self.cuts: list[int] = []

    def reset(self) -> None:
        """Forget the requests so far."""
        self.generations = []
        self.requests = []
        self.disconnects = 0

    @property
    def refusals(self) -> list[str]:
        """Why requests were refused."""
        return [g.refused for g in self.generations if g.refused is not None]

    @property
    def tokens(self) -> int:
        """Generated tokens."""
        return sum(c.tokens for g in self.generations for c in g.choices)

    @property
    def thinking_tokens(self) -> int:
        """Generated tokens of thoughts, with their tags."""
        return sum(c.thinking for g in self.generations for c in g.choices)

    # -- pages

    async def _answer(self, reply: _Reply, method: str, path: str, headers: dict[str, str], body: Any) -> None:
        path = path.partition("?")[0]
        self.requests.append((path, body))
        if path == "/v1/models":
            entry: dict[str, Any] = {"id": self.served, "object": "model"}
            if self.kind.vllm:
                entry |= {"max_model_len": 32768, "root": self.kind.root or f"scripts/{self.served}"}
            await reply.json(200, {"object": "list", "data": [entry]})
        elif path in ("/v1/chat/completions", "/v1/completions", "/v1/messages", "/chat/completions"):
            await self._write(reply, path.removeprefix("/v1").join(("/v1", "")), body)
        elif self.kind.vllm and path == "/version":
            await reply.json(200, {"version": "0.32.0"})
        elif self.kind.vllm and path == "/tokenize":
            text = body["prompt"] if "prompt" in body else self._render(body["messages"], body)
            ids = [token_id(t) for t in tokens_of(text)]
            await reply.json(200, {"tokens": ids, "count": len(ids), "max_model_len": 32768})
        elif self.kind.vllm and path == "/detokenize":
            await reply.json(200, {"prompt": text_of(body["tokens"])})
        else:
            await reply.error(404, f"no page {path}")

    # -- chat templates

    @property
    def _is_harmony(self) -> bool:
        return self.kind.tags[0].startswith("<|channel|>")

    def _render(self, messages: Sequence[Body], body: Body) -> str:
        """The prompt as the chat template renders it."""
        continued = bool(body.get("continue_final_message"))
        turns = list(messages[:-1] if continued else messages)
        if self._is_harmony:
            start, middle, end = "<|start|>", "<|message|>", "<|end|>"
            effort = (body.get("chat_template_kwargs") or {}).get("reasoning_effort") or body.get("reasoning_effort")
            system = f"Reasoning: {effort or 'medium'}\n\n# Valid channels: analysis, commentary, final."
            parts = [f"{start}system{middle}{system}{end}"]
            parts += [f"{start}{m['role']}{middle}{_content(m)}{end}" for m in turns]
            head = f"{start}assistant"
        else:
            parts = [f"<|im_start|>{m['role']}\n{_content(m)}<|im_end|>\n" for m in turns]
            head = "<|im_start|>assistant\n"
        text = "".join(parts)
        if continued:
            prefix = _content(messages[-1]).strip()  # chat templates commonly strip what they are given
            if self._is_harmony:
                return f"{text}{head}<|channel|>final<|message|>{prefix}"
            empty = "<think>\n\n</think>\n\n" if self.kind.inserts_empty_thought else ""
            return f"{text}{head}{empty}{prefix}"
        if not body.get("add_generation_prompt", True):
            return text
        if self.kind.template_opens:
            return f"{text}{head}<think>\n"
        if self.kind.inserts_empty_thought and not self.kind.thinks(body):
            return f"{text}{head}<think>\n\n</think>\n\n"
        return text + head

    def _state(self, rendered: str) -> tuple[list[Body], State]:
        """The conversation of a rendered prompt, and where the response begins."""
        if self._is_harmony:
            body, _, tail = rendered.rpartition("<|end|><|start|>assistant")
            if tail.startswith("<|channel|>final") and body.rfind("<|channel|>analysis") > body.rfind("<|start|>user"):
                body, _, before = body.rpartition("<|start|>assistant")
                tail = f"{before}<|end|><|start|>assistant{tail}"
            turns = re.findall(r"<\|start\|>(\w+)<\|message\|>(.*?)(?=<\|end\|>|$)", body, re.S)
        else:
            body, _, tail = rendered.rpartition("<|im_start|>assistant\n")
            turns = re.findall(r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>", body, re.S)
        messages = [{"role": role, "content": content} for role, content in turns] or [
            {"role": "user", "content": rendered}
        ]
        if not turns:
            return messages, State(None, False, rendered)
        opens, closes = self.kind.tags
        if closes in tail:
            before, _, after = tail.partition(closes)
            return messages, State(before.partition(opens)[2], False, after.lstrip("\n"))
        if opens in tail:
            return messages, State(tail.partition(opens)[2], True, "")
        final = "<|channel|>final<|message|>"  # answers without a thought
        return messages, State("" if tail.startswith(final) else None, False, tail.removeprefix(final))

    # -- text

    async def _writing(self, reply: _Reply, path: str, body: Any, fault: str | None) -> None:
        generation = Generation(path, body)
        self.generations.append(generation)
        if body.get("model") != self.served:
            await reply.error(404, f"the model {body.get('model')} does not exist", code="model_not_found")
            return
        if path == "/v1/completions":
            prompt = body["prompt"]
            rendered = prompt if isinstance(prompt, str) else text_of(prompt)
            if body.get("prompt_logprobs") is not None:
                await self._score(
                    reply, tokens_of(prompt) if isinstance(prompt, str) else [text_of([i]) for i in prompt]
                )
                return
            messages, state = self._state(rendered)
            thinking = self.kind.shows != "never"
        else:
            messages = body["messages"]
            thinking = self.kind.thinks(body)
            generation.refused = self.kind.refusal(body, thinking)
            if generation.refused:
                error = {"type": "invalid_request_error", "message": generation.refused, "code": 400, "param": None}
                await reply.json(400, {"type": "error", "error": error})
                return
            if self.kind.vllm or self.kind.template_opens:
                rendered = self._render(messages, body)
                messages, state = self._state(rendered)
            else:
                rendered = "".join(map(_content, messages))
                continued = messages[-1]["role"] == "assistant"
                state = State(None, False, _content(messages[-1]) if continued else "")
        given = body.get("prompt")
        generation.prompt_tokens = len(given) if isinstance(given, list) else len(tokens_of(rendered))
        n = (body.get("n") or 1) if self.kind.many else 1
        seed = body.get("seed")
        base = seed if seed is not None else len(self.generations)
        samples = [self._sample(messages, state, body, thinking, base + i) for i in range(n)]
        generation.choices = [Choice() for _ in samples]
        send = self._send_anthropic if self.kind.anthropic else self._send
        await send(reply, path, body, generation, samples, thinking and self.kind.thinks(body))

    def _sample(
        self, messages: Sequence[Body], state: State, body: Body, thinking: bool, seed: int
    ) -> tuple[list[Token], str, str | None]:
        """Tokens of a sample, its finish reason and the stop string that ended it."""
        schema = ((body.get("response_format") or {}).get("json_schema") or {}).get("schema")
        if self.kind.vllm:
            schema = schema or (body.get("structured_outputs") or {}).get("json")
        answer = rest_of_answer(script_answer(messages, schema, seed), state.answer)
        opens, closes = self.kind.tags
        tokens: list[Token] = []
        begins_thought = thinking and state.thought is None and not state.answer
        if begins_thought or state.is_open:
            words = self.thought_words + 12 * (seed % 4)
            if body.get("reasoning_effort") in ("minimal", "low"):
                words //= 2
            paragraphs = script_thought(words)
            given = state.thought or ""
            paragraphs = paragraphs[given.strip("\n").count("\n\n") + bool(given.strip()) :]
            text = "\n\n".join(paragraphs)
            if given.strip() and not given.endswith("\n"):
                text = f"\n\n{text}"
            thought = [Token(t, "thought") for t in tokens_of(text + "\n")]
            limit = body.get("thinking_token_budget") or (body.get("thinking") or {}).get("budget_tokens")
            thought = thought[:limit] if limit else thought
            opened = [Token(t, "mark") for t in tokens_of(f"{opens}\n")] if begins_thought else []
            tokens += [*opened, *thought, *(Token(t, "mark") for t in tokens_of(closes))]
            answer = answer if self._is_harmony else f"\n\n{answer}"
        elif self._is_harmony and not state.answer and state.thought is None:
            tokens += [Token(t, "mark") for t in tokens_of("<|channel|>final<|message|>")]
        tokens += [Token(t, "answer") for t in tokens_of(answer)]
        if self.kind.anthropic:  # its thoughts have no tags
            tokens = [t for t in tokens if t.part != "mark"]
        return self._cut(tokens, body)

    def _cut(self, tokens: list[Token], body: Body) -> tuple[list[Token], str, str | None]:
        cap = next((body[n] for n in ("max_completion_tokens", "max_tokens") if body.get(n) is not None), 4096)
        stop = body.get("stop") or body.get("stop_sequences") or ()
        stops = (stop,) if isinstance(stop, str) else tuple(stop)
        seen = ""
        for i, token in enumerate(tokens):
            if i == cap:
                return tokens[:cap], "length", None
            if token.part == "answer" or (self.kind.stop_ends_thoughts and token.part == "thought"):
                seen += token.text
                for one in stops:
                    if one in seen:
                        kept = [*tokens[:i], Token("", token.part, token.text)]  # the stop string has no text
                        return self._without(kept, len(one) - len(token.text)), "stop", one
        if len(tokens) == cap:
            return tokens, "length", None
        return ([*tokens, Token("", "answer")] if self.kind.vllm else tokens), "stop", None

    @staticmethod
    def _without(tokens: list[Token], chars: int) -> list[Token]:
        """Tokens whose last characters are those of a stop string, which are not shown."""
        for i in range(len(tokens) - 2, -1, -1):
            if chars <= 0:
                break
            text = tokens[i].text
            tokens[i] = Token(text[: max(0, len(text) - chars)], tokens[i].part, text)
            chars -= len(text)
        return tokens

    async def _send(
        self, reply: _Reply, path: str, body: Body, generation: Generation, samples: list[Any], thinking: bool
    ) -> None:
        chat = path == "/v1/chat/completions"
        shape = "chat.completion.chunk" if chat else "text_completion"
        frame = {"id": f"r{self.count}", "object": shape, "created": 1, "model": self.served}
        await reply.start("text/event-stream")
        cut = self.cuts.pop(0) if self.cuts else None
        for turn in range(max(len(tokens) for tokens, _, _ in samples)):
            await self._pause(reply)
            if turn == cut:
                raise ConnectionResetError
            for i, (tokens, finish, stopped) in enumerate(samples):
                if turn >= len(tokens):
                    continue
                token, is_last = tokens[turn], turn == len(tokens) - 1
                event = self._event(chat, i, token, turn, body, finish if is_last else None, stopped, thinking)
                choice = generation.choices[i]
                choice.tokens += 1
                choice.thinking += token.part != "answer"
                choice.finish = finish if is_last else None
                if event is not None:
                    await reply.event({**frame, "choices": [event]})
        usage: dict[str, Any] = {
            "prompt_tokens": generation.prompt_tokens,
            "completion_tokens": sum(len(tokens) for tokens, _, _ in samples),
        }
        usage["total_tokens"] = sum(usage.values())
        if self.kind.reports_thinking_tokens:
            count = sum(t.part != "answer" for tokens, _, _ in samples for t in tokens)
            usage["completion_tokens_details"] = {"reasoning_tokens": count}
        if (body.get("stream_options") or {}).get("include_usage"):
            await reply.event({**frame, "choices": [], "usage": usage})
        await reply.event("[DONE]")
        await reply.end()

    async def _pause(self, reply: _Reply) -> None:
        """Let the client read; stops the generation if it went away."""
        await asyncio.sleep(self.pause_s)
        if reply._reader.at_eof() or reply._writer.is_closing():
            self.disconnects += 1
            raise ConnectionResetError

    def _event(
        self,
        chat: bool,
        index: int,
        token: Token,
        position: int,
        body: Body,
        finish: str | None,
        stopped: str | None,
        thinking: bool,
    ) -> dict[str, Any] | None:
        """The choice of one token's event; None if nothing of the token is shown."""
        shows = self.kind.shows
        choice: dict[str, Any] = {"index": index, "finish_reason": finish, "logprobs": None}
        with_ids = self.kind.vllm and bool(body.get("return_token_ids"))
        if with_ids:
            choice["token_ids"] = [token.id]
        if self.kind.vllm and (finish is not None or not chat):
            choice["stop_reason"] = stopped
        if not chat:
            is_special = token.text.startswith("<|") and token.text.endswith("|>")
            choice["text"] = "" if is_special and body.get("skip_special_tokens", True) else token.text
            shown = True
        else:
            text = token.text
            in_field = shows in ("reasoning", "reasoning_content")
            if in_field and token.part == "mark":
                delta, shown = {}, with_ids
            elif token.part == "answer" or shows in ("tags", "channel"):
                # the parser takes everything for a thought until it has seen its end
                as_thought = (
                    in_field
                    and self.kind.vllm
                    and bool(body.get("continue_final_message"))
                    and (thinking or self._is_harmony)
                )
                delta, shown = {shows if as_thought else "content": text}, True
            elif in_field:
                delta, shown = {shows: text}, True
            else:
                delta, shown = {}, False
            choice["delta"] = {"role": "assistant", **delta} if position == 0 else delta
        if self._wants_logprobs(body) and self.kind.has_logprobs and shown:
            choice["logprobs"] = self._logprobs_of(chat, token, position, body)
        return choice if shown or finish is not None or position == 0 else None

    @staticmethod
    def _wants_logprobs(body: Body) -> bool:
        return body.get("logprobs") is not None and body["logprobs"] is not False

    def _logprobs_of(self, chat: bool, token: Token, position: int, body: Body) -> dict[str, Any]:
        as_ids = self.kind.vllm and body.get("return_tokens_as_token_ids")

        def name(text: str) -> str:
            return f"token_id:{token_id(text)}" if as_ids else text

        digest = hashlib.sha256(f"{token.text}/{position}/{body.get('seed')}".encode()).digest()
        logprob = -digest[0] / 512
        others = [t for t in (" so", "No", "Yes", " 3", "\n") if t != token.text]
        ranked = [(name(token.text or "<|im_end|>"), logprob)]
        ranked += [(name(t), -2.5 - i / 2) for i, t in enumerate(others)]
        if not chat:
            top = dict(ranked[: body["logprobs"] or 1])
            return {"tokens": [ranked[0][0]], "token_logprobs": [logprob], "top_logprobs": [top]}
        entry: dict[str, Any] = {"token": ranked[0][0], "logprob": logprob, "bytes": list(token.text.encode())}
        shown = ranked[: body.get("top_logprobs") or 0]
        entry["top_logprobs"] = [{"token": t, "logprob": lp, "bytes": None} for t, lp in shown]
        return {"content": [entry]}

    async def _score(self, reply: _Reply, tokens: list[str]) -> None:
        """Log-probabilities of a prompt: the right number and letter are more likely than any other."""
        rows: list[Any] = [None]
        for text in tokens[1:]:
            likely = text.strip() in (*RIGHT, RIGHT_CHOICE)
            rows.append({str(token_id(text)): {"logprob": -0.1 if likely else -3.0, "rank": 1 if likely else 5}})
        choice = {"index": 0, "text": "", "finish_reason": "length", "logprobs": None, "prompt_logprobs": rows}
        usage = {"prompt_tokens": len(tokens), "completion_tokens": 1, "total_tokens": len(tokens) + 1}
        frame = {"id": "r", "object": "text_completion", "created": 1, "model": self.served}
        self.generations[-1].choices = [Choice(tokens=1, finish="length")]
        await reply.json(200, {**frame, "choices": [choice], "usage": usage})

    # -- Anthropic's format

    async def _send_anthropic(
        self, reply: _Reply, path: str, body: Body, generation: Generation, samples: list[Any], thinking: bool
    ) -> None:
        ((tokens, finish, _),) = samples
        shown = [t for t in tokens if t.text and t.part != "mark"]
        while shown and shown[0].part == "answer" and not shown[0].text.strip():
            shown.pop(0)
        (choice,) = generation.choices
        await reply.start("text/event-stream")

        async def event(kind: str, **fields: Any) -> None:
            data = json.dumps({"type": kind, **fields})
            text = f"event: {kind}\ndata: {data}\n\n".encode()
            reply._writer.write(b"%x\r\n%s\r\n" % (len(text), text))
            await reply._writer.drain()

        usage = {"input_tokens": generation.prompt_tokens, "output_tokens": 0}
        message = {"id": "m", "type": "message", "role": "assistant", "model": self.served, "content": []}
        await event("message_start", message={**message, "stop_reason": None, "usage": usage})
        thought = [t for t in shown if t.part == "thought"]
        answer = [t for t in shown if t.part == "answer"]
        index = 0
        if thought:
            await event("content_block_start", index=0, content_block={"type": "thinking", "thinking": ""})
            for some in batched(thought):
                await self._pause(reply)
                choice.tokens, choice.thinking = choice.tokens + len(some), choice.thinking + len(some)
                text = "".join(token.text for token in some)
                await event("content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": text})
            await event("content_block_delta", index=0, delta={"type": "signature_delta", "signature": "signed"})
            await event("content_block_stop", index=0)
            index = 1
        if answer:
            await event("content_block_start", index=index, content_block={"type": "text", "text": ""})
            for some in batched(answer):
                await self._pause(reply)
                choice.tokens += len(some)
                text = "".join(token.text for token in some)
                await event("content_block_delta", index=index, delta={"type": "text_delta", "text": text})
            await event("content_block_stop", index=index)
        choice.finish = finish
        reason = "max_tokens" if finish == "length" else "end_turn"
        await event("message_delta", delta={"stop_reason": reason}, usage={"output_tokens": choice.tokens})
        await event("message_stop")
        await reply.end()
