"""`SampledChains`: the parameters of every strategy that samples chains of thought, and how they are drawn."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ..core.messages import Prompt, Sampling
from ..core.question import Question
from ..core.run import Run
from .prompts import ask, step_by_step
from .sampler import Drawn, draw, leader
from .self_evaluation import SelfEvaluator
from .stopping.choice import Mode, NoStop, Stopping
from .strategy import Models, Parameters


class SampledChains(Parameters):
    """Parameters of a strategy that samples chains. With the same values, all of them draw the same samples."""

    n: Annotated[int, Field(ge=1, le=4096, description="most chains")] = 8
    temperature: Annotated[float, Field(ge=0, le=100, description="sampling temperature")] = 0.7
    top_p: Annotated[float, Field(gt=0, le=1, description="nucleus mass")] = 1.0
    top_k: Annotated[int, Field(ge=0, description="most likely tokens kept; 0 keeps all")] = 0
    max_tokens: Annotated[int, Field(ge=1, description="most tokens of a chain")] = 512
    instruction: Annotated[str | None, Field(description="text behind the question; by default the trigger")] = None
    system: Annotated[str, Field(description="system message; empty leaves it to the model")] = ""
    stopping: Annotated[
        Stopping, Field(description="when there are enough chains: a rule's name, or the rule with its parameters")
    ] = NoStop()
    mode: Annotated[Mode, Field(description="how chains are drawn under a stopping rule: rounds, race, auto")] = "auto"
    width: Annotated[int | None, Field(ge=1, description="chains under way at once in a race; null is all")] = 4

    def prompt(self, question: Question) -> Prompt:
        """What is sampled."""
        instruction = self.trigger(question) if self.instruction is None else self.instruction
        return ask(question, instruction, system=self.system)

    def trigger(self, question: Question) -> str:
        """The instruction if none is given."""
        return step_by_step(question)

    async def draw(self, question: Question, models: Models, run: Run) -> Drawn:
        """Draw chains of the main model; the best so far is offered while they come.

        Raises:
            BadReply: No sample could be had at all.
            CapabilityMissing: The stopping rule needs what the model cannot do.
        """
        sampling = Sampling(
            temperature=self.temperature, top_p=self.top_p, top_k=self.top_k, max_tokens=self.max_tokens, n=self.n
        )
        drawn = await draw(
            models.main,
            self.prompt(question),
            sampling,
            question,
            run,
            rule=self.stopping,
            mode=self.mode,
            width=self.width,
            judge=SelfEvaluator(models.main, question, run).qualities,
            on_candidate=lambda found: run.offer(leader(found)),
        )
        if drawn.candidates:
            run.offer(leader(drawn.candidates))
        return drawn
