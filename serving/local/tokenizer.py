"""Tokenizer, chat template and incremental detokenization.

Templates are programs that ignore what they do not know. So whether one renders tools, calls and tool results is
detected by rendering a small conversation that has them. Calls that a template would drop are written into the
message's text as Hermes' and Qwen's families write them, and tool results become messages of the user.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from pydantic import JsonValue

from ...core.errors import CapabilityMissing, DataError, UserError
from ...core.messages import EFFORTS, Effort, Message, Prompt, Thought, Tool, ToolCall, arguments_or_text
from ..profiles.profile import ModelProfile, OwnSampling, ProfileLayer, merge_profile, shipped_layers, user_layer
from ..stop_strings import StopStrings
from ..template_profiles import RENDERS, profile_of_renders
from ..thoughts import prompt_tags, rest_of_closing
from ..tool_calls import CLOSE, OPEN, ToolSupport
from .config import read_json

Render = Callable[[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]], str]
"""Returns the text of messages and tools; raises what the template does."""

UserProfiles = Mapping[str, Mapping[str, JsonValue]]
"""The setting `profiles`: fields of a model's profile by its model string, or by a pattern of model strings."""

_PROBE_TOOL = Tool(name="zq7_lookup", description="Looks up.")
_PROBE_RESULT = "zq8 was found"
_PROBE_QUESTION = Message(role="user", content="Hello.")
_PROBE_CALL = ToolCall(name=_PROBE_TOOL.name, arguments="{}", id="callzq0001")
_PROBE_THOUGHT = Thought(text="zq9 was thought")
_THOUGHT_FIELDS: Final = ("reasoning_content", "thinking")
"""Fields of a turn's thought: of most templates, and of gpt-oss's."""
_PROBE_MESSAGES = (
    _PROBE_QUESTION,
    Message(role="assistant", content="", tool_calls=(_PROBE_CALL,)),
    Message(role="tool", content=_PROBE_RESULT, tool_call_id="callzq0001", name=_PROBE_TOOL.name),
)


def detect_tool_support(render: Render) -> ToolSupport:
    """Try a template; any exception means that it lacks the support."""
    with_tool = _try_render(render, template_messages((_PROBE_QUESTION,), True), [_PROBE_TOOL.as_openai()])
    with_call = _try_render(render, template_messages(_PROBE_MESSAGES, True), [])
    return ToolSupport(
        renders_tools=_PROBE_TOOL.name in with_tool,
        renders_calls=_PROBE_TOOL.name in with_call and _PROBE_RESULT in with_call,
        uses_tags=OPEN in with_tool,
    )


def template_messages(
    messages: Sequence[Message], renders_calls: bool, *, with_thoughts: bool = False
) -> list[dict[str, Any]]:
    """A conversation in the form that templates expect (`renders_calls`: see `ToolSupport`).

    Args:
        with_thoughts: Whether turns that call tools have the thoughts before the calls.
    """
    return [
        _template_message(message, with_thoughts) if renders_calls else _plain_message(message) for message in messages
    ]


def _template_message(message: Message, with_thoughts: bool) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if with_thoughts and message.thought is not None and message.tool_calls:
        turn |= dict.fromkeys(_THOUGHT_FIELDS, message.thought.text.strip())
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


class _Beginning(NamedTuple):
    """A prompt without its prefix: text, the thought's exact tokens if they are known, and the text after them."""

    text: str
    thought_ids: tuple[int, ...] = ()
    after: str = ""


CONTEXT_TOKENS = 6
"""Tokens before a piece that are decoded with it: some tokenizers decode a token differently at the start of a text."""
MAX_WINDOW_TOKENS = 64
"""Maximum tokens decoded together; reached only by a run of bytes that are no text."""
INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
"""What an incomplete character decodes to: once, or once for each of its bytes."""


class Tokenizer:
    """A Hugging Face tokenizer with its chat template.

    A prompt of a model that thinks is rendered so that the response begins as `ModelProfile.starts_thinking` says. A
    thought's text is exactly what the model wrote between its tags; white space is added only to thoughts of no text.

    Args:
        directory: Has `tokenizer.json`, `tokenizer_config.json`, and maybe `chat_template.jinja`.
        model: The model string.
        profiles: The user's settings for models.
        profile: How the model thinks, if it is known; otherwise it is read from the settings, the chat template and the
            shipped profiles.

    Raises:
        DataError: A file is missing or broken.
    """

    def __init__(
        self, directory: Path, model: str, profiles: UserProfiles | None = None, profile: ModelProfile | None = None
    ) -> None:
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
        self._user_layers = user_layer(profiles or {}, model)
        self._known_profile = profile

    @cached_property
    def profile(self) -> ModelProfile:
        """How the model thinks.

        Raises:
            UnknownName: The user's settings have an unknown field.
            UserError: They have an invalid value.
        """
        if self._known_profile is not None:
            return self._known_profile
        measured: dict[str, JsonValue] = {}
        if self._template is not None:
            conversation = template_messages((_PROBE_QUESTION,), True)
            texts = {
                name: _try_render(partial(self._render, arguments=arguments), conversation, [])
                for name, arguments in RENDERS.items()
            }
            renders = {name: text for name, text in texts.items() if text}
            measured = profile_of_renders(renders) if "default" in renders else {}
        user, shipped = self._user_layers, shipped_layers(self._model)
        shown: ProfileLayer = ("chat template", measured)
        if self._template is None or (not measured and self._ignores_switch(merge_profile(shipped))):
            shipped = []
        profile = merge_profile([*user, shown, *shipped])
        if self._template is None or not profile.can_think:
            return merge_profile([*user, _engine_layer("answer"), shown])
        own = _engine_layer(
            "thought",
            thought="channel" if profile.thought == "channel" else "tags",
            return_thoughts="with-tools" if self._returns_thoughts() else "never",
        )
        return merge_profile([*user, own, shown, *shipped])

    def _ignores_switch(self, profile: ModelProfile) -> bool:
        """Whether a profile turns thinking on and off by an argument that the template does not know.

        Then the shipped profile is of other models of the family.
        """
        on, off = _thinking_arguments(profile, "high"), profile.template_arguments("none")
        conversation = template_messages((_PROBE_QUESTION,), True)
        texts = [_try_render(partial(self._render, arguments=more), conversation, []) for more in (on, off)]
        return on != off and texts[0] == texts[1]

    def _returns_thoughts(self) -> bool:
        """Whether the template renders the thoughts of turns that call tools."""
        question, turn, result = _PROBE_MESSAGES
        messages = (question, turn.model_copy(update={"thought": _PROBE_THOUGHT}), result)
        return _PROBE_THOUGHT.text in _try_render(
            self._render, template_messages(messages, True, with_thoughts=True), [_PROBE_TOOL.as_openai()]
        )

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

    def decode_with_tags(self, ids: Sequence[int]) -> str:
        """Text of tokens, without special tokens except those that are a part of the tags around thoughts."""
        hidden = self._hidden_tokens
        if hidden is None:
            return self.decode(ids)
        return str(self._fast.decode([i for i in ids if i not in hidden], skip_special_tokens=False))

    @cached_property
    def _hidden_tokens(self) -> frozenset[int] | None:
        """Special tokens that are no part of a tag; None if none is."""
        special = {i: str(token) for i, token in self._fast.get_added_tokens_decoder().items() if token.special}
        tags = "\n".join(prompt_tags(self.profile))
        hidden = frozenset(i for i, text in special.items() if text not in tags)
        return hidden if len(hidden) < len(special) else None

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

    def render(self, prompt: Prompt, effort: Effort | None = None) -> str:
        """Text of a prompt without its prefix; a thought that is given by its tokens is left out.

        Args:
            effort: How much the model thinks; None is its default.

        Raises:
            CapabilityMissing: The prompt has tools, and the template does not render them.
            UserError: The model has no chat template, or it refuses the messages; or the prompt has a thought, and the
                model has none.
        """
        beginning = self._beginning(prompt, effort)
        return beginning.text + beginning.after

    def _beginning(self, prompt: Prompt, effort: Effort | None, *, opens_thought: bool = False) -> _Beginning:
        """A prompt up to its prefix. A prompt with `opens_thought` begins a thought, unless it has one."""
        if prompt.text is not None:
            return _Beginning(prompt.text)
        profile, thought = self.profile, prompt.thought
        if not profile.can_think:
            if thought is not None:
                raise UserError(
                    f"model {self._model!r} does not think: the prompt cannot have a thought",
                    hint=f"leave it out, or describe the model under [profiles.{self._model!r}]",
                )
            return _Beginning(self._template_of(prompt, {}))
        opening, closing, empty = prompt_tags(profile)
        if thought is None and not opens_thought:
            if profile.starts_thinking(prompt, effort):
                return _Beginning(self._template_of(prompt, _thinking_arguments(profile, effort)))
            switch = profile.template_arguments("none")
            text = self._template_of(prompt, switch)
            if _ends_with(text, opening):
                return _Beginning(text + closing)
            is_off = bool(switch) or profile.thinks == "opt-in" or _ends_with(text, closing)
            return _Beginning(text if is_off else text + empty)
        text = self._template_of(prompt, _thinking_arguments(profile, effort))
        is_open = _ends_with(text, opening)
        thought = thought or Thought(closed=False)
        ids = thought.token_ids
        if ids:
            tag = tuple(self.encode(opening.rstrip()))
            if ids[: len(tag)] == tag:  # the model opened the thought itself
                text, ids = (text, ids[len(tag) :]) if is_open else (text, ids)
            elif not is_open:
                text += opening.rstrip()
            return _Beginning(
                text, ids, rest_of_closing(closing, self.decode_with_tags(ids[-16:])) if thought.closed else ""
            )
        if not is_open:
            text += opening.rstrip() if thought.text or not thought.closed else opening
        if not thought.closed:
            return _Beginning(text + thought.text)
        return _Beginning(text + thought.text + rest_of_closing(closing, thought.text))

    def _template_of(self, prompt: Prompt, arguments: Mapping[str, JsonValue]) -> str:
        if self._template is None:
            raise UserError(
                f"model {self._model!r} has no chat template", hint="give raw text (Prompt(text=…)) or a chat model"
            )
        from jinja2 import TemplateError

        for attachment in (a for message in prompt.messages for a in message.attachments):
            raise CapabilityMissing(f"{attachment.kind} input", self._model, alternative="")
        if prompt.tools and not self.tool_support.renders_tools:
            raise CapabilityMissing("tools", self._model, alternative="")
        has_calls = any(m.tool_calls or m.role == "tool" for m in prompt.messages)
        try:
            return self._render(
                template_messages(
                    prompt.messages,
                    not has_calls or self.tool_support.renders_calls,
                    with_thoughts=self.profile.return_thoughts != "never",
                ),
                [tool.as_openai() for tool in prompt.tools],
                arguments,
            )
        except TemplateError as error:
            raise UserError(f"the chat template of {self._model!r} refuses the messages: {error}") from error

    def _render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]],
        arguments: Mapping[str, JsonValue] | None = None,
    ) -> str:
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
                **(arguments or {}),
            )
        )

    def prompt_ids(self, prompt: Prompt, effort: Effort | None = None, *, opens_thought: bool = False) -> list[int]:
        """Tokens of a prompt with its thought and its prefix.

        Args:
            effort: How much the model thinks; None is its default.
            opens_thought: Whether a prompt without a thought begins one.

        Raises:
            UserError: As `render`; or the prompt has no tokens.
        """
        ids = self._encode(prompt, self._beginning(prompt, effort, opens_thought=opens_thought))
        if not ids:
            raise UserError("the prompt has no tokens", hint="give at least one character")
        size = self._fast.get_vocab_size()
        given = {"thought": () if prompt.thought is None else prompt.thought.token_ids}
        if not isinstance(prompt.prefix, str):
            given["prefix"] = prompt.prefix
        for part, tokens in given.items():
            bad = next((i for i in tokens if not 0 <= i < size), None)
            if bad is not None:
                raise UserError(f"token {bad} in the prompt's {part} is not in a vocabulary of {size}")
        return ids

    def _encode(self, prompt: Prompt, beginning: _Beginning, continuation: str = "") -> list[int]:
        """Tokens of a prompt and of a text after it."""
        text, thought_ids, after = beginning
        raw, prefix = prompt.text is not None, prompt.prefix
        before = [*self.encode(text), *thought_ids] if thought_ids else []
        rest = after if thought_ids else text + after
        if isinstance(prefix, str):
            return [*before, *self.encode(rest + prefix + continuation, special=raw)]
        return [*before, *self.encode(rest, special=raw), *prefix, *self.encode(continuation)]

    def continuation(self, prompt: Prompt, continuation: str | tuple[int, ...]) -> tuple[list[int], list[int]]:
        """Tokens before a continuation, and its own. Without a thought in the prompt, it is an answer without one.

        A text is tokenized together with the prompt where the prompt's end is text: its tokens are then those of both,
        less the run that both share with the prompt.
        """
        before = self.prompt_ids(prompt, "none")
        if not isinstance(continuation, str):
            return before, list(continuation)
        if not isinstance(prompt.prefix, str):
            return before, self.encode(continuation)
        both = self._encode(prompt, self._beginning(prompt, "none"), continuation)
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
        shows_tags: Whether special tokens that are a part of the tags around thoughts are shown.
    """

    def __init__(
        self, tokenizer: Tokenizer, before: Sequence[int], stops: Sequence[str], *, shows_tags: bool = False
    ) -> None:
        self._decode = tokenizer.decode_with_tags if shows_tags else tokenizer.decode
        self._window: list[int] = list(before[-CONTEXT_TOKENS:])
        # A prompt may end within a character: the sample completes it, and then the character is the sample's.
        self._shown = _certain(self._decode(self._window))
        self._num_pending = 0
        self._stops = StopStrings(stops)

    @property
    def text(self) -> str:
        """All text that is certain."""
        return self._stops.text

    @property
    def stop_reason(self) -> str:
        """The stop string that was completed; "" if none."""
        return self._stops.stop_reason

    @property
    def stopped(self) -> bool:
        """Whether a stop string was completed."""
        return bool(self.stop_reason)

    def push(self, token: int) -> str:
        """Take a token; returns the text that is now certain. `stopped` is set if a stop string was completed."""
        self._window.append(token)
        self._num_pending += 1
        text = self._decode(self._window)
        certain = _certain(text)
        piece = certain[len(self._shown) :]
        self._shown = self._shown + piece
        if (piece and certain == text) or len(self._window) > MAX_WINDOW_TOKENS:
            self._window = self._window[-max(CONTEXT_TOKENS, self._num_pending) :][-MAX_WINDOW_TOKENS // 2 :]
            self._shown = _certain(self._decode(self._window))
            self._num_pending = 0
        return self._stops.push(piece)

    def finish(self) -> str:
        """The rest, at the end of the sample: an incomplete character becomes a replacement character."""
        if self.stopped:
            return ""
        certain = self._stops.push(self._decode(self._window)[len(self._shown) :])
        return certain + self._stops.finish()


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


def own_sampling(directory: Path) -> OwnSampling:
    """How a model samples by its generation settings; temperature 1 without truncation where they say nothing."""
    path = directory / "generation_config.json"
    settings = read_json(path) if path.exists() else {}
    numbers = {
        name: value
        for name in ("temperature", "top_p", "top_k")
        if isinstance(value := settings.get(name), int | float) and not isinstance(value, bool) and value >= 0
    }
    top_p = float(numbers.get("top_p", 1.0))
    return OwnSampling(
        temperature=float(numbers.get("temperature", 1.0)),
        top_p=top_p if 0 < top_p <= 1 else 1.0,
        top_k=int(numbers.get("top_k", 0)),
    )


def _thinking_arguments(profile: ModelProfile, effort: Effort | None) -> dict[str, JsonValue]:
    """Arguments of a chat template with which it lets the model think."""
    if effort in (None, "none"):
        efforts = [e for e in EFFORTS if e != "none" and e in profile.efforts]
        effort = efforts[0] if profile.thinks == "opt-in" and efforts else None
    return profile.template_arguments(effort)


def _engine_layer(prefix: str, **more: JsonValue) -> ProfileLayer:
    """What holds for every model that is computed here: nothing is refused, and text is continued exactly."""
    return "the engine", {
        "prefix": prefix,
        "refuses": [],
        "refuses_while_thinking": [],
        "thinking_budget": {},
        "cap_includes_thoughts": True,
        **more,
    }


def _ends_with(text: str, tag: str) -> bool:
    """Whether a text ends with a tag, white space aside."""
    return text.rstrip().endswith(tag.strip())


def _certain(text: str) -> str:
    """The text without an incomplete last character (three bytes at most)."""
    end = len(text)
    while end > max(0, len(text) - 3) and text[end - 1] == INCOMPLETE:
        end -= 1
    return text[:end]


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
