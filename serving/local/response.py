"""What a sample's tokens become, for both engines: thought and answer, and the limits that end them.

`ResponseAssembler` follows a sample while it is generated, `ThoughtFollower` the same sample for logits processors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...core.messages import FinishReason, Request, SamplingParams, Thought
from ..profiles.profile import ModelProfile
from ..stop_strings import StopStrings
from ..thoughts import SplitText, ThoughtSplitter, prompt_tags
from .config import ContextLimits
from .tokenizer import TextAssembler, Tokenizer

TAG_TOKENS = 32
"""Maximum tokens of an opening tag with white space."""


@dataclass(frozen=True)
class PreparedRequest:
    """A request in tokens.

    Attributes:
        request: The request, whose sampling parameters limit the thought.
        prompt_ids: Tokens of the prompt.
        may_think: Whether the response begins with a thought, or inside one.
        is_open: Whether it begins inside one.
    """

    request: Request
    prompt_ids: list[int]
    may_think: bool = False
    is_open: bool = False


def prepare_request(request: Request, tokenizer: Tokenizer, limits: ContextLimits) -> PreparedRequest:
    """Tokenize a request, and limit its thought to what the context has room for.

    A response that is constrained to a JSON schema begins inside its thought: what is not in a thought is constrained.

    Raises:
        ContextTooLong: Prompt and answer, or the least of a thought, do not fit.
        UserError: The prompt cannot be rendered.
    """
    sampling, prompt, profile = request.sampling, request.prompt, tokenizer.profile
    thinks = profile.starts_thinking(prompt, sampling.effort)
    has_schema = sampling.json_schema is not None
    prompt_ids = tokenizer.prompt_ids(prompt, sampling.effort, opens_thought=thinks and has_schema)
    limits.check_token_ids(prompt_ids)
    size, max_tokens = len(prompt_ids), sampling.max_tokens
    needed = f"prompt ({size}) and max_tokens ({max_tokens})"
    limits.check_length(size + max_tokens, needed)
    limit: int | None = None if not profile.can_think else 0
    if thinks:
        limits.check_length(size + max_tokens + 1, f"a thought, {needed}")
        requested = sampling.thinking_tokens or profile.thinking_tokens(sampling.effort)
        limit = min(requested, limits.max_tokens - size - max_tokens)
    if limit != sampling.thinking_tokens:
        sampling = sampling.model_copy(update={"thinking_tokens": limit})
        request = request.model_copy(update={"sampling": sampling})
    is_open = profile.can_think and begins_in_thought(tokenizer, prompt_ids, request)
    return PreparedRequest(request, prompt_ids, thinks or is_open, is_open)


def begins_in_thought(tokenizer: Tokenizer, prompt_ids: Sequence[int], request: Request) -> bool:
    """Whether a response begins inside a thought: the prompt has an open one, or ends with an opening tag."""
    thought = request.prompt.thought
    if thought is not None:
        return not thought.closed
    opening = prompt_tags(tokenizer.profile)[0].strip()
    return tokenizer.decode_with_tags(prompt_ids[-TAG_TOKENS:]).rstrip().endswith(opening)


class ResponseAssembler:
    """A sample's text while it is generated, split into thought and answer.

    Of a model that never thinks, all text is the answer. Stop strings and `max_tokens` apply to the answer; stop
    strings also to the thought that the prompt has opened.

    Args:
        request: The request.
        prompt_ids: Tokens of its prompt.
        is_open: Whether the response begins inside a thought.
    """

    def __init__(
        self, tokenizer: Tokenizer, request: Request, prompt_ids: Sequence[int], *, is_open: bool = False
    ) -> None:
        profile = tokenizer.profile
        self._sampling: SamplingParams = request.sampling
        self._splitter: ThoughtSplitter | None = None
        self._num_tokens = 0
        if not profile.can_think:
            self._pieces = TextAssembler(tokenizer, prompt_ids, request.sampling.stop)
            return
        self._pieces = TextAssembler(tokenizer, prompt_ids, (), shows_tags=True)
        self._splitter = ThoughtSplitter(profile, opened=is_open, is_known=True)
        self._answer = StopStrings(request.sampling.stop)
        self._continues_thought = request.prompt.thought is not None and not request.prompt.thought.closed
        self._thought = StopStrings(request.sampling.stop if self._continues_thought else ())
        self._answer_from: int | None = None
        self._ends: list[int] = []

    @property
    def text(self) -> str:
        """Text of the answer that is certain."""
        return self._pieces.text if self._splitter is None else self._answer.text

    @property
    def stop_reason(self) -> str:
        """The stop string that was completed; "" if none."""
        if self._splitter is None:
            return self._pieces.stop_reason
        return self._thought.stop_reason or self._answer.stop_reason

    @property
    def stopped(self) -> bool:
        """Whether a stop string was completed."""
        return bool(self.stop_reason)

    @property
    def has_thought(self) -> bool:
        """Whether there is a thought, perhaps without text."""
        return self._splitter is not None and self._splitter.has_thought

    @property
    def is_thinking(self) -> bool:
        """Whether the sample is inside its thought, and no part of the answer precedes it."""
        if self._splitter is None or self._answer_from is not None:
            return False
        return self._splitter.is_thinking or bool(self._thought.stop_reason)

    @property
    def answer_from(self) -> int:
        """Index of the first token of the answer's text; the number of tokens if there is none after a thought."""
        if self._splitter is None or not self._splitter.has_thought:
            return 0
        return self._num_tokens if self._answer_from is None else self._answer_from

    @property
    def thought(self) -> Thought | None:
        """The thought so far; None if there is none."""
        if not self.has_thought:
            return None
        return Thought(text=self._thought.text, tokens=self.answer_from, closed=not self.is_thinking)

    def push(self, token: int) -> SplitText:
        """Take a token; returns the text that is now certain."""
        self._num_tokens += 1
        piece = self._pieces.push(token)
        if self._splitter is None:
            return SplitText(answer=piece)
        self._ends.append((self._ends[-1] if self._ends else 0) + len(piece))
        return self._add(self._splitter, self._splitter.push(piece))

    def push_end(self) -> SplitText:
        """Take a token that ends the text, and has none itself."""
        self._num_tokens += 1
        if self._splitter is not None:
            self._ends.append(self._ends[-1] if self._ends else 0)
        return SplitText()

    def finish(self, before: SplitText = SplitText()) -> SplitText:  # noqa: B008 (an immutable value)
        """The rest, at the end of the sample, after what the last token made certain."""
        rest = self._finish()
        return SplitText(before.thought + rest.thought, before.answer + rest.answer)

    def _finish(self) -> SplitText:
        if self._splitter is None:
            return SplitText(answer=self._pieces.finish())
        if self.stopped:
            return SplitText()
        rest = self._pieces.finish()
        if self._ends:
            self._ends[-1] += len(rest)
        thought, answer = self._add(self._splitter, self._splitter.push(rest))
        if not self.stopped:
            more = self._add(self._splitter, self._splitter.finish())
            thought, answer = thought + more.thought, answer + more.answer
        if not self.stopped:
            thought, answer = thought + self._thought.finish(), answer + self._answer.finish()
        return SplitText(thought, answer)

    @property
    def is_unfinished(self) -> bool:
        """Whether a sample that ends here has no answer: it still thinks, and not in a thought of the prompt."""
        return self.is_thinking and not self._continues_thought

    def limit(self) -> FinishReason | None:
        """The limit that the sample has reached; None if it may continue."""
        sampling, count = self._sampling, self._num_tokens
        if self._splitter is None:
            return "length" if count >= sampling.max_tokens else None
        if self.is_thinking:
            return "thinking" if count >= (sampling.thinking_tokens or sampling.total_tokens) else None
        if self._answer_from is not None or not (self.has_thought or sampling.thinking_tokens):
            return "length" if count - self.answer_from >= sampling.max_tokens else None
        return "length" if count >= sampling.total_tokens else None  # blank so far

    def _add(self, splitter: ThoughtSplitter, split: SplitText) -> SplitText:
        thought = self._thought.push(split.thought) if split.thought else ""
        if self._thought.stop_reason:
            return SplitText(thought)
        if splitter.has_thought and not splitter.is_thinking:
            thought += self._thought.finish()
        if self._answer_from is None and split.answer.strip():
            self._answer_from = self._index_of(self._ends[-1] - splitter.num_held - len(split.answer.lstrip()))
            self._ends.clear()
        return SplitText(thought, self._answer.push(split.answer) if split.answer else "")

    def _index_of(self, position: int) -> int:
        """Index of the first token that writes the character at a position of all text."""
        ends = self._ends
        index = next((i for i, end in enumerate(ends) if end > position), len(ends) - 1)
        while index and ends[index - 1] == (ends[index - 2] if index > 1 else 0) == position:
            index -= 1  # a part of the same character
        return index


class ThoughtFollower:
    """Finds where a sample's thought ends, for logits processors; tokens may be rolled back.

    Args:
        tokenizer: Called when it is first needed.
        profile: How the model thinks.
        is_open: Whether the response begins inside a thought.
    """

    def __init__(self, tokenizer: Callable[[], Tokenizer], profile: ModelProfile, *, is_open: bool) -> None:
        self._tokenizer, self._profile, self._is_open = tokenizer, profile, is_open
        self._pieces: TextAssembler | None = None
        self._restart()

    def _restart(self) -> None:
        self._pieces, self._read, self._closed_at = None, 0, -1
        self._splitter = ThoughtSplitter(self._profile, opened=self._is_open, is_known=True)

    def answer_start(self, prompt_ids: Sequence[int], generated_ids: Sequence[int]) -> int | None:
        """Number of tokens up to the end of the closing tag; None if it is not closed yet."""
        self._follow(prompt_ids, generated_ids)
        return None if self._closed_at < 0 else self._closed_at

    @property
    def begun_answer(self) -> list[int]:
        """Tokens of what the token that closed the thought had after the tag; mostly none."""
        text = self._splitter.answer if self._closed_at >= 0 else ""
        return self._tokenizer().encode(text) if text else []

    def _follow(self, prompt_ids: Sequence[int], generated_ids: Sequence[int]) -> None:
        if self._read > len(generated_ids):
            self._restart()
        if self._pieces is None:
            self._pieces = TextAssembler(self._tokenizer(), prompt_ids, (), shows_tags=True)
        while self._closed_at < 0 and self._read < len(generated_ids):
            self._splitter.push(self._pieces.push(generated_ids[self._read]))
            self._read += 1
            if self._splitter.has_thought and not self._splitter.is_thinking:
                self._closed_at = self._read
