"""`Planner`: from a question and its options to the run's complete configuration."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from pydantic import JsonValue, ValidationError

from ..core.budget import Budget
from ..core.calibration import CalibrationMap, load_calibration_map, shown_identity
from ..core.errors import DataError, UserError
from ..core.files import decoded
from ..core.messages import EFFORTS, ApprovalMode, Effort
from ..core.run import RunConfig, new_seed
from ..core.settings import JURY, Settings, ToolSettings, jurors_of, models_by_role, user_error_of
from ..core.types import (
    MAX_CONVERSATION_CHARS,
    MAX_QUESTION_CHARS,
    Document,
    Question,
    Verification,
)
from ..reasoning.knowledge import SourceLike, source_name
from ..reasoning.strategy import RESOURCES, STRATEGIES, requested_entailment, require_tool_support, strategy_config
from ..serving.profiles.profile import ModelProfile, check_effort
from ..verify.verifier import AUTO, VERIFIERS, IncludesVerifier, make_verifier, make_verifiers
from .resources import VerificationProvider

MAX_CHOICES = 26
MAX_ATTACHMENTS = 20
"""Maximum number of images and files of a question and its conversation."""
MAX_ATTACHMENT_BYTES = 40_000_000
"""Maximum size of them in base64, together."""
MAX_KNOWN = 256
"""Configurations that a `Planner` keeps."""
MAX_KEY_CHARS = 4096
VerifyParameters = Mapping[str, Mapping[str, Any]]
_ANY_QUESTION = Question(text="?")


def check_question(
    question: str | Question, choices: Sequence[str] = (), documents: Sequence[Document] = ()
) -> Question:
    """A question that can be answered."""
    text = question.text if isinstance(question, Question) else question
    if not text.strip():
        raise UserError("the question is empty", hint="give a question")
    if len(text) > MAX_QUESTION_CHARS:
        raise UserError(
            f"the question has {len(text):,} characters, more than {MAX_QUESTION_CHARS:,}",
            hint="put long texts into files and give them with --context (documents= in Python)",
        )
    if isinstance(question, Question) and not choices and not documents:
        checked = question
    else:
        base = question if isinstance(question, Question) else Question(text=text)
        checked = base.model_copy(
            update={"choices": tuple(choices) or base.choices, "documents": tuple(documents) or base.documents}
        )
    if checked.choices and (len(checked.choices) < 2 or any(not c.strip() for c in checked.choices)):
        raise UserError("a multiple-choice question needs at least two choices, none of them empty")
    if len(checked.choices) > MAX_CHOICES:
        raise UserError(
            f"{len(checked.choices)} choices are more than there are letters", hint=f"give at most {MAX_CHOICES}"
        )
    size = _conversation_chars(checked)
    if size > MAX_CONVERSATION_CHARS:
        raise UserError(
            f"the conversation and its tools have {size:,} characters, more than {MAX_CONVERSATION_CHARS:,}",
            hint="leave out the oldest messages",
        )
    attachments = checked.all_attachments
    size = sum(len(attachment.data) for attachment in attachments)
    if len(attachments) > MAX_ATTACHMENTS or size > MAX_ATTACHMENT_BYTES:
        raise UserError(
            f"{len(attachments)} attachments of {size:,} bytes in base64 are more than {MAX_ATTACHMENTS} or "
            f"{MAX_ATTACHMENT_BYTES:,} bytes",
            hint="send fewer or smaller images and files",
        )
    return checked


def _conversation_chars(question: Question) -> int:
    messages = (*question.conversation, *question.continuation)
    text = sum(len(m.content) + sum(len(c.name) + len(c.arguments) for c in m.tool_calls) for m in messages)
    text += sum(len(m.thought.model_dump_json()) for m in messages if m.thought is not None)
    return text + sum(len(tool.model_dump_json()) for tool in question.tools)


class Planner:
    """Makes the configuration of a run from a question and the options that differ for it, without opening anything.

    It is on the path of every request of a server: settings were read when it was made, and it reads no files but
    calibration maps, each once.
    """

    def __init__(
        self,
        settings: Settings,
        require_verified: bool,
        calibration: CalibrationMap | None,
        *,
        has_approver: bool = False,
    ) -> None:
        self._settings = settings
        self._default_approval: ApprovalMode | None = "writes" if has_approver else None
        self._require_verified = require_verified
        self._maps: dict[str, CalibrationMap | None] = {settings.strategy: calibration}
        self._policy = read_policy(settings.tools)
        self._known: dict[str, RunConfig] = {}
        """Configurations by their options, of runs for which nothing but these decides."""

    def plan(
        self,
        question: Question,
        *,
        budget: Budget | Mapping[str, Any] | None = None,
        seed: int | None = None,
        tenant: str = "",
        **options: Any,
    ) -> RunConfig:
        """The configuration of a checked question's run; see `Reasoner.plan`."""
        key = repr(options)
        known = self._known.get(key)
        limits = self._settings.budget if budget is None else _validated_budget(budget)
        seed = _first(seed, self._settings.seed, new_seed())
        if known is None or not isinstance(seed, int):
            config = self._checked(question, budget=limits, seed=seed, tenant=tenant, **options)
            depends_on_more = config.verify or config.trajectories > 1 or _may_request_judge(config.strategy)
            if not depends_on_more and len(key) <= MAX_KEY_CHARS:
                if len(self._known) >= MAX_KNOWN:
                    self._known.clear()
                self._known[key] = config.model_copy(update={"question": _ANY_QUESTION})
            return config
        require_tool_support(known.strategy, question, has_tools=bool(known.tools))
        limits = self._with_tool_limits(limits, known.tools)
        return known.model_copy(update={"question": question, "budget": limits, "seed": seed, "tenant": tenant})

    def _with_tool_limits(self, budget: Budget, tools: Sequence[str]) -> Budget:
        """The limits of a run, of one with tools with the settings' limits of its loop."""
        if not tools:
            return budget
        own = self._settings.tools
        limits = {"turns": own.turns, "tool_calls": own.tool_calls}
        return budget.model_copy(update={k: limit for k, limit in limits.items() if getattr(budget, k) is None})

    def _checked(
        self,
        question: Question,
        *,
        budget: Budget,
        seed: int,
        tenant: str,
        strategy: str | None = None,
        model: str | None = None,
        small_model: str | None = None,
        judge_model: str | None = None,
        jurors: Sequence[str] | None = None,
        parameters: Mapping[str, Any] | None = None,
        verify: Sequence[str] | None = None,
        verify_parameters: Mapping[str, Mapping[str, Any]] | None = None,
        evidence: Sequence[str] | None = None,
        repairs: int | None = None,
        require_verified: bool | None = None,
        effort: Effort | None = None,
        thinking_tokens: int | None = None,
        tools: Sequence[str] | None = None,
        approve: ApprovalMode | None = None,
        check_writes: str | None = None,
        trajectories: int | None = None,
        select: str | None = None,
    ) -> RunConfig:
        base = self._settings
        overrides: dict[str, Any] = {
            "strategy": strategy,
            "model": model,
            "small_model": small_model,
            "judge_model": judge_model,
            "jurors": None if jurors is None else tuple(jurors),
            "verify": None if verify is None else tuple(verify),
            "evidence": None if evidence is None else tuple(evidence),
            "repairs": repairs,
            "effort": effort,
            "thinking_tokens": thinking_tokens,
        }
        settings = base.model_copy(update={name: value for name, value in overrides.items() if value is not None})
        defaults = settings.strategies.get(settings.strategy, {})
        strategy_parameters = strategy_config(settings.strategy, {**defaults, **(parameters or {})})
        complete = strategy_parameters.model_dump(mode="json")
        tools = base.tools.use if tools is None else tuple(tools)
        require_tool_support(settings.strategy, question, has_tools=bool(tools))
        trajectories = _first(trajectories, base.tools.trajectories if tools else 1)
        select = (base.tools.select if trajectories != 1 else "") if select is None else select
        if trajectories != 1 or select:
            RESOURCES.load("trajectories").check_trajectories(trajectories, select, question, tools)
        if tools and "instruction" in complete and complete["instruction"] is None:
            complete["instruction"] = ""  # a default such as "Let's work this out" would be in every turn
        verifiers = complete_parameters(settings.verify, settings.verifiers, verify_parameters)
        has_judge_model = settings.judge_model is not None
        verifiers = resolve_judges(verifiers, settings, has_judge_model=has_judge_model)
        if "judge" in complete and _may_request_judge(settings.strategy):
            complete = with_resolved_judge(complete, settings, has_judge_model=has_judge_model)
        is_required = self._require_verified if require_verified is None else require_verified
        policy = (self._policy if check_writes is None else check_writes) if tools else None
        needs_judge = policy is not None or select == "judge"
        roles = check_options(settings, verifiers, overrides, require_verified=is_required, needs_judge=needs_judge)
        uses_knowledge = uses_role(settings.strategy, "knowledge")
        uses_embedding = (
            uses_role(settings.strategy, "embedding")
            or (uses_knowledge and bool(settings.memory))
            or bool(requested_entailment(settings.strategy, strategy_parameters, question))
        )
        models = models_by_role(settings, roles)
        if uses_embedding:
            models["embedding"] = settings.embedding_model
        return RunConfig(
            question=question,
            strategy=settings.strategy,
            parameters=complete,
            models=models,
            verify=settings.verify,
            verify_parameters=verifiers,
            evidence=settings.evidence if settings.verify else (),
            repairs=settings.repairs if settings.verify else 0,
            require_verified=is_required,
            budget=self._with_tool_limits(budget, tools),
            local=settings.local,
            seed=seed,
            reuse=settings.reuse,
            calibration=self._calibration(settings) if model in (None, base.model) else None,
            context=settings.context if uses_knowledge or DOCUMENTS in tools else (),
            memory=settings.memory if uses_knowledge else "",
            tenant=tenant,
            effort=settings.effort,
            thinking_tokens=settings.thinking_tokens,
            tools=tools,
            approve=(approve or base.tools.approve or self._default_approval) if tools else None,
            check_writes=policy,
            trajectories=trajectories,
            select=select,
        )

    def _calibration(self, settings: Settings) -> CalibrationMap | None:
        """The strategy's calibration map, whose file is read once."""
        name = settings.strategy
        if name not in self._maps:
            self._maps[name] = calibration_map_for(settings)
        return self._maps[name]


def read_policy(tools: ToolSettings) -> str | None:
    """`RunConfig.check_writes` of the settings."""
    if tools.policy is None:
        return "" if tools.check_writes else None
    try:
        text = decoded(tools.policy.expanduser().read_bytes(), str(tools.policy))
    except OSError as e:
        raise DataError(f"the policy {tools.policy} cannot be read: {e.strerror}") from e
    if not text.strip():
        raise DataError(f"the policy {tools.policy} is empty", hint="leave it out to check the user's request only")
    return text


def complete_parameters(
    names: Sequence[str],
    settings: VerifyParameters,
    given: VerifyParameters | None,
) -> dict[str, dict[str, Any]]:
    """The parameters of each verifier, complete."""
    given = given or {}
    unnamed = next((name for name in given if name not in names), None)
    if unnamed is not None:
        raise UserError(f"parameters are given for the verifier {unnamed!r}, which is not named", hint="name it too")
    return {name: make_verifier(name, {**settings.get(name, {}), **given.get(name, {})})[1] for name in names}


def resolve_judges(
    verifiers: Mapping[str, Mapping[str, Any]], settings: Settings, *, has_judge_model: bool
) -> dict[str, dict[str, Any]]:
    """Parameters of verifiers with the judge that "auto" stands for in this run, so that a resumed run keeps it."""
    resolved = {}
    for name, values in verifiers.items():
        verifier, complete = make_verifier(name, values)
        if isinstance(verifier, IncludesVerifier) and values.get("judge") == AUTO:  # one judge serves both
            complete["judge"] = verifiers.get(verifier.includes, complete).get("judge", AUTO)
        has_judge = "judge" in complete and values.get("judge") == verifier.entailment
        resolved[name] = (
            with_resolved_judge(complete, settings, has_judge_model=has_judge_model) if has_judge else dict(values)
        )
    return resolved


def with_resolved_judge(parameters: Mapping[str, Any], settings: Settings, *, has_judge_model: bool) -> dict[str, Any]:
    """Parameters with their field `judge` resolved (see `resolve_judges`)."""
    provider = cast(type[VerificationProvider], RESOURCES.load("verification"))
    return {
        **parameters,
        "judge": provider.resolve_judge(parameters["judge"], settings, has_judge_model=has_judge_model),
    }


def _may_request_judge(strategy: str) -> bool:
    return hasattr(STRATEGIES.load(strategy), "entailment_model")


def _validated_budget(budget: Budget | Mapping[str, Any]) -> Budget:
    if isinstance(budget, Budget):
        return budget
    try:
        return Budget.model_validate(dict(budget))
    except ValidationError as e:
        raise user_error_of(e, "budget", Budget.model_fields) from e


# -- effort: what can be checked before the model is loaded, and what its profile decides


def check_options(
    settings: Settings,
    verify_parameters: VerifyParameters,
    options: Mapping[str, Any],
    *,
    require_verified: bool,
    needs_judge: bool,
) -> set[str]:
    """The roles of models that a run uses; refuses options of the caller that no run, or not this one, could have."""
    effort, thinking_tokens = options.get("effort"), options.get("thinking_tokens")
    if effort is not None and effort not in EFFORTS:
        raise UserError(f"there is no effort {effort!r}", hint=f"one of {', '.join(EFFORTS)}", param="effort")
    if thinking_tokens is not None and thinking_tokens < 1:
        raise UserError(
            f"thinking_tokens must be positive, got {thinking_tokens}",
            hint="effort none turns thoughts off",
            param="thinking_tokens",
        )
    roles = used_roles(settings.strategy, settings.verify, verify_parameters) | ({"judge"} if needs_judge else set())
    refuse_unused_models(settings, roles, options)
    if require_verified and not settings.verify:
        raise UserError(
            "a verified answer is required but no verifier is named", hint="name one with verify", param="verify"
        )
    return roles


def refuse_unsuitable_effort(config: RunConfig, model: str, profile: ModelProfile) -> None:
    """Refuse an effort, or a limit of thoughts, that the main model cannot have, before anything is spent."""
    limit = config.thinking_tokens
    check_effort(profile, model, config.effort, limit)
    if not profile.can_think and limit is not None:
        raise UserError(
            f"thinking_tokens {limit}: model {model!r} does not think before it answers",
            hint=f"leave it unset, choose a model that thinks, or describe this one under [profiles.{model!r}]",
            param="thinking_tokens",
        )
    if limit is not None and profile.thinking_budget and limit < profile.min_thinking_tokens:
        raise UserError(
            f"thinking_tokens={limit}: model {model!r} takes at least {profile.min_thinking_tokens}",
            hint="raise it, or set the effort to none",
            param="thinking_tokens",
        )


def _first(*values: int | None) -> int:
    return next(v for v in values if v is not None)


# -- which models a run uses


def models_of(settings: Settings) -> dict[str, str]:
    """Model strings by role, of the roles that strategy and verifiers use."""
    roles = used_roles(settings.strategy, settings.verify, settings.verifiers)
    return models_by_role(settings, roles | ({settings.tools.select} & {"judge"}))


def used_roles(strategy: str, verify: Sequence[str], verify_parameters: VerifyParameters) -> set[str]:
    """The roles that a strategy and some verifiers use, "main" and "jury" among them."""
    used = set(STRATEGIES.load(strategy).roles)
    for verifier in make_verifiers(verify, verify_parameters):
        used.update(verifier.roles)
    return used


def uses_role(strategy: str, role: str) -> bool:
    """Whether a strategy uses a role."""
    return role in STRATEGIES.load(strategy).roles


def verifier_needs_evidence(name: str) -> bool:
    """Whether a verifier has nothing to say without evidence: one with a jury has, and one that says so of itself."""
    verifier = make_verifier(name, {})[0]
    return JURY not in verifier.roles and getattr(verifier, "needs_evidence", True)


_ROLES = (
    ("small_model", "small", "uses no small model", "small model"),
    ("judge_model", "judge", "uses no judge", "judge"),
    ("reward_model", "reward", "uses no reward model", "reward model"),
    ("jurors", JURY, "uses no jury", "juror"),
)
"""Settings that name models for a role, with the words of the error if a strategy does not use it."""


def refuse_unused_models(settings: Settings, used: Collection[str], named: Mapping[str, Any]) -> None:
    """Refuse models that the caller named and the run would not use.

    Models of the settings files are not refused: those are for all strategies.
    """
    for param, role, lacks, label in _ROLES:
        models = named.get(param)
        if models is None or models == ():
            continue
        if role not in used:
            first = models if isinstance(models, str) else models[0]
            raise UserError(
                f"the strategy {settings.strategy} {lacks}, so it cannot use the {label} {first}",
                hint=_users_of(role),
                param=param,
            )


def _users_of(role: str) -> str:
    """The strategies and verifiers that use a role, as a hint."""
    strategies = sorted(name for name in STRATEGIES.names() if role in STRATEGIES.load(name).roles)
    verifiers = sorted(name for name in VERIFIERS.names() if role in make_verifier(name, {})[0].roles)
    several = f"{', '.join(strategies[:-1])} or " if strategies[1:] else ""
    others = f", or the verifier {' or '.join(verifiers)}" if verifiers else ""
    return f"take the strategy {several}{strategies[-1]}{others}"


# -- which knowledge and evidence a run uses


DOCUMENTS = "documents"
"""The tool that searches the context, whatever the strategy."""


def refuse_unused_knowledge(
    strategy: str, context: Sequence[SourceLike], memory: str, tools: Sequence[str] = ()
) -> None:
    """Refuse knowledge that neither the strategy nor a tool would use."""
    if ((context and DOCUMENTS not in tools) or memory) and not uses_role(strategy, "knowledge"):
        able = sorted(name for name in STRATEGIES.names() if uses_role(name, "knowledge"))
        what = f"the memory {memory!r}" if memory else f"{source_name(context[0])!r}"
        raise UserError(
            f"the strategy {strategy} uses no knowledge sources, so it cannot use {what}",
            hint=f"take one of {', '.join(able)}; single text files can be given to any strategy",
        )


def refuse_duplicate_sources(context: Sequence[SourceLike]) -> None:
    """Refuse sources that a run's configuration could not tell apart."""
    by_name: dict[str, SourceLike] = {}
    for source in context:
        name = source_name(source)
        if name in by_name:
            is_same = by_name[name] is source or isinstance(source, str)
            raise UserError(
                f"the context has {name!r} twice",
                hint="give it once"
                if is_same
                else "two sources have this name, which a stored run could not tell apart: define each function with a "
                "name of its own, or rename a source",
            )
        by_name[name] = source


def refuse_missing_evidence(names: Sequence[str]) -> None:
    """Refuse files, directories and indexes that do not exist, before anything is loaded."""
    for name in names:
        if not os.path.exists(os.path.expanduser(name)):
            raise DataError(f"{name} does not exist", hint="name existing files or directories")


# -- which calibration map a run uses, and whether it may: a map is for one strategy, one main model, and answers that
# -- are verified as those were that it was fitted to

NO_MAP = "none"
"""Value that selects no map where the settings name one."""


def calibration_map_for(settings: Settings, choice: CalibrationMap | Path | str | None = None) -> CalibrationMap | None:
    """The calibration map for the strategy of the settings."""
    if choice is None:
        choice = settings.calibration.get(settings.strategy)
    if choice is None or str(choice) == NO_MAP:
        return None
    loaded = choice if isinstance(choice, CalibrationMap) else load_calibration_map(Path(choice))
    if loaded.strategy != settings.strategy:
        raise UserError(
            f"the calibration map {loaded} was fitted to strategy {loaded.strategy!r}, not to {settings.strategy!r}",
            hint="calibrate a run of this strategy, or leave the map out (calibration none)",
        )
    return loaded


def refuse_other_model(config: RunConfig, identity: str) -> None:
    """Refuse a map that was fitted to another main model, before anything is spent."""
    calibration = config.calibration
    if calibration is None or calibration.engines["main"] == identity:
        return
    raise UserError(
        f"the calibration map {calibration} was fitted to the model {calibration.models['main']} "
        f"({shown_identity(calibration.engines['main'])}), not to {config.models['main']} ({shown_identity(identity)})",
        hint="calibrate a run of this model, or leave the map out (calibration none)",
    )


def calibration_difference(config: RunConfig, identities: Mapping[str, str]) -> str:
    """How a run differs from the one that its map was fitted to, as a note; empty if it does not.

    The scale of a strategy's confidence depends on its parameters, on how much the models think, and on its other
    models. A parameter that the strategy did not have when the map was fitted counts as its default, which is what it
    did then. Verifiers are another matter (`inapplicable_map`).
    """
    calibration = config.calibration
    if calibration is None:
        return ""
    fitted = {**strategy_config(config.strategy, {}).model_dump(mode="json"), **calibration.parameters}
    differing = [
        f"{name} was {_shown(fitted.get(name))} and is {_shown(config.parameters.get(name))}"
        for name in dict.fromkeys([*fitted, *config.parameters])
        if fitted.get(name) != config.parameters.get(name)
    ]
    for name in ("effort", "thinking_tokens"):
        then, now = getattr(calibration, name), getattr(config, name)
        if then != now:
            differing.append(f"{name} was {_shown(then)} and is {_shown(now)}")
    for role in STRATEGIES.load(config.strategy).roles:
        if role in ("embedding", "knowledge"):  # maps do not record them
            continue
        then, now = _identity(role, calibration.engines), _identity(role, identities)
        if then != now:
            differing.append(f"the {role} model was {shown_identity(then)} and is {shown_identity(now)}")
    if not differing:
        return ""
    return f"the calibration map {calibration} was fitted under other settings: {'; '.join(differing)}"


def inapplicable_map(calibration: CalibrationMap, verification: Verification | None) -> str:
    """Why a map does not apply to an answer, as a note; empty if it does.

    A verification may send an answer back, so that verified answers are others than those of the strategy alone, and
    the same confidence is right at another frequency.
    """
    verifiers = () if verification is None else verification.verifiers
    if set(calibration.verify) == set(verifiers):
        return ""
    fitted = (
        f"answers verified by {', '.join(calibration.verify)}" if calibration.verify else "answers without verifiers"
    )
    answer = f"was verified by {', '.join(verifiers)}" if verifiers else "was not verified"
    return (
        f"the calibration map {calibration} was not applied: it was fitted to {fitted}, and this answer {answer}; "
        "calibrate a run with the same verifiers"
    )


def _identity(role: str, identities: Mapping[str, str]) -> str:
    """Identity of a role's model; without its own it is the main model's, which cannot be the reward model."""
    if role == JURY:
        return ", ".join(jurors_of(identities)) or identities["main"]
    return identities.get(role) or ("none" if role == "reward" else identities["main"])


def _shown(value: JsonValue) -> str:
    text = "unset" if value is None else str(value)
    return text if len(text) <= 40 else text[:39] + "…"


# -- a run whose answer was given


GIVEN = "given"
"""Strategy of a run that verifies a given text, its one parameter. It cannot be requested: nothing is solved."""


def given_text(parameters: Mapping[str, JsonValue]) -> str:
    """The given text of such a run."""
    return str(parameters["answer"])
