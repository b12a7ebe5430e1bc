"""Reward models whose code lies with their weights, written here on transformers' own bodies: theirs is not run.

Source: the architecture as the weights of Qwen2.5-Math-PRM and Qwen2.5-Math-RM name it: a Qwen2 body without a language
head, then linear, ReLU, linear.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2Model, Qwen2PreTrainedModel

LABELS = {"Qwen2ForProcessRewardModel": 2, "Qwen2ForRewardModel": 1}
"""Architectures, with the size of their head's output."""


class Qwen2Reward(Qwen2PreTrainedModel):  # type: ignore[no-untyped-call, unused-ignore]
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
        """What the body makes of every token, `[rows, tokens, width]`."""
        output = self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        states: Tensor = output.last_hidden_state
        return states

    def logits(self, states: Tensor) -> Tensor:
        """The head on any of these."""
        found: Tensor = self.score(states)
        return found
