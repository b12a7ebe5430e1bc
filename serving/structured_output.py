"""`GrammarCompiler`: JSON schemas over a model's tokens, as logits hooks that leave nothing but what a schema allows.

llguidance reads a schema and tells at each place which tokens may follow; the mask is a hook like any other and stands
behind all others, so that nothing can undo it. JSON is written as `json.dumps` writes it, one blank behind commas and
colons and none elsewhere: where blanks are free, small models write blanks and nothing else.

Source: llguidance (github.com/guidance-ai/llguidance), which parses by Earley's algorithm over derivatives of regular
expressions and walks the tree of all tokens' bytes.
"""

from __future__ import annotations

import importlib.util
import json
import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Final

from pydantic import JsonValue

from ..core.errors import BackendError, CapabilityMissing, UserError
from ..core.json_schema import enum_schema, object_schema

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

    from .local.tokenizer import Tokenizer
    from .logits_processors import ProcessorState
    from .logits_processors.base import Row


SCHEMA: Final = "json_schema"
"""Name under which a grammar stands among a sample's hooks."""

MAX_CACHED_GRAMMARS: Final = 64
"""Schemas of a model whose grammars are kept ready."""

TRIAL_SCHEMA: Final = object_schema({"zq": enum_schema(["q7"])})
"""A schema that no model satisfies unasked: by it is seen whether one is held to schemas at all."""
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
    """A text cannot be held to its schema any further: the grammar has become too large for the next token."""

    code: ClassVar[str] = "grammar_failed"


class GrammarProcessor:
    """A hook that holds each sample to one schema. What a sample has written so far is in its state's memory.

    Args:
        start: llguidance's matcher, before the first token.
    """

    def __init__(self, start: Any) -> None:
        self._start = start

    def __call__(self, row: Row, state: ProcessorState) -> Row:
        """The row with nothing but the tokens that may follow; the end of text is one of them where it may come.

        Raises:
            GrammarFailed: It is not known what may follow.
        """
        import numpy as np

        matcher = self._follow(state)
        bits = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
        if matcher.is_error():
            raise GrammarError(f"the JSON schema's grammar failed: {_first_line(matcher.get_error())}")
        allowed = np.zeros(len(row), dtype=bool)
        known = np.unpackbits(bits, count=min(8 * len(bits), len(row)), bitorder="little")
        allowed[: len(known)] = known
        return np.where(allowed, row, np.float32("-inf"))

    def ended(self, state: ProcessorState) -> bool:
        """Whether a sample's text is whole and nothing can follow it."""
        matcher = self._follow(state)
        return bool(matcher.is_stopped() and not matcher.is_error())

    def _follow(self, state: ProcessorState) -> Any:
        """A sample's matcher, brought to its last token; one whose tokens were taken back begins anew."""
        said = state.generated_ids
        matcher, at = state.memory.get(self, (None, 0))
        if matcher is None or at > len(said):
            matcher, at = self._start.deep_copy(), 0
        if at < len(said) and not matcher.is_stopped():
            matcher.consume_tokens(list(said[at:]))
        state.memory[self] = (matcher, len(said))
        return matcher


class GrammarCompiler:
    """The grammars of one model's tokens. May be used from several threads.

    Args:
        tokenizer: The model's tokenizer.
        vocab: Tokens of a row of logits.
        eos: Tokens that end a text.
        model: Name of the model, for messages.

    Attributes:
        possible: Whether texts can be held to a schema: something ends them, llguidance is there, and it can tell the
            bytes of this model's tokens.
    """

    def __init__(self, tokenizer: Tokenizer, vocab: int, eos: Iterable[int], model: str) -> None:
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
        """Refuse a schema that no text can be held to; quick, and needs no tokens.

        Raises:
            CapabilityMissing: No text of this model can be held to a schema.
            UserError: The schema is broken, or says what cannot be held to.
        """
        self._written(json.dumps(schema))

    def of(self, schema: dict[str, JsonValue]) -> GrammarProcessor:
        """The grammar of a schema. The first one of a model takes seconds, others milliseconds: not for an event loop.

        Raises:
            CapabilityMissing: No text of this model can be held to a schema.
            UserError: The schema is broken, or says what cannot be held to.
        """
        text = json.dumps(schema)
        with self._lock:
            found = self._ready.get(text)
            if found is None:
                found = self._ready[text] = GrammarProcessor(self._matcher(text))
                if len(self._ready) > MAX_CACHED_GRAMMARS:
                    self._ready.popitem(last=False)
            self._ready.move_to_end(text)
        return found

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
        """The grammar as llguidance writes it down."""
        if not self.possible:
            raise CapabilityMissing(SCHEMA, self._model)
        from llguidance import LLMatcher

        try:
            written: str = LLMatcher.grammar_from_json_schema(text, overrides=_LAYOUT)
        except ValueError as e:
            raise _refused(text, str(e)) from e
        failed, told = LLMatcher.validate_grammar_with_warnings(written)
        if failed:
            raise _refused(text, told[0] if told else "")
        return written


def is_trial(text: str) -> bool:
    """Whether a text is what the trial's schema asks for, as far as its value.

    Where blanks are free, a model may not come to the last bracket.
    """
    return "".join(text.split()).startswith('{"zq":"q7"')


def _refused(text: str, why: str) -> UserError:
    shown = text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."
    return UserError(
        f"no text can be held to the JSON schema {shown}: {_first_line(why) or 'it is not one'}",
        hint="correct the schema, or leave out what it says there",
        param=SCHEMA,
    )


def _first_line(why: str) -> str:
    """What an error of llguidance says, without the parser's state behind it."""
    told = why.partition("<state>")[0]
    return " ".join(told.split())[:_MOST_SHOWN]
