"""The arithmetic of contrastive mixing, which rows meet, and which requests of a call go together."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from reason.core.errors import CapabilityMissing, UserError
from reason.core.messages import LogitsProcessorSpec, Prompt, Request, SamplingParams
from reason.serving.logits_processors import (
    LockstepLost,
    LogitsRow,
    ProcessorState,
    contrast,
    lockstep_groups,
    logits_processor_names,
    make_logits_processors,
    run_logits_processors,
)
from reason.serving.logits_processors.groups import mix_logits

INF = float("inf")
rows = arrays(np.float32, 9, elements=st.floats(-30, 30, width=32))


def member(role: str, pair: str = "p", **args: Any) -> LogitsProcessorSpec:
    return LogitsProcessorSpec(name="contrast", args={"pair": pair, "role": role, **args})


def request(
    role: str, prompt: str = "a", logits_processors: tuple[LogitsProcessorSpec, ...] = (), **sampling: Any
) -> Request:
    own = sampling.pop("own", {})
    return Request(
        prompt=Prompt.user(prompt),
        sampling=SamplingParams(logits_processors=(*logits_processors, member(role, **own)), **{"seed": 1} | sampling),
    )


def line(
    row: Any, *calls: LogitsProcessorSpec, said: tuple[int, ...] = (), scope: object = None, together: bool = False
) -> LogitsRow:
    processors = make_logits_processors(calls, "m")
    states = {name: ProcessorState((), (), 0, together=together) for name, _ in processors}
    return LogitsRow(np.asarray(row, dtype=np.float32), (), said, processors, states, scope)


def test_calls_without_processors_do_not_load_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    def looked(*_: object) -> None:
        raise AssertionError("entry points were read")

    monkeypatch.setattr(sys.modules[lockstep_groups.__module__], "entry_points_in", looked)
    assert lockstep_groups([Request(prompt=Prompt(text="a")), Request(prompt=Prompt(text="b"))], "m") == []
    with pytest.raises(AssertionError):
        lockstep_groups(
            [
                Request(
                    prompt=Prompt(text="a"),
                    sampling=SamplingParams(logits_processors=(LogitsProcessorSpec(name="contrast"),)),
                )
            ],
            "m",
        )


@given(rows, rows, st.floats(0, 4), st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_the_mix_is_the_formula_on_probabilities(e: Any, a: Any, strength: float, plausible: float) -> None:
    def logprobs(row: Any) -> Any:
        shifted = row.astype(np.float64) - row.max()
        return shifted - math.log(np.exp(shifted).sum())

    expected = (1 + strength) * logprobs(e) - strength * logprobs(a)
    kept = logprobs(e) >= logprobs(e).max() + (math.log(plausible) if plausible else -INF)
    found = mix_logits(e, [a], strength, plausible)
    edge = np.abs(logprobs(e) - logprobs(e).max() - math.log(plausible)) < 1e-4 if plausible else np.zeros(9, bool)
    sure = ~edge
    assert np.array_equal(np.isfinite(found)[sure], kept[sure])
    both = np.isfinite(found) & kept
    assert both.any()
    shift = found[both] - expected[both]  # logits and log-probabilities differ by a constant
    assert shift == pytest.approx(np.full(shift.shape, shift[0]), abs=1e-3)


def test_forbidden_tokens_stay_forbidden() -> None:
    e = np.array([1.0, -INF, 2.0, -INF], dtype=np.float32)
    a = np.array([-INF, 1.0, 1.0, -INF], dtype=np.float32)
    assert mix_logits(e, [a], 1.0, 0.0).tolist() == [1.0, -INF, 3.0, -INF]


def test_amateurs_are_averaged() -> None:
    e, a, b = (np.array(v, dtype=np.float32) for v in ([1, 2], [0, 4], [2, 0]))
    assert mix_logits(e, [a, b], 1.0, 0.0).tolist() == [1.0, 2.0]


def test_group_rows_become_equal_and_others_are_unchanged() -> None:
    e, a = [0.0, 3.0, 2.0], [0.0, 3.0, 0.0]
    pair = [line(e, member("expert", plausible=0)), line(a, member("amateur", plausible=0))]
    other = line([5.0, 0.0, 0.0])
    run_logits_processors([pair[0], other, pair[1]])
    assert pair[0].row.tolist() == pair[1].row.tolist() == [0.0, 3.0, 3.0]
    assert other.row.tolist() == [5.0, 0.0, 0.0]
    assert [p.states["contrast"].extras for p in pair] == [{"mixed": 1}] * 2


def test_processors_before_act_on_each_row_and_later_ones_on_the_mix() -> None:
    forbid = LogitsProcessorSpec(name="forbid_tokens", args={"ids": [1]})
    probe = LogitsProcessorSpec(name="entropy_probe")
    only = LogitsProcessorSpec(name="only_tokens", args={"ids": [2]})
    e = line([0.0, 3.0, 2.0], probe, forbid, member("expert", plausible=0), only)
    a = line([0.0, 9.0, 0.0], probe, forbid, member("amateur", plausible=0), only)
    run_logits_processors([e, a])
    assert e.row.tolist() == a.row.tolist() == [-INF, -INF, 3.0]
    assert e.states["entropy_probe"].extras["entropy"] != a.states["entropy_probe"].extras["entropy"]


@pytest.mark.parametrize(
    "partner",
    [
        None,
        line([1.0, 0.0], member("amateur", pair="q")),
        line([1.0, 0.0], member("expert")),
        line([1.0, 0.0], member("amateur"), said=(7,)),
        line([1.0, 0.0], member("amateur"), scope="elsewhere"),
        line([1.0, 0.0], member("amateur", size=3)),
    ],
)
def test_without_its_partner_nothing_changes(partner: LogitsRow | None) -> None:
    alone = line([0.0, 1.0], member("expert"))
    run_logits_processors([alone, *([partner] if partner else [])])
    assert alone.error is None
    assert alone.row.tolist() == [0.0, 1.0]
    assert alone.states["contrast"].extras == {}


def test_lost_partner_fails_the_sample() -> None:
    alone = line([0.0, 1.0], member("expert"), together=True)
    run_logits_processors([alone])
    assert isinstance(alone.error, LockstepLost)


@pytest.mark.parametrize(
    "args",
    [
        {"pair": "", "role": "expert"},
        {"pair": "p", "role": "judge"},
        {"pair": "p", "role": "expert", "strength": -1},
        {"pair": "p", "role": "expert", "plausible": 2},
        {"pair": "p", "role": "expert", "size": 1},
        {"pair": "p"},
    ],
)
def test_bad_arguments_are_user_errors(args: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="contrast"):
        make_logits_processors([LogitsProcessorSpec(name="contrast", args=args)], "m")


def test_it_is_registered_as_a_group_processor() -> None:
    assert "contrast" in logits_processor_names() - logits_processor_names(groups=False)
    assert contrast("p", "amateur", size=3).roles == ("amateur", "amateur", "expert")


def test_lockstep_groups_are_found_by_name() -> None:
    calls = [
        request("expert"),
        Request(prompt=Prompt.user("x")),
        request("amateur", own={"pair": "q"}),
        request("amateur"),
        request("expert", own={"pair": "r"}),
    ]
    assert lockstep_groups(calls, "m") == [(0, 3)]


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (request("expert"), "2 requests with role 'expert', expected 1"),
        (request("amateur", temperature=0.5), "different sampling parameters"),
        (request("amateur", own={"strength": 2.0}), "different sampling parameters"),
        (request("amateur").model_copy(update={"sample_indices": (1,)}), "different sampling parameters"),
    ],
)
def test_inconsistent_lockstep_groups_are_rejected(other: Request, says: str) -> None:
    with pytest.raises(UserError, match=says):
        lockstep_groups([request("expert"), other], "m")


def test_lockstep_groups_need_a_seed_unless_greedy() -> None:
    with pytest.raises(UserError, match="needs a seed"):
        lockstep_groups([request("expert", seed=None), request("amateur", seed=None)], "m")
    greedy = [request("expert", seed=None, temperature=0), request("amateur", seed=None, temperature=0)]
    assert lockstep_groups(greedy, "m") == [(0, 1)]


def test_request_has_one_group_processor() -> None:
    twice = request("expert", logits_processors=(member("amateur", "q"),))
    with pytest.raises(UserError, match="one logits processor over a group"):
        lockstep_groups([twice, request("amateur")], "m")
    with pytest.raises(CapabilityMissing, match="no_such"):
        lockstep_groups([request("expert", logits_processors=(LogitsProcessorSpec(name="no_such"),))], "m")
