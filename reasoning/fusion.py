"""`fusion`: drafts of one or several models, and a synthesis of them that is streamed.

    1. drafts      all at once
    2. synthesis   from the drafts, anonymous and in random order; clients read it as it is generated, unless the
                   answer may still be repaired

Source: Wang, Wang, Athiwaratkun, Zhang, Zou, "Mixture-of-Agents Enhances Large Language Model Capabilities" (2024,
arXiv:2406.04692), section 2, in outline: models propose, one aggregates. Anonymity and the list of differing results
are ours.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final

from pydantic import Field, JsonValue

from ..core.budget import CostBound
from ..core.concurrency import gather
from ..core.errors import BackendError, BudgetExceeded, InvalidResponse, ReasonError, StoreError
from ..core.events import CandidateAdded, TextDelta, VoteUpdated
from ..core.messages import Chunk, Completion, Prompt, Request, SamplingParams
from ..core.run import Run
from ..core.settings import JURY
from ..core.types import Candidate, Question, Solution, Stopped
from ..serving.metered.model import MeteredModel
from ..serving.model import Feature
from .anonymity import MATERIAL_NOTICE, Blinding, Roster, Scrubber, make_blinding, show_answers
from .answers.equivalence import answer_classes
from .answers.extraction import answer_kind, read_candidate
from .conclude import conclude
from .prompts import fit_prompt, last_step_form, question_prompt, step_by_step_instruction
from .quoting import quote_line
from .sampling import leading_solution
from .strategy import MAX_TOKENS, Models, Parameters, Stability

MIN_DRAFTS: Final = 3
"""Minimum number of drafts unless `n` is set."""
DRAFT_TEMPERATURE, SYNTHESIS_TEMPERATURE = 0.7, 0.5
SYNTHESIS_STAGE: Final = "synthesis"
"""Name of the stage whose call generates the answer's text."""


class Fusion:
    """Drafts of one or several models, fused into one answer that is streamed.

    The drafts are of the jurors' models in turn, or of the main model; the synthesis is of the chair's model, or of the
    main model. A single draft is the answer.

    Model calls: 1 for each model of the drafts (more where thoughts are cut), and 1 for the synthesis.

    Confidence is the share of the drafts that reach the answer; free texts have none.

    Differs: one layer of drafts; the aggregator does not know whose drafts it reads.
    """

    name: ClassVar[str] = "fusion"
    summary: ClassVar[str] = "draft answers with several models, then stream one answer made of them"
    paper: ClassVar[str] = "Wang et al. 2024, arXiv:2406.04692"
    confidence: ClassVar[str] = "The share of the drafts that reach the answer; none for free texts."
    family: ClassVar[str] = "several models"
    when_to_use: ClassVar[str] = "Several models; open questions, streamed (--juror)."
    stability: ClassVar[Stability] = "experimental"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main", JURY)

    class Config(Parameters):
        """Parameters of `fusion`."""

        n: Annotated[
            int | None,
            Field(ge=2, le=26, description="number of drafts; null is one for each given model, at least 3"),
        ] = None
        temperature: Annotated[
            float | None,
            Field(ge=0, le=100, description="sampling temperature of drafts; null for 0.7 where the model takes one"),
        ] = None
        max_tokens: Annotated[
            int, Field(ge=1, le=MAX_TOKENS, description="maximum tokens of a draft, its thought apart")
        ] = 512
        synthesis_tokens: Annotated[
            int, Field(ge=1, le=MAX_TOKENS, description="maximum tokens of the answer, its thought apart")
        ] = 1000

    def __init__(self, config: Config) -> None:
        self.config = config

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        """Answer the question.

        Raises:
            BackendError: Every draft failed.
        """
        return await _Fusion(self.config, question, models, run).solve()


class ReleasedText:
    """The text of a run's answer as far as clients may have it.

    Args:
        is_final: Whether nothing that follows can replace the text; else no client gets it before the run's end.

    Attributes:
        text: The text.
    """

    def __init__(self, run: Run, *, is_final: bool) -> None:
        self.text = ""
        self._run, self._is_final = run, is_final
        self._num_seen = 0

    @property
    def is_seen(self) -> bool:
        """Whether a client may have read some of it."""
        return self._num_seen > 0

    def add(self, text: str) -> None:
        """Release more text."""
        if text and self._is_final and self._run.stream_text:
            self._run.emit(TextDelta(request=0, sample=0, text=text, tokens=0, answer_start=len(self.text)))
            self._num_seen = len(self.text) + len(text)
        self.text += text

    def truncate(self, length: int) -> None:
        """Take back text that no client has seen."""
        self.text = self.text[: max(length, self._num_seen)]


@dataclass(frozen=True)
class _Draft:
    """A draft that the synthesis reads.

    Attributes:
        index: Its number among all drafts.
        result: Its short answer; None for a free text, or without one.
    """

    index: int
    candidate: Candidate
    model: MeteredModel
    result: str | None


class _Fusion:
    """One question being answered."""

    def __init__(self, config: Fusion.Config, question: Question, models: Models, run: Run) -> None:
        self._config, self._question, self._models, self._run = config, question, models, run
        self._is_closed = answer_kind(question) != "text"
        self._drafts: list[_Draft] = []
        self._stopped: Stopped = "done"
        self._sampling = SamplingParams(default_temperature=SYNTHESIS_TEMPERATURE, max_tokens=config.synthesis_tokens)

    async def solve(self) -> Solution:
        with self._run.stage("drafts"):
            await self._write_drafts()
        drafts = [draft for draft in self._drafts if draft.candidate.text.strip()]
        if not self._drafts:
            return Solution(chosen=None, stopped=self._stopped)
        classes = await answer_classes([draft.result for draft in drafts], self._question, self._run)
        fallback = self._of_drafts(drafts, classes)
        self._run.set_best(fallback)
        if len(drafts) < 2:
            self._run.degrade("there is a single draft: it is the answer")
            return fallback
        with self._run.stage(SYNTHESIS_STAGE):
            return await self._synthesise(drafts, classes, fallback)

    # -- drafts

    async def _write_drafts(self) -> None:
        """Request all drafts at once, those of one model as one call; a model that fails, fails its own ones alone."""
        config, run, jury = self._config, self._run, self._models.jury
        n = config.n or max(MIN_DRAFTS, len(jury))
        prompt = question_prompt(self._question, step_by_step_instruction(self._question))
        # what remains is shared equally by the drafts and the synthesis, but never more than these may need
        reserve = min(self._models.main.max_sample_tokens(prompt, self._sampling), run.ledger.remaining("tokens") / 2)
        budget = run.ledger.view(CostBound(tokens=int(reserve)))
        tokens, thinking = budget.tokens_per_sample(n), run.ledger.remaining("thinking_tokens") / (n + 1)
        indices = {model: tuple(i for i in range(n) if jury[i % len(jury)] is model) for model in jury[:n]}
        try:
            with budget.cutoff() as enough:
                errors = await gather(
                    [
                        self._draft(model, own, model.within(self._request(prompt, len(own)), tokens, thinking), enough)
                        for model, own in indices.items()
                    ]
                )
        except BudgetExceeded as e:
            errors = [self._limit(e)]
        failed = [error for error in errors if isinstance(error, BackendError | StoreError)]
        if failed and not self._drafts:
            raise failed[0]
        if failed:
            run.degrade(f"{n - len(self._drafts)} of {n} drafts failed")
        cut = any(draft.candidate.finish_reason in ("length", "thinking") for draft in self._drafts)
        if cut and min(tokens, thinking) < math.inf:
            run.degrade("the budget shortened the drafts, so that it covers the synthesis")

    def _request(self, prompt: Prompt, n: int) -> Request:
        config = self._config
        sampling = SamplingParams(
            temperature=config.temperature, default_temperature=DRAFT_TEMPERATURE, max_tokens=config.max_tokens, n=n
        )
        return Request(prompt=prompt, sampling=sampling)

    async def _draft(
        self, model: MeteredModel, indices: Sequence[int], request: Request, enough: asyncio.Event | None
    ) -> ReasonError | None:
        """Add the drafts of one model; returns why some are missing."""
        run = self._run
        try:
            (completions,) = await model.generate([request], enough=enough)
            completions = await conclude(model, [(request.prompt, one) for one in completions], self._question, run)
        except (BackendError, StoreError) as e:
            if isinstance(e, StoreError) and run.recording:
                raise  # but a replay has no response where the run itself got an error
            return e
        except BudgetExceeded as e:
            return self._limit(e)
        for i, completion in zip(indices, completions, strict=True):
            if completion.finish_reason == "cancelled":  # the same in a replay
                self._limit(run.ledger.exceeded("seconds"))
            elif completion.finish_reason == "budget":
                self._stopped = "budget"
            if completion.ok and completion.finish_reason != "cancelled":
                candidate = read_candidate(completion, self._question)
                self._drafts.append(_Draft(i, candidate, model, candidate.answer if self._is_closed else None))
                run.emit(CandidateAdded(index=i, answer=candidate.answer))
        self._drafts.sort(key=lambda draft: draft.index)
        run.set_best(leading_solution([draft.candidate for draft in self._drafts]))
        failure = next((one.failure for one in completions if one.failure is not None), None)
        return None if failure is None else InvalidResponse(f"every sample failed: {failure.message}")

    def _limit(self, error: BudgetExceeded) -> BudgetExceeded:
        self._run.record_limit(error)
        self._stopped = "budget"
        return error

    def _of_drafts(self, drafts: Sequence[_Draft], classes: Sequence[Sequence[int]]) -> Solution:
        """The most frequent answer of the drafts, else the first draft with a text."""
        candidates = tuple(draft.candidate for draft in self._drafts)
        notes: dict[str, JsonValue] = {
            "drafts": [
                {"model": draft.model.name, "answer": draft.candidate.answer, "tokens": draft.candidate.tokens}
                for draft in drafts
            ]
        }
        if not drafts:
            return Solution(chosen=0, candidates=candidates, stopped=self._stopped, notes=notes)
        members = max(classes, key=len, default=())
        first = drafts[members[0]] if members else drafts[0]
        if classes:
            ranked = sorted(classes, key=lambda own: -len(own))
            votes = {str(drafts[own[0]].result): len(own) for own in ranked}
            self._run.emit(VoteUpdated(votes=votes, total=len(drafts)))
        return Solution(
            chosen=candidates.index(first.candidate),
            candidates=candidates,
            confidence=len(members) / len(drafts) if members else None,
            stopped=self._stopped,
            notes=notes,
        )

    # -- synthesis

    async def _synthesise(
        self, drafts: Sequence[_Draft], classes: Sequence[Sequence[int]], fallback: Solution
    ) -> Solution:
        """The answer made of the drafts; theirs, if it cannot be generated."""
        run, model = self._run, self._models.main
        released = ReleasedText(run, is_final=self._is_final())
        try:
            prompt = await self._synthesis_prompt(model, drafts, classes)
            if prompt is None:
                run.degrade(f"the drafts do not fit the context of {model.name}: the answer is that of the drafts")
                return fallback
            completion = await self._generate(model, Request(prompt=prompt, sampling=self._sampling), released)
        except (BackendError, BudgetExceeded, StoreError) as e:
            # a replay has no response where the run itself got an error
            if released.is_seen or (isinstance(e, StoreError) and run.recording):
                raise
            why = "the budget does not cover it"
            if isinstance(e, BudgetExceeded):
                run.record_limit(e)
            else:
                why = "the model failed"
            run.degrade(f"there is no synthesis, {why}: the answer is that of the drafts")
            stopped: Stopped = "budget" if isinstance(e, BudgetExceeded) else fallback.stopped
            return fallback.model_copy(update={"stopped": stopped})
        return await self._solution(completion, released, drafts, classes, fallback)

    async def _generate(self, model: MeteredModel, request: Request, released: ReleasedText) -> Completion:
        """Generate the answer, releasing its text as it comes."""
        streamed = ""

        def listen(chunk: Chunk) -> bool:
            nonlocal streamed
            if chunk.restarts:
                released.truncate(0)
                streamed = ""
            streamed += chunk.text
            released.add(chunk.text)
            return False

        ((completion,),) = await model.generate([request], listen)
        if completion.failure is not None:
            raise InvalidResponse(completion.failure.message)
        if completion.finish_reason == "thinking":
            (completion,) = await conclude(model, [(request.prompt, completion)], self._question, self._run)
        if completion.text.startswith(streamed):
            released.add(completion.text[len(streamed) :])
        return completion.model_copy(update={"text": released.text})

    def _is_final(self) -> bool:
        """Whether the answer's text is what clients get: nothing converts, refuses, repairs or replaces it afterwards.

        Another strategy that calls this one may discard its answer.
        """
        config, question = self._run.config, self._question
        if config.strategy != Fusion.name or question != self._run.question:
            return False
        return question.answer_schema is None and not config.may_be_repaired

    async def _synthesis_prompt(
        self, model: MeteredModel, drafts: Sequence[_Draft], classes: Sequence[Sequence[int]]
    ) -> Prompt | None:
        """The prompt with the drafts, anonymous and in random order; None if it does not fit the model's context."""
        question, run = self._question, self._run
        by_index = {draft.index: draft for draft in drafts}
        names = tuple(dict.fromkeys([*(draft.model.name for draft in drafts), model.name]))
        scrub = Scrubber(Roster(models=names), question).scrub
        texts = {index: scrub(draft.candidate.text) for index, draft in by_index.items()}
        blind = make_blinding(tuple(texts), question, run.derive_seed("fusion", "order"))
        differences = self._differences(drafts, classes, blind)

        def make_prompt(shortened: Sequence[str]) -> Prompt:
            shown = show_answers(
                blind,
                dict(zip(blind.jurors, shortened, strict=True)),
                choices={index: draft.result for index, draft in by_index.items()},
                max_chars=2 * max(map(len, shortened)),  # quoting makes texts a little longer
            )
            return question_prompt(question, "\n\n".join([_INTRODUCTION, shown, *differences, self._task()]))

        own_texts = [texts[index] for index in blind.jurors]
        prompt, max_chars = await fit_prompt(model, run, make_prompt, own_texts, self._sampling)
        if prompt is not None and max_chars is not None:
            run.degrade(f"the drafts do not fit the context of {model.name}: it saw {max_chars} characters of each")
        return prompt

    def _differences(self, drafts: Sequence[_Draft], classes: Sequence[Sequence[int]], blind: Blinding) -> list[str]:
        """The results that the drafts come to, if they differ, as a paragraph of the prompt."""
        if not self._is_closed or len(classes) < 2:
            return []
        by_class = [
            (sorted(_letter(blind, drafts[i].index) for i in own), quote_line(str(drafts[own[0]].result)))
            for own in classes
        ]
        results = "; ".join(
            f"{'answers' if len(letters) > 1 else 'answer'} {' and '.join(letters)}: {result}"
            for letters, result in sorted(by_class)
        )
        return [
            f"They come to different results: {results}. Decide which is correct by checking the reasoning, not by "
            "counting votes."
        ]

    def _task(self) -> str:
        form = (
            f"End with a final line {last_step_form(self._question)}."
            if self._is_closed
            else "Start with the answer itself."
        )
        return (
            "Combine them into one answer to the question. Keep what is correct in each, resolve the differences, and "
            "leave out anything doubtful. Do not mention the answers, their letters, or that there were several. "
            f"{form}"
        )

    async def _solution(
        self,
        completion: Completion,
        released: ReleasedText,
        drafts: Sequence[_Draft],
        classes: Sequence[Sequence[int]],
        fallback: Solution,
    ) -> Solution:
        if not completion.text.strip():
            self._run.degrade("the synthesis has no text: the answer is that of the drafts")
            return fallback
        candidate = read_candidate(completion, self._question)
        if candidate.answer is None and classes:
            self._run.degrade("the synthesis states no short answer: that of most drafts follows it")
            result = drafts[max(classes, key=len)[0]].result
            released.add(f"\n\nAnswer: {result}")
            candidate = candidate.model_copy(update={"text": released.text, "answer": result})
        stopped: Stopped = "budget" if completion.finish_reason in ("budget", "thinking") else fallback.stopped
        if candidate.answer is None:  # clients may have the text, which nothing that is shorter may replace
            candidate = candidate.model_copy(update={"answer": candidate.text.strip()})
        stated = candidate.answer if self._is_closed else None
        results = [drafts[own[0]].result for own in classes]
        equal = next((e for e in await answer_classes([stated, *results], self._question, self._run) if 0 in e), None)
        confidence = None if equal is None else sum(len(classes[i - 1]) for i in equal if i) / len(drafts)
        candidates = (*fallback.candidates, candidate)
        self._run.emit(CandidateAdded(index=len(candidates) - 1, answer=candidate.answer))
        notes = {**fallback.notes, "results": len(classes)}
        solution = Solution(
            chosen=len(candidates) - 1, candidates=candidates, confidence=confidence, stopped=stopped, notes=notes
        )
        self._run.set_best(solution)
        return solution


_INTRODUCTION: Final = f"Several people have answered this question; their answers are quoted below. {MATERIAL_NOTICE}"


def _letter(blind: Blinding, draft: int) -> str:
    letter = blind.letter(draft)
    assert letter is not None  # every draft is shown
    return letter
