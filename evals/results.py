"""`ResultRow`: one item under one seed, with everything that led to its score; a line of a run's `items.jsonl`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from pydantic import Field, JsonValue

from ..core.messages import Failure, Frozen
from ..core.store.records import StoredCall
from ..core.types import Answer, AnswerCandidate, Probability, Stopped


class RowLedger(Frozen):
    """The cost of an item, whichever run paid it; independent of interruptions.

    Attributes:
        prompt_tokens: Tokens of the prompts, each counted once.
        completion_tokens: Generated tokens of all samples. Those from the run store count as if they were generated
            now, so that a method's cost does not depend on what was recorded before it.
        thinking_tokens: Part of them that are thoughts.
        model_calls: Model calls, counted the same way.
        reward_calls: Forward passes of reward models, counted the same way.
        responses: Stored responses of the item; each was paid once, by this run or another.
        paid_responses: Responses that this run paid.
        paid_tokens: Their generated tokens.
        tokens_by_role: Generated tokens by "role:model".
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    thinking_tokens: int = 0
    model_calls: int = 0
    reward_calls: int = 0
    responses: int = 0
    paid_responses: int = 0
    paid_tokens: int = 0
    tokens_by_role: dict[str, int] = Field(default_factory=dict)


class RowTiming(Frozen):
    """What depends on machine, load and interruptions.

    Attributes:
        wall_s: Seconds from start to end of the item, with other items in flight.
        working_s: Seconds that models worked for it.
        waited_s: Seconds in queues and on rate limits.
        uninterrupted: Whether nothing of it came from the store: only then are the seconds a latency.
        cached_tokens: Prompt tokens whose keys and values were reused.
        cost_usd: US dollars that this run paid; None if a price is unknown.
    """

    wall_s: float = 0.0
    working_s: float = 0.0
    waited_s: float = 0.0
    uninterrupted: bool = True
    cached_tokens: int = 0
    cost_usd: float | None = 0.0


class ResultRow(Frozen):
    """One item under one seed.

    Attributes:
        id: Id of the item.
        seed: Seed of the run.
        item_seed: Seed of the item's own run, derived from the two.
        run_id: Id of the item's run in the run store: `reason runs show RUN`.
        group: Group of dependent items; empty if the item is independent.
        subject: Subject of the item, for the breakdown.
        level: Difficulty of the item according to its source, for the breakdown.
        question: Its text.
        choices: Its options in the order shown.
        gold: The gold answer.
        prompt_hash: SHA-256 over all prompts, sorted.
        sampling: Every set of sampling parameters that was used, without seeds.
        strategy: Name of the strategy.
        models: Model string by role.
        engines: Identity of each model by role: weights, number format, engine and its version.
        version: Version of `reason`.
        text: Text of the chosen candidate.
        answer: The answer extracted from it.
        candidates: All candidates.
        confidence: Stated probability that the answer is right.
        calibrated_confidence: The same after the run's calibration map; None without one.
        stopped: Why its run ended.
        degraded: What deviated from the method.
        score: The score as the scorer returned it.
        value: The main score, in [0, 1].
        correct: Whether the answer is right; None if the score is not binary.
        label: The right answer in short.
        prediction: The given answer in short.
        metrics: Further scores by name.
        parsed: Whether an answer could be extracted.
        error: Why there is no answer; such an item counts as wrong.
        attempts: Number of attempts after errors; 1 is the first.
        ledger: Its cost.
        timing: Its times.
    """

    id: str
    seed: int
    item_seed: int
    run_id: str
    group: str = ""
    subject: str = ""
    level: str = ""
    question: str
    choices: tuple[str, ...] = ()
    gold: JsonValue = None
    prompt_hash: str = ""
    sampling: tuple[dict[str, JsonValue], ...] = ()
    strategy: str
    models: dict[str, str]
    engines: dict[str, str] = Field(default_factory=dict)
    version: str
    text: str = ""
    answer: str | None = None
    candidates: tuple[AnswerCandidate, ...] = ()
    confidence: Probability | None = None
    calibrated_confidence: Probability | None = None
    stopped: Stopped = "done"
    degraded: tuple[str, ...] = ()
    score: JsonValue = None
    value: float = Field(ge=0, le=1)
    correct: bool | None = None
    label: str | None = None
    prediction: str | None = None
    metrics: dict[str, float] = Field(default_factory=dict)
    parsed: bool
    error: Failure | None = None
    attempts: int = 1
    ledger: RowLedger = RowLedger()
    timing: RowTiming = RowTiming()

    @property
    def key(self) -> tuple[str, int]:
        """Identifies the row within its run."""
        return self.id, self.seed

    def without_times(self) -> dict[str, Any]:
        """The fields that two runs of the same plan have in common.

        Log-probabilities are excluded: their last bits depend on the batch size of the engine.
        """
        return self.model_dump(mode="json", exclude={"timing": True, "candidates": {"__all__": {"logprob"}}})


def row_ledger(answer: Answer, calls: Sequence[StoredCall], paid_before: frozenset[str]) -> RowLedger:
    """The cost of an item.

    Args:
        paid_before: Keys of the calls that another run paid.
    """
    paid = [c for c in calls if c.key not in paid_before]
    return RowLedger(
        prompt_tokens=_prompt_tokens(calls),
        completion_tokens=answer.usage.completion_tokens,
        thinking_tokens=answer.usage.thinking_tokens,
        model_calls=answer.usage.model_calls,
        reward_calls=answer.usage.reward_calls,
        responses=len(calls),
        paid_responses=len(paid),
        paid_tokens=sum(_usage(c, "completion_tokens") for c in paid),
        tokens_by_role={k: r.completion_tokens for k, r in sorted(answer.usage.by_role.items())},
    )


def row_timing(answer: Answer) -> RowTiming:
    """The times of an item."""
    usage = answer.usage
    return RowTiming(
        wall_s=usage.wall_seconds,
        working_s=sum(r.working_s for r in usage.by_role.values()),
        waited_s=sum(r.waited_s for r in usage.by_role.values()),
        uninterrupted=not usage.replayed_calls and not usage.replayed_tokens,
        cached_tokens=usage.cached_tokens,
        cost_usd=usage.cost_usd,
    )


def prompt_hash(calls: Sequence[StoredCall]) -> str:
    """SHA-256 over the prompts of all calls, whatever order they were stored in; empty if there were none."""
    prompts = sorted({_canonical(_prompt(c)) for c in calls})
    return hashlib.sha256("\n".join(prompts).encode("utf-8", "surrogatepass")).hexdigest() if prompts else ""


def sampling_settings(calls: Sequence[StoredCall]) -> tuple[dict[str, JsonValue], ...]:
    """The sampling parameters of all calls, each once."""
    results: dict[str, dict[str, JsonValue]] = {}
    for call in calls:
        request = call.request.get("request")
        settings = request.get("sampling") if isinstance(request, dict) else None
        if isinstance(settings, dict):
            results[_canonical(settings)] = settings
    return tuple(results[k] for k in sorted(results))


def _prompt_tokens(calls: Sequence[StoredCall]) -> int:
    """Prompt tokens of samples: those of one request share a prompt, which the backend counts once."""
    by_request: dict[str, int] = {}
    total = 0
    for call in calls:
        if "index" in call.request:
            name = _canonical([call.role, call.request.get("request"), call.request.get("seed")])
            by_request[name] = max(by_request.get(name, 0), _usage(call, "prompt_tokens"))
        else:
            total += _usage(call, "prompt_tokens")
    return total + sum(by_request.values())


def _usage(call: StoredCall, name: str) -> int:
    usage = call.response.get("usage")
    value = usage.get(name, 0) if isinstance(usage, dict) else 0
    return value if isinstance(value, int) else 0


def _prompt(call: StoredCall) -> JsonValue:
    request = call.request.get("request")
    if not isinstance(request, dict):
        return request
    return next((request[name] for name in ("prompt", "score", "next_token") if name in request), request)


def _canonical(value: JsonValue) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
