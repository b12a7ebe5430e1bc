"""Settings: flag > environment (`REASON_*`) > `reason.toml` here > the user's own > default.

Nested tables use two underscores in the environment: `REASON_BUDGET__TOKENS=2000`.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from .budget import Budget
from .errors import DataError, UnknownName, UserError
from .messages import ApprovalMode, Effect, Effort
from .registry import nearest
from .store.location import parse_location, redacted_location, redacted_url

DEFAULT_MODEL = "local/smollm2-135m"
DEFAULT_EMBEDDING_MODEL = "local/all-minilm-l6-v2"
QUEUED_PER_RUN = 4
"""Requests that a server lets wait for each run that it has in flight at most."""

Device = Literal["auto", "cpu", "cuda"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
T = TypeVar("T")


def default_cache_dir() -> Path:
    """Default directory of model files: `$XDG_CACHE_HOME/reason` or `~/.cache/reason`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reason"


def default_store() -> Path:
    """Default run store: `$XDG_DATA_HOME/reason/runs.sqlite3` or the same under `~/.local/share`."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "reason" / "runs.sqlite3"


def config_files() -> list[Path]:
    """The settings files, the weaker first."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return [home / "reason" / "reason.toml", Path.cwd() / "reason.toml"]


class LocalSettings(BaseModel):
    """The embedded engine.

    Attributes:
        weight_format: "auto" is bf16 if the processor supports it, else fp32; "int4" is smaller, faster and less exact.
        threads: CPU threads; None measures which number is fastest when a model is loaded.
        kv_cache_bytes: Maximum size of the KV cache; None is a quarter of the free memory.
        max_num_seqs: Maximum number of sequences decoded together.
        speculative_decoding: Whether a step verifies several draft tokens: "auto" if the step times so far show that it
            pays and no text can change by it, "on" whenever there is a draft (then the last bits change, and in bf16
            sometimes a text), "off" never.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    weight_format: Literal["auto", "fp32", "bf16", "int4"] = "auto"
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    kv_cache_bytes: Annotated[int, Field(ge=1 << 20)] | None = None
    max_num_seqs: Annotated[int, Field(ge=1, le=1024)] = 16
    speculative_decoding: Literal["auto", "on", "off"] = "auto"

    @property
    def output_affecting(self) -> dict[str, JsonValue]:
        """The settings that can affect a text, for digests of plans, as JSON."""
        return self.model_dump(mode="json", exclude={"speculative_decoding"})


class VllmSettings(BaseModel):
    """vLLM in this process (`vllm/…`).

    Attributes:
        shared_workers: Whether workers can read one another's cache while they write (`hogwild`). Experimental: it
            overrides internals of vLLM, so it is refused with untested versions.
        engine: Arguments of vLLM's engine by their own names, for example `dtype` or `max_model_len`. On a CPU the
            context is at most 4096 tokens and the KV cache has 1 GiB unless they say otherwise.
    """

    model_config = ConfigDict(extra="forbid")

    shared_workers: bool = False
    engine: dict[str, JsonValue] = Field(default_factory=dict)


class EndpointSettings(BaseModel):
    """One of several endpoints that serve the same model.

    Attributes:
        api_key_env: Environment variable that holds its key; None is the provider's.
        concurrency: Maximum number of requests in flight; None is the provider's.
    """

    model_config = ConfigDict(extra="forbid")

    api_base: Annotated[str, Field(pattern=r"^https?://")]
    api_key_env: str | None = None
    concurrency: Annotated[int, Field(ge=1, le=10_000)] | None = None


class ProviderSettings(BaseModel):
    """How the models of one API provider are called (see `Settings.providers`).

    Attributes:
        api_base: Address of the endpoint, for example `http://127.0.0.1:8000/v1`; None is the provider's own.
        api_key_env: Environment variable that holds the key; None is the provider's usual one.
        endpoints: Several endpoints that serve the same model, instead of `api_base`: the one with the
            fewest requests in flight takes a request, and one that fails is not used for a while.
        affinity: Of several endpoints, prefer the one that served prompts with the same prefix, whose prefix cache may
            have it.
        timeout_s: Maximum time without data of a request.
        max_retries: Retries of one request after a rate limit or a server error.
        retry_s: Maximum time from the first attempt of a request to the start of its last.
        concurrency: Maximum number of requests in flight to one model.
        probe: Whether to measure a model's capabilities with a few tokens when it is loaded; None measures only at an
            `api_base`, and relies on the documentation of other endpoints.
        cache_salt: `hosted_vllm` only: requests share the server's prefix cache only with the same salt. One for each
            tenant.
        usd_per_prompt_token: Price, if the price map does not have it.
        usd_per_completion_token: Price, if the price map does not have it.
    """

    model_config = ConfigDict(extra="forbid")

    api_base: Annotated[str, Field(pattern=r"^https?://")] | None = None
    api_key_env: str | None = None
    endpoints: tuple[EndpointSettings, ...] = ()
    affinity: bool = False
    timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 120.0
    max_retries: Annotated[int, Field(ge=0, le=100)] = 6
    retry_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 120.0
    concurrency: Annotated[int, Field(ge=1, le=10_000)] = 64
    headers: dict[str, str] = Field(default_factory=dict)
    probe: bool | None = None
    cache_salt: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    usd_per_prompt_token: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    usd_per_completion_token: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _addresses_are_consistent(self) -> Self:
        addresses = [e.api_base.rstrip("/") for e in self.endpoints]
        if addresses and self.api_base is not None:
            raise ValueError("give api_base or endpoints, not both")
        if len(set(addresses)) < len(addresses):
            raise ValueError("two endpoints have the same api_base")
        return self


class RewardSettings(BaseModel):
    """How one reward model is called (see `Settings.rewards`). None is the form's default.

    Attributes:
        form: How problem and steps become the model's input, and where its scores are read: "qwen" (a conversation with
            a tag after each step and a two-class head), "outcome" (a classifier of complete answers), "judge" (a
            yes-or-no question to a language model); "auto" follows the model's architecture.
        step_tag: Text after each step.
        good_token: The token that begins a judge's yes.
        bad_token: The token that begins a judge's no.
        system: System message of the conversation; empty leaves it out.
        max_tokens: Maximum input in tokens; None is the model's own limit.
        batch_tokens: Maximum number of tokens computed together, padding included.
        device: "auto" is a GPU if there is one.
        dtype: Number format; "auto" is that of the weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    form: Literal["auto", "qwen", "outcome", "judge"] = "auto"
    step_tag: Annotated[str, Field(min_length=1)] | None = None
    good_token: Annotated[str, Field(min_length=1)] | None = None
    bad_token: Annotated[str, Field(min_length=1)] | None = None
    system: str | None = None
    max_tokens: Annotated[int, Field(ge=8)] | None = None
    batch_tokens: Annotated[int, Field(ge=1)] = 8192
    device: Device = "auto"
    dtype: Dtype = "auto"


class EncoderSettings(BaseModel):
    """How one embedding model or cross-encoder is called (see `Settings.encoders`).

    Attributes:
        query_prompt: Text before a query; None is that of the model's own files, empty is none.
        document_prompt: Text before a document, likewise.
        max_tokens: Maximum input in tokens, at which a text is truncated; None is the model's own limit.
        batch_texts: Maximum number of texts computed or sent together.
        device: "auto" is a GPU if there is one.
        dtype: Number format; "auto" is that of the weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    query_prompt: str | None = None
    document_prompt: str | None = None
    max_tokens: Annotated[int, Field(ge=8)] | None = None
    batch_texts: Annotated[int, Field(ge=1, le=2048)] = 32
    device: Device = "auto"
    dtype: Dtype = "auto"


class ToolSettings(BaseModel):
    """Tools that models may call (`[tools]` in reason.toml).

    Attributes:
        use: Tools of every question, as `--tool` names them.
        approve: Calls that need an approval: "never" none, "guard" changes that no sentence of the user asks for, once
            a result has been read, "writes" all that change something, "all"; None is "writes", and refuses tools that
            change something where nobody can be asked.
        check_writes: Whether calls that change something are executed only if a model finds the user's words that ask
            for them.
        policy: File with the policy that has to allow them too; implies `check_writes`.
        trajectories: Number of loops that a run with tools is made by, of which one is chosen.
        select: The rule that chooses; empty is the default of the run's tools.
        turns: Maximum model turns of a run with tools.
        tool_calls: Maximum tool calls of a run.
        effects: Effects by tool, which override declared ones.
        mcp: MCP servers by name (fields of `tools.mcp.McpServerSettings`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    use: tuple[str, ...] = ()
    approve: ApprovalMode | None = None
    check_writes: bool = False
    policy: Path | None = None
    trajectories: Annotated[int, Field(ge=1)] = 1
    select: str = ""
    turns: Annotated[int, Field(ge=1)] = 50
    tool_calls: Annotated[int, Field(ge=1)] = 200
    effects: dict[str, Effect] = Field(default_factory=dict)
    mcp: dict[str, dict[str, JsonValue]] = Field(default_factory=dict)


class AliasSettings(BaseModel):
    """A model name that callers may request, and what it stands for.

    Attributes:
        model: The main model; None is the setting `model`.
        parameters: Parameters of the strategy that differ from the settings.
        budget: Limits of such a run; the server's own apply as well.
        verify: The verifiers; empty are the settings'.
        stability: Its label; None is the strategy's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    strategy: str
    model: str | None = None
    parameters: dict[str, JsonValue] = Field(default_factory=dict)
    budget: Budget = Budget()
    verify: tuple[str, ...] = ()
    stability: Literal["stable", "beta", "experimental"] | None = None


class ServeSettings(BaseModel):
    """The REST sidecar, `reason serve` (`[serve]` in reason.toml, `REASON_SERVE__…`).

    Attributes:
        port: 0 takes a free port.
        workers: Processes, which share the run store.
        models: Model strings that callers may request, in addition to the setting `model`.
        aliases: Further model names, each with its strategy.
        tools: Tools that callers may name, as `--tool` names them, in addition to those of `[tools] use`.
        auth: Whether callers need an API key.
        max_runs: Maximum number of runs in flight in one process. Four times as many wait; further ones are refused.
        max_seconds: Maximum time limit of a run.
        max_tokens: Maximum token limit of a run, and the limit of a run that names none.
        limits_url: `redis://HOST:PORT` of the Redis or Valkey that counts the requests per minute of keys
            over all replicas and workers (package extra `redis`); None counts them in each process.
        retention_days: Age at which runs that have ended or wait are deleted from the store; None keeps them.
        cors_origins: Origins whose pages may call; empty is none.
        drain_delay_s: Time between a signal to stop and the refusal of new runs; `/readyz` fails during it, so that
            proxies send elsewhere.
        drain_timeout_s: Time that runs get to end when the process shuts down.
        log_content: Whether logs and spans may contain texts of users and models.
        code_execution: Whether requests may have the code of answers run in a sandbox.
        mcp: Whether the MCP server is at `/mcp` (package extra `mcp`).
        public_metrics: Whether `/metrics` needs no key with the scope "admin"; None is yes on a loopback address.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    models: tuple[str, ...] = ()
    aliases: dict[str, AliasSettings] = Field(default_factory=dict)
    tools: tuple[str, ...] = ()
    auth: bool = True
    max_runs: Annotated[int, Field(ge=1, le=100_000)] = 64
    max_seconds: Seconds = 600.0
    max_tokens: Annotated[int, Field(ge=1)] = 500_000
    limits_url: str | None = None
    retention_days: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    cors_origins: tuple[str, ...] = ()
    drain_delay_s: Annotated[float, Field(ge=0, le=600, allow_inf_nan=False)] = 0.0
    drain_timeout_s: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] = 30.0
    log_content: bool = False
    code_execution: bool = False
    mcp: bool = False
    public_metrics: bool | None = None

    @property
    def max_queued(self) -> int:
        """Maximum number of requests that wait for one of the `max_runs`."""
        return QUEUED_PER_RUN * self.max_runs

    @field_validator("limits_url")
    @classmethod
    def _is_redis(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(("redis://", "rediss://")):
            # the URL may hold a password: it is not shown
            raise UserError("serve.limits_url is not the URL of a Redis server", hint="give redis://HOST:PORT")
        return url

    @model_validator(mode="after")
    def _origins_are_named(self) -> Self:
        if "*" in self.cors_origins:
            raise ValueError('name the allowed origins: "*" would let any page use the keys of its visitors')
        return self


class Settings(BaseSettings):
    """Every setting with its default.

    Attributes:
        small_model: The model for small steps; None is the main model.
        judge_model: The model that judges; None is the main model.
        reward_model: The model that scores steps, for example `judge/local/smollm2-135m`; None is none.
        jurors: The models of a jury, one per juror; a model named twice is two jurors. Empty is the main model.
        context: Knowledge sources of strategies: directories, addresses and the like (see `reasoning.retrieval`).
        memory: Name of the memory that strategies recall, and that `coat` extends; empty is none.
        verifiers: Parameters by verifier, for example `[verifiers.davinci] k = 10`.
        evidence: Where verifiers retrieve evidence: files, directories and saved indexes.
        repairs: How often an answer that did not pass goes back to the strategy with the findings.
        seed: Seed of a run; None chooses one and records it.
        effort: How much models that think do so before they answer: "none", "minimal", "low", "medium", "high" or
            "max"; None is each model's default.
        thinking_tokens: Maximum tokens of each thought; None is the effort's.
        store: The run store: a file, or `postgresql://HOST/DATABASE` for several machines.
        cache_dir: Directory of the model files and of documents' vectors.
        reuse: Which stored calls may answer a call: "run" (an interrupted run's own), "store" (any run's), "none".
        providers: API providers by name, or single models of theirs by model string, for example
            `[providers.hosted_vllm] api_base = "http://127.0.0.1:8000/v1"`.
        profiles: What single models accept and how they think, by model string or pattern, for example
            `[profiles."hosted_vllm/*"] thinks = "always"` (fields of `serving.profiles.profile.ModelProfile`).
        rewards: Reward models by model string.
        encoders: Embedding models and cross-encoders by model string.
        strategies: Parameters by strategy, for example `[strategies.self-consistency] n = 16`.
        calibration: File of the calibration map by strategy, for example `[calibration] self-consistency = "map.json"`.
        tools: Tools that models may call, for example `[tools] use = ["python"]`.
        serve: The REST sidecar, for example `[serve] port = 9000`.
    """

    model_config = SettingsConfigDict(env_prefix="REASON_", env_nested_delimiter="__", extra="forbid")

    model: str = DEFAULT_MODEL
    small_model: str | None = None
    judge_model: str | None = None
    reward_model: str | None = None
    jurors: tuple[str, ...] = ()
    embedding_model: str = DEFAULT_EMBEDDING_MODEL
    context: tuple[str, ...] = ()
    memory: str = ""
    strategy: str = "cot"
    verify: tuple[str, ...] = ()
    verifiers: dict[str, dict[str, JsonValue]] = Field(default_factory=dict)
    evidence: tuple[str, ...] = ()
    repairs: Annotated[int, Field(ge=0, le=10)] = 1
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    budget: Budget = Budget()
    effort: Effort | None = None
    thinking_tokens: Annotated[int, Field(ge=1)] | None = None
    store: Path | str = Field(default_factory=default_store)
    cache_dir: Path = Field(default_factory=default_cache_dir)
    reuse: Literal["run", "store", "none"] = "run"
    local: LocalSettings = LocalSettings()
    vllm: VllmSettings = VllmSettings()
    providers: dict[str, ProviderSettings] = Field(default_factory=dict)
    profiles: dict[str, dict[str, JsonValue]] = Field(default_factory=dict)
    rewards: dict[str, RewardSettings] = Field(default_factory=dict)
    encoders: dict[str, EncoderSettings] = Field(default_factory=dict)
    strategies: dict[str, dict[str, JsonValue]] = Field(default_factory=dict)
    calibration: dict[str, Path] = Field(default_factory=dict)
    tools: ToolSettings = ToolSettings()
    serve: ServeSettings = ServeSettings()

    @field_validator("store", mode="before")
    @classmethod
    def _parse_store(cls, store: Any) -> Any:
        return parse_location(store) if isinstance(store, str) else store

    @property
    def data_dir(self) -> Path:
        """Directory of memories: that of the run store's file, or of the default file."""
        return (self.store if isinstance(self.store, Path) else default_store()).absolute().parent

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then the environment, then the files, nearest first."""
        files = (InitSettingsSource(settings_cls, _read_toml(path)) for path in reversed(config_files()))
        return (init_settings, env_settings, *files)


def load_settings(**flags: Any) -> Settings:
    """Settings from all sources.

    Args:
        flags: The caller's settings; None is not set.

    Raises:
        UnknownName: A file or the caller names a setting that does not exist.
        UserError: A value is not allowed; names the setting.
        DataError: A settings file cannot be read.
    """
    try:
        return Settings(**{k: v for k, v in flags.items() if v is not None})
    except ValidationError as e:
        raise user_error_of(e, "setting", Settings.model_fields) from e


def user_error_of(error: ValidationError, kind: str, known: Any) -> UserError:
    """The first fault of a failed validation as one line.

    Args:
        kind: "setting", "parameter", …
        known: The names that exist, to suggest one.
    """
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        unknown = UnknownName(kind, name, nearest(name, known))
        unknown.param = name
        return unknown
    message = first["msg"].removeprefix("Value error, ").lower()
    if not name:  # a rule about several values at once
        return UserError(f"{kind}s: {message}")
    shown = repr(first["input"])
    shown = shown if len(shown) <= 80 else shown[:77] + "…"
    return UserError(f"{kind} {name} = {shown}: {message}", param=name)


def setting_sources(settings: Settings, flags: dict[str, Any]) -> dict[str, tuple[Any, str]]:
    """Each setting's value and its source, by dotted name; URLs of databases without their passwords."""
    layers: list[tuple[str, dict[str, Any]]] = [
        ("flag", {k: v for k, v in flags.items() if v is not None}),
        ("environment", dict(EnvSettingsSource(Settings)())),
    ]
    layers += [(str(path), _read_toml(path)) for path in reversed(config_files())]
    sources: dict[str, tuple[Any, str]] = {}
    for name, value in _leaves(settings.model_dump(mode="json")):
        source = next((label for label, layer in layers if _has(layer, name)), "default")
        if name == "store":
            value = redacted_location(parse_location(value))
        elif name == "serve.limits_url" and value is not None:
            value = redacted_url(value)
        sources[name] = (value, source)
    return sources


def _leaves(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    leaves: list[tuple[str, Any]] = []
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            leaves += _leaves(value, f"{prefix}{key}.")
        else:
            leaves.append((prefix + key, value))
    return leaves


def _has(layer: dict[str, Any], dotted: str) -> bool:
    node: Any = layer
    for part in dotted.split("."):
        if not isinstance(node, dict) or part not in node:
            return False
        node = node[part]
    return True


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as e:
        raise DataError(f"cannot read the settings file {path}: {e}") from e


# -- roles of models; jurors are roles numbered from 1

JURY = "jury"
"""Role of several models that answer the same question."""


def juror_role(number: int) -> str:
    """The role of a juror: "juror-1" is the first."""
    return f"juror-{number}"


def is_used_role(role: str, used: Collection[str]) -> bool:
    """Whether a model's role is among the used ones; a juror's is if "jury" is."""
    return role in used or (JURY in used and role.removeprefix("juror-").isdigit())


def jurors_of(by_role: Mapping[str, T]) -> tuple[T, ...]:
    """The values of the jurors, in order; empty if there are none."""
    jurors: list[T] = []
    while (role := juror_role(len(jurors) + 1)) in by_role:
        jurors.append(by_role[role])
    return tuple(jurors)


def models_by_role(settings: Settings, used: Collection[str]) -> dict[str, str]:
    """Model strings by role, as a run's configuration has them: those of the used roles, and the main model."""
    models = {
        "small": settings.small_model,
        "judge": settings.judge_model,
        "reward": settings.reward_model,
        **{juror_role(i): name for i, name in enumerate(settings.jurors, 1)},
    }
    return {"main": settings.model} | {
        role: name for role, name in models.items() if name is not None and is_used_role(role, used)
    }


def settings_for_models(models: Mapping[str, str]) -> dict[str, Any]:
    """The settings under which these models have these roles, and no others; the inverse of `models_by_role`."""
    return {
        "model": models["main"],
        "small_model": models.get("small"),
        "judge_model": models.get("judge"),
        "reward_model": models.get("reward"),
        "jurors": jurors_of(models),
    }
