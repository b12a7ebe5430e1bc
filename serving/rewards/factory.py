"""`load_reward_model`, and `ServedReward`: reward models on a vLLM server that was started with `--runner pooling`."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

from ...core.errors import (
    BackendError,
    BackendUnavailable,
    ContextTooLong,
    InvalidResponse,
    RateLimited,
    ReasonError,
    UnknownName,
    UserError,
)
from ...core.files import Progress
from ...core.registry import nearest
from ...core.settings import RewardSettings, Settings
from ..factory import load_model
from ..model import LanguageModel
from ..model_files.catalogue import PREFIX
from ..model_files.conversion import missing_extra
from ..model_files.downloads import run_pull
from ..model_files.find import find_model
from ..servers.pooling import PoolingServer, connect_pooling_server
from ..transformers_loading import min_limit
from .inputs import (
    QWEN_TAG,
    RenderedInput,
    SolutionInputs,
    check_length,
    failed_scores,
    outcome_messages,
    qwen_messages,
    scores_of,
    settings_digest,
    tag_positions,
)
from .model import RewardCapabilities, RewardModel, StepScores, StepSelection, check_solutions

JUDGE_PREFIX: Final = "judge/"
SERVED_PREFIX: Final = "hosted_vllm_pooling/"
PREFIXES: Final = (PREFIX, SERVED_PREFIX, JUDGE_PREFIX)


async def load_reward_model(
    name: str,
    settings: Settings,
    progress: Progress | None = None,
    language_model: Callable[[str], Awaitable[LanguageModel]] | None = None,
) -> RewardModel:
    """Load a reward model by its model string, off the event loop.

    | string | model |
    | --- | --- |
    | `local/<directory>`, `local/<hub id>` | a process or outcome reward model through transformers, in this process |
    | `hosted_vllm_pooling/<served name>` | on a vLLM server started with `--runner pooling` |
    | `judge/<model string>` | any language model, prompted to judge each step |

    Args:
        name: The model string.
        settings: Location of the files; the section `rewards` of this name; providers.
        progress: Called with the progress of a download, from another thread.
        language_model: Returns the language model of a judge by its model string, and keeps owning it; None loads one
            that is closed with the judge.

    Raises:
        UnknownName: No reward model has that name.
        UserError: A setting is invalid or an extra is missing.
        DataError: The model's files are damaged, or are no reward model.
        BackendUnavailable: It is not available here, or its server cannot be reached.
    """
    reward_settings = settings.rewards.get(name, RewardSettings())
    prefix = next((p for p in PREFIXES if name.startswith(p)), None)
    if prefix is None:
        head, slash, rest = name.partition("/")
        near = tuple(p + rest for p in nearest(head + "/", PREFIXES)) if slash else (JUDGE_PREFIX + PREFIX + name,)
        raise UnknownName("reward model", name, near, hint="it begins with " + ", ".join(PREFIXES))
    if not name.removeprefix(prefix).strip():
        raise UserError(f"reward model {name!r} names no model", hint=f"for example {JUDGE_PREFIX}local/smollm2-135m")
    if prefix == JUDGE_PREFIX:
        return await _load_judge(name, settings, reward_settings, progress, language_model)
    if reward_settings.form == "judge":
        raise UserError(f'a judge is requested as "{JUDGE_PREFIX}{name}", got {name!r} with form = "judge"')
    if prefix == SERVED_PREFIX:
        return await _connect(name, settings, reward_settings)
    return await run_pull(
        lambda cancel: _load_local(name, settings, reward_settings, progress, cancel), lambda model: model.aclose()
    )


async def _load_judge(
    name: str,
    settings: Settings,
    reward_settings: RewardSettings,
    progress: Progress | None,
    language_model: Callable[[str], Awaitable[LanguageModel]] | None,
) -> RewardModel:
    from .judge import JudgeReward

    if reward_settings.form not in ("auto", "judge") or reward_settings.step_tag is not None:
        raise UserError(f"{name} is a judge; form and step_tag are for trained reward models")
    model_string = name.removeprefix(JUDGE_PREFIX)
    if language_model is not None:
        return JudgeReward(name, await language_model(model_string), reward_settings, owns=False)
    model = await load_model(model_string, settings, progress)
    try:
        return JudgeReward(name, model, reward_settings)
    except BaseException:
        await model.aclose()
        raise


async def _connect(name: str, settings: Settings, reward_settings: RewardSettings) -> RewardModel:
    server = await connect_pooling_server(name, settings)
    try:
        return await ServedReward.connect(name, server, reward_settings)
    except BaseException:
        await server.aclose()
        raise


def _load_local(
    name: str, settings: Settings, reward_settings: RewardSettings, progress: Progress | None, cancel: threading.Event
) -> RewardModel:
    try:
        from .local import LocalReward
    except ModuleNotFoundError as e:
        raise missing_extra(e) from e
    files = find_model(name, cache_dir=settings.cache_dir, progress=progress, cancel=cancel)
    return LocalReward.load(name, files, reward_settings)


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
    """

    def __init__(self, name: str, server: PoolingServer, settings: RewardSettings, tag: int | None) -> None:
        self.name = name
        self.identity = f"{server.weights}+{settings_digest(settings)}"
        self._server, self._settings = server, settings
        self._tag = tag
        self._activated = False
        """Whether the server returns probabilities even where logits are requested."""
        self._limit = min_limit(settings.max_tokens, server.context)

    @classmethod
    async def connect(cls, name: str, server: PoolingServer, settings: RewardSettings) -> ServedReward:
        """Determine by two short requests what the server returns; it does not take ownership of the server.

        Raises:
            BackendError: It returns no scores.
        """
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
                if not numbers:  # so vLLM 0.32 answers where it was not given the tag
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
        return scores_of(SolutionInputs(tuple(rendered)), odds)

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
