"""Networks: from batches of tokens to log-odds at the places that a form names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...core.errors import BackendError, DataError
from ...core.scorer_settings import RewardSettings
from ..loading import SAFE, first_line, load_weights
from .forms import Form, Rendered, TokensForm
from .heads import LABELS, Qwen2Reward

_SCALED = ("logits_scaling", "final_logit_softcapping", "logit_scale")
"""What some families do to logits after the head; a bare head would miss it."""


@dataclass(frozen=True)
class Network:
    """A loaded model.

    Attributes:
        states: From tokens and mask `[rows, tokens]` to states `[rows, tokens, width]`, or, where `whole`, to logits of
            whole rows `[rows, labels]`.
        odds: From states `[n, width]` (or those logits) to log-odds `[n]`.
        whole: Whether the model pools by itself.
        device: Where it runs.
        dtype: Its number format, for the identity.
    """

    states: Callable[[Tensor, Tensor], Tensor]
    odds: Callable[[Tensor], Tensor]
    whole: bool
    device: torch.device
    dtype: str

    def compute(self, batch: Sequence[Rendered]) -> list[list[float]]:
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
                if not self.whole:
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


def load_network(folder: Path, architecture: str, settings: RewardSettings, form: Form) -> Network:
    """Load the model of a folder as its architecture says.

    Raises:
        DataError: The folder holds no whole reward model of a known kind.
    """
    if architecture in LABELS:
        model = _load_qwen(folder, architecture, settings)
        return _network(model, model.hidden, lambda states: log_odds(model.logits(states)))
    if isinstance(form, TokensForm):
        return _load_speaking(folder, settings, form)
    return _load_classifier(folder, settings)


def log_odds(logits: Tensor) -> Tensor:
    """Log-odds `[n]` from logits `[n, labels]`: the second class against the first, or the single number itself."""
    wide = logits.float()
    return wide[:, 0] if wide.shape[1] == 1 else wide[:, 1] - wide[:, 0]


def _load_qwen(folder: Path, architecture: str, settings: RewardSettings) -> Any:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(str(folder), **SAFE)
    config.num_labels = LABELS[architecture]
    return load_weights(Qwen2Reward, folder, settings.dtype, settings.device, config=config)


def _load_speaking(folder: Path, settings: RewardSettings, form: TokensForm) -> Network:
    from transformers import AutoModelForCausalLM

    model = load_weights(AutoModelForCausalLM, folder, settings.dtype, settings.device)
    if scaled := [name for name in _SCALED if getattr(model.config, name, None) is not None]:
        raise DataError(f"models whose logits are changed by {scaled[0]} cannot be token-based reward models here")
    head, good, bad = model.get_output_embeddings(), form.good, form.bad

    def odds(states: Tensor) -> Tensor:
        logits: Tensor = head(states).float()
        return logits[:, good] - logits[:, bad]

    return _network(model, _body(model), odds)


def _load_classifier(folder: Path, settings: RewardSettings) -> Network:
    from transformers import AutoModelForSequenceClassification

    model = load_weights(AutoModelForSequenceClassification, folder, settings.dtype, settings.device)
    if (labels := model.config.num_labels) not in (1, 2):
        raise DataError(f"the classifier in {folder} has {labels} labels; an outcome model has one or two")
    head = getattr(model, "score", None)
    if isinstance(head, torch.nn.Module):  # a decoder: its own pooling needs a padding token that is no text's end
        score: torch.nn.Module = head
        return _network(model, _body(model), lambda states: log_odds(score(states)))

    def whole(ids: Tensor, mask: Tensor) -> Tensor:
        logits: Tensor = model(input_ids=ids, attention_mask=mask).logits
        return logits

    return _network(model, whole, log_odds, whole=True)


def _body(model: Any) -> Callable[[Tensor, Tensor], Tensor]:
    def states(ids: Tensor, mask: Tensor) -> Tensor:
        found: Tensor = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        return found

    return states


def _network(
    model: Any,
    states: Callable[[Tensor, Tensor], Tensor],
    odds: Callable[[Tensor], Tensor],
    *,
    whole: bool = False,
) -> Network:
    return Network(states, odds, whole, model.device, str(model.dtype).removeprefix("torch."))
