"""Tokenizer, chat template and incremental detokenization.

Templates are programs that ignore what they do not know. So whether one renders tools, calls and tool results is
detected by rendering a small conversation that has them. Calls that a template would drop are written into the
message's text as Hermes' and Qwen's families write them, and tool results become messages of the user.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core.errors import CapabilityMissing, DataError, UserError
from ...core.messages import Message, Prompt, Tool, ToolCall, arguments_or_text
from ..tool_calls import CLOSE, OPEN
from .config import read_json

Render = Callable[[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]], str]
"""Returns the text of messages and tools; raises what the template does."""

_PROBE_TOOL = Tool(name="zq7_lookup", description="Looks up.")
_PROBE_RESULT = "zq8 was found"
_PROBE_QUESTION = Message(role="user", content="Hello.")
_PROBE_CALL = ToolCall(name=_PROBE_TOOL.name, arguments="{}", id="callzq0001")
_PROBE_MESSAGES = (
    _PROBE_QUESTION,
    Message(role="assistant", content="", tool_calls=(_PROBE_CALL,)),
    Message(role="tool", content=_PROBE_RESULT, tool_call_id="callzq0001", name=_PROBE_TOOL.name),
)


@dataclass(frozen=True, slots=True)
class ToolSupport:
    """What a chat template supports of tools.

    Attributes:
        renders_tools: Whether it lists the tools.
        renders_calls: Whether it renders calls and tool results in earlier messages.
        uses_tags: Whether it instructs the model to put its calls between `<tool_call>` and `</tool_call>`.
    """

    renders_tools: bool = False
    renders_calls: bool = False
    uses_tags: bool = False


def detect_tool_support(render: Render) -> ToolSupport:
    """Try a template; any exception means that it lacks the support."""
    with_tool = _try_render(render, template_messages((_PROBE_QUESTION,), True), [_PROBE_TOOL.as_openai()])
    with_call = _try_render(render, template_messages(_PROBE_MESSAGES, True), [])
    return ToolSupport(
        renders_tools=_PROBE_TOOL.name in with_tool,
        renders_calls=_PROBE_TOOL.name in with_call and _PROBE_RESULT in with_call,
        uses_tags=OPEN in with_tool,
    )


def template_messages(messages: Sequence[Message], renders_calls: bool) -> list[dict[str, Any]]:
    """A conversation in the form that templates expect (`renders_calls`: see `ToolSupport`)."""
    return [_template_message(message) if renders_calls else _plain_message(message) for message in messages]


def _template_message(message: Message) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        # templates write arguments as JSON themselves; those that are no JSON stay text
        turn["tool_calls"] = [
            {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": arguments_or_text(c)}}
            for c in message.tool_calls
        ]
    if message.tool_call_id:
        turn["tool_call_id"] = message.tool_call_id
    if message.name:
        turn["name"] = message.name
    return turn


def _plain_message(message: Message) -> dict[str, Any]:
    if message.role == "tool":
        return {"role": "user", "content": f"<tool_response>\n{message.content}\n</tool_response>"}
    written = [
        json.dumps({"name": c.name, "arguments": arguments_or_text(c)}, ensure_ascii=False) for c in message.tool_calls
    ]
    parts = [*([message.content] if message.content else []), *(f"{OPEN}\n{call}\n{CLOSE}" for call in written)]
    return {"role": message.role, "content": "\n".join(parts)}


def _try_render(render: Render, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> str:
    try:
        return render(messages, tools)
    except Exception:  # noqa: BLE001 (a template may fail in any way on what it does not know)
        return ""


CONTEXT_TOKENS = 6
"""Tokens before a piece that are decoded with it: some tokenizers decode a token differently at the start of a text."""
MAX_WINDOW_TOKENS = 64
"""Maximum tokens decoded together; reached only by a run of bytes that are no text."""
INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
"""What an incomplete character decodes to: once, or once for each of its bytes."""


class Tokenizer:
    """A Hugging Face tokenizer with its chat template.

    Args:
        directory: Has `tokenizer.json`, `tokenizer_config.json`, and maybe `chat_template.jinja`.

    Raises:
        DataError: A file is missing or broken.
    """

    def __init__(self, directory: Path, model: str) -> None:
        from tokenizers import Tokenizer as Fast

        path = directory / "tokenizer.json"
        if not path.exists():
            raise DataError(f"{path} is missing", hint="the model's directory needs a fast tokenizer")
        try:
            self._fast = Fast.from_file(str(path))
        except Exception as error:
            raise DataError(f"cannot read {path}: {error}", hint="fetch the model again") from error
        self._fast.no_truncation()
        self._fast.no_padding()
        self._model = model
        config_path = directory / "tokenizer_config.json"
        self._config = read_json(config_path) if config_path.exists() else {}
        text = _template_text(directory, self._config)
        self._template = _compile(text)
        with_tools = _named_template(self._config, "tool_use")
        self._tool_template = self._template if with_tools is None else _compile(with_tools)
        self._tool_support: ToolSupport | None = None

    @property
    def size(self) -> int:
        """Number of tokens of the vocabulary, added ones included."""
        return int(self._fast.get_vocab_size())

    @property
    def is_byte_level(self) -> bool:
        """Whether each token represents bytes of its own, whatever its neighbours."""
        decoder = self._fast.decoder
        if decoder is None:
            return False
        state = json.loads(decoder.__getstate__())
        parts = state["decoders"] if state["type"] == "Sequence" else [state]
        return any(part["type"] in ("ByteLevel", "ByteFallback") for part in parts)

    def serialized(self) -> str:
        """The tokenizer as the text of a `tokenizer.json`."""
        return str(self._fast.to_str())

    def id_of(self, token: str) -> int | None:
        """Id of a token given by its text; None if there is none."""
        token_id: int | None = self._fast.token_to_id(token)
        return token_id

    @property
    def eos_token(self) -> str:
        """The end-of-text token's text; empty if unknown."""
        return _token_text(self._config.get("eos_token"))

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Tokens of a text; `special` adds what the tokenizer prepends to a raw text."""
        if not special:
            return list(self._fast.encode(text, add_special_tokens=False).ids)
        plain = self._fast.encode(text, add_special_tokens=False).ids
        with_special = list(self._fast.encode(text, add_special_tokens=True).ids)
        # Only what precedes the text is kept: a closing token would end what is to be continued.
        before = next(
            (i for i in range(len(with_special) - len(plain) + 1) if with_special[i : i + len(plain)] == plain), 0
        )
        return with_special[: before + len(plain)]

    def encode_with_offsets(self, text: str, *, special: bool = False) -> tuple[list[int], list[tuple[int, int]]]:
        """Tokens of a text as from `encode`, and the characters (start, end) of each."""
        ids = self.encode(text, special=special)
        return ids, list(self._fast.encode(text, add_special_tokens=special).offsets)[: len(ids)]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of tokens, without special tokens."""
        return str(self._fast.decode(list(ids), skip_special_tokens=True))

    def token(self, token_id: int) -> str:
        """Text of a single token, special or not."""
        return str(self._fast.decode([token_id], skip_special_tokens=False))

    def tokens_containing(self, texts: Sequence[str], vocab_size: int) -> list[int]:
        """Tokens below `vocab_size` whose text contains one of the given texts."""
        if not texts:
            return []
        return [i for i in range(vocab_size) if any(text in self.token(i) for text in texts)]

    @property
    def tool_support(self) -> ToolSupport:
        """What the chat template supports of tools."""
        if self._tool_support is None:  # detected once, and only when it is needed
            self._tool_support = ToolSupport() if self._template is None else detect_tool_support(self._render)
        return self._tool_support

    def render(self, prompt: Prompt) -> str:
        """Text of a prompt without its prefix.

        Raises:
            CapabilityMissing: The prompt has tools, and the template does not render them.
            UserError: The model has no chat template, or it refuses the messages.
        """
        if prompt.text is not None:
            return prompt.text
        if self._template is None:
            raise UserError(
                f"model {self._model!r} has no chat template", hint="give raw text (Prompt(text=…)) or a chat model"
            )
        from jinja2 import TemplateError

        if prompt.tools and not self.tool_support.renders_tools:
            raise CapabilityMissing("tools", self._model, alternative="")
        has_calls = any(m.tool_calls or m.role == "tool" for m in prompt.messages)
        try:
            return self._render(
                template_messages(prompt.messages, not has_calls or self.tool_support.renders_calls),
                [tool.as_openai() for tool in prompt.tools],
            )
        except TemplateError as error:
            raise UserError(f"the chat template of {self._model!r} refuses the messages: {error}") from error

    def _render(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> str:
        template = self._tool_template if tools else self._template
        return str(
            template.render(
                messages=messages,
                add_generation_prompt=True,
                bos_token=_token_text(self._config.get("bos_token")),
                eos_token=self.eos_token,
                pad_token=_token_text(self._config.get("pad_token")),
                unk_token=_token_text(self._config.get("unk_token")),
                **({"tools": tools} if tools else {}),
            )
        )

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """Tokens of a prompt with its prefix.

        Raises:
            UserError: As `render`; or the prompt has no tokens.
        """
        raw = prompt.text is not None
        if isinstance(prompt.prefix, str):
            ids = self.encode(self.render(prompt) + prompt.prefix, special=raw)
        else:
            ids = [*self.encode(self.render(prompt), special=raw), *prompt.prefix]
        if not ids:
            raise UserError("the prompt has no tokens", hint="give at least one character")
        size = self._fast.get_vocab_size()
        bad = (
            next((i for i in prompt.prefix if not 0 <= i < size), None) if not isinstance(prompt.prefix, str) else None
        )
        if bad is not None:
            raise UserError(f"token {bad} in the prompt's prefix is not in a vocabulary of {size}")
        return ids

    def continuation(self, prompt: Prompt, continuation: str | tuple[int, ...]) -> tuple[list[int], list[int]]:
        """Tokens before a continuation, and its own.

        A text is tokenized together with the prompt where the prompt's end is text: its tokens are then those of both,
        less the run that both share with the prompt.
        """
        before = self.prompt_ids(prompt)
        if not isinstance(continuation, str):
            return before, list(continuation)
        if not isinstance(prompt.prefix, str):
            return before, self.encode(continuation)
        both = self.encode(self.render(prompt) + prompt.prefix + continuation, special=prompt.text is not None)
        shared = 0
        while shared < min(len(before), len(both)) and before[shared] == both[shared]:
            shared += 1
        if shared == 0:  # nothing would be left to condition on
            return before, self.encode(continuation)
        return both[:shared], both[shared:]


class TextAssembler:
    """Incremental text of a sample: withholds incomplete characters and possible starts of stop strings.

    Args:
        before: Tokens of the prompt (the last few are decoded along, then cut off).

    Attributes:
        text: All text that is certain.
        stop_reason: The stop string that was completed, the first in the text if a token completed several; "" if none.
    """

    def __init__(self, tokenizer: Tokenizer, before: Sequence[int], stops: Sequence[str]) -> None:
        self._tokenizer, self._stops = tokenizer, tuple(stops)
        self._window: list[int] = list(before[-CONTEXT_TOKENS:])
        # A prompt may end within a character: the sample completes it, and then the character is the sample's.
        self._shown = _certain(tokenizer.decode(self._window))
        self._num_pending = 0
        self._held = ""
        self.text = ""
        self.stop_reason = ""

    @property
    def stopped(self) -> bool:
        """Whether a stop string was completed."""
        return bool(self.stop_reason)

    def push(self, token: int) -> str:
        """Take a token; returns the text that is now certain. `stopped` is set if a stop string was completed."""
        self._window.append(token)
        self._num_pending += 1
        text = self._tokenizer.decode(self._window)
        certain = _certain(text)
        piece = certain[len(self._shown) :]
        self._shown = self._shown + piece
        if (piece and certain == text) or len(self._window) > MAX_WINDOW_TOKENS:
            self._window = self._window[-max(CONTEXT_TOKENS, self._num_pending) :][-MAX_WINDOW_TOKENS // 2 :]
            self._shown = _certain(self._tokenizer.decode(self._window))
            self._num_pending = 0
        return self._release(piece)

    def finish(self) -> str:
        """The rest, at the end of the sample: an incomplete character becomes a replacement character."""
        if self.stopped:
            return ""
        certain = self._release(self._tokenizer.decode(self._window)[len(self._shown) :])
        rest, self._held = self._held, ""
        self.text += rest
        return certain + rest

    def _release(self, piece: str) -> str:
        pending = self._held + piece
        matches = [(start, s) for s in self._stops if (start := pending.find(s)) >= 0]
        if matches:
            end, self.stop_reason = min(matches, key=lambda match: match[0])
            certain, self._held = pending[:end], ""
        else:
            keep = max((_overlap(pending, s) for s in self._stops), default=0)
            certain, self._held = pending[: len(pending) - keep], pending[len(pending) - keep :]
        self.text += certain
        return certain


def eos_ids(directory: Path, tokenizer: Tokenizer) -> frozenset[int]:
    """Tokens that end a text, by the generation settings, the configuration and the tokenizer."""
    ids: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        path = directory / name
        if path.exists():
            value = read_json(path).get("eos_token_id")
            ids.update(value if isinstance(value, list) else [value] if isinstance(value, int) else [])
    own = tokenizer.id_of(tokenizer.eos_token) if tokenizer.eos_token else None
    if own is not None:
        ids.add(own)
    return frozenset(ids)


def _certain(text: str) -> str:
    """The text without an incomplete last character (three bytes at most)."""
    end = len(text)
    while end > max(0, len(text) - 3) and text[end - 1] == INCOMPLETE:
        end -= 1
    return text[:end]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest suffix of `text` that is a prefix of `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)


def _token_text(value: object) -> str:
    """A token in `tokenizer_config.json`: a text, or an object with `content`."""
    if isinstance(value, dict):
        return str(value.get("content", ""))
    return value if isinstance(value, str) else ""


def _template_text(directory: Path, config: dict[str, Any]) -> str | None:
    path = directory / "chat_template.jinja"
    if path.exists():
        return path.read_text(encoding="utf-8")
    template = config.get("chat_template")
    return template if isinstance(template, str) else _named_template(config, "default")


def _named_template(config: dict[str, Any], name: str) -> str | None:
    """One of several templates: "default", or "tool_use", which is for prompts with tools."""
    templates = config.get("chat_template")
    if not isinstance(templates, list):
        return None
    text = {str(t.get("name")): t.get("template") for t in templates if isinstance(t, dict)}.get(name)
    return text if isinstance(text, str) else None


def _compile(text: str | None) -> Any:
    """A template in jinja2's sandbox, with the functions that chat templates expect."""
    if text is None:
        return None
    from jinja2 import TemplateError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def to_json(value: object, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)

    def now(pattern: str) -> str:
        return datetime.datetime.now().astimezone().strftime(pattern)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = to_json
    environment.globals.update(raise_exception=refuse, strftime_now=now)
    try:
        return environment.from_string(text)
    except TemplateError as error:
        raise DataError(f"the chat template is broken: {error}") from error
