"""`VllmReward`: a reward model on a vLLM pooling engine in this program."""

from __future__ import annotations

from collections.abc import Sequence

from ...core.errors import BackendError, BadReply, UserError
from ...core.scorer_settings import RewardSettings
from ...core.settings import VllmSettings
from ..files import ModelFiles
from ..loading import architecture_of, load_tokenizer, longest_input
from ..rewards import RewardCapabilities, StepScores, Which, check_solutions
from ..vllm.installed import require_vllm
from ..vllm.pooling import PoolingEngine
from ..work_thread import WorkThread
from .forms import Form, QwenForm, TokensForm
from .kinds import form_of, kind_of
from .reading import odds_of_rows
from .scoring import asked_as, inputs_of, scores_of


class VllmReward:
    """A process or outcome reward model on vLLM (see `RewardModel`).

    Args:
        name: The string it was opened by.
        identity: What the run store keys on.
        form: How inputs are made.
        engine: Computes them.
        task: vLLM's pooling task.
        limit: Longest input in tokens.
    """

    def __init__(self, name: str, identity: str, form: Form, engine: PoolingEngine, task: str, limit: int) -> None:
        self.name, self.identity = name, identity
        self._form, self._engine, self._task, self._limit = form, engine, task, limit
        self._thread = WorkThread(name)

    @classmethod
    def load(cls, name: str, files: ModelFiles, settings: RewardSettings, vllm: VllmSettings) -> VllmReward:
        """Start the engine on a model's files; blocks.

        Raises:
            UserError: vLLM is missing, or refuses the settings, or the model is a plain language model.
            DataError: The files are damaged or of a kind that is not known.
            BackendUnavailable: The engine did not come up.
        """
        architecture = architecture_of(files.folder)
        settings = kind_of(name, architecture, settings)
        form = form_of(load_tokenizer(files.folder), settings)
        if isinstance(form, TokensForm):
            raise UserError(
                f"{name}: reward models that say a token after each step do not run on vLLM's pooling",
                hint=f"open local/{name.partition('/')[2]}",
            )
        engine = PoolingEngine.start(files, vllm, form.tag if isinstance(form, QwenForm) else None)
        identity = f"{files.fingerprint}+{engine.dtype}+vllm-{require_vllm()}+{asked_as(settings)}"
        limit = longest_input(settings.max_tokens, engine.context)
        task = "classify" if architecture.endswith("ForSequenceClassification") else "token_classify"
        return cls(name, identity, form, engine, task, limit or engine.context)

    @property
    def capabilities(self) -> RewardCapabilities:
        """What this model is."""
        one_pass = self._form.one_pass
        return RewardCapabilities(
            kind="process" if one_pass else "outcome", one_pass=one_pass, context_tokens=self._limit
        )

    async def score_steps(
        self, problem: str, solutions: Sequence[Sequence[str]], which: Which = "all"
    ) -> list[StepScores]:
        """Score solutions; vLLM batches them (see `RewardModel.score_steps`)."""
        check_solutions(solutions)
        inputs = await self._thread.run(
            lambda: [inputs_of(self._form, problem, s, which, self._limit) for s in solutions]
        )
        rendered = [r for made in inputs for r in made.rendered]
        pooled = await self._engine.pool([r.ids for r in rendered], self._task)
        try:
            odds = iter([odds_of_rows(rows.tolist(), r) for rows, r in zip(pooled, rendered, strict=True)])
        except BadReply as e:
            raise BackendError(f"{self.name}: {e}") from e
        return [scores_of(made, [next(odds) for _ in made.rendered]) for made in inputs]

    def most_usd(self, problem: str, solutions: Sequence[Sequence[str]], which: Which = "all") -> float:
        """0: it runs here."""
        return 0.0

    async def aclose(self) -> None:
        """End the engine and its processes; idempotent."""
        await self._thread.aclose()
        await self._engine.aclose()
