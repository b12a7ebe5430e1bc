"""Settings: flag > environment (`REASON_*`) > `reason.toml` here > the user's own > default.

Nested tables use two underscores in the environment: `REASON_BUDGET__TOKENS=2000`.

Settings of the models that score and embed: reward models, embedding models, cross-encoders.

`ServeSettings`: how `reason serve` answers over HTTP (`[serve]` in reason.toml, `REASON_SERVE__…`).

Who plays which role: from settings to model strings by role, and back. Jurors are roles that are numbered from 1.
"""

from __future__ import annotations

import os
import re
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
from .registry import nearest
from .store.location import parse_location, redacted_location

DEFAULT_EMBEDDING_MODEL = "local/all-minilm-l6-v2"

Device = Literal["auto", "cpu", "cuda"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]


class RewardSettings(BaseModel):
    """How one reward model is asked (see `Settings.rewards`). None leaves a value to the form.

    Attributes:
        form: How problem and steps become the model's input, and where its scores stand: "qwen" (a conversation with
            a tag after each step and a two-class head), "tokens" (numbered steps with a tag after each, at which a
            plain language model says a good or a bad token), "outcome" (a classifier of whole answers), "judge"
            (a language model is asked yes or no); "auto" goes by the model's architecture and name.
        step_tag: Text after each step.
        good_token: What a "tokens" model says after a good step, or what opens a judge's yes.
        bad_token: Likewise after a bad step, or no.
        system: System message of the conversation; empty leaves it out.
        max_tokens: Longest input in tokens; None is the model's own limit.
        batch_tokens: Most tokens computed together, padding included.
        device: "auto" is a GPU if there is one.
        dtype: Number format; "auto" is the one of the weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    form: Literal["auto", "qwen", "tokens", "outcome", "judge"] = "auto"
    step_tag: Annotated[str, Field(min_length=1)] | None = None
    good_token: Annotated[str, Field(min_length=1)] | None = None
    bad_token: Annotated[str, Field(min_length=1)] | None = None
    system: str | None = None
    max_tokens: Annotated[int, Field(ge=8)] | None = None
    batch_tokens: Annotated[int, Field(ge=1)] = 8192
    device: Device = "auto"
    dtype: Dtype = "auto"


class EncoderSettings(BaseModel):
    """How one embedding model or cross-encoder is asked (see `Settings.encoders`).

    Attributes:
        query_prompt: What is put before a query; None is what the model's own files say, empty is nothing.
        document_prompt: Likewise before a document.
        max_tokens: Longest input in tokens, beyond which a text is cut; None is the model's own limit.
        batch_texts: Most texts computed or sent together.
        remembered_bytes: Memory for embeddings that were asked for before.
        device: "auto" is a GPU if there is one.
        dtype: Number format; "auto" is the one of the weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    query_prompt: str | None = None
    document_prompt: str | None = None
    max_tokens: Annotated[int, Field(ge=8)] | None = None
    batch_texts: Annotated[int, Field(ge=1, le=2048)] = 32
    remembered_bytes: Annotated[int, Field(ge=0)] = 64 << 20
    device: Device = "auto"
    dtype: Dtype = "auto"


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


DEFAULT_MODEL = "local/smollm2-135m"


def default_cache_dir() -> Path:
    """Where model files are kept: `$XDG_CACHE_HOME/reason` or `~/.cache/reason`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reason"


def default_store() -> Path:
    """Where runs are kept: `$XDG_DATA_HOME/reason/runs.sqlite3` or the same under `~/.local/share`."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "reason" / "runs.sqlite3"


def config_files() -> list[Path]:
    """The settings files looked at, the weaker first."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return [home / "reason" / "reason.toml", Path.cwd() / "reason.toml"]


class LocalSettings(BaseModel):
    """The embedded engine.

    Attributes:
        weight_format: "auto" is bf16 where the device has it, else fp32; "int4" is smaller, faster and less exact.
        threads: Processor threads; None lets the engine choose.
        kv_cache_bytes: Most memory for keys and values, in bytes; None is a quarter of what is free where they lie.
        max_num_seqs: Most sequences decoded together.
        device: Where models are computed: "cpu", "cuda", "cuda:1" and the like, as torch calls them; "auto" is a GPU if
            torch sees one through CUDA, else the processor. Nothing but the processor has been tried yet.
        speculative_decoding: Whether several tokens are computed in a step where earlier text lets them be guessed: "auto" is
            where the step times seen so far say that it pays and no text can change by it, "on" wherever there is a
            guess (last bits change then, and in bf16 now and then a text), "off" never.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    weight_format: Literal["auto", "fp32", "bf16", "int4"] = "auto"
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    kv_cache_bytes: Annotated[int, Field(ge=1 << 20)] | None = None
    max_num_seqs: Annotated[int, Field(ge=1, le=1024)] = 16
    device: str = "cpu"
    speculative_decoding: Literal["auto", "on", "off"] = "auto"

    @property
    def decisive(self) -> dict[str, JsonValue]:
        """What of it can decide a text, for digests of plans, as JSON.

        Lookahead writes the texts that would have been written anyway. Plans that were made before there was a choice
        of devices keep their names.
        """
        plain = self.model_dump(mode="json", exclude={"lookahead"})
        if self.device == "cpu":
            del plain["device"]
        return plain

    @field_validator("device")
    @classmethod
    def _name_of_a_device(cls, name: str) -> str:
        if re.fullmatch(r"[a-z]+(:\d+)?", name) is None:
            raise ValueError('give "auto", "cpu", "cuda", "cuda:1" or the like')
        return name


class EndpointSettings(BaseModel):
    """One of several endpoints that serve the same model.

    Attributes:
        api_base: Its address.
        api_key_env: Environment variable that holds its key; None is the provider's.
        weight: Its share of the requests, relative to the others'.
        concurrency: Requests under way at once there; None is the provider's.
    """

    model_config = ConfigDict(extra="forbid")

    api_base: Annotated[str, Field(pattern=r"^https?://")]
    api_key_env: str | None = None
    weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    concurrency: Annotated[int, Field(ge=1, le=10_000)] | None = None


class ProviderSettings(BaseModel):
    """How the models of one API provider are called (see `Settings.providers`).

    Attributes:
        api_base: Address of the endpoint, for example `http://127.0.0.1:8000/v1`; None is the provider's own.
        api_key_env: Environment variable that holds the key; None is the provider's usual one.
        endpoints: Several endpoints that serve the same model, instead of `api_base`: the least busy one takes a
            request, and one that fails is left alone for a while.
        affinity: Of several endpoints, prefer for a prompt the one that had prompts with the same beginning, whose
            prefix cache may hold it.
        cooldown_s: Seconds that one of several endpoints is left alone at first after it failed.
        timeout_s: Longest silence of a request, in seconds.
        max_retries: Retries of one request after a rate limit or a fault of the server.
        retry_s: Most seconds from the first attempt of a request to the beginning of its last.
        concurrency: Requests under way at once to one model.
        headers: Further HTTP headers.
        probe: Whether to measure with a few tokens what a model can do when it is opened; None measures at an
            `api_base` alone and believes what is documented of the others.
        cache_salt: `hosted_vllm` alone: requests share the server's prefix cache with those of the same salt and with
            no others. One for each tenant.
        priority: `hosted_vllm` alone: a lower number is served earlier, if the server's scheduling policy is
            `priority`; one with another policy refuses any number but 0.
        usd_per_prompt_token: Price, where the price map does not know it.
        usd_per_completion_token: Likewise.
    """

    model_config = ConfigDict(extra="forbid")

    api_base: Annotated[str, Field(pattern=r"^https?://")] | None = None
    api_key_env: str | None = None
    endpoints: tuple[EndpointSettings, ...] = ()
    affinity: bool = False
    cooldown_s: Annotated[float, Field(gt=0, le=3600)] = 1.0
    timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 120.0
    max_retries: Annotated[int, Field(ge=0, le=100)] = 6
    retry_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 120.0
    concurrency: Annotated[int, Field(ge=1, le=10_000)] = 64
    headers: dict[str, str] = Field(default_factory=dict)
    probe: bool | None = None
    cache_salt: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    priority: Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)] | None = None
    usd_per_prompt_token: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    usd_per_completion_token: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _one_place_or_several(self) -> Self:
        places = [e.api_base.rstrip("/") for e in self.endpoints]
        if places and self.api_base is not None:
            raise ValueError("give api_base or endpoints, not both")
        if len(set(places)) < len(places):
            raise ValueError("two endpoints have the same api_base")
        return self


class VllmSettings(BaseModel):
    """vLLM in this process (`vllm/…`).

    Attributes:
        dtype: Number format; "auto" is the one of the weights.
        max_model_len: Context in tokens; None is the model's own, on a CPU at most 4096.
        max_num_seqs: Most samples decoded together.
        kv_cache_bytes: Memory for keys and values, in bytes; None is 1 GiB on a CPU, else what `gpu_memory_utilization`
            leaves.
        gpu_memory_utilization: Share of a GPU's memory that vLLM takes.
        prefix_caching: Whether prompts that begin alike share keys and values.
        pins: Whether prefixes can be kept under names (`KVStore`); None is yes on a CPU, where nothing measurable is
            paid for it while it is not used, and no on a GPU, where that has not been measured.
        kv_events: Whether the blocks that the cache stores and evicts are counted.
        shared_workers: Whether workers can read one another's cache while they write (`hogwild`). Experimental: what it
            overrides in vLLM is no stable interface, so it is refused with versions that it was not tested with.
        shared_bytes: Most memory for the keys and values that such workers keep beside vLLM's cache, in bytes, on each
            GPU that has a part of the model; a group that would need more is refused, or ends.
        speculative_method: What guesses several tokens ahead, which vLLM then checks in one pass: "ngram" repeats what followed the
            same tokens earlier in the same text, "suffix" looks them up in all texts that the engine has written (it
            needs the package arctic-inference). Texts are as likely as without. Excludes logits hooks, JSON schemas,
            seeds that can be relied on, and `shared_workers`.
        num_speculative_tokens: Most tokens guessed at a time; None is vLLM's documented number, 5 for "ngram" and 32 for
            "suffix".
        prompt_lookup_tokens: Tokens at the end of a text that must have stood in it before, for "ngram" to guess.
        tensor_parallel_size: GPUs that share every layer.
        pipeline_parallel_size: Groups of GPUs that share the layers among them.
        engine: Further arguments of vLLM's engine by their own names; they win over ours.
    """

    model_config = ConfigDict(extra="forbid")

    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    max_model_len: Annotated[int, Field(ge=32)] | None = None
    max_num_seqs: Annotated[int, Field(ge=1, le=4096)] = 64
    kv_cache_bytes: Annotated[int, Field(ge=1 << 20)] | None = None
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.9
    prefix_caching: bool = True
    pins: bool | None = None
    kv_events: bool = True
    shared_workers: bool = False
    shared_bytes: Annotated[int, Field(ge=1 << 20)] = 1 << 30
    speculative_method: Literal["off", "ngram", "suffix"] = "off"
    num_speculative_tokens: Annotated[int, Field(ge=1, le=128)] | None = None
    prompt_lookup_tokens: Annotated[int, Field(ge=1, le=64)] = 4
    tensor_parallel_size: Annotated[int, Field(ge=1)] = 1
    pipeline_parallel_size: Annotated[int, Field(ge=1)] = 1
    engine: dict[str, JsonValue] = Field(default_factory=dict)


class Settings(BaseSettings):
    """Every setting with its default.

    Attributes:
        model: The main model.
        small_model: The model for small steps; None is the main model.
        judge_model: The model that judges; None is the main model.
        reward_model: The model that scores steps, for example `judge/local/smollm2-135m`; None is none.
        jurors: The models of a jury, one a juror; a model named twice is two jurors. Empty is the main model alone.
        chair_model: The model that makes one answer of the jurors'; None is the main model.
        embedding_model: The model that embeds texts.
        context: Where strategies that look things up do so: directories, URLs and the like (see `create_knowledge_source`).
        memory: Name of the memory that they recall, and that `coat` adds to; empty is none.
        strategy: The strategy.
        verify: The verifiers.
        verifiers: Parameters by verifier, for example `[verifiers.davinci] k = 10`.
        evidence: Where they look for evidence: files, folders and saved indexes.
        repairs: How often an answer that did not pass goes back to the strategy with what was found.
        seed: Seed of a run; None draws one and records it.
        budget: Limits of a run.
        store: The run store: a file, or `postgresql://HOST/DATABASE` for several machines.
        cache_dir: Folder of the model files, and of pinned prefixes (`prefixes` in it).
        prefix_bytes: Most bytes that pinned prefixes take on disk; the least recently used go first.
        reuse: Which stored replies may answer a call: "run" (an interrupted run's own), "store" (any run's), "none".
        local: The embedded engine.
        vllm: vLLM in this process.
        providers: API providers by name, or single models of theirs by model string, for example
            `[providers.hosted_vllm] api_base = "http://127.0.0.1:8000/v1"`.
        rewards: How single reward models are asked, by model string.
        encoders: How single embedding models and cross-encoders are asked, by model string.
        strategies: Parameters by strategy, for example `[strategies.self-consistency] n = 16`.
        calibration: File of the calibration map by strategy, for example `[calibration] self-consistency = "map.json"`.
        serve: The REST sidecar, for example `[serve] port = 9000`.
    """

    model_config = SettingsConfigDict(env_prefix="REASON_", env_nested_delimiter="__", extra="forbid")

    model: str = DEFAULT_MODEL
    small_model: str | None = None
    judge_model: str | None = None
    reward_model: str | None = None
    jurors: tuple[str, ...] = ()
    chair_model: str | None = None
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
    store: Path | str = Field(default_factory=default_store)
    cache_dir: Path = Field(default_factory=default_cache_dir)
    prefix_bytes: Annotated[int, Field(ge=1 << 20)] = 4 << 30
    reuse: Literal["run", "store", "none"] = "run"
    local: LocalSettings = LocalSettings()
    vllm: VllmSettings = VllmSettings()
    providers: dict[str, ProviderSettings] = Field(default_factory=dict)
    rewards: dict[str, RewardSettings] = Field(default_factory=dict)
    encoders: dict[str, EncoderSettings] = Field(default_factory=dict)
    strategies: dict[str, dict[str, JsonValue]] = Field(default_factory=dict)
    calibration: dict[str, Path] = Field(default_factory=dict)
    serve: ServeSettings = ServeSettings()

    @field_validator("store", mode="before")
    @classmethod
    def _file_or_address(cls, store: Any) -> Any:
        return parse_location(store) if isinstance(store, str) else store

    @property
    def data_dir(self) -> Path:
        """Folder for what lies beside the run store: memories and stored vectors. Of a database, where the file is."""
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
        flags: What the caller gave; None means not given.

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
        error: What pydantic says.
        kind: What the values are called: "setting", "parameter", …
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
    """Each setting's value and where it came from, by dotted name; the run store without its password."""
    layers: list[tuple[str, dict[str, Any]]] = [
        ("flag", {k: v for k, v in flags.items() if v is not None}),
        ("environment", dict(EnvSettingsSource(Settings)())),
    ]
    layers += [(str(path), _read_toml(path)) for path in reversed(config_files())]
    told: dict[str, tuple[Any, str]] = {}
    for name, value in _leaves(settings.model_dump(mode="json")):
        source = next((label for label, layer in layers if _has(layer, name)), "default")
        told[name] = (redacted_location(parse_location(value)) if name == "store" else value, source)
    return told


def _leaves(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            found += _leaves(value, f"{prefix}{key}.")
        else:
            found.append((prefix + key, value))
    return found


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


T = TypeVar("T")

JURY, CHAIR = "jury", "chair"
"""Roles of several models that answer the same, and of the one that makes one answer of theirs."""


def juror_role(number: int) -> str:
    """The role of a juror, the first of whom has number 1: "juror-1"."""
    return f"juror-{number}"


def is_used_role(role: str, used: Collection[str]) -> bool:
    """Whether a model's role is among those that are asked for, a juror's where "jury" is."""
    return role in used or (JURY in used and role.removeprefix("juror-").isdigit())


def jurors_of(by_role: Mapping[str, T]) -> tuple[T, ...]:
    """What belongs to the jurors, in their order; empty where there is none."""
    found: list[T] = []
    while (role := juror_role(len(found) + 1)) in by_role:
        found.append(by_role[role])
    return tuple(found)


def models_by_role(settings: Settings, used: Collection[str]) -> dict[str, str]:
    """Model strings by role, as a run's configuration has them.

    Args:
        settings: Say who plays which role.
        used: The roles that are asked for. Models of others are left out, but for the main one: nobody would ask them,
            and they would have to be opened.
    """
    models = {
        "small": settings.small_model,
        "judge": settings.judge_model,
        "reward": settings.reward_model,
        CHAIR: settings.chair_model,
        **{juror_role(i): name for i, name in enumerate(settings.jurors, 1)},
    }
    return {"main": settings.model} | {
        role: n for role, n in models.items() if n is not None and is_used_role(role, used)
    }


def settings_of_roles(models: Mapping[str, str]) -> dict[str, Any]:
    """The settings under which these models play these roles, and no others; the inverse of `models_by_role`."""
    return {
        "model": models["main"],
        "small_model": models.get("small"),
        "judge_model": models.get("judge"),
        "reward_model": models.get("reward"),
        "chair_model": models.get(CHAIR),
        "jurors": jurors_of(models),
    }
