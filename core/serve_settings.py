"""`ServeSettings`: how `reason serve` answers over HTTP (`[serve]` in reason.toml, `REASON_SERVE__…`)."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from .budget import Budget

Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]


class AliasSettings(BaseModel):
    """A model name that callers may ask for, and what stands behind it.

    Attributes:
        strategy: The strategy.
        model: The main model; None is the setting `model`.
        parameters: Parameters of the strategy that differ from the settings.
        budget: Limits of such a run; they narrow the server's own.
        verify: The verifiers; empty are the settings'.
        stability: What is told of it; None is the strategy's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    strategy: str
    model: str | None = None
    parameters: dict[str, JsonValue] = Field(default_factory=dict)
    budget: Budget = Budget()
    verify: tuple[str, ...] = ()
    stability: Literal["stable", "beta", "experimental"] | None = None


class ServeSettings(BaseModel):
    """The REST sidecar.

    Attributes:
        host: Address that it listens on.
        port: Port; 0 takes a free one.
        workers: Processes; the store holds what they share.
        models: Model strings that callers may name; the setting `model` always is one.
        aliases: Further model names, each with its strategy.
        auth: Whether callers need a key.
        max_body_bytes: Largest body of a request, in bytes.
        max_runs: Runs under way at once in one process.
        max_waiting: Requests that wait for their turn; more are refused.
        max_wait_s: Longest wait for a turn, in seconds; then the request is refused. A background run waits on.
        max_seconds: Ceiling of the seconds of a run.
        max_tokens: Ceiling of the tokens of a run; None is none.
        max_samples: Most answers to one request (`n`).
        keepalive_s: Silence of a stream after which a comment is sent, in seconds.
        thoughts: Name of the field that holds thoughts in OpenAI's format.
        cors_origins: Origins whose pages may call; empty is none.
        drain_s: Seconds that runs get to end when the process is told to stop.
        log_content: Whether logs may hold what users and models say.
        trace_content: Whether spans may.
        docs: Whether `/docs` and `/openapi.json` are served.
        open_metrics: Whether `/metrics` is open to everybody, rather than to keys with the scope "admin"; None is
            where the host is a loopback address.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    models: tuple[str, ...] = ()
    aliases: dict[str, AliasSettings] = Field(default_factory=dict)
    auth: bool = True
    max_body_bytes: Annotated[int, Field(ge=1024)] = 4 << 20
    max_runs: Annotated[int, Field(ge=1, le=100_000)] = 64
    max_waiting: Annotated[int, Field(ge=0, le=1_000_000)] = 256
    max_wait_s: Seconds = 30.0
    max_seconds: Seconds = 600.0
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_samples: Annotated[int, Field(ge=1, le=10_000)] = 64
    keepalive_s: Seconds = 15.0
    thoughts: Literal["reasoning", "reasoning_content", "both"] = "both"
    cors_origins: tuple[str, ...] = ()
    drain_s: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] = 30.0
    log_content: bool = False
    trace_content: bool = False
    docs: bool = True
    open_metrics: bool | None = None

    @model_validator(mode="after")
    def _no_credentials_from_everywhere(self) -> Self:
        if "*" in self.cors_origins:
            raise ValueError('name the origins that may call: "*" would let any page use the keys of its visitors')
        return self
