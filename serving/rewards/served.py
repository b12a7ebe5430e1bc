"""Reward models on a vLLM server that was started with `--runner pooling`."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from ...core.errors import (
    BackendError,
    BackendUnavailable,
    ContextTooLong,
    InvalidResponse,
    RateLimited,
    ReasonError,
    UserError,
)
from ...core.messages import Usage
from ...core.settings import RewardSettings
from ..litellm.pooling_server import PoolingServer
from ..transformers_loading import min_limit
from .inputs import (
    QWEN_TAG,
    RenderedInput,
    check_length,
    failed_scores,
    outcome_messages,
    qwen_messages,
    settings_digest,
    tag_positions,
)
from .model import RewardCapabilities, StepScores, StepSelection, check_solutions


def odds_of_rows(pooled: Any, rendered: RenderedInput, *, activated: bool = False) -> list[float]:
    """Log-odds at the scored positions of an input.

    Args:
        pooled: `[labels]` of the complete input; or rows `[steps, labels]`, or a row for every token.
        rendered: The input.
        activated: Whether the numbers are probabilities, not logits.

    Raises:
        InvalidResponse: The numbers have another shape.
    """
    rows = pooled if pooled and isinstance(pooled[0], Sequence) else [pooled]
    if len(rows) == len(rendered.ids) != len(rendered.positions):
        rows = [rows[p] for p in rendered.positions]  # the server pools all tokens
    elif len(rows) > len(rendered.positions):
        rows = rows[len(rows) - len(rendered.positions) :]  # all steps, of which the last is requested
    if len(rows) != len(rendered.positions) or any(len(row) not in (1, 2) for row in rows):
        raise InvalidResponse(f"{len(rows)} scores came back for {len(rendered.positions)} steps")
    return [_odds([float(x) for x in row], activated) for row in rows]


def _odds(row: list[float], activated: bool) -> float:
    if not activated:
        return row[0] if len(row) == 1 else row[1] - row[0]
    no, yes = (1.0 - row[0], row[0]) if len(row) == 1 else (row[0], row[1])
    return _log(yes) - _log(no)


def _log(p: float) -> float:
    return math.log(p) if p > 0 else -math.inf


_PROBE = ("What is 1 + 1?", ("1 + 1 = 2.", "The answer is 2."))


class ServedReward:
    """A process or outcome reward model on a server, which batches concurrent requests.

    Args:
        name: Model string.
        server: The server.
        settings: Settings of the model, with the format resolved.
        tag: Token of the step tag; None for an outcome model.
        activated: Whether the server returns probabilities even where logits are requested.
    """

    def __init__(
        self, name: str, server: PoolingServer, settings: RewardSettings, tag: int | None, *, activated: bool = False
    ) -> None:
        self.name = name
        self.identity = f"{server.weights}+{settings_digest(settings)}"
        self._server, self._settings = server, settings
        self._tag, self._activated = tag, activated
        self._limit = min_limit(settings.max_tokens, server.context)

    @classmethod
    async def connect(cls, name: str, server: PoolingServer, settings: RewardSettings) -> ServedReward:
        """Determine by two short requests what the server returns; it does not take ownership of the server.

        Raises:
            UserError: The settings request a format that a server does not support.
            BackendError: It returns no scores.
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
                if not numbers:  # so vLLM 0.32 answers where it was not reported the tag
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
        one_pass = self._tag is not None
        return RewardCapabilities(
            kind="process" if one_pass else "outcome", one_pass=one_pass, context_tokens=self._limit
        )

    async def score_steps(
        self, problem: str, solutions: Sequence[Sequence[str]], which: StepSelection = "all"
    ) -> list[StepScores]:
        check_solutions(solutions)
        errors: list[ReasonError] = []

        async def score(steps: Sequence[str]) -> StepScores:
            try:
                return await self._score(problem, steps, which)
            except ReasonError as e:
                errors.append(e)
                return failed_scores(e)

        results = await self._server.client.gather([partial(score, steps) for steps in solutions])
        found: list[StepScores] = results
        down = [e for e in errors if isinstance(e, BackendError) and not isinstance(e, ContextTooLong)]
        if down and len(down) == len(found):
            raise down[0]
        return found

    def max_usd(self, problem: str, solutions: Sequence[Sequence[str]], which: StepSelection = "all") -> float:
        return 0.0

    async def aclose(self) -> None:
        """Cancel requests in flight and close the connections; idempotent."""
        await self._server.aclose()

    async def _score(self, problem: str, steps: Sequence[str], which: StepSelection) -> StepScores:
        one_pass = self._tag is not None
        ends = [len(steps)] if one_pass or which == "last" else range(1, len(steps) + 1)
        rendered = [await self._render(problem, steps[:end]) for end in ends]
        for rendered_input in rendered:
            check_length(len(rendered_input.ids), self._limit)
        if one_pass and which == "last":
            rendered = [RenderedInput(r.ids, r.positions[-1:]) for r in rendered]
        rows = await asyncio.gather(*(self._numbers(r, activated=self._activated) for r in rendered))
        odds = [odds_of_rows(row, r, activated=self._activated) for row, r in zip(rows, rendered, strict=True)]
        return StepScores(
            log_odds=tuple(x for part in odds for x in part),
            passes=len(rendered),
            usage=Usage(prompt_tokens=sum(len(r.ids) for r in rendered)),
        )

    async def _render(self, problem: str, steps: Sequence[str]) -> RenderedInput:
        if self._tag is not None:
            ids = await self._server.tokenize(qwen_messages(problem, steps, self._settings))
            return RenderedInput(ids, tag_positions(ids, self._tag, len(steps)))
        ids = await self._server.tokenize(outcome_messages(problem, steps, self._settings))
        return RenderedInput(ids, [len(ids) - 1])

    async def _numbers(self, rendered: RenderedInput, *, activated: bool) -> Any:
        if self._tag is not None:
            return await self._server.pool(rendered.ids, activated=activated)
        return await self._server.classify(rendered.ids, activated=activated)
