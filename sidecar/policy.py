"""Request policy: the models and tools that callers may name, ceilings, and parameters reserved for the operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

from pydantic import JsonValue

from ..agents.planner import GIVEN
from ..core.budget import Budget
from ..core.errors import ModelNotFound, UnknownName, UserError
from ..core.messages import ApprovalMode
from ..core.registry import nearest
from ..core.run import RunConfig
from ..core.settings import ServeSettings, Settings
from ..reasoning.strategy import STRATEGIES, require_samples_within
from ..verify.verifier import VERIFIERS

MAX_SAMPLES = 8192
"""Maximum number of samples of a request: the product of its strategy's parameters, such as width, k and max_depth."""


def offered_models(settings: Settings) -> tuple[str, ...]:
    """Return the model strings that callers may name, the setting `model` first."""
    behind = (alias.model for alias in settings.serve.aliases.values() if alias.model is not None)
    return tuple(dict.fromkeys((settings.model, *settings.serve.models, *behind)))


def allowed_model(settings: Settings, name: str) -> str:
    """Return `name` if the server offers this model; a model string from a request is never loaded unchecked.

    Raises:
        ModelNotFound: The server does not offer the model.
    """
    offered = offered_models(settings)
    if name not in offered:
        raise ModelNotFound(name, nearest(name, offered), hint="GET /v1/models lists the offered models")
    return name


def allowed_tools(settings: Settings, names: Sequence[str] | None, *, param: str = "tools") -> tuple[str, ...] | None:
    """Return the tools that a request names if the server offers them; a module, command or address is never opened.

    Args:
        names: The tools as `serve.tools` and `tools.use` name them; None are those of `tools.use`.
        param: Name of the request field, used in the error.

    Raises:
        UnknownName: The server does not offer a tool.
    """
    offered = _offered_tools(settings)
    for name in names or ():
        if name not in offered:
            error = UnknownName("tool", name, nearest(name, offered), hint="the operator can add it to serve.tools")
            error.param = param
            raise error
    return None if names is None else tuple(dict.fromkeys(names))


def allowed_server(settings: Settings, label: str, url: str | None, *, param: str) -> str:
    """Return the tools that a request names by the label or address of a server, if the server offers them.

    Args:
        label: Its name in `tools.mcp`, or tools as `serve.tools` and `tools.use` name them; with a `url`, the caller's.
        url: Its address.
        param: Name of the request field, used in the error.

    Raises:
        UserError: The server does not offer it; lists what it offers.
    """
    offered = {name.removeprefix("mcp:"): name for name in _offered_tools(settings)}
    for key, name in offered.items():
        if (key == label) if url is None else (url in (key, settings.tools.mcp.get(key, {}).get("url"))):
            return name
    known = ", ".join(key for key in offered if " " not in key) or "none"  # a command may have secrets
    what = f"server_label {label!r}" if url is None else f"server_url {url!r}"
    raise UserError(f"{what} is no server that can be named here", hint=f"those are: {known}", param=param)


def _offered_tools(settings: Settings) -> tuple[str, ...]:
    return (*settings.tools.use, *settings.serve.tools)


def allowed_approval(
    settings: Settings, approve: ApprovalMode | None, *, before: ApprovalMode | None = None, param: str = "approve"
) -> ApprovalMode:
    """Return which calls of a run need an approval: what the server's setting requires, or more of a request.

    Args:
        before: That of the conversation's run before, which a request that requires nothing does not lower.
        param: Name of the request field, used in the error.

    Raises:
        UserError: The request would have fewer calls approved than the setting.
    """
    required: ApprovalMode = settings.tools.approve or "writes"
    modes: tuple[ApprovalMode, ...] = get_args(ApprovalMode)  # the strictest last
    if approve is not None and modes.index(approve) < modes.index(required):
        raise UserError(f"{param} is {approve!r}, and the server requires {required!r}", hint="omit it", param=param)
    least: ApprovalMode = required if before is None else max(required, before, key=modes.index)
    return approve or least


def apply_ceilings(budget: Budget, serve: ServeSettings, *also: Budget) -> Budget:
    """Return the minimum of each limit over the requested budget, the server's ceilings and further budgets.

    Args:
        budget: The requested budget.
        serve: Settings with the ceilings `max_seconds` and `max_tokens`.
        also: Further budgets, such as those of the settings and of a model alias.
    """
    limits: dict[str, float] = {}
    ceilings = (("seconds", serve.max_seconds), ("tokens", serve.max_tokens))
    given = ((name, getattr(one, name)) for one in (budget, *also) for name in one.model_fields_set)
    for name, limit in (*ceilings, *given):
        if limit is not None:
            limits[name] = min(limit, limits.get(name, limit))
    return Budget.model_validate(limits)


def check_samples(config: RunConfig, *, param: str = "parameters") -> None:
    """Reject a request whose run may take more than `MAX_SAMPLES` samples.

    Args:
        config: The run's configuration, with complete parameters.
        param: Name of the request field with the strategy's parameters, used in the error.

    Raises:
        UserError: The product of the parameters exceeds the ceiling; names values, product and ceiling.
    """
    if config.strategy == GIVEN:
        return
    factors = STRATEGIES.load(config.strategy).Config.sample_factors(config.parameters)
    try:
        require_samples_within(config.strategy, factors, MAX_SAMPLES)
    except UserError as e:
        raise UserError(e.message, hint=e.hint, param=f"{param}.{e.param}") from None


def check_code_execution(config: RunConfig, serve: ServeSettings) -> None:
    """Reject a run that would execute code, where the operator has not allowed it.

    Raises:
        UserError: The run has a verifier or a score that runs the code of answers.
    """
    if serve.code_execution:
        return
    verifiers = [name for name in config.verify if getattr(VERIFIERS.load(name), "runs_code", False)]
    if verifiers or _scores_by_tests(config.parameters):
        what = f"the verifier {verifiers[0]}" if verifiers else "the score tests"
        raise UserError(
            f"{what} runs the code of answers, which this server does not allow",
            hint="ask the operator to set serve.code_execution",
            param="verify" if verifiers else "parameters.score",
        )


def _scores_by_tests(parameters: Mapping[str, JsonValue]) -> bool:
    return parameters.get("score") == "tests" or any(
        _scores_by_tests(value) for value in parameters.values() if isinstance(value, dict)
    )


OPERATOR_PARAMETERS: dict[str, frozenset[str]] = {
    "router": frozenset(),
    "calibration": frozenset(),
    "reliability": frozenset(),
    "verdicts": frozenset({"none"}),
    "weights": frozenset(),
    "navigator": frozenset({"default"}),
    "judge": frozenset({"auto", "model", "base", "small", "lexical"}),
}
"""Parameters that name a file or model on the server, with the values that any caller may set."""


def reject_paths(
    parameters: Mapping[str, JsonValue], own: Mapping[str, JsonValue] | None = None, *, param: str = "parameters"
) -> None:
    """Reject parameters that would make the server open a file, a directory or a model of the caller's choice.

    Such values are set by the operator in the settings. A request may repeat the configured value or pass an empty
    string.

    Args:
        parameters: Parameters of a strategy or verifier from the request; nested dictionaries are checked too.
        own: The same parameters in the settings.
        param: Name of the request field, used in the error.

    Raises:
        UserError: A parameter is rejected; `param` has its path.
    """
    own = own or {}
    for name, value in parameters.items():
        where = f"{param}.{name}"
        if name == "roles" and isinstance(value, list):
            if value != own.get(name) and any("/" in str(v) or "." in str(v) or "\\" in str(v) for v in value):
                raise UserError(f"{where} names a file", hint="use the names of the server's roles", param=where)
        elif name in OPERATOR_PARAMETERS:
            if isinstance(value, str) and value and value not in OPERATOR_PARAMETERS[name] and value != own.get(name):
                raise UserError(
                    f"{where} names a file or model on the server, which only its operator may choose",
                    hint="omit it",
                    param=where,
                )
        elif isinstance(value, dict):
            inner = own.get(name)
            reject_paths(value, inner if isinstance(inner, dict) else None, param=where)


def without_paths(parameters: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the parameters without those that name a file or model on the server, at any depth."""
    shown: dict[str, JsonValue] = {}
    for name, value in parameters.items():
        if isinstance(value, dict):
            shown[name] = without_paths(value)
        elif name not in OPERATOR_PARAMETERS or not isinstance(value, str) or value in ("", *OPERATOR_PARAMETERS[name]):
            shown[name] = value
    return shown
