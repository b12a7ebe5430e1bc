"""`LocalReward`: a reward model through transformers, in this process.

Reward models whose code is shipped with their weights are implemented here on transformers' own bodies; their code is
not run.

Source: the architecture named by the weights of Qwen2.5-Math-PRM and Qwen2.5-Math-RM: a Qwen2 body without a language
head, then linear, ReLU, linear.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2Model, Qwen2PreTrainedModel

from ...core.errors import BackendError, DataError
from ...core.settings import RewardSettings
from ..model_files.checkpoint import read_config
from ..model_files.find import ModelFiles
from ..model_thread import ModelThread, length_batches
from ..transformers_loading import (
    LOCAL_FILES_ONLY,
    architecture_of,
    first_line,
    load_tokenizer,
    load_weights,
    min_limit,
)
from .inputs import (
    InputFormat,
    RenderedInput,
    SolutionInputs,
    inputs_of,
    make_format,
    resolve_format,
    scores_of,
    settings_digest,
)
from .model import RewardCapabilities, StepScores, StepSelection, check_solutions

LABELS = {"Qwen2ForProcessRewardModel": 2, "Qwen2ForRewardModel": 1}
"""Architectures, with the size of their head's output."""


class Qwen2Reward(Qwen2PreTrainedModel):  # type: ignore[misc]
    """A Qwen2 body with a head of two layers on every token.

    Args:
        config: The model's configuration; `num_labels` is the size of the output.
    """

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__(config)
        self.model = Qwen2Model(config)
        self.score = nn.Sequential(
            nn.Linear(config.hidden_size, config.hidden_size),
            nn.ReLU(),
            nn.Linear(config.hidden_size, int(config.num_labels or 1)),
        )
        self.post_init()  # type: ignore[no-untyped-call, unused-ignore]

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any) -> Tensor:
        """Logits of every token, `[rows, tokens, labels]`."""
        return self.logits(self.hidden(input_ids, attention_mask))

    def hidden(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Hidden states of every token, `[rows, tokens, width]`."""
        output = self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        states: Tensor = output.last_hidden_state
        return states

    def logits(self, states: Tensor) -> Tensor:
        """The head on hidden states."""
        result: Tensor = self.score(states)
        return result


@dataclass(frozen=True)
class RewardNetwork:
    """A loaded model.

    Attributes:
        states: From tokens and mask `[rows, tokens]` to states `[rows, tokens, width]`, or, if `pools`, to logits
            `[rows, labels]`.
        odds: From states `[n, width]` (or those logits) to log-odds `[n]`.
        pools: Whether the model itself pools over tokens.
        device: Its device.
        dtype: Its number format, for the identity.
    """

    states: Callable[[Tensor, Tensor], Tensor]
    odds: Callable[[Tensor], Tensor]
    pools: bool
    device: torch.device
    dtype: str

    def compute(self, batch: Sequence[RenderedInput]) -> list[list[float]]:
        """Log-odds at each input's positions, one padded batch.

        Raises:
            BackendError: The device ran out of memory, or failed.
        """
        longest = max(len(r.ids) for r in batch)
        ids = torch.zeros(len(batch), longest, dtype=torch.long)
        mask = torch.zeros(len(batch), longest, dtype=torch.long)
        for row, rendered in enumerate(batch):
            ids[row, : len(rendered.ids)] = torch.tensor(rendered.ids)
            mask[row, : len(rendered.ids)] = 1
        try:
            with torch.inference_mode():
                states = self.states(ids.to(self.device), mask.to(self.device))
                if not self.pools:
                    rows = [row for row, r in enumerate(batch) for _ in r.positions]
                    places = [p for r in batch for p in r.positions]
                    states = states[rows, places]
                odds = iter(self.odds(states).float().cpu().tolist())
        except RuntimeError as e:  # torch's class for a full memory too
            raise BackendError(
                f"the reward model failed on {len(batch)} x {longest} tokens: {first_line(e)}",
                hint="lower batch_tokens of this model in the section [rewards]",
            ) from e
        return [[next(odds) for _ in r.positions] for r in batch]


def load_network(directory: Path, architecture: str, settings: RewardSettings) -> RewardNetwork:
    """Load the model of a directory by its architecture.

    Raises:
        DataError: The directory has no complete reward model of a known kind.
    """
    if architecture in LABELS:
        model = _load_qwen(directory, architecture, settings)
        return _network(model, model.hidden, lambda states: log_odds(model.logits(states)))
    return _load_classifier(directory, settings)


def log_odds(logits: Tensor) -> Tensor:
    """Log-odds `[n]` from logits `[n, labels]`: the second class against the first, or the single number itself."""
    wide = logits.float()
    return wide[:, 0] if wide.shape[1] == 1 else wide[:, 1] - wide[:, 0]


def _load_qwen(directory: Path, architecture: str, settings: RewardSettings) -> Any:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(str(directory), **LOCAL_FILES_ONLY)
    config.num_labels = LABELS[architecture]
    return load_weights(Qwen2Reward, directory, settings.dtype, settings.device, config=config)


def _load_classifier(directory: Path, settings: RewardSettings) -> RewardNetwork:
    from transformers import AutoModelForSequenceClassification

    model = load_weights(AutoModelForSequenceClassification, directory, settings.dtype, settings.device)
    if (labels := model.config.num_labels) not in (1, 2):
        raise DataError(f"the classifier in {directory} has {labels} labels; an outcome model has one or two")
    head = getattr(model, "score", None)
    if isinstance(head, torch.nn.Module):  # a decoder: its own pooling needs a padding token that is no text's end
        score: torch.nn.Module = head
        return _network(model, _body(model), lambda states: log_odds(score(states)))

    def pools(ids: Tensor, mask: Tensor) -> Tensor:
        logits: Tensor = model(input_ids=ids, attention_mask=mask).logits
        return logits

    return _network(model, pools, log_odds, pools=True)


def _body(model: Any) -> Callable[[Tensor, Tensor], Tensor]:
    def states(ids: Tensor, mask: Tensor) -> Tensor:
        result: Tensor = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        return result

    return states


def _network(
    model: Any,
    states: Callable[[Tensor, Tensor], Tensor],
    odds: Callable[[Tensor], Tensor],
    *,
    pools: bool = False,
) -> RewardNetwork:
    return RewardNetwork(states, odds, pools, model.device, str(model.dtype).removeprefix("torch."))


MAX_BATCH_INPUTS = 64
"""Maximum inputs computed together."""


class LocalReward:
    """A process or outcome reward model.

    Args:
        name: Model string.
        identity: Part of every key in the run store.
        form: Input format.
        network: The loaded model.
        capabilities: What it is.
        batch_tokens: Maximum tokens of a batch, padding included.
    """

    def __init__(
        self,
        name: str,
        identity: str,
        form: InputFormat,
        network: RewardNetwork,
        capabilities: RewardCapabilities,
        batch_tokens: int,
    ) -> None:
        self.name, self.identity = name, identity
        self._form = form
        self._network: RewardNetwork | None = network
        self._can = capabilities
        self._batch_tokens = batch_tokens
        self._thread = ModelThread(name)

    @classmethod
    def load(cls, name: str, files: ModelFiles, settings: RewardSettings) -> LocalReward:
        """Load a model's files; blocks.

        Raises:
            DataError: The files are damaged or of an unknown kind.
        """
        architecture = architecture_of(files.directory)
        settings = resolve_format(name, architecture, settings)
        tokenizer = load_tokenizer(files.directory)
        form = make_format(tokenizer, settings)
        network = load_network(files.directory, architecture, settings)
        config = read_config(files.directory)
        context = min_limit(
            settings.max_tokens, config.get("max_position_embeddings"), getattr(tokenizer, "model_max_length", None)
        )
        can = RewardCapabilities(
            kind="process" if form.one_pass else "outcome", one_pass=form.one_pass, context_tokens=context
        )
        identity = f"{files.fingerprint}+{network.dtype}+{settings_digest(settings)}"
        return cls(name, identity, form, network, can, settings.batch_tokens)

    @property
    def capabilities(self) -> RewardCapabilities:
        return self._can

    async def score_steps(
        self, problem: str, solutions: Sequence[Sequence[str]], which: StepSelection = "all"
    ) -> list[StepScores]:
        check_solutions(solutions)

        def prepare() -> list[tuple[int, int]]:
            inputs.extend(inputs_of(self._form, problem, s, which, self._can.context_tokens) for s in solutions)
            return [(i, j) for i, solution in enumerate(inputs) for j in range(len(solution.rendered))]

        inputs: list[SolutionInputs] = []
        slots = await self._thread.run(prepare)
        rendered = [inputs[i].rendered[j] for i, j in slots]
        result: dict[tuple[int, int], list[float]] = {}
        for batch in length_batches([len(r.ids) for r in rendered], MAX_BATCH_INPUTS, self._batch_tokens):
            rows = [rendered[k] for k in batch]
            computed = await self._thread.run(partial(self._compute, rows))
            result.update(zip((slots[k] for k in batch), computed, strict=True))
        return [
            scores_of(solution, [result[i, j] for j in range(len(solution.rendered))])
            for i, solution in enumerate(inputs)
        ]

    def max_usd(self, problem: str, solutions: Sequence[Sequence[str]], which: StepSelection = "all") -> float:
        return 0.0

    async def aclose(self) -> None:
        """Wait for the current batch and free the model; idempotent."""
        await self._thread.aclose()
        self._network = None

    def _compute(self, rows: list[RenderedInput]) -> list[list[float]]:
        assert self._network is not None  # the thread ends before the model is freed
        return self._network.compute(rows)
