"""its-hub as a library: its algorithms over its own client, scored by the shared judge (`peer_judge`).

best-of-n         `BestOfN`, budget = size
self-consistency  `SelfConsistency` over the content of the last box (its own projection by a pattern), budget = size
beam              `BeamStrategy`, beams of two, budget = size
particle-filter   `ParticleFilterStrategy`, budget = size

Its searches end a solution at a `stop_token` in its text, not where the model ends it, so the box that every prompt
asks for is that token, as in its documentation.
"""

from __future__ import annotations

from typing import Any

from its_hub import BestOfN, OpenAICompatibleLanguageModel, SelfConsistency, StepGeneration
from its_hub.api import AbstractOutcomeRewardModel, AbstractProcessRewardModel
from its_hub.core.algorithms.beam_search import BeamSearch
from its_hub.core.algorithms.particle_gibbs import ParticleFiltering
from its_hub.core.algorithms.self_consistency import create_regex_projection_function
from peer_job import Job, MarkedQuestion, Solve, run
from peer_judge import Judge

MOST_STEPS = 16
BOX = r".*\\boxed\{([^{}]*)\}"  # greedy before it: the last box


class ByJudge(AbstractOutcomeRewardModel, AbstractProcessRewardModel):
    """The judge in the interface of its-hub: conversations for complete solutions, a prompt and texts for steps."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge

    def score(self, *args: Any, **more: Any) -> Any:
        """Never called: everything here is asynchronous."""
        raise NotImplementedError

    async def ascore(self, args: Any, steps: Any = None, **more: Any) -> Any:
        """Scores of complete conversations, or of the texts of some steps after one prompt."""
        if isinstance(steps, list):
            return await self._judge.score_all(args, steps)
        return [await self._judge.score(turns[-2].content, turns[-1].content) for turns in args]


async def make(job: Job) -> Solve:
    """See `peer_job.run`."""
    in_steps = job.method in ("beam", "particle-filter")
    model = OpenAICompatibleLanguageModel(
        endpoint=job.base_url,
        api_key="none",
        model_name=job.model,
        system_prompt=job.system,
        temperature=job.temperature,
        max_completion_tokens=job.step_tokens if in_steps else job.max_tokens,
    )
    reward = ByJudge(Judge(job.base_url, job.model))
    steps = StepGeneration(MOST_STEPS, step_token="\n\n", stop_token=r"\boxed", temperature=job.temperature)
    algorithm: Any
    if job.method == "best-of-n":
        algorithm = BestOfN(reward)
    elif job.method == "self-consistency":
        algorithm = SelfConsistency(create_regex_projection_function(BOX))
    elif job.method == "beam":
        algorithm = BeamSearch(steps, reward, beam_width=max(1, job.size // 2))
    else:
        algorithm = ParticleFiltering(steps, reward)

    async def solve(args: MarkedQuestion) -> str:
        prompt = job.step_prompt(args) if in_steps else job.chain_prompt(args)
        return str((await algorithm.ainfer(model, prompt, budget=job.size))["content"])

    return solve


if __name__ == "__main__":
    run(make)
