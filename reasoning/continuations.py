"""The beginning of a reply, in whole steps, and how a model is asked to go on from it.

Finishing replies: the beginning of each is continued to the end of the text, some times over.

For scores by outcome (how often does this beginning lead to the answer?), and for the forced answer of a search that
has no steps or tokens left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

from ..core.answer import Candidate
from ..core.errors import LimitExceeded, UserError
from ..core.messages import Completion, Message, Prompt, Request, SamplingParams
from ..core.question import Question
from ..core.run import Run
from ..serving.metered import MeteredModel
from .candidates import read_candidate
from .segmentation import without_repeated

GO_ON = (
    "Your reply above is unfinished. Go on with it exactly where it stops, with the next step, as if you had never "
    "been interrupted. Do not repeat or comment on what you have written."
)
"""What a model is told that cannot be given the beginning of its reply."""


LEAST_TOKENS = 32
"""Where a budget does not cover all samples, fewer are asked for rather than giving one less than this."""


@dataclass(frozen=True)
class Prefix(Sequence[str]):
    """The beginning of a reply: a sequence of its steps' texts, and what is known of how they were generated.

    Attributes:
        steps: The steps, without the delimiters between them.
        text: All of it as it stands, delimiters included.
        token_ids: Its tokens, so that it is continued exactly and found in a cache; None where a backend hides them.
        logprobs: Summed raw log-probability of each step's tokens, in nats; None if unknown.
        lengths: Generated tokens of each step; 0 if unknown.
        terminal: Whether the reply has ended or stated its answer: there is nothing to go on with.
    """

    steps: tuple[str, ...] = ()
    text: str = ""
    token_ids: tuple[int, ...] | None = ()
    logprobs: tuple[float | None, ...] = ()
    lengths: tuple[int, ...] = ()
    terminal: bool = False

    @classmethod
    def of_steps(cls, steps: Sequence[str], delimiter: str = "\n\n") -> Prefix:
        """The beginning of a reply that was not generated here, by its text alone."""
        return cls(
            steps=tuple(steps),
            text="".join(step + delimiter for step in steps),
            token_ids=None if steps else (),
            logprobs=(None,) * len(steps),
            lengths=(0,) * len(steps),
        )

    def then(
        self,
        step: str,
        text: str,
        token_ids: tuple[int, ...] | None,
        logprob: float | None,
        length: int,
        *,
        terminal: bool = False,
    ) -> Prefix:
        """This beginning with one more step.

        Args:
            step: The step, without a delimiter.
            text: All of the reply with it.
            token_ids: All tokens of the reply with it; None if they are not known.
            logprob: Summed log-probability of the step's tokens, in nats; None if unknown.
            length: Generated tokens of the step.
            terminal: Whether the reply ends with it.
        """
        return Prefix(
            steps=(*self.steps, step),
            text=text,
            token_ids=token_ids,
            logprobs=(*self.logprobs, logprob),
            lengths=(*self.lengths, length),
            terminal=terminal,
        )

    def __len__(self) -> int:
        """Number of steps."""
        return len(self.steps)

    @overload
    def __getitem__(self, at: int) -> str: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[str]: ...

    def __getitem__(self, at: int | slice) -> str | Sequence[str]:
        """A step, or several."""
        return self.steps[at]


def shared_out(tokens: float, wanted: int, most: int) -> tuple[int, int]:
    """How many of the wanted samples a rest of tokens serves, and how many of them each may have.

    Args:
        tokens: The rest, which does not cover all.
        wanted: Samples wanted.
        most: Most tokens of a sample that is not cut short.
    """
    left = int(tokens)
    count = min(wanted, max(left // min(LEAST_TOKENS, most), min(1, left)))
    return count, left // count if count else 0


class Continuations:
    """From the beginning of a reply to what a model is asked, and which of its samples are wanted.

    A beginning of known tokens is sent as these tokens: they are those that the backend has in its cache, while a text
    may be cut into others at the seam. Samples of equal prompts are numbered in order of asking: whoever asks for one
    prompt again gets new samples, and a run that is resumed and asks in the same order gets those it had. Every prompt
    has a seed of its own, a function of the run's: with one seed for all, sample 0 of any two prompts would draw from
    the same stream of random numbers.

    Args:
        model: The model.
        prompt: The question, perhaps with the beginning of every reply.
        run: The run; it is told where a beginning is not continued exactly.
        purpose: What the samples are for; other purposes draw other samples.
    """

    def __init__(self, model: MeteredModel, prompt: Prompt, run: Run, purpose: str) -> None:
        self.exact = model.capabilities.prefix
        self._prompt, self._run, self._purpose = prompt, run, purpose
        self._taken: dict[Prompt, int] = {}

    def prompt_after(self, text: str, token_ids: tuple[int, ...] | None) -> Prompt:
        """The prompt that asks for what follows.

        Args:
            text: The beginning of the reply; empty for the first step.
            token_ids: Its tokens; None if they are not known.
        """
        own = self._prompt.prefix
        if not text and not token_ids:
            return self._prompt
        if not self.exact and self._prompt.text is not None:
            return self._prompt.model_copy(update={"text": self._prompt.text + self._own_text() + text, "prefix": ""})
        if not self.exact:
            self._run.degrade(
                "approximate prefix: the model cannot be given the beginning of its reply; "
                "it was asked to go on from it, and what it repeated was cut"
            )
            said = Message(role="assistant", content=self._own_text() + text)
            turns = (*self._prompt.messages, said, Message(role="user", content=GO_ON))
            return self._prompt.model_copy(update={"messages": turns, "prefix": ""})
        if token_ids is not None and not own:
            return self._prompt.with_prefix(token_ids)
        if token_ids is not None and not isinstance(own, str):
            return self._prompt.with_prefix((*own, *token_ids))
        return self._prompt.with_prefix(self._own_text() + text)

    def approximate(self, prefix_text: str) -> bool:
        """Whether what follows this text can be had only by asking to go on from it."""
        return bool(prefix_text) and not self.exact and self._prompt.text is None

    def take(self, prompt: Prompt, count: int) -> tuple[int, ...]:
        """Indices of the next samples of a prompt."""
        first = self._taken.get(prompt, 0)
        self._taken[prompt] = first + count
        return tuple(range(first, first + count))

    def seed(self, prompt: Prompt) -> int:
        """The prompt's seed."""
        prefix = prompt.prefix if isinstance(prompt.prefix, str) else " ".join(map(str, prompt.prefix))
        said = [f"{m.role}: {m.content}" for m in prompt.messages]
        return self._run.derive_seed(self._purpose, prompt.text or "", *said, prefix)

    def _own_text(self) -> str:
        own = self._prompt.prefix
        return own if isinstance(own, str) else ""


@dataclass(frozen=True)
class Finished:
    """What became of one prefix.

    Attributes:
        candidates: The whole replies, prefix included, with the answers read in them; `tokens` and `logprob` are those
            of what was generated. One for each time that it was finished; a terminal prefix is its own only reply.
        failed: Replies that failed alone.
        unasked: Replies that the budget did not cover.
    """

    candidates: tuple[Candidate, ...] = ()
    failed: int = 0
    unasked: int = 0


@dataclass(frozen=True)
class Rollouts:
    """What one call made.

    Attributes:
        finished: One for each prefix, in order.
        tokens: All tokens generated.
        spent: Whether the budget kept something from being finished.
    """

    finished: tuple[Finished, ...]
    tokens: int = 0
    spent: bool = False


@dataclass(frozen=True)
class _Begun:
    """One reply that is to be finished."""

    position: int
    prefix: Prefix
    opener: str

    @property
    def before(self) -> str:
        return self.prefix.text + self.opener

    @property
    def before_ids(self) -> tuple[int, ...] | None:
        return None if self.opener else self.prefix.token_ids


class Finisher:
    """Finishes replies to one question, within one run; as with `StepSampler`, calls must follow one another.

    Args:
        model: The model.
        prompt: The question as it is put to the model.
        question: It again: what kind of answer is read.
        run: The run that pays.
        max_tokens: Most tokens behind a prefix.
        temperature: Of sampling.
        purpose: What the replies are for; other purposes draw other samples.
    """

    def __init__(
        self,
        model: MeteredModel,
        prompt: Prompt,
        question: Question,
        run: Run,
        *,
        max_tokens: int = 512,
        temperature: float = 0.8,
        purpose: str = "rollout",
    ) -> None:
        self._model, self._question, self._run = model, question, run
        self._sampling = SamplingParams(max_tokens=max_tokens, temperature=temperature)
        self._continuations = Continuations(model, prompt, run, purpose)

    async def finish(
        self,
        prefixes: Sequence[Prefix],
        times: int = 1,
        *,
        opener: str = "",
        max_tokens: int | None = None,
        keep_tokens: int = 0,
    ) -> Rollouts:
        """Finish each prefix `times` times, all as one batch.

        Args:
            prefixes: The beginnings, most important first.
            times: How often.
            opener: Put behind each prefix, for example what opens the answer.
            max_tokens: Most tokens of each reply, in place of the finisher's.
            keep_tokens: Tokens of the budget that are not to be touched.

        Raises:
            UserError: `times` is no positive number.
        """
        if times < 1:
            raise UserError(f"a reply cannot be finished {times} times", hint="ask for at least 1")
        wanted = [i for i, prefix in enumerate(prefixes) if not prefix.terminal for _ in range(times)]
        wished = self._sampling.max_tokens if max_tokens is None else max_tokens
        asked, most = self._affordable([_Begun(i, prefixes[i], opener) for i in wanted], wished, keep_tokens)
        requests = [self._request(prompt, len(members), most) for prompt, members in asked.items()]
        spent = sum(map(len, asked.values())) < len(wanted)
        made: list[list[Completion]] = []
        if requests:
            try:
                made = await self._model.generate(requests)
            except LimitExceeded as e:
                self._run.note_limit(e)
                asked, spent = {}, True
        candidates: list[list[Candidate]] = [[self._as_it_is(p)] if p.terminal else [] for p in prefixes]
        failed = [0] * len(prefixes)
        for members, replies in zip(asked.values(), made, strict=True):
            for begun, reply in zip(members, replies, strict=True):
                if not reply.ok:
                    failed[begun.position] += 1
                    continue
                whole = self._whole(begun, reply, short=most < wished)
                spent = spent or whole.finish_reason == "budget"
                candidates[begun.position].append(read_candidate(whole, self._question))
        finished = tuple(
            Finished(tuple(c), f, 0 if p.terminal else times - len(c) - f)
            for p, c, f in zip(prefixes, candidates, failed, strict=True)
        )
        return Rollouts(finished, sum(c.usage.completion_tokens for replies in made for c in replies), spent)

    def _affordable(self, begun: Sequence[_Begun], most: int, keep: int) -> tuple[dict[Prompt, list[_Begun]], int]:
        """What the budget covers, by prompt, and the most tokens of each reply, of which `most` are wished."""
        ledger = self._run.ledger
        left, count = max(0.0, ledger.left("tokens") - keep), len(begun)
        if left < count * most:
            count, share = shared_out(left, count, most)
            most = min(most, share) if count else most
        asked: dict[Prompt, list[_Begun]] = {}
        for one in begun[:count]:
            prompt = self._continuations.prompt_after(one.before, one.before_ids)
            if prompt not in asked and len(asked) >= ledger.left("calls"):
                break
            asked.setdefault(prompt, []).append(one)
        if begun and not asked:
            self._run.note_limit(ledger.refuse("calls" if count else "tokens"))
        return asked, most

    def _request(self, prompt: Prompt, count: int, most: int) -> Request:
        changed = {"max_tokens": most, "seed": self._continuations.seed(prompt)}
        sampling = self._sampling.model_copy(update=changed)
        return Request(prompt=prompt, sampling=sampling, samples=self._continuations.take(prompt, count))

    def _whole(self, begun: _Begun, reply: Completion, *, short: bool) -> Completion:
        """The reply with its beginning; a `short` one was given less than was wished."""
        said = reply.text
        if self._continuations.approximate(begun.before):
            said = without_repeated(begun.prefix.steps, said)
        cut = short and reply.finish_reason == "length"
        reason = "budget" if cut or reply.finish_reason == "cancelled" else reply.finish_reason
        return reply.model_copy(update={"text": begun.before + said, "finish_reason": reason})

    def _as_it_is(self, prefix: Prefix) -> Candidate:
        """A reply that has ended."""
        return read_candidate(Completion(text=prefix.text, finish_reason="stop"), self._question)
