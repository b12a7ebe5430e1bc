"""`ServedReward`: a reward model on a vLLM server that was started with `--runner pooling`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

from ...core.errors import (
    BackendError,
    BackendUnavailable,
    ContextTooLong,
    RateLimited,
    ReasonError,
    UserError,
)
from ...core.messages import Usage
from ...core.scorer_settings import RewardSettings
from ..litellm.pooling_server import PoolingServer
from ..loading import longest_input
from ..rewards import RewardCapabilities, StepScores, Which, check_solutions
from .forms import QWEN_TAG, Rendered, outcome_messages, qwen_messages, tag_positions
from .reading import odds_of_rows
from .scoring import asked_as, check_length, failed

_PROBE = ("What is 1 + 1?", ("1 + 1 = 2.", "The answer is 2."))


class ServedReward:
    """A process or outcome reward model behind HTTP (see `RewardModel`). The server batches what is under way.

    Args:
        name: The string it was opened by.
        server: Where it is.
        settings: How it is asked, with `form` decided.
        tag: Token of the step tag; None for an outcome model.
        activated: Whether the server gives probabilities even where logits are asked for.
    """

    def __init__(
        self, name: str, server: PoolingServer, settings: RewardSettings, tag: int | None, *, activated: bool = False
    ) -> None:
        self.name = name
        self.identity = f"{server.weights}+{asked_as(settings)}"
        self._server, self._settings = server, settings
        self._tag, self._activated = tag, activated
        self._limit = longest_input(settings.max_tokens, server.context)

    @classmethod
    async def open(cls, name: str, server: PoolingServer, settings: RewardSettings) -> ServedReward:
        """Learn by two short requests what the server gives; it is not closed by this.

        Raises:
            UserError: The settings ask for a form that a server does not have.
            BackendError: It gives no scores.
        """
        if settings.form in ("tokens", "judge"):
            raise UserError(f"{name}: the form {settings.form!r} does not run on a pooling server")
        wrong: list[ReasonError] = []
        for form in ("qwen", "outcome") if settings.form == "auto" else (settings.form,):
            try:
                tag: int | None = None
                if form == "qwen":
                    ids = await server.tokens_of(settings.step_tag or QWEN_TAG)
                    if len(ids) != 1:
                        raise BackendError(f"the step tag is {len(ids)} tokens of {name}", hint="set its step_tag")
                    tag = ids[0]
                model = cls(name, server, settings.model_copy(update={"form": form}), tag)
                rendered = await model._render(*_PROBE)
                numbers = await model._numbers(rendered, activated=False)
                if not numbers:  # so vLLM 0.32 answers where it was not told the tag
                    pooler = f'{{"tok_pooling_type": "STEP", "step_tag_id": {tag}}}'
                    raise BackendUnavailable(
                        f"the server of {name} does not know where its steps end",
                        hint=f"start it with --pooler-config '{pooler}'",
                    )
                raw = odds_of_rows(numbers, rendered)
                odds = odds_of_rows(await model._numbers(rendered, activated=True), rendered)
                # a server that does not know the field leaves the activation on: the same numbers come twice
                model._activated = raw == odds
                return model
            except (BackendUnavailable, ContextTooLong, RateLimited):
                raise
            except ReasonError as e:
                wrong.append(e)
        raise BackendError(
            f"{name} gives no rewards: {'; '.join(e.message for e in wrong)}",
            hint="is it a reward model, served with --runner pooling?",
        ) from wrong[0]

    @property
    def capabilities(self) -> RewardCapabilities:
        """What this model is."""
        one_pass = self._tag is not None
        return RewardCapabilities(
            kind="process" if one_pass else "outcome", one_pass=one_pass, context_tokens=self._limit
        )

    async def score_steps(
        self, problem: str, solutions: Sequence[Sequence[str]], which: Which = "all"
    ) -> list[StepScores]:
        """Score solutions, as many at once as the server's limit allows (see `RewardModel.score_steps`)."""
        check_solutions(solutions)
        errors: list[ReasonError] = []

        async def score(steps: Sequence[str]) -> StepScores:
            try:
                return await self._score(problem, steps, which)
            except ReasonError as e:
                errors.append(e)
                return failed(e)

        made = await self._server.client.gather([partial(score, steps) for steps in solutions])
        found: list[StepScores] = made
        down = [e for e in errors if isinstance(e, BackendError) and not isinstance(e, ContextTooLong)]
        if down and len(down) == len(found):
            raise down[0]
        return found

    def most_usd(self, problem: str, solutions: Sequence[Sequence[str]], which: Which = "all") -> float:
        """0: it is a server of one's own."""
        return 0.0

    async def aclose(self) -> None:
        """Cancel requests under way and close the connections; idempotent."""
        await self._server.aclose()

    async def _score(self, problem: str, steps: Sequence[str], which: Which) -> StepScores:
        one_pass = self._tag is not None
        ends = [len(steps)] if one_pass or which == "last" else range(1, len(steps) + 1)
        rendered = [await self._render(problem, steps[:end]) for end in ends]
        for made in rendered:
            check_length(len(made.ids), self._limit)
        if one_pass and which == "last":
            rendered = [Rendered(r.ids, r.positions[-1:]) for r in rendered]
        rows = await asyncio.gather(*(self._numbers(r, activated=self._activated) for r in rendered))
        odds = [odds_of_rows(row, r, activated=self._activated) for row, r in zip(rows, rendered, strict=True)]
        return StepScores(
            log_odds=tuple(x for part in odds for x in part),
            passes=len(rendered),
            usage=Usage(prompt_tokens=sum(len(r.ids) for r in rendered)),
        )

    async def _render(self, problem: str, steps: Sequence[str]) -> Rendered:
        if self._tag is not None:
            ids = await self._server.tokenize(qwen_messages(problem, steps, self._settings))
            return Rendered(ids, tag_positions(ids, self._tag, len(steps)))
        ids = await self._server.tokenize(outcome_messages(problem, steps, self._settings))
        return Rendered(ids, [len(ids) - 1])

    async def _numbers(self, rendered: Rendered, *, activated: bool) -> Any:
        if self._tag is not None:
            return await self._server.pool(rendered.ids, activated=activated)
        return await self._server.classify(rendered.ids, activated=activated)
