"""The loops that drive the workers: token by token on a shared KV cache, or step by step without one.

Source: Rodionov, Garipov, Shutova, Yakushev, Schultheis, Egiazarian, Sinitsin, Kuznedelev, Alistarh 2025, "Hogwild!
Inference: Parallel LLM Generation via Concurrent Attention", arXiv:2504.06261, sections 3 and 4, and their program.
"""

from __future__ import annotations

from collections.abc import Callable

from ...core.budget import CostBound
from ...core.errors import BudgetExceeded, ContextTooLong, InvalidResponse
from ...core.messages import Completion, Prompt, Request, SamplingParams, Thought
from ...core.run import Run
from ...core.types import Question
from ...serving.metered.model import MeteredModel
from ...serving.metered.workers import MeteredWorkers
from ...serving.worker_group import GroupStep, Layout, WorkerInput, WorkerToken
from ..prompts import question_prompt
from .prompts import CHECK, PAST, step_request, system_prompt
from .team import Ending, Team, ends_step


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
