"""Finishing replies: the beginning of each is continued to the end of the text, some times over.

For scores by outcome (how often does this beginning lead to the answer?), and for the forced answer of a search that
has no steps or tokens left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..core.answer import Candidate
from ..core.errors import LimitExceeded, UserError
from ..core.messages import Completion, Prompt, Request, Sampling
from ..core.question import Question
from ..core.run import Run
from ..serving.metered import MeteredModel
from .candidates import read_candidate
from .reply_prefix import Continuations, Prefix, shared_out
from .step_text import without_repeated


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
        self._sampling = Sampling(max_tokens=max_tokens, temperature=temperature)
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
