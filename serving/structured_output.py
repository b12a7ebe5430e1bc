"""JSON schemas as logits processors, which allow only the tokens that a schema permits next.

llguidance computes the permitted tokens at each position; the mask is applied after all other logits processors, so
that none can undo it. JSON is written as by `json.dumps`, with one blank after commas and colons and none elsewhere: if
white space is free, small models write nothing else.

Source: llguidance (github.com/guidance-ai/llguidance), which parses by Earley's algorithm over derivatives of regular
expressions and walks the tree of all tokens' bytes.
"""

from __future__ import annotations

import importlib.util
import json
import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

from pydantic import JsonValue

from ..core.errors import BackendError, CapabilityMissing, UserError
from .output_schemas import enum_schema, object_schema

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

    from .logits_processors import ProcessorState
    from .logits_processors.registry import Row


SCHEMA: Final = "json_schema"
"""Name under which a grammar is among a sample's hooks."""

MAX_CACHED_GRAMMARS: Final = 64
"""Schemas of a model whose grammars are kept ready."""

TRIAL_SCHEMA: Final = object_schema({"zq": enum_schema(["q7"])})
"""A schema that no model satisfies by chance, to probe whether a server enforces schemas."""
TRIAL_TOKENS: Final = 64
"""Room for its text, with the blanks that a server's grammar may leave free."""

_LAYOUT: Final[JsonCompileOptions] = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    # what cannot be held to is an error and not passed over, whatever the schema itself asks for
    "lenient": False,
    "coerce_one_of": False,
}
_MOST_SHOWN = 160


class GrammarError(BackendError):
    """A text cannot be constrained any further: the grammar has become too large for the next token."""

    code: ClassVar[str] = "grammar_failed"


class GrammarProcessor:
    """A logits processor that constrains answers to one schema; a thought before the answer is free.

    The text so far is in the state's memory.

    Args:
        start: llguidance's matcher, before the first token.
    """

    def __init__(self, start: Any) -> None:
        self._start = start

    def __call__(self, row: Row, state: ProcessorState) -> Row:
        """The row with only the permitted tokens; the end of text is one of them where the text may end."""
        import numpy as np

        matcher = self._follow(state)
        if matcher is None:
            return row
        bits = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
        if matcher.is_error():
            raise GrammarError(f"the JSON schema's grammar failed: {_first_line(matcher.get_error())}")
        allowed = np.zeros(len(row), dtype=bool)
        known = np.unpackbits(bits, count=min(8 * len(bits), len(row)), bitorder="little")
        allowed[: len(known)] = known
        return np.where(allowed, row, np.float32("-inf"))

    def ended(self, state: ProcessorState) -> bool:
        """Whether a sample's text is complete and no token is permitted after it."""
        matcher = self._follow(state)
        return matcher is not None and bool(matcher.is_stopped() and not matcher.is_error())

    def _follow(self, state: ProcessorState) -> Any:
        """A sample's matcher, advanced to its last token; None in a thought. It restarts if tokens were rolled back."""
        start = state.answer_start
        if start is None:
            return None
        generated = state.generated_ids
        matcher, at = state.memory.get(self, (None, 0))
        if matcher is None or at > len(generated):
            matcher, at = self._start.deep_copy(), start
            if state.thought is not None and (begun := state.thought.begun_answer):
                matcher.consume_tokens(begun)
        if at < len(generated) and not matcher.is_stopped():
            matcher.consume_tokens(list(generated[at:]))
        state.memory[self] = (matcher, len(generated))
        return matcher


class ByteTokenizer(Protocol):
    """What a grammar needs of a tokenizer."""

    @property
    def size(self) -> int:
        """Number of tokens."""

    @property
    def is_byte_level(self) -> bool:
        """Whether its tokens are sequences of bytes."""

    def serialized(self) -> str:
        """The tokenizer in the format of the `tokenizers` library."""


class GrammarCompiler:
    """Compiles schemas for one model's tokenizer. May be used from several threads.

    Args:
        tokenizer: The model's tokenizer.
        vocab: Length of a row of logits.
        eos: Tokens that end a text.
        model: Name of the model, for messages.

    Attributes:
        possible: Whether texts can be constrained: the model has an end of text, llguidance is installed and supports
            the tokenizer.
    """

    def __init__(self, tokenizer: ByteTokenizer, vocab: int, eos: Iterable[int], model: str) -> None:
        self._tokenizer, self._model = tokenizer, model
        self._vocab = max(vocab, tokenizer.size)
        self._eos = sorted(i for i in eos if i < self._vocab)
        self._tokens: Any = None
        self._ready: OrderedDict[str, GrammarProcessor] = OrderedDict()
        self._lock = threading.Lock()
        self.possible = (
            bool(self._eos) and tokenizer.is_byte_level and importlib.util.find_spec("llguidance") is not None
        )

    def check(self, schema: dict[str, JsonValue]) -> None:
        """Refuse an unsupported schema; fast, and needs no tokenizer.

        Raises:
            CapabilityMissing: Texts of this model cannot be constrained.
            UserError: The schema is invalid or uses unsupported keywords.
        """
        self._written(json.dumps(schema))

    def of(self, schema: dict[str, JsonValue]) -> GrammarProcessor:
        """The processor of a schema. Blocks: the first one of a model takes seconds, others milliseconds."""
        text = json.dumps(schema)
        with self._lock:
            cached = self._ready.get(text)
            if cached is None:
                cached = self._ready[text] = GrammarProcessor(self._matcher(text))
                if len(self._ready) > MAX_CACHED_GRAMMARS:
                    self._ready.popitem(last=False)
            self._ready.move_to_end(text)
        return cached

    def _matcher(self, text: str) -> Any:
        written = self._written(text)
        from llguidance import LLMatcher, LLTokenizer

        if self._tokens is None:
            try:
                self._tokens = LLTokenizer(self._tokenizer.serialized(), n_vocab=self._vocab, eos_token=self._eos)
            except ValueError as e:
                raise BackendError(f"the tokens of {self._model} cannot be read for JSON schemas: {e}") from e
        matcher = LLMatcher(self._tokens, written, log_level=0)
        if matcher.is_error():
            raise _refused(text, matcher.get_error())
        return matcher

    def _written(self, text: str) -> str:
        """The schema's grammar in llguidance's form."""
        if not self.possible:
            raise CapabilityMissing(SCHEMA, self._model)
        from llguidance import LLMatcher

        try:
            written: str = LLMatcher.grammar_from_json_schema(text, overrides=_LAYOUT)
        except ValueError as e:
            raise _refused(text, str(e)) from e
        failed, messages = LLMatcher.validate_grammar_with_warnings(written)
        if failed:
            raise _refused(text, messages[0] if messages else "")
        return written


def is_trial(text: str) -> bool:
    """Whether a text satisfies the trial's schema up to its value.

    Where white space is free, a model may not reach the last bracket.
    """
    return "".join(text.split()).startswith('{"zq":"q7"')


def _refused(text: str, why: str) -> UserError:
    shown = text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."
    return UserError(
        f"unsupported JSON schema {shown}: {_first_line(why) or 'it is not one'}",
        hint="correct the schema, or omit the unsupported keyword",
        param=SCHEMA,
    )


def _first_line(why: str) -> str:
    """An error message of llguidance without the parser's state."""
    messages = why.partition("<state>")[0]
    return " ".join(messages.split())[:_MOST_SHOWN]
