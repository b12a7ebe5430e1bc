"""The navigator's network and its learning in torch, written from the paper's description alone: the other opinion."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """What is this small takes longest where threads wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class TorchDueling(nn.Module):
    """Seven scores in, five values out, in double precision."""

    def __init__(self) -> None:
        super().__init__()
        self.Linear1 = nn.Linear(7, 32, dtype=torch.float64)
        self.Linear2_adv = nn.Linear(32, 32, dtype=torch.float64)
        self.Linear2_val = nn.Linear(32, 32, dtype=torch.float64)
        self.Linear3_adv = nn.Linear(32, 5, dtype=torch.float64)
        self.Linear3_val = nn.Linear(32, 1, dtype=torch.float64)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        x = (states.to(torch.float64) - 1.5) / 1.5
        z = torch.relu(self.Linear1(x))
        advantage = self.Linear3_adv(torch.relu(self.Linear2_adv(z)))
        value = self.Linear3_val(torch.relu(self.Linear2_val(z)))
        return value + advantage - advantage.mean(dim=-1, keepdim=True)

    def take(self, weights: Mapping[str, np.ndarray]) -> TorchDueling:
        self.load_state_dict({name: torch.tensor(np.array(array)) for name, array in weights.items()}, strict=True)
        return self

    def told(self) -> dict[str, np.ndarray]:
        return {name: tensor.detach().numpy().copy() for name, tensor in self.state_dict().items()}


def random_weights(seed: int) -> dict[str, np.ndarray]:
    """Weights as torch initialises them."""
    torch.manual_seed(seed)
    return TorchDueling().told()


class TorchLearner:
    """Double DQN over legal actions with autograd and torch's Adam."""

    def __init__(self, weights: Mapping[str, np.ndarray], *, gamma: float, lr: float, sync_every: int) -> None:
        self.online, self.target = TorchDueling().take(weights), TorchDueling().take(weights)
        self.adam = torch.optim.Adam(self.online.parameters(), lr=lr)
        self.gamma, self.sync_every, self.updates = gamma, sync_every, 0

    def set_rate(self, lr: float) -> None:
        for group in self.adam.param_groups:
            group["lr"] = lr

    def learn(
        self,
        states: np.ndarray,
        actions: np.ndarray,
        rewards: np.ndarray,
        dones: np.ndarray,
        next_states: np.ndarray,
        next_legal: np.ndarray,
    ) -> float:
        following = torch.tensor(next_states)
        with torch.no_grad():
            chosen = self.online(following).masked_fill(~torch.tensor(next_legal), -torch.inf).argmax(dim=1)
            worth = self.target(following).gather(1, chosen[:, None])[:, 0]
            wanted = torch.tensor(rewards) + self.gamma * worth * ~torch.tensor(dones)
        said = self.online(torch.tensor(states)).gather(1, torch.tensor(actions)[:, None])[:, 0]
        loss = nn.functional.mse_loss(said, wanted)
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        self.updates += 1
        if self.updates % self.sync_every == 0:
            self.target.load_state_dict(self.online.state_dict())
        return float(loss.detach())
