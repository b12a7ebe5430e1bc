"""The kinds of models, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from support.wires.rules import Condition, matching


@dataclass(frozen=True)
class Kind:
    """A kind of model at a kind of server.

    Attributes:
        name: Its name in tables.
        model: Model string.
        thinks: Whether it thinks: never, always, by default, or if it is asked to.
        switch: A condition on the request that turns thinking off, or on where it must be asked to.
        shows: Where thoughts are shown: not at all, in a field of the message, in the content between tags or as
            harmony's channels, as signed blocks (Anthropic), as parts that a request includes (Gemini), or as chunks of
            the content (Mistral).
        omits: Whether the text of thoughts is shown only if a request asks for a summary (Anthropic).
        details: How OpenRouter shows them besides: not, as a signed "text", or "encrypted".
        wire: The format that it speaks.
        root: The weights, as vLLM reports them.
        tags: Open and close tag.
        template_opens: Whether the chat template opens the thought.
        inserts_empty_thought: Whether the template puts an empty thought before a given beginning of the answer.
        stop_ends_thoughts: Whether stop strings also end thoughts.
        has_logprobs: Whether log-probabilities are shown where they are not refused.
        many: Whether a request may have several samples.
        reports_thinking_tokens: Whether the usage has the tokens of thoughts.
        small: Model string of a smaller model of the same kind.
    """

    name: str
    model: str
    thinks: Literal["never", "always", "default", "opt-in"] = "never"
    switch: Condition = ("", "absent")
    shows: Literal[
        "never", "hidden", "reasoning", "reasoning_content", "tags", "channel", "blocks", "parts", "chunks"
    ] = "never"
    wire: Literal["chat", "messages", "gemini", "ollama"] = "chat"
    root: str = ""
    tags: tuple[str, str] = ("<think>", "</think>")
    template_opens: bool = False
    inserts_empty_thought: bool = False
    stop_ends_thoughts: bool = False
    omits: bool = False
    details: Literal["", "text", "encrypted"] = ""
    has_logprobs: bool = True
    many: bool = True
    reports_thinking_tokens: bool = False
    small: str = ""

    @property
    def small_kind(self) -> Kind:
        """The smaller model, at a server of its own."""
        known = next((kind for kind in (*KINDS, *OTHER_KINDS) if kind.model == self.small), None)
        return known or replace(self, model=self.small)

    @property
    def provider(self) -> str:
        """The provider."""
        return self.model.partition("/")[0]

    @property
    def served(self) -> str:
        """The served name."""
        return self.model.partition("/")[2]

    @property
    def vllm(self) -> bool:
        """Whether it runs on a vLLM server."""
        return self.provider == "hosted_vllm"

    @property
    def owner(self) -> str:
        """`owned_by` of its entry in the list of models."""
        return "vllm" if self.vllm else _OWNERS.get(self.name, "organization_owner")

    @property
    def is_own_server(self) -> bool:
        """Whether it runs on a server of one's own, of which only the user knows what it takes."""
        return self.vllm or self.name in _OWNERS

    @property
    def is_harmony(self) -> bool:
        """Whether its text has harmony's channels."""
        return self.tags == HARMONY

    @property
    def is_visible(self) -> bool:
        """Whether a client sees every token, so that its own count can be exact."""
        hides_tags = self.shows in ("reasoning", "reasoning_content") and not self.vllm
        return self.shows not in ("hidden", "blocks", "parts", "chunks") and not (hides_tags and self.many)

    @property
    def chunk_tokens(self) -> int:
        """Tokens of a chunk, where the shape of the stream does not say."""
        return 4 if self.wire in ("messages", "gemini") else 1

    def api_base(self, address: str) -> str:
        """The setting that leads to a server at an address that ends in `/v1`."""
        return address.removesuffix("/v1") if self.wire in ("messages", "ollama") else address

    def is_thinking(self, body: Mapping[str, Any]) -> bool:
        """Whether it thinks in a request."""
        if self.thinks in ("never", "always"):
            return self.thinks == "always"
        return bool(matching(self.switch, body)) == (self.thinks == "opt-in")


_OWNERS = {"SGLang": "sglang", "llama.cpp": "llamacpp", "Ollama": "library"}

HARMONY = ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>")
_QWEN: Condition = ("chat_template_kwargs.enable_thinking", "is", False)
_OFF: Condition = ("thinking.type", "is", "disabled")
_NO_BUDGET: Condition = ("generationConfig.thinkingConfig.thinkingBudget", "is", 0)
_EFFORT: Condition = ("reasoning_effort", "in", ("minimal", "low", "medium", "high", "xhigh"))
_NO_EFFORT: Condition = ("reasoning_effort", "is", "none")

_OPENAI: dict[str, Any] = {"shows": "hidden", "reports_thinking_tokens": True}
_VLLM_QWEN: dict[str, Any] = {"root": "Qwen/Qwen3-8B", "inserts_empty_thought": True, "stop_ends_thoughts": True}
_GPT_OSS: dict[str, Any] = {"tags": HARMONY, "stop_ends_thoughts": True}
_DEEPSEEK: dict[str, Any] = {"shows": "reasoning_content", "many": False, "reports_thinking_tokens": True}
_GEMINI: dict[str, Any] = {"shows": "parts", "has_logprobs": False, "wire": "gemini", "reports_thinking_tokens": True}
_OPENROUTER: dict[str, Any] = {"many": False, "reports_thinking_tokens": True}
_CLAUDE: dict[str, Any] = {"shows": "blocks", "has_logprobs": False, "many": False, "wire": "messages"}
_CLAUDE_5: dict[str, Any] = {**_CLAUDE, "omits": True, "reports_thinking_tokens": True}

KINDS: tuple[Kind, ...] = (
    Kind("plain", "hosted_vllm/plain", small="hosted_vllm/plain-small"),
    Kind("gpt-5-mini", "openai/gpt-5-mini", "always", has_logprobs=False, small="openai/gpt-5-nano", **_OPENAI),
    Kind("gpt-5.6", "openai/gpt-5.6", "default", _NO_EFFORT, small="openai/gpt-5.6-luna", **_OPENAI),
    Kind(
        "Qwen3, parser",
        "hosted_vllm/qwen3-8b",
        "default",
        _QWEN,
        "reasoning",
        small="hosted_vllm/qwen3-0.6b",
        **_VLLM_QWEN,
    ),
    Kind(
        "Qwen3, raw",
        "hosted_vllm/qwen3-8b-raw",
        "default",
        _QWEN,
        "tags",
        small="hosted_vllm/qwen3-0.6b-raw",
        **_VLLM_QWEN,
    ),
    Kind(
        "R1 distill, template opens",
        "hosted_vllm/deepseek-r1-distill-qwen-7b",
        "always",
        shows="tags",
        root="deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",
        template_opens=True,
        stop_ends_thoughts=True,
        small="hosted_vllm/deepseek-r1-distill-qwen-1.5b",
    ),
    Kind(
        "raw tags, not vLLM",
        "openai/qwq-32b",
        "always",
        shows="tags",
        template_opens=True,
        stop_ends_thoughts=True,
        small="openai/qwq-7b",
    ),
    Kind(
        "gpt-oss, parser",
        "hosted_vllm/gpt-oss-20b",
        "always",
        shows="reasoning",
        root="openai/gpt-oss-20b",
        small="hosted_vllm/gpt-oss-small",
        **_GPT_OSS,
    ),
    Kind(
        "gpt-oss, raw harmony",
        "openai/gpt-oss-20b",
        "always",
        shows="channel",
        small="openai/gpt-oss-small",
        **_GPT_OSS,
    ),
    Kind(
        "Magistral",
        "hosted_vllm/magistral-small-2509",
        "always",
        shows="tags",
        root="mistralai/Magistral-Small-2509",
        tags=("[THINK]", "[/THINK]"),
        stop_ends_thoughts=True,
        small="hosted_vllm/magistral-tiny",
    ),
    Kind(
        "DeepSeek R1",
        "deepseek/deepseek-reasoner",
        "always",
        has_logprobs=False,
        small="deepseek/deepseek-v4-flash",
        **_DEEPSEEK,
    ),
    Kind("DeepSeek V4", "deepseek/deepseek-v4-flash", "default", _OFF, small="deepseek/deepseek-v4-pro", **_DEEPSEEK),
    Kind(
        "Claude 4.5",
        "anthropic/claude-sonnet-4-5",
        "opt-in",
        ("thinking.type", "is not", "disabled"),
        small="anthropic/claude-haiku-4-5",
        **_CLAUDE,
    ),
    Kind("Claude 5", "anthropic/claude-opus-5", "default", _OFF, small="anthropic/claude-sonnet-5", **_CLAUDE_5),
    Kind("Claude 5.5, always", "anthropic/claude-opus-5-5", "always", small="anthropic/claude-sonnet-5-5", **_CLAUDE_5),
)

OTHER_KINDS: tuple[Kind, ...] = (
    Kind("gpt-4o", "openai/gpt-4o", small="openai/gpt-4o-mini"),
    Kind(
        "Gemini 2.5", "gemini/gemini-2.5-flash", "default", _NO_BUDGET, small="gemini/gemini-2.5-flash-lite", **_GEMINI
    ),
    Kind("Gemini 2.5 Pro", "gemini/gemini-2.5-pro", "always", small="gemini/gemini-2.5-flash", **_GEMINI),
    Kind("Gemini 3", "gemini/gemini-3.8-flash", "always", small="gemini/gemini-3.5-flash-lite", **_GEMINI),
    Kind("Grok 4.6", "xai/grok-4.6", "always", has_logprobs=False, small="xai/grok-4.5", **_OPENAI),
    Kind(
        "OpenRouter",
        "openrouter/qwen/qwen3-30b-a3b",
        "default",
        _NO_EFFORT,
        "reasoning",
        small="openrouter/qwen/qwen3-8b",
        **_OPENROUTER,
    ),
    Kind(
        "OpenRouter, Claude",
        "openrouter/anthropic/claude-sonnet-4.5",
        "opt-in",
        _EFFORT,
        "reasoning",
        details="text",
        small="openrouter/anthropic/claude-haiku-4.5",
        **_OPENROUTER,
    ),
    Kind(
        "OpenRouter, Gemini",
        "openrouter/google/gemini-3-pro-preview",
        "always",
        shows="reasoning",
        details="encrypted",
        small="openrouter/google/gemini-3-flash-preview",
        **_OPENROUTER,
    ),
    Kind(
        "Mistral",
        "mistral/mistral-medium-latest",
        "opt-in",
        ("reasoning_effort", "is", "high"),
        "chunks",
        small="mistral/mistral-small-latest",
        has_logprobs=False,
        many=False,
    ),
    Kind(
        "SGLang",
        "openai/qwen3-8b",
        "default",
        _QWEN,
        "reasoning_content",
        inserts_empty_thought=True,
        stop_ends_thoughts=True,
        small="openai/qwen3-0.6b",
    ),
    Kind(
        "llama.cpp",
        "openai/qwen3-8b-q4",
        "default",
        _QWEN,
        "reasoning_content",
        many=False,
        stop_ends_thoughts=True,
        small="openai/qwen3-0.6b-q4",
    ),
    Kind(
        "Ollama",
        "ollama/qwen3:8b",
        "default",
        _NO_EFFORT,
        "reasoning",
        wire="ollama",
        many=False,
        stop_ends_thoughts=True,
        small="ollama_chat/qwen3:0.6b",
    ),
    # models that neither LiteLLM nor the profiles know, which behave as the latest of their family do
    Kind("Claude 6", "anthropic/claude-opus-6", "default", _OFF, small="anthropic/claude-sonnet-6", **_CLAUDE_5),
    Kind("Gemini 4", "gemini/gemini-4-pro", "always", small="gemini/gemini-4-flash", **_GEMINI),
    Kind("GPT-7", "openai/gpt-7", "default", _NO_EFFORT, small="openai/gpt-7-mini", **_OPENAI),
    Kind("Grok 6", "xai/grok-6", "always", has_logprobs=False, small="xai/grok-6-mini", **_OPENAI),
    Kind(
        "Qwen5, parser",
        "hosted_vllm/qwen5-14b",
        "default",
        _QWEN,
        "reasoning",
        root="Qwen/Qwen5-14B",
        inserts_empty_thought=True,
        stop_ends_thoughts=True,
        small="hosted_vllm/qwen5-1b",
    ),
)
"""Kinds on other wires, and unknown models."""
