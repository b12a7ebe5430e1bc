"""`question-router`: a question is answered by the large model if it probably needs it, else by the small one.

    large if P(the large model is right and the small one is not | question) >= threshold

Source: Ong et al., "RouteLLM: Learning to Route LLMs with Preference Data" (2024, arXiv:2406.18665).
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field, JsonValue, model_validator

from ..core.errors import BudgetExceeded, UserError
from ..core.events import StrategyNote
from ..core.run import Run
from ..core.types import Question, Solution
from ..reasoning.strategy import Models, Parameters, Stability
from ..serving.model import Feature
from .auto import identities_of
from .features import top_contributions, with_contributions
from .nested_strategy import inner_strategy, require_suitable, solve_within
from .router_files import (
    QUESTION_MADE_BY,
    QuestionRouterFile,
    arm_label,
    file_of_digest,
    load_question_router_file,
    probability_of,
    question_row,
    with_digest,
)


class QuestionRouter:
    """`question-router`: one of two models for the complete question, chosen before anything is generated.

    Requests: one for the first token of the small model's chain of thought, if the file uses it, and those of the
    strategy that the chosen model was evaluated with.

    The solution is returned unchanged, with notes on the choice.

    Differs: RouteLLM learns from people's preferences between answers, by matrix factorisation, a similarity-weighted
    ranking or a trained language model. Here the router is learned from evaluations with known answers, by logistic
    regression on named features and the question's embedding.
    """

    name: ClassVar[str] = "question-router"
    summary: ClassVar[str] = "each question to the small or the large model, by a learned chance that it needs it"
    paper: ClassVar[str] = "Ong et al. 2024, arXiv:2406.18665"
    confidence: ClassVar[str] = (
        "That of the strategy and model that answered; the chance that chose the model is not part of it."
    )
    stability: ClassVar[Stability] = "experimental"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main", "small", "embedding")

    class Config(Parameters):
        """Parameters of `question-router`."""

        router: Annotated[str, Field(description="file of `reason train question-router`")] = ""
        router_digest: Annotated[
            str, Field(description="digest of the file, set automatically: a run resumes with no other")
        ] = ""
        rate: Annotated[
            float | None,
            Field(ge=0, le=1, description="share of questions for the large model; by default the file's"),
        ] = None
        threshold: Annotated[
            float | None,
            Field(
                ge=0, le=1e6, description="probability from which a question goes to the large model, instead of a rate"
            ),
        ] = None

        @model_validator(mode="before")
        @classmethod
        def _note_digest(cls, parameters: Any) -> Any:
            if (
                isinstance(parameters, dict)
                and parameters.get("rate") is not None
                and parameters.get("threshold") is not None
            ):
                raise ValueError("give rate or threshold, not both")
            return with_digest(parameters, load_question_router_file)

    def __init__(self, config: Config) -> None:
        self.config = config

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        """Choose a model and run its strategy.

        Raises:
            DataError: The file cannot be read.
            UserError: There is no file, it is for other models or another file than the run started with, or there is
                no small model.
            CapabilityMissing: A model cannot do what its strategy needs.
        """
        file = self._file(models)
        chains = {"small": file.small, "large": file.large}
        strategies = {who: inner_strategy(c.strategy, c.parameters, self.name)[0] for who, c in chains.items()}
        of_small = models.with_main("small")
        require_suitable(strategies["small"], of_small, run)
        require_suitable(strategies["large"], models, run)
        try:
            row = await question_row(question, models, run, file, models.small)
        except BudgetExceeded as e:
            run.record_limit(e)
            return Solution(chosen=None, stopped="budget")
        needed = probability_of(file.needed.value(file.space, row))
        threshold = self._threshold(file)
        who = "large" if needed >= threshold else "small"
        contributions = top_contributions(file.needed.shares(file.space, row))
        why = f"the large model is needed with probability {needed:.3f}, threshold {threshold:.3f}"
        chain = chains[who]
        ran = arm_label(chain.strategy, chain.parameters, "main" if who == "large" else "small")
        notes: dict[str, JsonValue] = {
            "selected_strategy": ran,
            "why": with_contributions(why, contributions),
            "chosen": chain.strategy,
            "answered": who,
            "needed": round(needed, 6),
            "threshold": threshold,
            "most_telling": dict(contributions),
        }
        run.emit(StrategyNote(strategy=run.config.strategy, name="question.routed", data=notes))
        solution = await solve_within(strategies[who], question, of_small if who == "small" else models, run)
        return solution.model_copy(
            update={"notes": {**solution.notes, "selected_strategy": ran, "question_router": dict(notes)}}
        )

    def _file(self, models: Models) -> QuestionRouterFile:
        config = self.config
        if not config.router:
            raise UserError(
                "question-router needs a trained router", hint=f"{QUESTION_MADE_BY}; --set router=FILE uses it"
            )
        file = file_of_digest(config.router, config.router_digest, load_question_router_file)
        if not models.has("small"):
            raise UserError(
                "question-router needs a small model in addition to the main one", hint="name it: --small-model"
            )
        for role in ("main", "small"):
            other = file.trained.difference(identities_of(models), role)
            if other:
                raise UserError(
                    f"the router {file} is for another model: {other}", hint=f"{QUESTION_MADE_BY} for these two"
                )
        return file

    def _threshold(self, file: QuestionRouterFile) -> float:
        if self.config.threshold is not None:
            return self.config.threshold
        return file.threshold if self.config.rate is None else file.threshold_for(self.config.rate)
