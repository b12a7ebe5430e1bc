"""`hogwild`: workers on one shared KV cache solve a problem together.

Source: Rodionov, Garipov, Shutova, Yakushev, Schultheis, Egiazarian, Sinitsin, Kuznedelev, Alistarh 2025, "Hogwild!
Inference: Parallel LLM Generation via Concurrent Attention", arXiv:2504.06261.
"""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field

from ...core.errors import BudgetExceeded, CapabilityMissing, ContextTooLong, UserError
from ...core.events import CandidateAdded
from ...core.messages import Completion, Prompt, Request, SamplingParams, Thought, Usage
from ...core.run import Run
from ...core.types import Candidate, Question, Solution
from ...core.types import Step as CandidateStep
from ...serving.metered.model import MeteredModel
from ...serving.model import Feature
from ...serving.quick_calls import quick_params
from ...serving.worker_group import MAX_WORKERS, Layout, WorkerGroupConfig
from ..answers.equivalence import Equivalence
from ..answers.extraction import extract_answer
from ..conclude import conclusion_request, with_conclusion
from ..limits import MAX_TOKENS
from ..prompts import question_prompt
from ..strategy import Models, Parameters, Stability, Thinking
from .prompts import BOX, OTHERS, OUT_OF_TIME, OWN, PAST, shared_prompt, worker_names
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


DEFAULT_TEMPERATURE: Final = 0.6
DEFAULT_TOP_P: Final = 0.95
"""The authors' sampling parameters; the nucleus mass applies only with a shared cache."""
FINISHER_TOKENS: Final = 16
"""Maximum tokens of the finisher's answer."""
STEP_TOKENS: Final = 256
"""Maximum tokens of a step without a shared cache."""

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
    read from finished steps; at the end of a text also from the unfinished one. Of a model that thinks, the workers
    write one thought, which none of them can close by the tag's token; an answer in it ends their work, and the
    finisher gives the answer after the closed thought.
    """

    name: ClassVar[str] = "hogwild"
    summary: ClassVar[str] = "run workers on one shared cache that see one another write"
    paper: ClassVar[str] = "Rodionov et al. 2025, arXiv:2504.06261"
    confidence: ClassVar[str] = "It has none: the workers write one answer together."
    stability: ClassVar[Stability] = "experimental"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main",)
    thinking: ClassVar[Thinking] = "thought"

    class Config(Parameters):
        """Parameters of `hogwild`."""

        workers: Annotated[int, Field(ge=1, le=MAX_WORKERS, description="number of workers")] = 2
        layout: Annotated[Layout, Field(description="order of the cache blocks in a worker's view")] = "combined"
        level: Annotated[
            Literal["auto"] | Level,
            Field(description="what workers see of one another; auto is the highest level the model supports"),
        ] = "auto"
        max_passes: Annotated[
            int,
            Field(
                ge=1,
                le=MAX_TOKENS,
                description="maximum number of forward passes; each worker writes one token per pass",
            ),
        ] = 1024
        check_every: Annotated[
            int,
            Field(
                ge=0, le=MAX_TOKENS, description="tokens of all workers between two redundancy checks; 0 turns them off"
            ),
        ] = 1024
        answer: Annotated[
            AnswerRule,
            Field(description="first: the first boxed answer; confirmed: one that a second worker states too"),
        ] = "first"
        temperature: Annotated[
            float | None, Field(ge=0, le=100, description="sampling temperature; 0 is greedy; by default 0.6")
        ] = None
        separator: Annotated[str, Field(min_length=1, description="text between two steps")] = SEPARATOR
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
        in_thought = model.thinks and level != "blackboard"
        if in_thought:
            prompt = prompt.with_thought(Thought(text=PAST, closed=False))
        async with Equivalence.for_run(run) as equivalence:
            team = Team(names, question, config.answer, run, equivalence, in_thought=in_thought)
            team.begin()
            if level == "full":
                ending, cost = await self._run_shared_cache(prompt, team, model, run)
            elif level == "interleaved":
                ending, cost = await self._run_rounds(continue_prefix(prompt, team), config.separator, team, model, run)
            else:
                ending, cost = await self._run_rounds(one_step_messages(question, team), "", team, model, run)
            text, boxed = team.transcript(), team.final_answer or (team.answers[0] if team.answers else None)
            answer, finished = None if boxed is None or in_thought else boxed.answer, False
            if answer is None:
                text, answer = await finish(prompt, team, question, model, run)
                finished = True
        run.emit(CandidateAdded(index=0, answer=answer))
        candidate = Candidate(
            text=text,
            answer=answer,
            steps=tuple(CandidateStep(text=step.text.strip()) for step in team.finished),
            tokens=run.ledger.usage().completion_tokens,
            thought=team.transcript() if in_thought else "",
            thinking_tokens=run.ledger.usage().thinking_tokens,
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

    def _max_passes(self, team: Team, run: Run) -> int:
        """Maximum passes; of a thought, as many as the run's limit of its tokens allows."""
        limit = run.config.thinking_tokens if team.in_thought else None
        passes = self.config.max_passes
        return passes if limit is None else max(1, min(passes, limit // team.workers))

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
        close_tag = model.profile.close_tag.strip() if team.in_thought else ""
        group = WorkerGroupConfig(
            prompt=prompt,
            num_workers=config.workers,
            layout=config.layout,
            others_header=OTHERS,
            own_header=OWN,
            temperature=DEFAULT_TEMPERATURE if config.temperature is None else config.temperature,
            top_p=DEFAULT_TOP_P,
            seed=run.seed,
            banned_texts=(close_tag,) if close_tag else (),
        )
        workers = model.workers(group)
        loop = SharedCacheLoop(
            workers,
            team,
            layout=config.layout,
            max_passes=self._max_passes(team, run),
            separator=config.separator,
            check_every=config.check_every,
            reserved_tokens=FINISHER_TOKENS,
            run=run,
            close_tag=close_tag,
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
            temperature=config.temperature,
            default_temperature=DEFAULT_TEMPERATURE,
            max_tokens=STEP_TOKENS,
            effort=None if team.in_thought else "none",
        )
        loop = RoundsLoop(
            model,
            team,
            prompt,
            sampling,
            max_passes=self._max_passes(team, run),
            separator=separator,
            reserved_tokens=FINISHER_TOKENS,
            run=run,
        )
        return await loop.run(), {"passes": loop.passes, "rounds": loop.rounds}


async def finish(
    prompt: Prompt, team: Team, question: Question, model: MeteredModel, run: Run
) -> tuple[str, str | None]:
    """Complete the transcript with an answer: a sentence that time is up, then an open box for the model to fill.

    The transcript is encoded again as plain text, since the workers' keys and values belong to their own views. After a
    thought, the box begins the answer. A model that continues no prefix is shown the transcript.

    Args:
        prompt: The workers' shared prompt.

    Returns:
        The transcript with the answer, or the answer alone after a thought; and the answer itself, None if it cannot be
        read or the budget does not cover it.
    """
    transcript = team.transcript()
    spent = run.ledger.usage()
    usage = Usage(completion_tokens=spent.completion_tokens, thinking_tokens=spent.thinking_tokens)
    partial = Completion(text=transcript, finish_reason="budget", usage=usage)
    try:
        if team.in_thought:
            begun = BOX
            shared = prompt.with_thought(Thought(text=f"{PAST}{transcript}\n\n"), BOX)
            thought = Thought(text=f"{PAST}{transcript}", tokens=usage.thinking_tokens)
            partial = partial.model_copy(update={"text": "", "thought": thought})
        elif model.capabilities.prefix:
            begun = f"{transcript}\n\n{OUT_OF_TIME}"
            shared = prompt.with_prefix(f"{PAST}{begun}")
        else:
            request = conclusion_request(model, question_prompt(question), partial, question)
            ((completion,),) = await model.generate([request])
            text = with_conclusion(partial, completion, question).text
            found = extract_answer(text[len(transcript) :], question)
            return text, None if found is None else found.value
        sampling = quick_params(model, max_tokens=FINISHER_TOKENS, stop=("\n",))
        ((completion,),) = await model.generate([Request(prompt=shared, sampling=sampling)])
    except (BudgetExceeded, ContextTooLong) as e:
        if isinstance(e, BudgetExceeded):
            run.record_limit(e)
        run.partial_completions.append((question_prompt(question), partial))
        return "" if team.in_thought else transcript, None
    answer = extract_answer(BOX[BOX.index("\\boxed") :] + completion.text, question)
    return begun + completion.text, None if answer is None or answer.method != "boxed" else answer.value
