"""`hogwild`: workers on one shared KV cache solve a problem together.

Source: Rodionov, Garipov, Shutova, Yakushev, Schultheis, Egiazarian, Sinitsin, Kuznedelev, Alistarh 2025, "Hogwild!
Inference: Parallel LLM Generation via Concurrent Attention", arXiv:2504.06261.
"""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ...core.errors import BudgetExceeded, CapabilityMissing, ContextTooLong, UserError
from ...core.events import CandidateAdded
from ...core.messages import Prompt, Request, SamplingParams
from ...core.run import Run
from ...core.types import Candidate, Question, Solution
from ...core.types import Step as CandidateStep
from ...serving.metered.model import MeteredModel
from ...serving.model import Feature
from ...serving.worker_group import MAX_WORKERS, Layout, WorkerGroupConfig
from ..answers.equivalence import Equivalence
from ..answers.extraction import extract_answer
from ..strategy import Models, Parameters, Stability
from .prompts import OTHERS, OUT_OF_TIME, OWN, PAST, shared_prompt, worker_names
from .team import SEPARATOR, AnswerRule, Ending, Team
from .workers import RoundsLoop, SharedCacheLoop, WorkerPrompt, continue_prefix, one_step_messages

_COLLABORATORS = re.compile(
    r"qwq-?32b|phi-?4-reasoning|deepseek-?r1(?!-distill)|deepseek-reasoner"
    r"|qwen-?3-?(?:8b|14b|30b|32b|235b)",
    re.IGNORECASE,
)
"""Models with which the authors report success; small ones, they say, are poor collaborators."""
LISTED = "QwQ-32B, Phi-4-reasoning-plus, Qwen3 from 8B on, DeepSeek-R1"


def is_listed(model: str) -> bool:
    """Whether the authors report that a model, by its name, collaborates."""
    return _COLLABORATORS.search(re.sub(r"[_ ]", "-", model)) is not None


def require_listed(model: str) -> None:
    """Refuse a model that is not known to collaborate.

    Raises:
        UserError: It is not listed.
    """
    if not is_listed(model):
        raise UserError(
            f"hogwild is not known to work with {model}: small or unlisted models mostly repeat one another",
            hint=f"models that are known to work: {LISTED}; --set any_model=true allows any model",
        )


Level = Literal["full", "interleaved", "blackboard"]
"""What workers see of one another: every token; every finished step, within one response; every finished step, in a
message."""

_DEGRADED = {
    "interleaved": "hogwild: workers saw only one another's finished steps (interleaved over prefixes): {model} "
    "cannot share its cache",
    "blackboard": "hogwild: workers saw only one another's finished steps, each in a new message (blackboard): "
    "{model} can neither share its cache nor continue a response prefix",
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

    Model calls: 1 for all passes of the workers, and 1 for the finisher if they stated no answer. Without a shared
    cache 1 for each step of each worker.

    Differs: the finisher is an ordinary greedy call of the same model, not part of the workers' cache. Answers are
    read from finished steps; at the end of a text also from the unfinished one.
    """

    name: ClassVar[str] = "hogwild"
    summary: ClassVar[str] = "workers on one shared cache that see one another write"
    paper: ClassVar[str] = "Rodionov et al. 2025, arXiv:2504.06261"
    stability: ClassVar[Stability] = "experimental"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main",)

    class Config(Parameters):
        """Parameters of `hogwild`."""

        workers: Annotated[int, Field(ge=1, le=MAX_WORKERS, description="number of workers")] = 2
        layout: Annotated[Layout, Field(description="order of the cache blocks in a worker's view")] = "combined"
        level: Annotated[
            Literal["auto"] | Level,
            Field(description="what workers see of one another; auto is the highest level the model supports"),
        ] = "auto"
        max_passes: Annotated[
            int, Field(ge=1, description="maximum number of forward passes; each worker writes one token per pass")
        ] = 1024
        step_tokens: Annotated[
            int, Field(ge=8, description="maximum tokens of a step, without a shared cache only")
        ] = 256
        check_every: Annotated[
            int, Field(ge=0, description="tokens of all workers between two redundancy checks; 0 turns them off")
        ] = 1024
        check_order: Annotated[
            Literal["next", "random"],
            Field(description="which worker is checked: the next to begin a step, or a random one"),
        ] = "next"
        answer: Annotated[
            AnswerRule,
            Field(description="first: the first boxed answer; confirmed: one that a second worker states too"),
        ] = "first"
        finisher_tokens: Annotated[int, Field(ge=1, description="maximum tokens of the finisher's answer")] = 16
        temperature: Annotated[float, Field(ge=0, le=100, description="sampling temperature; 0 is greedy")] = 0.6
        top_p: Annotated[float, Field(gt=0, le=1, description="nucleus mass")] = 0.95
        top_k: Annotated[int, Field(ge=0, description="number of most likely tokens kept; 0 keeps all")] = 0
        separator: Annotated[str, Field(min_length=1, description="text between two steps")] = SEPARATOR
        banned: Annotated[
            tuple[str, ...],
            Field(description="tokens that contain one of these texts are not sampled, with a shared cache only"),
        ] = ()
        any_model: Annotated[bool, Field(description="allow models that are not known to collaborate")] = False

    def __init__(self, config: Config) -> None:
        self.config = config

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        config, model = self.config, models.main
        if config.workers > 1 and not config.any_model:
            require_listed(model.name)
        level = self._level(model, run)
        names = worker_names(config.workers)
        prompt = shared_prompt(question, names)
        async with Equivalence() as equivalence:
            team = Team(names, question, config.answer, run, equivalence)
            team.begin()
            if level == "full":
                ending, cost = await self._run_shared_cache(prompt, team, model, run)
            elif level == "interleaved":
                ending, cost = await self._run_rounds(continue_prefix(prompt, team), config.separator, team, model, run)
            else:
                ending, cost = await self._run_rounds(one_step_messages(question, team), "", team, model, run)
            text, boxed = team.transcript(), team.final_answer or (team.answers[0] if team.answers else None)
            answer, finished = None if boxed is None else boxed.answer, False
            if answer is None:
                text, answer = await finish(prompt, team, question, model, run, config.finisher_tokens)
                finished = True
        run.emit(CandidateAdded(index=0, answer=answer))
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
            "answer_at": None if boxed is None else boxed.at,
            "confirmed": len({a.worker for a in team.answers if boxed is not None and a.label == boxed.label}) > 1,
            "finisher": finished,
            **cost,
        }
        stopped = "budget" if run.ledger.exhausted is not None else "done"
        return Solution(chosen=0, candidates=(candidate,), stopped=stopped, notes=notes)

    def _level(self, model: MeteredModel, run: Run) -> Level:
        """The configured level, or the highest one that the model supports."""
        supported: dict[Level, bool] = {
            "full": model.capabilities.kv_sharing,
            "interleaved": model.capabilities.prefix,
            "blackboard": True,
        }
        requested = self.config.level
        if requested != "auto":
            if not supported[requested]:
                raise CapabilityMissing("kv_sharing" if requested == "full" else "prefix", model.name)
            return requested
        level = next(level for level, is_supported in supported.items() if is_supported)
        if level in _DEGRADED and self.config.workers > 1:
            run.degrade(_DEGRADED[level].format(model=model.name))
        return level

    async def _run_shared_cache(
        self, prompt: Prompt, team: Team, model: MeteredModel, run: Run
    ) -> tuple[Ending, dict[str, int]]:
        """Run the workers on one cache; returns why they stopped, and counts for the notes."""
        config = self.config
        group = WorkerGroupConfig(
            prompt=prompt,
            num_workers=config.workers,
            layout=config.layout,
            others_header=OTHERS,
            own_header=OWN,
            temperature=config.temperature,
            top_p=config.top_p,
            top_k=config.top_k,
            seed=run.seed,
            banned_texts=config.banned,
        )
        workers = model.workers(group)
        loop = SharedCacheLoop(
            workers,
            team,
            layout=config.layout,
            max_passes=config.max_passes,
            separator=config.separator,
            check_every=config.check_every,
            check_order=config.check_order,
            reserved_tokens=config.finisher_tokens,
            run=run,
        )
        try:
            ending = await loop.run()
        finally:
            await workers.aclose()
        return ending, {"passes": loop.passes, "checks": loop.checks}

    async def _run_rounds(
        self, prompt: WorkerPrompt, separator: str, team: Team, model: MeteredModel, run: Run
    ) -> tuple[Ending, dict[str, int]]:
        """Run the workers in rounds of one step each; returns why they stopped, and counts for the notes."""
        config = self.config
        sampling = SamplingParams(
            temperature=config.temperature, top_p=config.top_p, top_k=config.top_k, max_tokens=config.step_tokens
        )
        loop = RoundsLoop(
            model,
            team,
            prompt,
            sampling,
            max_passes=config.max_passes,
            separator=separator,
            reserved_tokens=config.finisher_tokens,
            run=run,
        )
        return await loop.run(), {"passes": loop.passes, "rounds": loop.rounds}


async def finish(
    prompt: Prompt, team: Team, question: Question, model: MeteredModel, run: Run, max_tokens: int
) -> tuple[str, str | None]:
    """Complete the transcript with an answer: a sentence that time is up, then an open box for the model to fill.

    The transcript is encoded again as plain text, since the workers' keys and values belong to their own views.

    Args:
        prompt: The workers' shared prompt.
        model: Must support response prefixes.

    Returns:
        The transcript with the answer, and the answer; None if it cannot be read or the budget does not cover it.
    """
    transcript = team.transcript()
    prefix = f"{PAST}{transcript}\n\n{OUT_OF_TIME}"
    sampling = SamplingParams(temperature=0.0, max_tokens=max_tokens, stop=("\n",))
    request = Request(prompt=prompt.model_copy(update={"prefix": prefix}), sampling=sampling)
    try:
        ((completion,),) = await model.generate([request])
    except BudgetExceeded as e:
        run.record_limit(e)
        return transcript, None
    except ContextTooLong:
        return transcript, None
    boxed = OUT_OF_TIME[OUT_OF_TIME.index("\\boxed") :] + completion.text
    answer = extract_answer(boxed, question)
    text = f"{transcript}\n\n{OUT_OF_TIME}{completion.text}"
    return text, None if answer is None or answer.method != "boxed" else answer.value
