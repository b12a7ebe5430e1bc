"""`hogwild`: workers on one shared KV cache solve a problem together.

Source: Rodionov, Garipov, Shutova, Yakushev, Schultheis, Egiazarian, Sinitsin, Kuznedelev, Alistarh 2025, "Hogwild!
Inference: Parallel LLM Generation via Concurrent Attention", arXiv:2504.06261.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field

from ...core.budget import CostBound
from ...core.errors import BudgetExceeded, CapabilityMissing, ContextTooLong, InvalidResponse, UserError
from ...core.events import CandidateAdded
from ...core.messages import Completion, Prompt, Request, SamplingParams, Thought, Usage
from ...core.run import Run
from ...core.types import Candidate, Question, Solution
from ...core.types import Step as CandidateStep
from ...serving.metered.model import MeteredModel
from ...serving.model import Feature
from ...serving.quick_calls import quick_params
from ...serving.worker_group import MAX_WORKERS, GroupStep, Layout, WorkerGroupConfig, WorkerInput, WorkerToken
from ..answers.equivalence import Equivalence
from ..answers.extraction import extract_answer
from ..conclude import conclusion_request, with_conclusion
from ..prompts import question_prompt
from ..strategy import MAX_TOKENS, Models, Parameters, Stability, Thinking
from .metered_workers import MeteredWorkers, open_workers
from .prompts import (
    BOX,
    CHECK,
    OTHERS,
    OUT_OF_TIME,
    OWN,
    PAST,
    shared_prompt,
    step_request,
    system_prompt,
    worker_names,
)
from .team import SEPARATOR, AnswerRule, Ending, Team, ends_step


class SharedCacheLoop:
    """Runs forward passes of workers on one shared cache, from their openers to an answer or a limit.

    After each pass the workers are processed in index order, which is the order of steps that finish in the same pass.

    Args:
        layout: Block layout; a contiguous one moves no finished step to the history.
        max_passes: Forward passes before the loop stops.
        separator: Text between two steps.
        check_every: Tokens of all workers, injected text included, after which the next worker to begin a step gets the
            redundancy check; 0 turns it off.
        reserved_tokens: Tokens of the budget kept for the finisher.
        close_tag: Text that closes the workers' thought, which ends their work; empty without a thought.
    """

    def __init__(
        self,
        workers: MeteredWorkers,
        team: Team,
        *,
        layout: Layout,
        max_passes: int,
        separator: str,
        check_every: int,
        reserved_tokens: int,
        run: Run,
        close_tag: str = "",
    ) -> None:
        self._close_tag = close_tag
        self._workers, self._team, self._layout = workers, team, layout
        self._max_passes, self._separator, self._check_every = max_passes, separator, check_every
        self._reserved_tokens, self._run = reserved_tokens, run
        self._tokens_since_check = 0
        self._verdicts: dict[int, str] = {}
        self.passes = 0
        self.checks = 0

    async def run(self) -> Ending:
        """Run passes until there is an answer or a limit is reached."""
        team, budget = self._team, self._run.ledger.view(CostBound(tokens=self._reserved_tokens))
        inputs: list[WorkerInput | None] = [WorkerInput(text=text) for text in team.writing]
        moves: list[int] = []
        while self.passes < self._max_passes:
            if budget.remaining("tokens") < team.workers:
                self._run.record_limit(self._run.ledger.exceeded("tokens"))
                return "budget"
            if budget.remaining("seconds") <= 0:
                self._run.record_limit(self._run.ledger.exceeded("seconds"))
                return "budget"
            try:
                tokens = await self._workers.advance(GroupStep(inputs=tuple(inputs), moves=tuple(moves)))
            except BudgetExceeded as e:
                self._run.record_limit(e)
                return "budget"
            except ContextTooLong:
                return "context"
            self.passes += 1
            moves = []
            for worker, token in enumerate(tokens):
                if token is None:
                    continue
                finished, inputs[worker] = await self._append(worker, token)
                if self._close_tag and self._close_tag in team.writing[worker]:
                    team.writing[worker] = team.writing[worker].partition(self._close_tag)[0]
                    return "end of text"
                if finished and self._layout != "contiguous":
                    moves.append(worker)
            if team.final_answer is not None:
                return "answer"
            if any(token is not None and token.is_eos for token in tokens):
                return "end of text"
        return "passes"

    async def _append(self, worker: int, token: WorkerToken) -> tuple[bool, WorkerInput | None]:
        """Append a sampled token; returns whether it finishes a step, and the worker's next input."""
        team = self._team
        self._tokens_since_check += token.num_read
        self._read_verdict(worker, token.text)
        team.writing[worker] += token.text
        if token.is_eos:
            await team.finish(worker, self.passes, has_next=False)
            return True, None
        if not ends_step(team.writing[worker], token.text, self._separator):
            return False, WorkerInput(token=token.token)
        # The token that closes a step is fed with the next one, so each moved step begins with its own separator.
        prefix = await team.finish(worker, self.passes)
        if self._is_checked():
            prefix += CHECK
            team.writing[worker] = prefix
            team.emit("asked", {"worker": worker, "pass": self.passes, "text": CHECK})
            self._verdicts[worker] = ""
            self.checks += 1
        return True, WorkerInput(token=token.token, text=prefix)

    def _is_checked(self) -> bool:
        """Whether a worker that begins a step gets the redundancy check."""
        is_due = bool(self._check_every) and self._tokens_since_check > self._check_every and self._team.workers > 1
        if is_due:
            self._tokens_since_check = 0
        return is_due

    def _read_verdict(self, worker: int, text: str) -> None:
        """Emit the first word after a redundancy check."""
        if worker not in self._verdicts:
            return
        self._verdicts[worker] += text
        words = self._verdicts[worker].split()
        if words and (len(words) > 1 or not words[0].isalpha() or self._verdicts[worker][-1].isspace()):
            self._team.emit("check", {"worker": worker, "pass": self.passes, "verdict": words[0].strip(".,!*:")})
            del self._verdicts[worker]


WorkerPrompt = Callable[[int], Prompt]
"""The prompt from which a worker continues its current step."""


class RoundsLoop:
    """Runs workers without a shared cache: in each round every worker writes one step, or continues it.

    Lost against the shared cache: the sight of unfinished steps, and with it most of the interaction; there are no
    redundancy checks. The finished steps are a common prefix, which an engine with a prefix cache computes once. A
    round ends with its slowest worker; steps join the history in the order of the workers, so that a run is
    reproducible.

    Args:
        prompt: Makes the prompt of each worker.
        sampling: Its `max_tokens` bounds a step, whether it is one of a thought or not.
        max_passes: Sequential tokens before the loop stops; a round counts as many as its longest step.
        separator: Text between two steps; empty if each response is one step.
        reserved_tokens: Tokens of the budget kept for the finisher.
    """

    def __init__(
        self,
        model: MeteredModel,
        team: Team,
        prompt: WorkerPrompt,
        sampling: SamplingParams,
        *,
        max_passes: int,
        separator: str,
        reserved_tokens: int,
        run: Run,
    ) -> None:
        self._model, self._team, self._prompt, self._sampling = model, team, prompt, sampling
        self._max_passes, self._separator, self._reserved_tokens, self._run = (
            max_passes,
            separator,
            reserved_tokens,
            run,
        )
        self.passes = 0
        self.rounds = 0

    async def run(self) -> Ending:
        """Run rounds until there is an answer or a limit is reached."""
        team, budget = self._team, self._run.ledger.view(CostBound(tokens=self._reserved_tokens))
        while self.passes < self._max_passes:
            if budget.remaining("tokens") < team.workers:
                self._run.record_limit(self._run.ledger.exceeded("tokens"))
                return "budget"
            share = budget.tokens_per_sample(team.workers)
            length: dict[str, object]
            if team.in_thought:  # a sample that closes the thought begins an answer of one token
                share = max(1, min(share - 1, budget.remaining("thinking_tokens") // team.workers))
            max_tokens = int(min(self._sampling.max_tokens, self._max_passes - self.passes, share))
            length = {"max_tokens": 1, "thinking_tokens": max_tokens} if team.in_thought else {"max_tokens": max_tokens}
            sampling = self._sampling.model_copy(
                update={**length, "stop": (self._separator,) if self._separator else ()}
            )
            try:
                requests = [Request(prompt=self._prompt(worker), sampling=sampling) for worker in range(team.workers)]
                with budget.cutoff() as enough:
                    results = await self._model.generate(requests, enough=enough)
            except BudgetExceeded as e:
                self._run.record_limit(e)
                return "budget"
            except ContextTooLong:
                return "context"
            self.rounds += 1
            self.passes += max(completion.usage.completion_tokens for (completion,) in results)
            ended = [await self._append(worker, completion, max_tokens) for worker, (completion,) in enumerate(results)]
            if team.final_answer is not None:
                return "answer"
            if any(completion.finish_reason == "cancelled" for (completion,) in results):  # the same in a replay
                self._run.record_limit(self._run.ledger.exceeded("seconds"))
                return "budget"
            if any(completion.finish_reason == "budget" for (completion,) in results):
                return "budget"
            if any(ended):
                return "end of text"
        return "passes"

    async def _append(self, worker: int, completion: Completion, max_tokens: int) -> bool:
        """Append what a worker has written; returns whether its text has ended."""
        if completion.failure is not None:
            raise InvalidResponse(f"the model gave no sample: {completion.failure.message}")
        team = self._team
        if team.in_thought:
            thought = completion.thought or Thought(closed=False)
            team.writing[worker] += thought.text
            is_cut = completion.finish_reason == "thinking" and completion.usage.completion_tokens < max_tokens
            if completion.finish_reason not in ("cancelled", "budget") and (thought.closed or is_cut):
                await team.finish(worker, self.passes, has_next=False)
                return True
        else:
            team.writing[worker] += completion.text
        if not self._separator:
            if completion.text.strip():
                await team.finish(worker, self.passes)
            return not completion.text.strip()
        if completion.finish_reason != "stop":
            return False  # truncated: the next round continues the same step
        if not completion.stop_reason:
            await team.finish(worker, self.passes, has_next=False)
            return True
        team.writing[worker] += self._separator
        if ends_step(team.writing[worker], self._separator, self._separator):
            await team.finish(worker, self.passes)
        return False


def continue_prefix(prompt: Prompt, team: Team) -> WorkerPrompt:
    """Workers continue one response, or one thought: the finished steps of all, then their own unfinished step."""

    def make_prompt(worker: int) -> Prompt:
        steps = "".join(step.text.strip() + "\n\n" for step in team.finished)
        text = PAST + steps + team.writing[worker]
        return prompt.with_thought(Thought(text=text, closed=False)) if team.in_thought else prompt.with_prefix(text)

    return make_prompt


def one_step_messages(question: Question, team: Team) -> WorkerPrompt:
    """Workers answer a message that shows the finished steps and requests one step."""
    system = system_prompt(team.names)

    def make_prompt(worker: int) -> Prompt:
        steps = [step.text.strip() for step in team.finished]
        return question_prompt(question, step_request(team.names[worker], team.number(worker), steps), system=system)

    return make_prompt


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
                ending, cost = await self._run_rounds(continue_prefix(prompt, team), SEPARATOR, team, model, run)
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
        workers = open_workers(model, group)
        loop = SharedCacheLoop(
            workers,
            team,
            layout=config.layout,
            max_passes=self._max_passes(team, run),
            separator=SEPARATOR,
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
