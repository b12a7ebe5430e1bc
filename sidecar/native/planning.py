"""From the body of a native request to the configuration of its run."""

from __future__ import annotations

from ...agents.reasoner import Reasoner
from ...agents.verify_text import plan_verification
from ...core.errors import ModelNotFound
from ...core.question import Document, Question
from ...core.run import RunConfig
from ...core.settings import Settings
from ..offered import allowed_model, bounded, refuse_places
from ..openai.model_names import chosen_strategy, named
from .requests import AskBody, DocumentIn, VerifyBody

DEFAULT_VERIFIER = "davinci"


def ask_config(body: AskBody, reasoner: Reasoner, tenant: str) -> RunConfig:
    """The configuration of a question's run.

    Raises:
        ModelNotFound: A model is not offered.
        UserError: Something else of it is not allowed; names the field.
    """
    settings = reasoner.settings
    name = named(body.model, settings) if body.model is not None else None
    strategy = chosen_strategy(name, body.strategy, settings, field="strategy")
    verify = body.verify if body.verify is not None else (name.verify if name is not None and name.verify else None)
    for verifier, given in body.verify_parameters.items():
        own = settings.verifiers.get(verifier)
        refuse_places(given, own, param=f"verify_parameters.{verifier}")
    refuse_places(body.parameters, settings.strategies.get(strategy))

    def offered(field: str, model: str | None) -> str | None:
        return None if model is None else _offered(settings, field, model)

    jurors = None if body.jurors is None else tuple(_offered(settings, "jurors", juror) for juror in body.jurors)
    question = Question(
        text=body.question,
        choices=body.choices,
        documents=_documents(body.documents),
        kind=body.kind,
        metadata=dict(body.metadata),
    )
    limits = (settings.budget,) if name is None else (settings.budget, name.budget)
    return reasoner.plan(
        question,
        strategy=strategy,
        model=None if name is None else name.model,
        parameters={**(name.parameters if name is not None else {}), **body.parameters},
        verify=verify,
        verify_parameters=body.verify_parameters,
        repairs=body.repairs,
        require_verified=body.require_verified,
        budget=bounded(body.budget, settings.serve, *limits),
        seed=body.seed,
        small_model=offered("small_model", body.small_model),
        judge_model=offered("judge_model", body.judge_model),
        jurors=jurors,
        chair_model=offered("chair_model", body.chair_model),
        tenant=tenant,
    )


def verify_config(body: VerifyBody, reasoner: Reasoner, tenant: str) -> tuple[RunConfig, tuple[str, ...]]:
    """The configuration of a run that checks a text, and what is to be told beside the run's own notes.

    Raises:
        ModelNotFound: A model is not offered.
        UserError: Something else of it is not allowed; names the field.
    """
    settings = reasoner.settings
    verifiers = body.verifiers or settings.verify or (DEFAULT_VERIFIER,)
    for verifier, given in body.parameters.items():
        refuse_places(given, settings.verifiers.get(verifier), param=f"parameters.{verifier}")
    changed: dict[str, object] = {"budget": bounded(body.budget, settings.serve, settings.budget)}
    if body.jurors is not None:
        changed["jurors"] = tuple(_offered(settings, "jurors", juror) for juror in body.jurors)
    return plan_verification(
        body.text,
        settings=settings.model_copy(update=changed),
        question=body.question,
        documents=_documents(body.documents),
        verifiers=verifiers,
        parameters=body.parameters,
        model=None if body.model is None else allowed_model(settings, body.model),
        programs_only=body.programs_only,
        tenant=tenant,
    )


def _offered(settings: Settings, field: str, model: str) -> str:
    try:
        return allowed_model(settings, model)
    except ModelNotFound as e:
        e.param = field
        raise


def _documents(given: tuple[DocumentIn, ...]) -> tuple[Document, ...]:
    return tuple(Document(name=one.name, text=one.text) for one in given)
