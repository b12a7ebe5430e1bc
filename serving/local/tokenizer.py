"""Between text and tokens: the tokenizer, the chat template, and text that comes piece by piece.

A conversation in the form that chat templates take; and what a template makes of tools, seen by trying it.

Templates are programs that ignore what they do not know. So whether one shows tools, calls and what tools gave is seen
by what it makes of a small conversation that has them. Calls that a template would drop are written into the turn's
text as Hermes' and Qwen's families write them, and what a tool gave is told as a turn of the user.
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
"""Gives the text of turns and tools; raises what the template does."""

_TOOL = Tool(name="zq7_lookup", description="Looks up.")
_GAVE = "zq8 was found"
_ASKED = Message(role="user", content="Hello.")
_TURNS = (
    _ASKED,
    Message(role="assistant", content="", tool_calls=(ToolCall(name=_TOOL.name, arguments="{}", id="callzq0001"),)),
    Message(role="tool", content=_GAVE, tool_call_id="callzq0001", name=_TOOL.name),
)


@dataclass(frozen=True, slots=True)
class ToolForms:
    """What a chat template makes of tools.

    Attributes:
        shows_tools: Whether it tells the model which tools there are.
        shows_calls: Whether it tells of calls in earlier turns, and of what the tools gave.
        tagged: Whether it tells the model to put its calls between `<tool_call>` and `</tool_call>`.
    """

    shows_tools: bool = False
    shows_calls: bool = False
    tagged: bool = False


def tool_forms(render: Render) -> ToolForms:
    """Try a template.

    Args:
        render: The template; whatever it raises means that it cannot.
    """
    shown = _tried(render, turns((_ASKED,), True), [_TOOL.as_openai()])
    told = _tried(render, turns(_TURNS, True), [])
    return ToolForms(
        shows_tools=_TOOL.name in shown,
        shows_calls=_TOOL.name in told and _GAVE in told,
        tagged=OPEN in shown,
    )


def turns(messages: Sequence[Message], shows_calls: bool) -> list[dict[str, Any]]:
    """A conversation as a template takes it.

    Args:
        messages: The conversation.
        shows_calls: Whether the template tells of calls and of what tools gave (`ToolForms`).
    """
    return [_turn(message) if shows_calls else _plain_turn(message) for message in messages]


def _turn(message: Message) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        # templates write arguments as JSON themselves; those that are none are told as the text that they are
        turn["tool_calls"] = [
            {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": arguments_or_text(c)}}
            for c in message.tool_calls
        ]
    if message.tool_call_id:
        turn["tool_call_id"] = message.tool_call_id
    if message.name:
        turn["name"] = message.name
    return turn


def _plain_turn(message: Message) -> dict[str, Any]:
    if message.role == "tool":
        return {"role": "user", "content": f"<tool_response>\n{message.content}\n</tool_response>"}
    written = [
        json.dumps({"name": c.name, "arguments": arguments_or_text(c)}, ensure_ascii=False) for c in message.tool_calls
    ]
    parts = [*([message.content] if message.content else []), *(f"{OPEN}\n{call}\n{CLOSE}" for call in written)]
    return {"role": message.role, "content": "\n".join(parts)}


def _tried(render: Render, asked: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> str:
    try:
        return render(asked, tools)
    except Exception:  # noqa: BLE001 (a template may fail in any way on what it does not know)
        return ""


CONTEXT_TOKENS = 6
"""Tokens before a piece that are decoded with it: some tokenizers write a token differently at the start of a text."""
LONGEST_WINDOW = 64
"""Most tokens decoded together; reached only by a run of bytes that are no text."""
INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
"""What the beginning of a character decodes to: once, or once for each of its bytes."""


class Tokenizer:
    """A Hugging Face tokenizer with its chat template.

    Args:
        folder: Holds `tokenizer.json`, `tokenizer_config.json`, and maybe `chat_template.jinja`.
        model: Name of the model, for messages.

    Raises:
        DataError: A file is missing or broken.
    """

    def __init__(self, folder: Path, model: str) -> None:
        from tokenizers import Tokenizer as Fast

        path = folder / "tokenizer.json"
        if not path.exists():
            raise DataError(f"{path} is missing", hint="the model's folder needs a fast tokenizer")
        try:
            self._fast = Fast.from_file(str(path))
        except Exception as error:
            raise DataError(f"cannot read {path}: {error}", hint="fetch the model again") from error
        self._fast.no_truncation()
        self._fast.no_padding()
        self._model = model
        config_path = folder / "tokenizer_config.json"
        self._config = read_json(config_path) if config_path.exists() else {}
        text = _template_text(folder, self._config)
        self._template = _compile(text)
        with_tools = _named_template(self._config, "tool_use")
        self._tool_template = self._template if with_tools is None else _compile(with_tools)
        self._tool_forms: ToolForms | None = None

    @property
    def size(self) -> int:
        """Tokens of its vocabulary, added ones included."""
        return int(self._fast.get_vocab_size())

    @property
    def by_bytes(self) -> bool:
        """Whether each token stands for bytes of its own, whatever stands beside it."""
        decoder = self._fast.decoder
        if decoder is None:
            return False
        told = json.loads(decoder.__getstate__())
        parts = told["decoders"] if told["type"] == "Sequence" else [told]
        return any(part["type"] in ("ByteLevel", "ByteFallback") for part in parts)

    def serialized(self) -> str:
        """The tokenizer as the text of a `tokenizer.json`."""
        return str(self._fast.to_str())

    def id_of(self, token: str) -> int | None:
        """Id of a token given by its text; None if there is none."""
        found: int | None = self._fast.token_to_id(token)
        return found

    @property
    def eos_token(self) -> str:
        """The end-of-text token's text; empty if unknown."""
        return _token_text(self._config.get("eos_token"))

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Tokens of a text; `special` adds what the tokenizer puts at the beginning of a raw text."""
        if not special:
            return list(self._fast.encode(text, add_special_tokens=False).ids)
        plain = self._fast.encode(text, add_special_tokens=False).ids
        framed = list(self._fast.encode(text, add_special_tokens=True).ids)
        # Only what stands before the text is kept: a closing token would end what is to be continued.
        before = next((i for i in range(len(framed) - len(plain) + 1) if framed[i : i + len(plain)] == plain), 0)
        return framed[: before + len(plain)]

    def places(self, text: str, *, special: bool = False) -> tuple[list[int], list[tuple[int, int]]]:
        """Tokens of a text as `encode` gives them, and the characters (start, end) that each stands for."""
        ids = self.encode(text, special=special)
        return ids, list(self._fast.encode(text, add_special_tokens=special).offsets)[: len(ids)]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of tokens, without special tokens."""
        return str(self._fast.decode(list(ids), skip_special_tokens=True))

    def token(self, token_id: int) -> str:
        """Text of one token alone, special or not."""
        return str(self._fast.decode([token_id], skip_special_tokens=False))

    def holding(self, texts: Sequence[str], vocab: int) -> list[int]:
        """Tokens below `vocab` whose text holds one of the given texts."""
        if not texts:
            return []
        return [i for i in range(vocab) if any(text in self.token(i) for text in texts)]

    @property
    def tool_forms(self) -> ToolForms:
        """What the chat template makes of tools."""
        if self._tool_forms is None:  # tried once, and not for a model that is never asked with tools
            self._tool_forms = ToolForms() if self._template is None else tool_forms(self._rendered)
        return self._tool_forms

    def render(self, prompt: Prompt) -> str:
        """Text of a prompt without its prefix.

        Raises:
            CapabilityMissing: The prompt has tools, and the template does not show them.
            UserError: The model has no chat template, or it refuses the messages.
        """
        if prompt.text is not None:
            return prompt.text
        if self._template is None:
            raise UserError(
                f"model {self._model!r} has no chat template", hint="give raw text (Prompt(text=…)) or a chat model"
            )
        from jinja2 import TemplateError

        if prompt.tools and not self.tool_forms.shows_tools:
            raise CapabilityMissing("tools", self._model, alternative="")
        called = any(m.tool_calls or m.role == "tool" for m in prompt.messages)
        try:
            return self._rendered(
                turns(prompt.messages, not called or self.tool_forms.shows_calls),
                [tool.as_openai() for tool in prompt.tools],
            )
        except TemplateError as error:
            raise UserError(f"the chat template of {self._model!r} refuses the messages: {error}") from error

    def _rendered(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> str:
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
            UserError: As `render`; or there is not a single token.
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

        A text is tokenized together with the prompt where the prompt's end is text: its tokens are then those of the
        whole, less the run that the whole shares with the prompt alone.
        """
        before = self.prompt_ids(prompt)
        if not isinstance(continuation, str):
            return before, list(continuation)
        if not isinstance(prompt.prefix, str):
            return before, self.encode(continuation)
        whole = self.encode(self.render(prompt) + prompt.prefix + continuation, special=prompt.text is not None)
        shared = 0
        while shared < min(len(before), len(whole)) and before[shared] == whole[shared]:
            shared += 1
        if shared == 0:  # nothing would be left to condition on
            return before, self.encode(continuation)
        return whole[:shared], whole[shared:]


class TextAssembler:
    """Text of a sample, token by token: holds back incomplete characters and what may become a stop string.

    Args:
        tokenizer: Decodes.
        before: Tokens of the prompt (the last few are decoded along, then cut off).
        stops: Strings that end the text.

    Attributes:
        text: All text that is certain.
        stopped_by: The stop string that was completed, the first in the text if a token completed several; "" if none.
    """

    def __init__(self, tokenizer: Tokenizer, before: Sequence[int], stops: Sequence[str]) -> None:
        self._tokenizer, self._stops = tokenizer, tuple(stops)
        self._window: list[int] = list(before[-CONTEXT_TOKENS:])
        # A prompt may end within a character: the sample completes it, and then the character is the sample's.
        self._shown = _certain(tokenizer.decode(self._window))
        self._fresh = 0
        self._held = ""
        self.text = ""
        self.stopped_by = ""

    @property
    def stopped(self) -> bool:
        """Whether a stop string was completed."""
        return bool(self.stopped_by)

    def push(self, token: int) -> str:
        """Take a token; returns the text that is now certain. `stopped` tells whether a stop string was completed."""
        self._window.append(token)
        self._fresh += 1
        whole = self._tokenizer.decode(self._window)
        certain = _certain(whole)
        piece = certain[len(self._shown) :]
        self._shown = self._shown + piece
        if (piece and certain == whole) or len(self._window) > LONGEST_WINDOW:
            self._window = self._window[-max(CONTEXT_TOKENS, self._fresh) :][-LONGEST_WINDOW // 2 :]
            self._shown = _certain(self._tokenizer.decode(self._window))
            self._fresh = 0
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
        found = [(at, s) for s in self._stops if (at := pending.find(s)) >= 0]
        if found:
            end, self.stopped_by = min(found, key=lambda place: place[0])
            certain, self._held = pending[:end], ""
        else:
            keep = max((_overlap(pending, s) for s in self._stops), default=0)
            certain, self._held = pending[: len(pending) - keep], pending[len(pending) - keep :]
        self.text += certain
        return certain


def eos_ids(folder: Path, tokenizer: Tokenizer) -> frozenset[int]:
    """Tokens that end a text, by the generation settings, the configuration and the tokenizer."""
    found: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        path = folder / name
        if path.exists():
            value = read_json(path).get("eos_token_id")
            found.update(value if isinstance(value, list) else [value] if isinstance(value, int) else [])
    own = tokenizer.id_of(tokenizer.eos_token) if tokenizer.eos_token else None
    if own is not None:
        found.add(own)
    return frozenset(found)


def _certain(text: str) -> str:
    """The text without an end that may be the beginning of a character (three bytes at most)."""
    end = len(text)
    while end > max(0, len(text) - 3) and text[end - 1] == INCOMPLETE:
        end -= 1
    return text[:end]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)


def _token_text(value: object) -> str:
    """A token in `tokenizer_config.json`: a text, or an object with `content`."""
    if isinstance(value, dict):
        return str(value.get("content", ""))
    return value if isinstance(value, str) else ""


def _template_text(folder: Path, config: dict[str, Any]) -> str | None:
    path = folder / "chat_template.jinja"
    if path.exists():
        return path.read_text(encoding="utf-8")
    template = config.get("chat_template")
    return template if isinstance(template, str) else _named_template(config, "default")


def _named_template(config: dict[str, Any], name: str) -> str | None:
    """One of several templates: "default", or "tool_use", which is for prompts with tools."""
    listed = config.get("chat_template")
    if not isinstance(listed, list):
        return None
    found = {str(t.get("name")): t.get("template") for t in listed if isinstance(t, dict)}.get(name)
    return found if isinstance(found, str) else None


def _compile(text: str | None) -> Any:
    """A template in jinja2's sandbox, with what chat templates expect to find."""
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
