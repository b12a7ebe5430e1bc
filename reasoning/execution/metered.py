"""`run_answer_tests`: the tests of answers that are code, run once and kept in the run store."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import JsonValue, TypeAdapter, ValidationError

from ...core.concurrency import gather
from ...core.errors import BudgetExceeded, StoreError
from ...core.run import Run
from ...core.store.records import StoredCall, call_key
from ...core.types import CodeTest, Question
from ...serving.metered.calls import RecordedCalls
from ...serving.metered.replay import NotRecorded
from ..code_tests import question_code
from .sandbox import SandboxLimits, TestResult, require_sandbox, run_tests

__all__ = ["require_sandbox", "run_answer_tests"]

ROLE = "sandbox"
_RESULTS = TypeAdapter(tuple[TestResult, ...])


async def run_answer_tests(
    codes: Sequence[str], question: Question, tests: Sequence[CodeTest], run: Run, limits: SandboxLimits | None = None
) -> list[tuple[TestResult, ...]]:
    """Run the code of answers against tests; equal code once. The definitions in the question's code come before it.

    Returns:
        For each code, a result for each test.

    Raises:
        SandboxUnavailable: No isolation can be had here.
        BudgetExceeded: The run's time is over.
        NotRecorded: A replay reaches tests that were not run.
    """
    limits = limits or SandboxLimits()
    calls = RecordedCalls(run, ROLE, ROLE, ROLE)
    before = question_code(question)
    distinct = list(dict.fromkeys(codes))
    requests: dict[str, dict[str, JsonValue]] = {
        code: {
            "code": [before, code],
            "tests": [test.model_dump(mode="json") for test in tests],
            "limits": limits.model_dump(mode="json"),
        }
        for code in distinct
    }
    keys = {code: call_key(ROLE, request, None, 0) for code, request in requests.items()}
    stored = await run.lookup_calls(list(keys.values()))
    results = {code: _read(stored[key]) for code, key in keys.items() if key in stored}
    missing = [code for code in distinct if code not in results]
    stopped: dict[str, JsonValue] = {"stopped": [keys[code] for code in missing]}
    stop_key = call_key(ROLE, stopped, None, 0)
    if missing and not run.recording:
        stop = (await run.find_calls([stop_key])).get(stop_key)
        raise NotRecorded("the results of tests are not in the run store") if stop is None else _stop(stop)
    if missing:
        try:
            async with calls.time_limit():
                new = await gather(run_tests([before, code], tests, limits) for code in missing)
        except BudgetExceeded as e:
            await run.save_calls([calls.record(stop_key, stopped, {"kind": e.kind, "used": e.used, "limit": e.limit})])
            raise
        results.update(zip(missing, new, strict=True))
        await run.save_calls(
            [
                calls.record(keys[code], requests[code], {"results": _RESULTS.dump_python(results[code], mode="json")})
                for code in missing
            ]
        )
    return [results[code] for code in codes]


def _stop(call: StoredCall) -> BudgetExceeded:
    """The limit that ended the tests of a recorded run."""
    kind, used, limit = (call.response[name] for name in ("kind", "used", "limit"))
    assert isinstance(used, int | float)
    assert isinstance(limit, int | float)
    return BudgetExceeded(str(kind), used, limit)


def _read(call: StoredCall) -> tuple[TestResult, ...]:
    try:
        return _RESULTS.validate_python(call.response["results"])
    except (KeyError, ValidationError) as e:
        raise StoreError(f"the stored results of tests {call.key} cannot be read") from e
