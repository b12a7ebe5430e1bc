"""`verify_text` and `averify_text`: a text that something else wrote, checked claim by claim in a run of its own.

The run goes through the same pipeline as a question's, but for the strategy: its one candidate is the given text. So it
is in the run store, bound by a budget, and can be resumed and replayed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from ..core.answer import Answer, RunUsage, Verification
from ..core.budget import Budget
from ..core.errors import UserError
from ..core.events import ClaimChecked, EventFields, Sink
from ..core.messages import Frozen
from ..core.model_roles import JURY, juror_role
from ..core.question import MAX_QUESTION_CHARS, Document, Question
from ..core.run import RunConfig, new_seed
from ..core.settings import Settings, load_settings
from ..serving.pulling import Progress
from ..verify.reports import ClaimReport
from ..verify.verifier import Verifier, make_verifier
from .chosen_models import verifier_asks_jury
from .given import GIVEN, NO_QUESTION, given_parameters, given_text
from .portal import Portal
from .reasoner import Reasoner
from .verifying import LEXICAL, complete_parameters

MAX_ANSWER_CHARS = 2_000_000
"""Longest text that is verified, in characters."""
PROGRAMS_ONLY = "no documents were given: only what a program can work out is checked, all else is not enough evidence"


class TextVerification(Frozen):
    """What was found of a text.

    Attributes:
        answer: The text, as it was given.
        question: What it answers; empty if that was not told.
        verification: The verdict on it, and on its claims in short.
        reports: The whole record of each claim, in order of the text; empty if the verifier keeps none.
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


class Reports:
    """A sink that keeps the whole record of each claim."""

    def __init__(self) -> None:
        self._found: dict[int, ClaimReport] = {}

    def __call__(self, event: EventFields) -> None:
        """Keep a claim's record; one that is told again takes the place of the first."""
        if isinstance(event, ClaimChecked):
            self._found[event.index] = ClaimReport.model_validate(event.report)

    def of(self, verification: Verification) -> tuple[ClaimReport, ...]:
        """The records of a verification's claims, in order; none at all where some are missing."""
        count = len(verification.claims)
        if set(self._found) != set(range(count)):
            return ()
        return tuple(self._found[number] for number in range(count))


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
    progress: Progress | None = None,
    sinks: Sequence[Sink] = (),
) -> TextVerification:
    """Check a text that something else wrote.

    A spent budget is no error: the claims that it did not reach are "unchecked". Cancelling the task saves the run.

    Args:
        answer: The text. It is data: nothing in it is obeyed.
        question: What it answers, which may name what "it" is in it.
        documents: Texts that it is checked against.
        evidence: Files, folders and saved indexes that it is checked against; none is the setting.
        verifier: Name of the verifier.
        parameters: The verifier's parameters that differ from the settings.
        settings: Settings instead of those of environment and files.
        model: The language model, where the parameters need one (`entailment="judge"`, `claims="model"`, origins by
            "context" or "whitebox"); None is the setting. Otherwise none is opened.
        jurors: The models of the jury, for a verifier that asks one; none is the setting, or else the main model.
        budget: Limits of the run.
        programs_only: Go on without any document: what no program can work out is "not enough evidence" then.
        progress: Told how far documents and model files are; called from another thread.
        sinks: Hear of every event.

    Raises:
        UserError: The text is empty or too long, there is nothing to check it against and the verifier asks no jury, or
            a parameter is not allowed.
        DataError: A document or an index cannot be read.
        BackendError: What judges failed altogether.
    """
    settings = load_settings() if settings is None else settings
    _check_answer(answer, question)
    reasoner = Reasoner(
        model,
        jurors=jurors,
        verify=(verifier,),
        verify_parameters={verifier: _own_defaults(verifier, parameters, settings)},
        evidence=tuple(evidence) or None,
        repairs=0,
        budget=budget,
        calibration="none",
        settings=settings,
        progress=progress,
    )
    async with reasoner:
        config, warned = plan_verification(
            answer,
            settings=reasoner.settings,
            question=question,
            documents=documents,
            verifiers=(verifier,),
            parameters=reasoner.verify_parameters,
            model=model,
            programs_only=programs_only,
        )
        reports = Reports()
        done = await reasoner.arun(config, sinks=(reports, *sinks))
    return found_of(done, config, reports, warned)


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
    tenant: str = "",
) -> tuple[RunConfig, tuple[str, ...]]:
    """The configuration of a run that checks a text, which `Reasoner.arun` takes; nothing is opened.

    Args:
        answer: The text.
        settings: Evidence, models and limits.
        question: What the text answers.
        documents: Texts that it is checked against.
        verifiers: Names of the verifiers.
        parameters: By verifier, those that differ from the settings.
        model: See `averify_text`.
        programs_only: See `averify_text`.
        tenant: Whose run it is.

    Returns:
        The configuration, and what is to be told beside the run's own notes.

    Raises:
        UserError: See `averify_text`.
    """
    _check_answer(answer, question)
    given = {name: _own_defaults(name, (parameters or {}).get(name), settings) for name in verifiers}
    complete = complete_parameters(verifiers, settings.verifiers, {**(parameters or {}), **given})
    nothing = not documents and not settings.evidence and not any(map(verifier_asks_jury, verifiers))
    if nothing and not programs_only:
        raise UserError(
            "there is nothing to check the answer against",
            hint="give documents or evidence (--docs, --index), or say programs_only (--programs-only)",
        )
    models: dict[str, str] = {}
    for name, values in complete.items():
        if nothing and "entailment" in values:
            values["entailment"] = LEXICAL  # nothing will be judged: no classifier is opened for it
        models |= _models(make_verifier(name, values)[0], settings, model)
    config = RunConfig(
        question=Question(text=question.strip() or NO_QUESTION, documents=tuple(documents)),
        strategy=GIVEN,
        parameters=given_parameters(answer),
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
    return config, (PROGRAMS_ONLY,) if nothing else ()


def verify_text(answer: str, **options: Any) -> TextVerification:
    """`averify_text` for callers that are not asynchronous; works inside a running event loop (notebooks) too."""
    portal = Portal()
    try:
        return portal.call(lambda: averify_text(answer, **options))
    finally:
        portal.close()


def _check_answer(answer: str, question: str) -> None:
    if not answer.strip():
        raise UserError("the answer is empty", hint="give the text that is to be verified")
    if len(answer) > MAX_ANSWER_CHARS:
        raise UserError(
            f"the answer has {len(answer):,} characters, more than {MAX_ANSWER_CHARS:,}", hint="verify it in parts"
        )
    if len(question) > MAX_QUESTION_CHARS:
        raise UserError(f"the question has {len(question):,} characters, more than {MAX_QUESTION_CHARS:,}")
    if any("\ud800" <= c <= "\udfff" for c in answer + question):
        raise UserError("the answer or the question is not valid Unicode text", hint="convert it to UTF-8")


def _own_defaults(verifier: str, parameters: Mapping[str, Any] | None, settings: Settings) -> Mapping[str, JsonValue]:
    """The parameters that were given, and where nothing is said of origins none: a given text has no run behind it."""
    given = dict(parameters or {})
    kind = make_verifier(verifier, {})[0].Config
    said = settings.verifiers.get(verifier, {})
    if "internal" in kind.model_fields and "internal" not in said:
        given.setdefault("internal", [])
    if "davinci" in kind.model_fields and "davinci" not in said:
        given["davinci"] = {"internal": [], **given.get("davinci", {})}
    return given


def _models(verifier: Verifier, settings: Settings, model: str | None) -> dict[str, str]:
    """The language models that the verifier asks, by role; none where it asks none."""
    judge = model or settings.judge_model or settings.model
    by_role = {"judge": judge, "main": settings.model}
    if JURY not in verifier.roles:
        return {role: by_role[role] for role in verifier.roles}
    jury = {juror_role(i): name for i, name in enumerate(settings.jurors, 1)} or {"main": settings.model}
    return {role: name for role, name in by_role.items() if role in verifier.roles} | jury


def found_of(done: Answer, config: RunConfig, reports: Reports, warned: Sequence[str] = ()) -> TextVerification:
    """What was found of a text, from the end of its run.

    Args:
        done: The run's answer.
        config: Its configuration.
        reports: Have heard its events.
        warned: What is to be told beside the run's own notes.
    """
    verification = done.verification or Verification()
    return TextVerification(
        answer=given_text(config.parameters),
        question=config.question.text.strip(),
        verification=verification,
        reports=reports.of(verification),
        usage=done.usage,
        run_id=done.run_id,
        degraded=(*warned, *done.degraded),
    )
