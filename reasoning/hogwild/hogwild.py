"""`hogwild`: workers on one shared cache solve a problem together.

Source: Rodionov, Garipov, Shutova, Yakushev, Schultheis, Egiazarian, Sinitsin, Kuznedelev, Alistarh 2025, "Hogwild!
Inference: Parallel LLM Generation via Concurrent Attention", arXiv:2504.06261.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ...core.answer import Candidate, Solution
from ...core.answer import Step as CandidateStep
from ...core.errors import CapabilityMissing
from ...core.events import CandidateFound
from ...core.messages import Prompt, Sampling
from ...core.question import Question
from ...core.run import Run
from ...serving.metered import MeteredModel
from ...serving.model import Feature
from ...serving.workers import MOST_WORKERS, Layout, Opening
from ..equivalence import Equivalence
from ..strategy import Models, Parameters, Stability
from .finishing import finish
from .gate import require_listed
from .in_rounds import Asking, InRounds, by_message, by_prefix
from .step_end import SEPARATOR
from .team import AnswerRule, Ending, Team
from .together import Together
from .wording import OTHERS, OWN, names_of, opening_prompt

Level = Literal["full", "interleaved", "blackboard"]
"""How much workers see of one another: each token, each finished step as part of one reply, each finished step as a
message."""

_DEGRADED = {
    "interleaved": "hogwild: workers saw one another's finished steps alone (interleaved over prefixes): {model} "
    "cannot share its cache",
    "blackboard": "hogwild: workers saw one another's finished steps alone, each as a message of its own (blackboard): "
    "{model} can neither share its cache nor go on with the beginning of a reply",
}


_FINISH_REASONS: dict[Ending, str] = {
    "answer": "stop",
    "end of text": "stop",
    "passes": "length",
    "context": "length",
    "budget": "budget",
}


class Hogwild:
    """Workers that read one another while they write.

    Model calls: 1 for all passes of the workers, and 1 for the answer where they found none. Without a shared cache 1
    for each step of each worker.

    Differs: a transcript is finished by the model of the workers, greedily, as the authors' program does, through an
    ordinary call. Answers are looked for in finished steps; at the end of the text, in what was being written.
    """

    name: ClassVar[str] = "hogwild"
    summary: ClassVar[str] = "workers on one shared cache that see one another write"
    paper: ClassVar[str] = "Rodionov et al. 2025, arXiv:2504.06261"
    stability: ClassVar[Stability] = "experimental"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main",)

    class Config(Parameters):
        """Parameters of `hogwild`."""

        workers: Annotated[int, Field(ge=1, le=MOST_WORKERS, description="workers")] = 2
        layout: Annotated[Layout, Field(description="what they see of one another, and where")] = "combined"
        level: Annotated[
            Literal["auto"] | Level, Field(description="how much they see; auto is the most that the model can do")
        ] = "auto"
        max_passes: Annotated[
            int, Field(ge=1, description="most forward passes; each worker writes a token in each")
        ] = 1024
        step_tokens: Annotated[int, Field(ge=8, description="most tokens of a step, without a shared cache")] = 256
        check_every: Annotated[
            int, Field(ge=0, description="tokens of all workers between questions whether work is done twice; 0: none")
        ] = 1024
        asked: Annotated[
            Literal["next", "random"], Field(description="who is asked: who begins a step next, or by lot")
        ] = "next"
        answer: Annotated[
            AnswerRule,
            Field(description="first: the first boxed answer; confirmed: one that another worker states too"),
        ] = "first"
        finisher_tokens: Annotated[int, Field(ge=1, description="most tokens of an answer that is asked for")] = 16
        temperature: Annotated[float, Field(ge=0, le=100, description="sampling temperature; 0 is greedy")] = 0.6
        top_p: Annotated[float, Field(gt=0, le=1, description="nucleus mass")] = 0.95
        top_k: Annotated[int, Field(ge=0, description="most likely tokens kept; 0 keeps all")] = 0
        separator: Annotated[str, Field(min_length=1, description="what stands between steps")] = SEPARATOR
        banned: Annotated[
            tuple[str, ...], Field(description="texts: tokens that hold one of them are not drawn (shared cache alone)")
        ] = ()
        any_model: Annotated[bool, Field(description="go on with a model that is not known to work together")] = False

    def __init__(self, config: Config) -> None:
        self.config = config

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        """See `Strategy.solve`."""
        config, model = self.config, models.main
        if config.workers > 1 and not config.any_model:
            require_listed(model.name)
        level = self._level(model, run)
        names = names_of(config.workers)
        prompt = opening_prompt(question, names)
        async with Equivalence() as equivalence:
            team = Team(names, question, config.answer, run, equivalence)
            team.begin()
            if level == "full":
                ending, cost = await self._together(prompt, team, model, run)
            elif level == "interleaved":
                ending, cost = await self._in_rounds(by_prefix(prompt, team), config.separator, team, model, run)
            else:
                ending, cost = await self._in_rounds(by_message(question, team), "", team, model, run)
            text, stated = team.transcript(), team.answered or (team.answers[0] if team.answers else None)
            answer, finished = None if stated is None else stated.answer, False
            if answer is None:
                text, answer = await finish(prompt, team, question, model, run, config.finisher_tokens)
                finished = True
        run.emit(CandidateFound(index=0, answer=answer))
        candidate = Candidate(
            text=text,
            answer=answer,
            steps=tuple(CandidateStep(text=step.text.strip()) for step in team.finished),
            tokens=run.ledger.usage().completion_tokens,
            finish_reason=_FINISH_REASONS[ending],
        )
        notes = {
            "level": level,
            "ended": ending,
            "workers": config.workers,
            "steps": [sum(step.worker == w for step in team.finished) for w in range(config.workers)],
            "answers": [{"worker": a.worker, "answer": a.answer, "pass": a.at} for a in team.answers],
            "answer_at": None if stated is None else stated.at,
            "confirmed": len({a.worker for a in team.answers if stated is not None and a.label == stated.label}) > 1,
            "finisher": finished,
            **cost,
        }
        stopped = "budget" if run.ledger.exhausted is not None else "done"
        return Solution(chosen=0, candidates=(candidate,), stopped=stopped, notes=notes)

    def _level(self, model: MeteredModel, run: Run) -> Level:
        """The level that was asked for, or else the best that the model has; what is lost is told."""
        can: dict[Level, bool] = {
            "full": model.capabilities.kv_sharing,
            "interleaved": model.capabilities.prefix,
            "blackboard": True,
        }
        wanted = self.config.level
        if wanted != "auto":
            if not can[wanted]:
                raise CapabilityMissing("kv_sharing" if wanted == "full" else "prefix", model.name)
            return wanted
        level = next(level for level, has in can.items() if has)
        if level in _DEGRADED and self.config.workers > 1:
            run.degrade(_DEGRADED[level].format(model=model.name))
        return level

    async def _together(
        self, prompt: Prompt, team: Team, model: MeteredModel, run: Run
    ) -> tuple[Ending, dict[str, int]]:
        """Let the workers write on one cache; why they stopped, and what it took."""
        config = self.config
        opening = Opening(
            prompt=prompt,
            workers=config.workers,
            layout=config.layout,
            others=OTHERS,
            own=OWN,
            temperature=config.temperature,
            top_p=config.top_p,
            top_k=config.top_k,
            seed=run.seed,
            banned=config.banned,
        )
        workers = model.workers(opening)
        together = Together(
            workers,
            team,
            layout=config.layout,
            most_passes=config.max_passes,
            separator=config.separator,
            check_every=config.check_every,
            asked=config.asked,
            kept=config.finisher_tokens,
            run=run,
        )
        try:
            ending = await together.work()
        finally:
            await workers.aclose()
        return ending, {"passes": together.passes, "checks": together.checks}

    async def _in_rounds(
        self, asking: Asking, separator: str, team: Team, model: MeteredModel, run: Run
    ) -> tuple[Ending, dict[str, int]]:
        """Let the workers write a step each in turn; why they stopped, and what it took."""
        config = self.config
        sampling = Sampling(
            temperature=config.temperature, top_p=config.top_p, top_k=config.top_k, max_tokens=config.step_tokens
        )
        rounds = InRounds(
            model,
            team,
            asking,
            sampling,
            most_passes=config.max_passes,
            separator=separator,
            kept=config.finisher_tokens,
            run=run,
        )
        return await rounds.work(), {"passes": rounds.passes, "rounds": rounds.rounds}
