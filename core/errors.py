"""Every error that `reason` raises on purpose.

The process exit code and the HTTP status belong to the class and are never guessed from a message:

    ReasonError                     exit 1   http 500   only errors of `reason` itself
    ├── UserError                   exit 2   http 400   the caller requested something impossible
    │   ├── UnknownName             exit 2   http 404   no strategy, model or parameter of that name
    │   │   └── ModelNotFound       exit 2   http 404   a server does not offer that model
    │   ├── BackendMisconfigured    exit 2   http 424   address or key of a model are missing, or the key refused
    │   ├── DuplicateRequest        exit 2   http 409   a request with that idempotency key has created a run already
    │   └── RunConflict             exit 2   http 409   the state of a run does not allow the request
    ├── DataError                   exit 2   http 422   a file or record is invalid
    ├── CapabilityMissing           exit 2   http 400   the model cannot do what the strategy needs
    ├── SandboxUnavailable          exit 2   http 501   code cannot be run in isolation on this machine
    ├── BackendError                exit 3   http 502   the model's side failed
    │   ├── BackendUnavailable      exit 3   http 503
    │   ├── BackendTimeout          exit 3   http 504
    │   ├── RateLimited             exit 3   http 429
    │   ├── ContextTooLong          exit 3   http 400
    │   ├── BackendRefused          exit 3   http 400   a provider refuses the request, and would again
    │   └── InvalidResponse         exit 3   http 502
    ├── SchemaNotSatisfied          exit 3   http 422   the model wrote no JSON that satisfies the schema
    ├── BudgetExceeded              exit 4   http 402   a budget is spent; has the best answer so far
    ├── RunQuarantined              exit 3   http 422   every process that worked on a run died with it
    ├── NotVerified                 exit 5   http 422   --require-verified and the answer was not
    ├── ShuttingDown                exit 3   http 503   the server takes no new runs
    ├── AuthenticationError         exit 2   http 401   no API key of the server, or an invalid one
    ├── PermissionDenied            exit 2   http 403   the key does not allow that
    ├── KeyLimitExceeded            exit 3   http 429   the key has reached one of its limits
    ├── ServerBusy                  exit 3   http 429   the server's run slots and its queue are full
    ├── Cancelled                   exit 130 http 499   the application stopped the run; has the best answer so far
    └── StoreError                  exit 3   http 500   the run store cannot be read or written

`Cancelled` is the application's decision. `asyncio.CancelledError` belongs to the event loop: it is never swallowed,
and never turned into one of these below the outermost caller.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Final

_RUN: Final = "interrupted_run"


class ReasonError(Exception):
    """Root of all errors.

    Args:
        message: What is wrong, with the value at fault; one line.
        hint: The remedy; one line, may be empty.

    Attributes:
        code: Stable identifier for programs, `snake_case`.
        exit_code: Exit status of the command line.
        http_status: Status of the REST sidecar.
    """

    code: ClassVar[str] = "internal"
    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UserError(ReasonError):
    """The caller requested something that cannot be done.

    Args:
        param: Dotted name of the setting, parameter or field at fault, if it is one.
    """

    code = "user_error"
    exit_code = 2
    http_status = 400

    def __init__(self, message: str, *, hint: str = "", param: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.param = param


class UnknownName(UserError):
    """Nothing is registered under that name.

    Args:
        kind: "strategy", "model", "parameter", …
        nearest: Similar known names, best first.
    """

    code = "unknown_name"
    http_status = 404

    def __init__(self, kind: str, name: str, nearest: tuple[str, ...] = (), *, hint: str = "") -> None:
        if nearest:
            hint = f"did you mean {' or '.join(repr(n) for n in nearest)}?" + (f" {hint}" if hint else "")
        super().__init__(f"unknown {kind} {name!r}", hint=hint)
        self.kind = kind
        self.name = name
        self.nearest = nearest


class ModelNotFound(UnknownName):
    """A server does not offer a model of that name."""

    code = "model_not_found"

    def __init__(self, name: str, nearest: tuple[str, ...] = (), *, hint: str = "") -> None:
        super().__init__("model", name, nearest, hint=hint)
        self.param = "model"


class BackendMisconfigured(UserError):
    """A model's address or key is not set, or its provider refuses the key.

    To the caller of a server, whose operator sets them, the model's side has failed.
    """

    code = "backend_misconfigured"
    http_status = 424


class DuplicateRequest(UserError):
    """A request with this idempotency key has created a run already.

    Args:
        same_digest: Whether that request was the same; if not, the key was used twice by mistake.
    """

    code = "duplicate_request"
    http_status = 409

    def __init__(self, run_id: str, same_digest: bool) -> None:
        request = "a request with this idempotency key" if same_digest else "another request with this idempotency key"
        super().__init__(
            f"{request} has created run {run_id}", hint="" if same_digest else "use a new key for each request"
        )
        self.run_id = run_id
        self.same_digest = same_digest


class DataError(ReasonError):
    """A file or record is missing, unreadable or invalid."""

    code = "data_error"
    exit_code = 2
    http_status = 422


class CapabilityMissing(ReasonError):
    """The strategy needs a capability that the model does not have, and there is no equivalent.

    Args:
        feature: Name of the missing capability, as in `Capabilities`.
        alternative: A model that has it, if one is known.
        hint: The remedy, if it is another.
    """

    code = "capability_missing"
    exit_code = 2
    http_status = 400

    def __init__(self, feature: str, model: str, alternative: str = "local/smollm2-135m", *, hint: str = "") -> None:
        remedy = hint or (f"a model that can: {alternative}" if alternative else "")
        super().__init__(f"model {model!r} cannot do {feature!r}", hint=remedy)
        self.feature = feature
        self.model = model


class SandboxUnavailable(ReasonError):
    """Code of an answer cannot be run in isolation on this machine, so it is not run."""

    code = "sandbox_unavailable"
    exit_code = 2
    http_status = 501


class BackendError(ReasonError):
    """The model's side failed: an engine, a server or a provider."""

    code = "backend_error"
    exit_code = 3
    http_status = 502


class BackendUnavailable(BackendError):
    """The engine or server cannot be reached or started."""

    code = "backend_unavailable"
    http_status = 503


class BackendTimeout(BackendError):
    """The engine or server did not answer in time."""

    code = "backend_timeout"
    http_status = 504


class RateLimited(BackendError):
    """The provider's rate limit was reached.

    Args:
        retry_after_s: Seconds after which the provider allows a retry; None if unknown.
    """

    code = "rate_limited"
    http_status = 429

    def __init__(self, message: str, *, retry_after_s: float | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class ContextTooLong(BackendError):
    """Prompt and requested tokens do not fit the model's context."""

    code = "context_too_long"
    http_status = 400

    def __init__(self, message: str, *, tokens: int, limit: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.tokens = tokens
        self.limit = limit


class BackendRefused(BackendError):
    """The engine or provider refuses the request, and would refuse it again."""

    code = "backend_refused"
    http_status = 400


class InvalidResponse(BackendError):
    """The backend returned an invalid response."""

    code = "invalid_response"


class SchemaNotSatisfied(ReasonError):
    """The model wrote no JSON that satisfies the schema, after it was told what was wrong."""

    code = "schema_not_satisfied"
    exit_code = 3
    http_status = 422


class BudgetExceeded(ReasonError):
    """A budget would be exceeded by the next step, so the step was not taken.

    Args:
        kind: Which limit: "tokens", "thinking_tokens", "prompt_tokens", "calls", "reward_calls", "seconds", "usd",
            "turns" or "tool_calls"; "user" if the user wants the answer now.
        used: Amount spent so far, in the limit's unit.
        partial: Best answer so far, if any.
    """

    code = "budget_exceeded"
    exit_code = 4
    http_status = 402

    def __init__(self, kind: str, used: float, limit: float, partial: Any = None) -> None:
        spent = f"the budget of {limit:g} {kind} is spent ({used:g} used)"
        super().__init__("the user wants the answer now" if kind == "user" else spent)
        self.kind = kind
        self.used = used
        self.limit = limit
        self.partial = partial


class RunQuarantined(ReasonError):
    """Every process that worked on a run died with it, so no further one takes it up."""

    code = "run_quarantined"
    exit_code = 3
    http_status = 422

    def __init__(self, run_id: str, adoptions: int) -> None:
        super().__init__(
            f"run {run_id} is quarantined: {adoptions} processes adopted it, and each of them died with it",
            hint="find out what ends them (memory, the model's backend), then resume the run",
        )


class NotVerified(ReasonError):
    """The answer did not pass verification, which the caller required."""

    code = "not_verified"
    exit_code = 5
    http_status = 422

    def __init__(self, message: str, partial: Any = None) -> None:
        super().__init__(message)
        self.partial = partial


class RunConflict(UserError):
    """The state of a run does not allow the request: it is finished, or another process works on it."""

    code = "run_conflict"
    http_status = 409


class ShuttingDown(ReasonError):
    """The server is shutting down and takes no new runs.

    Args:
        partial: Best answer so far of a run that was stopped, if any.
    """

    code = "shutting_down"
    exit_code = 3
    http_status = 503

    def __init__(
        self, message: str = "the server is shutting down", *, partial: Any = None, hint: str = "try again"
    ) -> None:
        super().__init__(message, hint=hint)
        self.partial = partial


class AuthenticationError(ReasonError):
    """A request has no API key, or one that is unknown, revoked or expired; the message does not reveal which."""

    code = "invalid_api_key"
    exit_code = 2
    http_status = 401


class PermissionDenied(ReasonError):
    """The scopes of an API key do not allow the request.

    Args:
        scope: The missing scope: "ask", "read" or "admin".
    """

    code = "permission_denied"
    exit_code = 2
    http_status = 403

    def __init__(self, scope: str) -> None:
        super().__init__(f"the key does not allow {scope!r}", hint="use a key with that scope")
        self.scope = scope


class KeyLimitExceeded(ReasonError):
    """An API key has reached a limit: requests per minute, concurrent runs, tokens or dollars per day.

    Args:
        retry_after_s: Seconds after which a retry may succeed.
    """

    code = "rate_limit_exceeded"
    exit_code = 3
    http_status = 429

    def __init__(self, message: str, *, retry_after_s: float, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class ServerBusy(ReasonError):
    """The server's run slots and its queue are full.

    Args:
        retry_after_s: Estimated seconds after which a slot may be free.
    """

    code = "server_busy"
    exit_code = 3
    http_status = 429

    def __init__(self, message: str, *, retry_after_s: float, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class Cancelled(ReasonError):
    """The application stopped the run.

    Args:
        partial: Best answer so far, if any.
    """

    code = "cancelled"
    exit_code = 130
    http_status = 499

    def __init__(self, message: str = "the run was cancelled", *, partial: Any = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.partial = partial


class StoreError(ReasonError):
    """The run store cannot be opened, read or written."""

    code = "store_error"
    exit_code = 3


@contextmanager
def names_run(run_id: str) -> Iterator[None]:
    """Let exceptions that leave the block, also a cancellation, name the run for `interrupted_run`."""
    try:
        yield
    except BaseException as e:
        vars(e).setdefault(_RUN, run_id)
        raise


def interrupted_run(error: BaseException) -> str | None:
    """Name of the run that an exception ended, which `Reasoner.aresume` continues; None if it ended none.

    Args:
        error: What `Reasoner.aask` raised, `asyncio.CancelledError` included, or what was raised because of that, such
            as the `TimeoutError` of `asyncio.timeout`.
    """
    chain: BaseException | None = error
    while chain is not None:
        if _RUN in vars(chain):
            return str(vars(chain)[_RUN])
        chain = chain.__cause__ or chain.__context__
    return None
