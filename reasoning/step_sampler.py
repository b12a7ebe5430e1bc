"""`StepSampler`: continues the beginnings of many replies by one step each, in one batch.

Steps end at a delimiter, which is given to the backend as a stop string: that works everywhere, and no token pays for
it. The hook `step_control` is for chains that are sampled whole, whose long steps it closes by forcing the delimiter;
here a step that is too long simply ends, so a search tree holds nothing that the model would not have said.

Source: the step of A*-decoding (Chatziveroglou 2025, arXiv:2505.13672) and of particle filtering (Puri et al. 2025,
arXiv:2502.01618), which cut at blank lines. Differs: a blank line in fenced code or a displayed formula ends no step.

What comes of sampling steps: `StepSample`, `Expansion`, `Expanded`; and `StepOptions`, how they are sampled.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from pydantic import Field

from ..core.errors import CapabilityMissing, LimitExceeded, UserError
from ..core.messages import Completion, Frozen, Prompt, Request, SamplingParams
from ..core.question import Question
from ..core.run import Run
from ..serving.metered import MeteredModel
from .answers.extraction import extract
from .candidates import whole_sentences
from .continuations import Continuations, Prefix, shared_out
from .segmentation import first_boundary, is_open, normal_step, without_repeated

Ended = Literal["delimiter", "answer", "end", "cap", "budget", "cancelled"]
"""Why a step ended: at the delimiter, since it states the final answer (wherever it ended), with the text, at its most
tokens, by the budget, or cancelled."""


class StepOptions(Frozen):
    """How steps are sampled.

    Attributes:
        delimiter: What ends a step, outside of fenced code and displayed formulas.
        max_step_tokens: Most tokens of a step.
        temperature: Of sampling; the default is that of the particle filtering paper.
        top_p: Nucleus mass.
        top_k: Most likely tokens kept; 0 keeps all.
    """

    delimiter: Annotated[str, Field(min_length=1)] = "\n\n"
    max_step_tokens: Annotated[int, Field(ge=1)] = 512
    temperature: Annotated[float, Field(ge=0, le=100)] = 0.8
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True)
class StepSample:
    """One sampled step.

    Attributes:
        index: Which sample of its prefix it is, counted over all expansions of the prefix.
        text: The step, without the delimiter.
        token_ids: Its tokens, those of the delimiter or the text's end included; None if the backend hides them or the
            step is only a part of what was generated.
        tokens: Generated tokens, what was cut included.
        logprob: Summed raw log-probability of its tokens, in nats; None if unknown.
        ended: Why it ended.
        duplicate_of: The `index` of the first sample of the prefix that says the same and goes on or ends alike; None
            if this is the first.
        after: The prefix with this step.
    """

    index: int
    text: str
    token_ids: tuple[int, ...] | None
    tokens: int
    logprob: float | None
    ended: Ended
    duplicate_of: int | None
    after: Prefix

    @property
    def terminal(self) -> bool:
        """Whether the reply has ended or stated its answer."""
        return self.after.terminal

    @property
    def whole(self) -> bool:
        """Whether neither budget nor caller cut it."""
        return self.ended not in ("budget", "cancelled")


@dataclass(frozen=True)
class Expansion:
    """What became of one prefix.

    Attributes:
        samples: Its steps in order of index, duplicates among them.
        empties: Continuations without a text: a delimiter or the text's end at once.
        failed: Samples that failed alone.
        unasked: Samples that the budget did not cover.
    """

    samples: tuple[StepSample, ...] = ()
    empties: tuple[StepSample, ...] = ()
    failed: int = 0
    unasked: int = 0

    @property
    def distinct(self) -> tuple[StepSample, ...]:
        """The steps that are whole and say something new: what a search goes on with."""
        return tuple(s for s in self.samples if s.duplicate_of is None and s.whole)


@dataclass(frozen=True)
class Expanded:
    """What one call made.

    Attributes:
        expansions: One for each prefix, in order.
        tokens: All tokens generated, those of duplicates, empties, failures and cut ends included.
        rounds: Batches it took: 1, and one more for each time that steps had to go on.
        spent: Whether the budget kept something from being sampled to its end.
    """

    expansions: tuple[Expansion, ...] = ()
    tokens: int = 0
    rounds: int = 0
    spent: bool = False


__all__ = ["Expanded", "Expansion", "StepOptions", "StepSample", "StepSampler"]


@dataclass(eq=False)
class _Growing:
    """A step while it is sampled.

    Attributes:
        position: Which of the given prefixes it continues.
        room: Tokens it may still have.
        ids: Its tokens; None once they are not known.
        free: Whether it is sampled without stop strings.
    """

    position: int
    prefix: Prefix
    room: int
    index: int = -1
    text: str = ""
    ids: tuple[int, ...] | None = ()
    tokens: int = 0
    logprob: float | None = 0.0
    free: bool = False
    ended: Ended | None = None
    failed: bool = False

    @property
    def before(self) -> str:
        """All of the reply so far."""
        return self.prefix.text + self.text

    @property
    def before_ids(self) -> tuple[int, ...] | None:
        """Its tokens."""
        known = self.prefix.token_ids
        return None if known is None or self.ids is None else (*known, *self.ids)


@dataclass
class _Tally:
    tokens: int = 0
    rounds: int = 0
    spent: bool = False
    unasked: dict[int, int] = field(default_factory=lambda: defaultdict(int))


class StepSampler:
    """Continues the beginnings of replies to one question, within one run.

    Calls must follow one another: which samples of a prefix a call gets depends on what was asked before it. A run that
    is resumed and makes the same calls gets the same steps and pays for none that the run store has.

    Models that cannot continue a given beginning are asked to go on from it; what they repeat is cut. Where a backend
    takes no stop strings, a step is sampled up to its most tokens and cut at the first delimiter, and what lies behind
    is counted and lost.

    Args:
        model: The model.
        prompt: The question as it is put to the model.
        question: It again: the kind of its answer tells when a step states it.
        run: The run that pays.
        options: How steps are sampled.
    """

    def __init__(
        self, model: MeteredModel, prompt: Prompt, question: Question, run: Run, options: StepOptions | None = None
    ) -> None:
        self.options = options or StepOptions()
        self._model, self._question, self._run = model, question, run
        self._continuations = Continuations(model, prompt, run, "step")
        self._seen: dict[Prompt, dict[tuple[str, bool], int]] = {}
        self._stops = True

    async def expand(
        self,
        prefixes: Sequence[Prefix],
        k: int = 1,
        *,
        max_tokens: int | None = None,
        temperature: float | None = None,
        keep_tokens: int = 0,
    ) -> Expanded:
        """Sample `k` next steps of each prefix, all of them as one batch.

        A prefix that is given twice gets twice as many samples. A token budget that does not cover `max_step_tokens`
        for all is shared equally, and what it cuts goes on as long as something is left.

        Args:
            prefixes: The beginnings, most important first: these are asked for where the budget covers not all.
            k: Samples of each.
            max_tokens: Most tokens of a step, if fewer than the options allow.
            temperature: In place of the options'.
            keep_tokens: Tokens of the budget that are not to be touched.

        Raises:
            UserError: A prefix is terminal, or `k` is no positive number.
        """
        if k < 1:
            raise UserError(f"{k} continuations of each prefix cannot be sampled", hint="ask for at least 1")
        for i, prefix in enumerate(prefixes):
            if prefix.terminal:
                raise UserError(f"prefix {i} has ended: there is no next step", hint="expand open prefixes alone")
        cap = min(self.options.max_step_tokens, max_tokens or self.options.max_step_tokens)
        every = [_Growing(i, prefix, cap) for i, prefix in enumerate(prefixes) for _ in range(k)]
        tally = _Tally()
        pending = every
        while pending:
            pending = await self._round(pending, self._sampling(temperature), keep_tokens, tally)
        expansions = tuple(
            self._expansion(prefix, [g for g in every if g.position == i], tally.unasked[i])
            for i, prefix in enumerate(prefixes)
        )
        return Expanded(expansions, tally.tokens, tally.rounds, tally.spent)

    def _sampling(self, temperature: float | None) -> SamplingParams:
        options = self.options
        wanted = options.temperature if temperature is None else temperature
        return SamplingParams(temperature=wanted, top_p=options.top_p, top_k=options.top_k)

    # -- one round

    async def _round(
        self, pending: list[_Growing], sampling: SamplingParams, keep: int, tally: _Tally
    ) -> list[_Growing]:
        """Ask for as many of these as the budget covers, at once; returns those that go on or are still to come."""
        batch, share = self._covered(pending, keep)
        rest = pending[len(batch) :]
        if not batch:
            self._leave_out(rest, tally)
            return []
        try:
            return [*await self._ask(batch, share, sampling, tally), *rest]
        except LimitExceeded as e:
            self._run.note_limit(e)
            self._leave_out(pending, tally)
            return []
        except CapabilityMissing as e:
            if e.feature != "stop" or not self._stops:
                raise
            self._stops = False
            self._run.degrade("the model takes no stop strings; steps were cut at the delimiter after they were made")
            return pending

    def _covered(self, pending: list[_Growing], keep: int) -> tuple[list[_Growing], int | None]:
        """The first ones that the budget covers, and the most tokens of each where that is less than they may have."""
        ledger = self._run.ledger
        left = max(0.0, ledger.left("tokens") - keep)
        count, share, limit = len(pending), None, None
        if left < sum(g.room for g in pending):
            count, share = shared_out(left, count, self.options.max_step_tokens)
            limit = None if count else "tokens"
        groups: set[tuple[Prompt, int, bool]] = set()
        for i, growing in enumerate(pending[:count]):
            groups.add(self._group(growing, share))
            if len(groups) > ledger.left("calls"):
                count = i
                limit = None if count else "calls"
                break
        if limit is not None:
            self._run.note_limit(ledger.refuse("tokens" if limit == "tokens" else "calls"))
        return pending[:count], share

    def _leave_out(self, growing: Sequence[_Growing], tally: _Tally) -> None:
        """End what the budget does not cover."""
        tally.spent = tally.spent or bool(growing)
        for one in growing:
            if one.index < 0:
                tally.unasked[one.position] += 1
            else:
                one.ended = "budget"

    def _group(self, growing: _Growing, share: int | None) -> tuple[Prompt, int, bool]:
        """What samples that are asked for together have in common: prompt, most tokens, whether there are stops."""
        prompt = self._continuations.prompt_after(growing.before, growing.before_ids)
        return prompt, growing.room if share is None else min(growing.room, share), self._stops and not growing.free

    async def _ask(
        self, batch: list[_Growing], share: int | None, sampling: SamplingParams, tally: _Tally
    ) -> list[_Growing]:
        groups: dict[tuple[Prompt, int, bool], list[_Growing]] = defaultdict(list)
        for growing in batch:
            groups[self._group(growing, share)].append(growing)
        requests = []
        for (prompt, most, stops), members in groups.items():
            asked = sampling.model_copy(
                update={
                    "max_tokens": most,
                    "stop": (self.options.delimiter,) if stops else (),
                    "seed": self._continuations.seed(prompt),
                }
            )
            indices = self._continuations.take(prompt, len(members))
            requests.append(Request(prompt=prompt, sampling=asked, samples=indices))
        made = await self._model.generate(requests)
        tally.rounds += 1
        further: list[_Growing] = []
        for request, members, completions in zip(requests, groups.values(), made, strict=True):
            for growing, completion in zip(members, completions, strict=True):
                tally.tokens += completion.usage.completion_tokens
                growing.index = completion.sample_index if growing.index < 0 else growing.index
                if not completion.ok:
                    growing.failed = True
                    continue
                self._add(growing, completion)
                stopped = completion.finish_reason == "stop" and request.sampling.stop
                if self._at_stop(growing, completion) if stopped else self._cut(growing, completion):
                    further.append(growing)
        tally.spent = tally.spent or any(g.ended == "budget" for g in batch)
        return sorted(further, key=batch.index)

    def _add(self, growing: _Growing, completion: Completion) -> None:
        """Put a completion behind what there is of the step."""
        said = completion.text
        if self._continuations.approximate(growing.before):
            said = without_repeated((*growing.prefix.steps, growing.text), said)
            growing.ids = None
        count = completion.usage.completion_tokens
        known = bool(completion.token_ids) or not count
        growing.text += said
        growing.tokens += count
        growing.room -= count
        growing.ids = (*growing.ids, *completion.token_ids) if known and growing.ids is not None else None
        more = completion.logprob
        growing.logprob = None if growing.logprob is None or more is None else growing.logprob + more

    def _at_stop(self, growing: _Growing, completion: Completion) -> bool:
        """End one that met a delimiter or the text's end; returns whether it goes on."""
        if not growing.text.strip() and completion.text.strip():
            # the model began its reply anew: all of it is needed to see what it adds
            growing.free, growing.ids, growing.logprob = True, None, None
            growing.room = self.options.max_step_tokens + len(growing.prefix.text)
            return True
        within = is_open(growing.before)
        if not within and self._states_answer(growing, growing.text):
            growing.ended = "answer"
        elif self._ends_text(completion):
            growing.ended = "end"
        elif not within:
            growing.ended = "delimiter"
        else:
            growing.text += self.options.delimiter
            if growing.room > 0:
                return True
            growing.ended = "cap"
        return False

    def _ends_text(self, completion: Completion) -> bool:
        """Whether the text ended with this sample; where the backend does not tell, only the step is taken to have."""
        if completion.stopped_by is None:
            self._run.degrade(
                f"{self._model.name} does not tell the end of a step from the end of the text; "
                "a step that states no answer was taken for one that goes on"
            )
        return completion.stopped_by == ""

    def _cut(self, growing: _Growing, completion: Completion) -> bool:
        """End one that no stop string ended; returns whether it goes on."""
        reason = completion.finish_reason
        if growing.free or not self._stops:
            at = first_boundary(growing.text, self.options.delimiter, growing.prefix.text)
            if at is not None:
                growing.text, growing.ended = growing.text[:at], "delimiter"
                growing.ids, growing.logprob = None, None
                if self._states_answer(growing, growing.text):
                    growing.ended = "answer"
                return False
        if reason == "stop":
            growing.ended = "end"
        elif self._states_answer(growing, whole_sentences(growing.text)):
            growing.ended = "answer"
        elif reason == "cancelled":
            growing.ended = "cancelled"
        elif reason == "length" and growing.room <= 0:
            growing.ended = "cap"
        elif reason == "length" and growing.before_ids is not None and self._continuations.exact:
            return True  # its share of the budget is spent: it goes on if others have left something
        else:
            growing.ended = "budget"
        return False

    def _states_answer(self, growing: _Growing, step: str) -> bool:
        """Whether the step says, by a box or in so many words, what the final answer is."""
        before = growing.prefix.text
        found = extract(before + step, self._question)
        return found is not None and found.stated and found.start >= len(before)

    # -- results

    def _expansion(self, prefix: Prefix, grown: Sequence[_Growing], unasked: int) -> Expansion:
        prompt = self._continuations.prompt_after(prefix.text, prefix.token_ids)
        seen = self._seen.setdefault(prompt, {})
        samples: list[StepSample] = []
        empties: list[StepSample] = []
        for growing in grown:
            if growing.ended is None:
                continue
            sample = self._sample(growing)
            if not sample.text.strip():
                empties.append(sample)
                continue
            if sample.whole:
                first = seen.setdefault((normal_step(sample.text), sample.terminal), sample.index)
                sample = replace(sample, duplicate_of=None if first == sample.index else first)
            samples.append(sample)
        failed = sum(growing.failed for growing in grown)
        return Expansion(tuple(samples), tuple(empties), failed, unasked)

    def _sample(self, growing: _Growing) -> StepSample:
        assert growing.ended is not None
        prefix = growing.prefix
        closing = self.options.delimiter if growing.ended == "delimiter" else ""
        after = prefix.then(
            growing.text,
            growing.before + closing,
            growing.before_ids,
            growing.logprob,
            growing.tokens,
            terminal=growing.ended in ("answer", "end"),
        )
        return StepSample(
            index=growing.index,
            text=growing.text,
            token_ids=growing.ids,
            tokens=growing.tokens,
            logprob=growing.logprob,
            ended=growing.ended,
            duplicate_of=None,
            after=after,
        )
