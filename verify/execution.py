"""`execution`: runs the code of an answer against the question's tests in a sandbox; each test is a claim."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from ..core.errors import BudgetExceeded
from ..core.events import ClaimChecked
from ..core.types import CodeTest, Question, Solution, Verification
from ..reasoning.answers.extraction import find_code
from ..reasoning.code_tests import question_tests
from ..reasoning.execution.metered import run_answer_tests
from ..reasoning.execution.sandbox import SandboxLimits, TestResult, require_sandbox
from ..reasoning.strategy import Parameters, Stability
from .davinci.davinci import make_verification
from .types import Claim, ClaimReport
from .verifier import LEXICAL, VerifierContext

NO_TESTS = "the question has no tests, and no examples (>>>) in its text; give tests with --tests FILE"
_RUNS = "The code runs without an error."
_PASSES = "The code passes the test: "
_HAS_CODE = "The answer has Python code."
_BACKEND = "execution"
_MAX_EVIDENCE_CHARS = 4_000


class Execution:
    """Execution of an answer's Python code.

    Tests are those given with the question, else the examples in its text. Each becomes a claim: supported if the code
    passes it, refuted with its traceback and output if not. Code that fails before its tests is one refuted claim, and
    so is an answer without code. Without any test the code is only run: that refutes it or shows nothing.

    Model calls: none. The results are in the run store: a resumed or replayed run executes nothing again.
    """

    name: ClassVar[str] = "execution"
    summary: ClassVar[str] = "tests of an answer's Python code, run in a sandbox"
    paper: ClassVar[str] = ""
    stability: ClassVar[Stability] = "experimental"
    needs_evidence: ClassVar[bool] = False
    runs_code: ClassVar[bool] = True

    class Config(Parameters):
        """Parameters of `execution`."""

        seconds: Annotated[int, Field(ge=1, le=60, description="processor time of a test, in seconds")] = 5
        memory_mb: Annotated[int, Field(ge=64, le=8192, description="memory of a test, in MiB")] = 512

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def entailment(self) -> str:
        """None is used; this one needs no model."""
        return LEXICAL

    @property
    def roles(self) -> tuple[str, ...]:
        """See `Verifier`."""
        return ()

    async def prepare(self) -> None:
        """See `PreparesItself`."""
        await require_sandbox()

    async def verify(self, question: Question, solution: Solution, context: VerifierContext) -> Verification:
        """See `Verifier.verify`."""
        text = "" if solution.best is None else solution.best.text
        reports = await self._reports(text, question, context) if text.strip() else []
        for number, report in enumerate(reports):
            context.run.emit(ClaimChecked(index=number, report=report.model_dump(mode="json")))
        return make_verification(self.name, reports)

    async def _reports(self, text: str, question: Question, context: VerifierContext) -> list[ClaimReport]:
        tests = question_tests(question)
        span = find_code(text, [test.code for test in tests])
        if span is None:
            claim = Claim(text=_HAS_CODE, start=0, end=len(text))
            return [_refuted(claim, "there is no fenced Python block, and no definition")]
        claims = [Claim(text=f"{_PASSES}{test.name}", start=span[0], end=span[1]) for test in tests]
        runs = Claim(text=_RUNS, start=span[0], end=span[1])
        limits = SandboxLimits(
            cpu_seconds=self.config.seconds,
            wall_seconds=2.0 * self.config.seconds,
            memory_bytes=self.config.memory_mb << 20,
        )
        run = tests or (CodeTest(name=_RUNS, code="pass"),)
        try:
            (results,) = await run_answer_tests([text[slice(*span)]], question, run, context.run, limits)
        except BudgetExceeded as e:
            context.run.record_limit(e)
            context.run.degrade(f"{self.name}: the budget was exhausted before the tests were run")
            return [_unchecked(claim, "the budget did not reach it") for claim in claims or [runs]]
        if not tests and results[0].passed:
            return [
                ClaimReport(
                    claim=runs,
                    verdict="not_enough_evidence",
                    reason="no_evidence",
                    note=NO_TESTS,
                    backend=_BACKEND,
                    warnings=("no_evidence",),
                )
            ]
        if not tests or all(result.outcome == "code_error" for result in results):
            return [_refuted(runs, _shown(results[0]))]
        return [_report(claim, test, result) for claim, test, result in zip(claims, tests, results, strict=True)]


def _report(claim: Claim, test: CodeTest, result: TestResult) -> ClaimReport:
    if result.outcome == "not_run":
        return _unchecked(claim, result.detail)
    if not result.passed:
        return _refuted(claim, _shown(result))
    shown = test.code.strip()[:_MAX_EVIDENCE_CHARS]
    return ClaimReport.by_program(claim, holds=True, shown=shown, result="passed", backend=_BACKEND)


def _refuted(claim: Claim, shown: str) -> ClaimReport:
    result = shown.splitlines()[0]
    return ClaimReport.by_program(
        claim, holds=False, shown=shown[:_MAX_EVIDENCE_CHARS], result=result, backend=_BACKEND
    )


def _unchecked(claim: Claim, note: str) -> ClaimReport:
    return ClaimReport(claim=claim, verdict="unchecked", reason="unchecked", note=note, backend=_BACKEND)


def _shown(result: TestResult) -> str:
    """A failure as evidence: why it failed, then what it printed."""
    printed = result.output.strip()
    return f"{result.detail or result.outcome}\nIt printed: {printed}" if printed else result.detail or result.outcome
