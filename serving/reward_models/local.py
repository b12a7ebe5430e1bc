"""`LocalReward`: a reward model through transformers, in this process."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ...core.scorer_settings import RewardSettings
from ..files import ModelFiles
from ..loading import architecture_of, load_tokenizer, longest_input
from ..model_folder import read_config
from ..rewards import RewardCapabilities, StepScores, Which, check_solutions
from ..work_thread import WorkThread, batches_of
from .forms import Form, Rendered
from .kinds import form_of, kind_of
from .networks import Network, load_network
from .scoring import Inputs, asked_as, inputs_of, scores_of

MOST_ROWS = 64
"""Most inputs computed together."""


class LocalReward:
    """A process or outcome reward model (see `RewardModel`).

    Args:
        name: The string it was opened by.
        identity: What the run store keys on.
        form: How inputs are made.
        network: Computes them.
        capabilities: What it is.
        batch_tokens: Most tokens computed together, padding included.
    """

    def __init__(
        self,
        name: str,
        identity: str,
        form: Form,
        network: Network,
        capabilities: RewardCapabilities,
        batch_tokens: int,
    ) -> None:
        self.name, self.identity = name, identity
        self._form = form
        self._network: Network | None = network
        self._can = capabilities
        self._batch_tokens = batch_tokens
        self._thread = WorkThread(name)

    @classmethod
    def load(cls, name: str, files: ModelFiles, settings: RewardSettings) -> LocalReward:
        """Load a model's files; blocks.

        Raises:
            UserError: It is a plain language model, and nobody said how it scores steps.
            DataError: The files are damaged or of a kind that is not known.
        """
        architecture = architecture_of(files.folder)
        settings = kind_of(name, architecture, settings)
        tokenizer = load_tokenizer(files.folder)
        form = form_of(tokenizer, settings)
        network = load_network(files.folder, architecture, settings, form)
        config = read_config(files.folder)
        context = longest_input(
            settings.max_tokens, config.get("max_position_embeddings"), getattr(tokenizer, "model_max_length", None)
        )
        can = RewardCapabilities(
            kind="process" if form.one_pass else "outcome", one_pass=form.one_pass, context_tokens=context
        )
        identity = f"{files.fingerprint}+{network.dtype}+{asked_as(settings)}"
        return cls(name, identity, form, network, can, settings.batch_tokens)

    @property
    def capabilities(self) -> RewardCapabilities:
        """What this model is."""
        return self._can

    async def score_steps(
        self, problem: str, solutions: Sequence[Sequence[str]], which: Which = "all"
    ) -> list[StepScores]:
        """Score solutions in padded batches of like length (see `RewardModel.score_steps`)."""
        check_solutions(solutions)

        def prepare() -> list[tuple[int, int]]:
            inputs.extend(inputs_of(self._form, problem, s, which, self._can.context_tokens) for s in solutions)
            return [(i, j) for i, made in enumerate(inputs) for j in range(len(made.rendered))]

        inputs: list[Inputs] = []
        slots = await self._thread.run(prepare)
        rendered = [inputs[i].rendered[j] for i, j in slots]
        found: dict[tuple[int, int], list[float]] = {}
        for batch in batches_of([len(r.ids) for r in rendered], MOST_ROWS, self._batch_tokens):
            rows = [rendered[k] for k in batch]
            computed = await self._thread.run(partial(self._compute, rows))
            found.update(zip((slots[k] for k in batch), computed, strict=True))
        return [scores_of(made, [found[i, j] for j in range(len(made.rendered))]) for i, made in enumerate(inputs)]

    def most_usd(self, problem: str, solutions: Sequence[Sequence[str]], which: Which = "all") -> float:
        """0: it runs here."""
        return 0.0

    async def aclose(self) -> None:
        """Let the batch under way end and free the model; idempotent."""
        await self._thread.aclose()
        self._network = None

    def _compute(self, rows: list[Rendered]) -> list[list[float]]:
        assert self._network is not None  # the thread ends before the model goes
        return self._network.compute(rows)
