"""Latency model of a chain that two models write: seconds by computed prompt tokens and generated tokens of each.

    T = sum over the calls of   prefill(model) * computed prompt tokens + step(model) * generated tokens

With a prefix cache, a model computes only the text that the other one has written since its last call.

Source: the accounting of Zeng et al. 2026, "GlimpRouter", arXiv:2601.05110, whose probes cost a small prefill and one
token. The linear model is ours: for one request at a time it is close, under batching it is not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from reason.core.errors import DataError
from reason.core.events import CallFinished, CallStarted, Event
from reason.routers.transcript import Writer
from scipy.optimize import nnls

Spent = tuple[Writer, int, int]
"""Which model, computed prompt tokens, generated tokens."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One timed call.

    Attributes:
        writer: The model; that in the role "main" is the large one.
        computed: Tokens of its prompts that were not cached.
        generated: Generated tokens.
        seconds: How long it took, in seconds.
    """

    writer: Writer
    computed: int
    generated: int
    seconds: float


@dataclass(frozen=True)
class LatencyModel:
    """Seconds for each token, by model.

    Attributes:
        prefill_s: Seconds for a computed prompt token.
        token_s: Seconds for a generated token.
    """

    prefill_s: dict[Writer, float] = field(default_factory=dict)
    token_s: dict[Writer, float] = field(default_factory=dict)

    def predict(self, calls: Iterable[Spent]) -> float:
        """Seconds that calls take one after another.

        Raises:
            DataError: No call of one of the models was timed.
        """
        seconds = 0.0
        for writer, computed, generated in calls:
            if writer not in self.token_s:
                raise DataError(
                    f"no call of the {writer} model was timed", hint="fit the latency to runs that called both models"
                )
            seconds += self.prefill_s[writer] * computed + self.token_s[writer] * generated
        return seconds


def observations(events: Sequence[Event]) -> list[Observation]:
    """The timed calls in a run's events.

    Calls that the run store answered, all or in part, are excluded. A cancelled call has no report of its cached tokens
    and counts as if its complete prompt was computed, so that few calls should be cancelled (`probe=separate`).
    """
    begun = {e.number: e for e in events if isinstance(e, CallStarted) and e.operation == "generate" and not e.replayed}
    timed: list[Observation] = []
    for event in events:
        start = begun.get(event.parent or 0)
        if isinstance(event, CallFinished) and start is not None and start.role in ("main", "small"):
            computed = max(0, event.prompt_tokens - event.cached_tokens)
            writer: Writer = "large" if start.role == "main" else "small"
            timed.append(Observation(writer, computed, event.tokens, event.seconds))
    return timed


def fit(timed: Iterable[Observation]) -> LatencyModel:
    """The seconds for each token that explain the calls best: non-negative least squares, each model by itself.

    Raises:
        DataError: There is no call.
    """
    rows: dict[Writer, list[Observation]] = defaultdict(list)
    for one in timed:
        rows[one.writer].append(one)
    if not rows:
        raise DataError("there is no timed call to fit a latency to", hint="use a run that was not replayed")
    prefill: dict[Writer, float] = {}
    token: dict[Writer, float] = {}
    for writer, of_one in rows.items():
        tokens = np.array([[one.computed, one.generated] for one in of_one], dtype=np.float64)
        found, _ = nnls(tokens, np.array([one.seconds for one in of_one], dtype=np.float64))
        prefill[writer], token[writer] = float(found[0]), float(found[1])
    return LatencyModel(prefill, token)
