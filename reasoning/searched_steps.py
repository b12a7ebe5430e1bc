"""`SearchedSteps`: the parameters of every strategy that searches over steps, and what they have in common."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from pydantic import Field, JsonValue

from ..core.answer import Candidate, Solution, Stopped
from ..core.events import CandidateFound
from ..core.messages import Prompt
from ..core.question import Question
from ..core.run import Run
from .prompts import ask, in_steps
from .search.asking import StepSearch
from .search.limits import Limits, SearchOptions
from .search.tree import Node
from .self_consistency import SelfConsistency
from .step_samples import StepOptions
from .step_scoring import StepScoring
from .step_search import Found, SearchDesk
from .strategy import Models
from .weighed_vote import weighed_vote

N = TypeVar("N", bound=Node)
O = TypeVar("O", bound=SearchOptions)  # noqa: E741


class SearchedSteps(StepScoring, SearchOptions):
    """Parameters of a strategy that searches over steps; those of its search come beside them."""

    temperature: Annotated[float, Field(gt=0, le=100, description="sampling temperature")] = 0.8
    top_p: Annotated[float, Field(gt=0, le=1, description="nucleus mass")] = 1.0
    top_k: Annotated[int, Field(ge=0, description="most likely tokens kept; 0 keeps all")] = 0
    delimiter: Annotated[str, Field(min_length=1, description="what ends a step; by default a blank line")] = "\n\n"
    instruction: Annotated[str | None, Field(description="text behind the question; by default: in steps")] = None
    system: Annotated[str, Field(description="system message; empty leaves it to the model")] = ""

    def prompt(self, question: Question) -> Prompt:
        """What is continued step by step."""
        return ask(question, self._instruction(question), system=self.system)

    def _instruction(self, question: Question) -> str:
        return in_steps(question) if self.instruction is None else self.instruction

    def options(self, kind: type[O], run: Run) -> O:
        """The search's own part of the parameters, within what the run may spend."""
        chosen: dict[str, Any] = {name: getattr(self, name) for name in kind.model_fields}
        left = run.ledger.left("tokens")
        if left < math.inf:
            tokens = max(1, min(int(left), self.limits.gen_tokens or int(left)))
            finish = min(self.limits.finish_tokens, max(1, tokens // 4))
            own = self.limits.model_dump() | {"gen_tokens": tokens, "finish_tokens": finish}
            chosen["limits"] = Limits.model_validate(own)
        return kind.model_validate(chosen)

    async def search(self, search: StepSearch[N, O], question: Question, models: Models, run: Run) -> Found[N] | None:
        """Search to the end.

        Returns:
            What was found; None if nothing can score this model's steps.

        Raises:
            UserError: A reward model is to score, and none was given.
            CapabilityMissing: The model cannot do what scores.
        """
        prompt = self.prompt(question)
        reward = self.source(prompt, question, models, run)
        if reward is None:
            return None
        steps = StepOptions(
            delimiter=self.delimiter,
            max_step_tokens=self.max_step_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
        )
        desk = SearchDesk(search, models.main, prompt, question, run, reward, self.aggregate, steps)
        return await desk.search()

    async def without_search(self, n: int, question: Question, models: Models, run: Run) -> Solution:
        """Self-consistency of `n` chains, for a model whose steps nothing can score."""
        run.degrade(f"nothing can score the steps of {models.main.name}; used self-consistency of {n} chains")
        config = SelfConsistency.Config(
            n=n,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            instruction=self._instruction(question),
            system=self.system,
        )
        return await SelfConsistency(config).solve(question, models, run)

    def best(self, found: Found[N], run: Run, **notes: JsonValue) -> Solution:
        """The solution that the search would return; its confidence is the score that it has."""
        chosen = found.chosen
        return self._solution(found, run, chosen, None if chosen is None else found.candidates[chosen].score, notes)

    def highest(self, found: Found[N], run: Run, **notes: JsonValue) -> Solution:
        """The solution of the highest score, of equals the one found first; the search's own choice if none has one."""
        scored = [(c.score, -i) for i, c in enumerate(found.candidates) if c.score is not None]
        if not scored:
            return self.best(found, run, **notes)
        score, place = max(scored)
        return self._solution(found, run, -place, score, notes)

    async def vote(
        self,
        found: Found[N],
        question: Question,
        run: Run,
        weights: Sequence[float] | None = None,
        **notes: JsonValue,
    ) -> Solution:
        """The answer with the largest sum of weights, and of its solutions the one of the largest weight.

        Its confidence is its share of all weights. Without any answer, or any weight, it is as `best`.

        Args:
            found: What was found.
            question: The question.
            run: The run.
            weights: Weight of each candidate, at least 0; by default its score, or 0 without one.
            **notes: For the solution's notes.
        """
        weights = [candidate.score or 0.0 for candidate in found.candidates] if weights is None else weights
        voted = await weighed_vote(found.candidates, weights, question, run)
        if voted is None:
            return self.best(found, run, **notes)
        return self._solution(found, run, voted.chosen, voted.share, {"weights": dict(voted.sums), **notes})

    def _solution(
        self, found: Found[N], run: Run, chosen: int | None, confidence: float | None, notes: dict[str, JsonValue]
    ) -> Solution:
        candidates: tuple[Candidate, ...] = found.candidates
        for i, candidate in enumerate(candidates):
            run.emit(CandidateFound(index=i, answer=candidate.answer, score=candidate.score))
        stopped: Stopped = "budget" if found.spent or self._short_of(found, run) else "done"
        ledger = found.outcome.ledger
        cost: dict[str, JsonValue] = {
            "tokens": ledger.gen_tokens,
            "prm_passes": ledger.prm_passes,
            "expansions": ledger.expansions,
            "duplicates": ledger.duplicates,
        }
        return Solution(
            chosen=chosen,
            candidates=candidates,
            confidence=None if confidence is None else min(1.0, confidence),
            stopped=stopped,
            notes={"search": cost, "ended": found.outcome.stopped, **notes},
        )

    def _short_of(self, found: Found[N], run: Run) -> bool:
        """Whether the search ended for the run's tokens rather than its own limit."""
        limit, own = run.config.budget.tokens, self.limits.gen_tokens
        if found.outcome.stopped != "tokens" or limit is None or (own is not None and own <= limit):
            return False
        run.note_limit(run.ledger.refuse("tokens"))
        return True
