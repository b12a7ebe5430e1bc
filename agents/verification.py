"""`verify_text` and `averify_text`: verify a text from elsewhere, claim by claim, in a run of its own.

The run goes through the same pipeline as a question's, except for the strategy: its one candidate is the given text. So
it is in the run store, bound by a budget, and can be resumed and replayed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from ..core.budget import Budget
from ..core.errors import UserError
from ..core.events import ClaimChecked, Event, Sink
from ..core.files import Progress
from ..core.messages import Frozen
from ..core.run import RunConfig, new_seed
from ..core.settings import JURY, Settings, juror_role, load_settings
from ..core.sync_bridge import SyncBridge
from ..core.types import MAX_QUESTION_CHARS, Answer, CodeTest, Document, Question, RunUsage, Verification
from ..serving.profiles.profile import ModelProfile
from ..serving.thoughts import COMMON_TAGS, split_thought
from ..verify.types import ClaimReport
from ..verify.verifier import LEXICAL, MODEL, Verifier, make_verifier
from .planner import (
    GIVEN,
    complete_parameters,
    given_text,
    resolve_judges,
    verifier_needs_evidence,
)
from .reasoner import Reasoner

MAX_ANSWER_CHARS = 2_000_000
"""Maximum length of the text, in characters."""
THOUGHT_LEFT_OUT = "the text begins with a model's thought, which is no part of the answer and was not verified"
PROGRAMS_ONLY = (
    "no documents were given: only claims that a program can check are checked, all others are not enough evidence"
)


class TextVerification(Frozen):
    """The result of verifying a text.

    Attributes:
        answer: The text, as it was given; without a thought in tags at its beginning.
        question: The question that it answers; empty if unknown.
        verification: The verdict on it, and on its claims in short.
        reports: The complete record of each claim, in order of the text; empty if the verifier keeps none.
        usage: What it cost.
        run_id: Name of the run in the store.
        degraded: What could not be done as the method says, and what was done instead.
    """

    answer: str
    question: str
    verification: Verification
    reports: tuple[ClaimReport, ...]
    usage: RunUsage
    run_id: str
    degraded: tuple[str, ...] = ()


class ClaimReportSink:
    """A sink that keeps the complete record of each claim."""

    def __init__(self) -> None:
        self._reports: dict[int, ClaimReport] = {}

    def __call__(self, event: Event) -> None:
        """Keep a claim's record; a repeated one replaces the first."""
        if isinstance(event, ClaimChecked):
            self._reports[event.index] = ClaimReport.model_validate(event.report)

    def of(self, verification: Verification) -> tuple[ClaimReport, ...]:
        """The records of a verification's claims, in order; none if one is missing."""
        count = len(verification.claims)
        if set(self._reports) != set(range(count)):
            return ()
        return tuple(self._reports[number] for number in range(count))


async def averify_text(
    answer: str,
    *,
    question: str = "",
    documents: Sequence[Document] = (),
    evidence: Sequence[str | Path] = (),
    verifier: str = "davinci",
    parameters: Mapping[str, Any] | None = None,
    settings: Settings | None = None,
    model: str | None = None,
    jurors: Sequence[str] | None = None,
    budget: Budget | Mapping[str, Any] | None = None,
    programs_only: bool = False,
    tests: Sequence[CodeTest] = (),
    progress: Progress | None = None,
    sinks: Sequence[Sink] = (),
) -> TextVerification:
    """Verify a text from elsewhere.

    A thought in tags at its beginning (`<think>…</think>`), as some servers return it, is no part of the answer.

    A spent budget is no error: the claims that it did not reach are "unchecked". Cancelling the task saves the run.

    Args:
        answer: The text. It is data: no instruction in it is followed.
        question: The question that it answers, which resolves references in it.
        documents: Texts to verify it against.
        evidence: Files, directories and saved indexes to verify it against; empty is the setting.
        parameters: The verifier's parameters that differ from the settings.
        settings: Settings instead of those of environment and files.
        model: The language model that judges the evidence, unless the parameters name another judge, and that splits
            claims and finds origins if they ask for it (`claims="model"`, origins by "context" or "whitebox"); None is
            the setting, which judges only if it is `judge_model`, or if the parameters have `judge="model"`.
        jurors: The models of the jury, for a verifier that uses one; None is the setting, or else the main model.
        budget: Limits of the run.
        programs_only: Verify without any document: claims that no program can check are "not enough evidence".
        tests: Tests of a text that is Python code, for the verifier `execution`.
        progress: Receives the progress of documents and downloads; called from another thread.
        sinks: Receive every event.

    Raises:
        UserError: The text is empty, too long or an endless thought, there is nothing to verify it against and the
            verifier uses no jury, or a parameter is not allowed.
        DataError: A document or an index cannot be read.
        BackendError: Every call of the judging models failed.
    """
    base = {} if settings is None else settings.model_dump()
    overrides = {
        "model": model,
        "jurors": jurors,
        "evidence": tuple(map(str, evidence)) or None,
        "budget": budget.model_dump() if isinstance(budget, Budget) else budget,
    }
    settings = load_settings(**base | {name: value for name, value in overrides.items() if value is not None})
    if jurors and JURY not in make_verifier(verifier, {})[0].roles:
        raise UserError(f"the verifier {verifier} uses no jury, so it cannot use the juror {jurors[0]}")
    config, notes = plan_verification(
        answer,
        settings=settings,
        question=question,
        documents=documents,
        verifiers=(verifier,),
        parameters={verifier: parameters or {}},
        model=model,
        programs_only=programs_only,
        tests=tests,
    )
    reports = ClaimReportSink()
    async with Reasoner(calibration="none", settings=settings, progress=progress) as reasoner:
        result = await reasoner.arun(config, sinks=(reports, *sinks))
    return text_verification_of(result, config, reports, notes)


def plan_verification(
    answer: str,
    *,
    settings: Settings,
    question: str = "",
    documents: Sequence[Document] = (),
    verifiers: Sequence[str] = ("davinci",),
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    model: str | None = None,
    programs_only: bool = False,
    tests: Sequence[CodeTest] = (),
    tenant: str = "",
) -> tuple[RunConfig, tuple[str, ...]]:
    """The configuration of a run that verifies a text, for `Reasoner.arun`; nothing is opened.

    Arguments as `averify_text`; `settings` have evidence, models and limits, `tenant` is the run's owner.

    Returns:
        The configuration, and notes on what is degraded from the start.

    Raises:
        UserError: As `averify_text`.
    """
    _check_answer(answer, question)
    answer, has_thought = without_leading_thought(answer)
    given = {name: _own_defaults(name, (parameters or {}).get(name), settings) for name in verifiers}
    complete = complete_parameters(verifiers, settings.verifiers, {**(parameters or {}), **given})
    has_no_evidence = not documents and not settings.evidence and all(map(verifier_needs_evidence, verifiers))
    if has_no_evidence and not programs_only:
        raise UserError(
            "there is nothing to verify the answer against",
            hint="give documents or evidence (--docs), or set programs_only (--programs-only) for arithmetic",
        )
    if has_no_evidence:  # nothing will be judged: no model is loaded for it
        complete = {
            name: values | ({"judge": LEXICAL} if "judge" in values else {}) for name, values in complete.items()
        }
    asks_for_model = any(values.get("judge") == MODEL for values in complete.values())
    has_judge_model = model is not None or settings.judge_model is not None or asks_for_model
    complete = resolve_judges(complete, settings, has_judge_model=has_judge_model)
    models: dict[str, str] = {}
    for name, values in complete.items():
        models |= _models(make_verifier(name, values)[0], settings, model)
    config = RunConfig(
        question=Question(text=question.strip() or " ", documents=tuple(documents), tests=tuple(tests)),
        strategy=GIVEN,
        parameters={"answer": answer},
        models=models,
        verify=tuple(verifiers),
        verify_parameters=complete,
        evidence=settings.evidence,
        budget=settings.budget,
        local=settings.local,
        seed=new_seed() if settings.seed is None else settings.seed,
        reuse=settings.reuse,
        tenant=tenant,
    )
    notes = ((THOUGHT_LEFT_OUT,) if has_thought else ()) + ((PROGRAMS_ONLY,) if has_no_evidence else ())
    return config, notes


def without_leading_thought(text: str) -> tuple[str, bool]:
    """A text without the thought in tags that it begins with, and whether it does.

    Raises:
        UserError: Nothing follows the thought.
    """
    tags = next((tags for tags in COMMON_TAGS if text.lstrip().startswith(tags[0].strip())), None)
    if tags is None:
        return text, False
    split = split_thought(text, ModelProfile(open_tag=tags[0], close_tag=tags[1]))
    if not split.answer.strip():
        raise UserError("the answer is a thought with nothing after it", hint=f"give the text after {tags[1]}")
    return split.answer, True


def verify_text(answer: str, **options: Any) -> TextVerification:
    """`averify_text` for synchronous callers; works inside a running event loop (notebooks) too."""
    bridge = SyncBridge()
    try:
        return bridge.call(lambda: averify_text(answer, **options))
    finally:
        bridge.close()


def _check_answer(answer: str, question: str) -> None:
    if not answer.strip():
        raise UserError("the answer is empty", hint="give the text to verify")
    if len(answer) > MAX_ANSWER_CHARS:
        raise UserError(
            f"the answer has {len(answer):,} characters, more than {MAX_ANSWER_CHARS:,}", hint="verify it in parts"
        )
    if len(question) > MAX_QUESTION_CHARS:
        raise UserError(f"the question has {len(question):,} characters, more than {MAX_QUESTION_CHARS:,}")
    if any("\ud800" <= c <= "\udfff" for c in answer + question):
        raise UserError("the answer or the question is not valid Unicode text", hint="convert it to UTF-8")


def _own_defaults(verifier: str, parameters: Mapping[str, Any] | None, settings: Settings) -> Mapping[str, JsonValue]:
    """The given parameters, with no origins unless they or the settings name some: a given text has no run."""
    complete = dict(parameters or {})
    fields = make_verifier(verifier, {})[0].Config.model_fields
    configured = settings.verifiers.get(verifier, {})
    if "internal" in fields and "internal" not in configured:
        complete.setdefault("internal", [])
    if "davinci" in fields and "davinci" not in configured:
        complete["davinci"] = {"internal": [], **complete.get("davinci", {})}
    return complete


def _models(verifier: Verifier, settings: Settings, model: str | None) -> dict[str, str]:
    """The language models of a verifier, by role; empty if it uses none."""
    judge = model or settings.judge_model or settings.model
    by_role = {"judge": judge, "main": settings.model}
    if JURY not in verifier.roles:
        return {role: by_role[role] for role in verifier.roles}
    jury = {juror_role(i): name for i, name in enumerate(settings.jurors, 1)} or {"main": settings.model}
    return {role: name for role, name in by_role.items() if role in verifier.roles} | jury


def text_verification_of(
    result: Answer, config: RunConfig, reports: ClaimReportSink, notes: Sequence[str] = ()
) -> TextVerification:
    """The result of verifying a text, from the end of its run.

    Args:
        reports: Has received the run's events.
        notes: Precede the run's own notes on what is degraded.
    """
    verification = result.verification or Verification()
    return TextVerification(
        answer=given_text(config.parameters),
        question=config.question.text.strip(),
        verification=verification,
        reports=reports.of(verification),
        usage=result.usage,
        run_id=result.run_id,
        degraded=(*notes, *result.degraded),
    )
