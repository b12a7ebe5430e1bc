"""`reason doctor`: check by trial whether questions can be answered on this machine."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

from .completion import complete_model
from .options import Json
from .render.console import out, say, write_line

if TYPE_CHECKING:
    from ..core.settings import ProviderSettings, Settings

EXIT_FAILED = 3
MIN_FREE_BYTES = 1_000_000_000
"""Free space below which the cache directory gets a note; the default model takes a third of this."""
ENDPOINT_TIMEOUT_S = 10.0
IN_PROCESS = ("local/", "gguf/", "vllm/")


class Check(NamedTuple):
    """Result of one check: a "note" prevents nothing, "fail" is for something chosen that does not work.

    Of a live check, "absent" is what the model does not have, and "skipped" what its budget had no room for.
    """

    name: str
    state: Literal["ok", "note", "fail", "absent", "skipped"]
    detail: str
    hint: str = ""


def doctor(
    pull: Annotated[bool, typer.Option("--pull", help="Download missing models.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Load no models.")] = False,
    live: Annotated[
        str | None,
        typer.Option(
            "--live",
            metavar="MODEL",
            help="Only try what runs need at a model's real endpoint, for less than five US cents.",
            autocompletion=complete_model,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check what works on this machine, and say how to mend what doesn't.

    Loads the model and generates a few tokens; without --live, sends no request that could cost money. Exit status 3 if
    something that the settings choose does not work.
    """
    from ..core.settings import load_settings
    from .interrupts import run_interruptible
    from .render.status import StatusLine

    settings = load_settings()

    async def run() -> list[Check]:
        with StatusLine("checking settings") as report:
            return [check async for check in run_checks(settings, pull, quick, report)]

    checks, facts = run_interruptible(_check_live(live, settings)) if live else (run_interruptible(run()), {})
    ok = all(check.state != "fail" for check in checks)
    if as_json:
        found = {"ok": ok, **facts, "checks": [c._asdict() for c in checks]}
        write_line(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        _print(checks)
    if not ok:
        raise typer.Exit(EXIT_FAILED)


async def _check_live(name: str, settings: Settings) -> tuple[list[Check], dict[str, Any]]:
    """The live contract with a model as checks, and what it cost and learned; its limits are stated first."""
    from ..evals.live_contract import open_contract
    from .render.status import StatusLine

    with StatusLine(f"loading {name}") as report:
        async with open_contract(name, settings) as contract:
            budget = contract.budget
            cost = "prices unknown" if budget.usd is None else f"{budget.usd:g} USD"
            say(f"{name} at {contract.endpoint}: at most {budget.calls} calls, {budget.tokens:,} tokens, {cost}")
            checks = []
            async for cell in contract.check():
                checks.append(Check(*cell))
                report(f"tried {cell.name}")
            usage, learned = contract.usage, contract.learned
    price = "" if usage.cost_usd is None else f", {usage.cost_usd:.5f} USD"
    spent = f"{usage.model_calls} calls, {usage.prompt_tokens} + {usage.completion_tokens} tokens{price}"
    checks.append(Check("cost", "ok", spent))
    if learned:
        written = [f"{parameter} ({why})" for parameter, why in learned.items()]
        hint = f'forget it by removing {settings.data_dir / "refused"}, or override it by [profiles."{name}"] left_out'
        checks.append(Check("learned", "note", f"later runs leave out {', '.join(written)}", hint))
    return checks, {
        "model": name,
        "endpoint": contract.endpoint,
        "limits": budget.model_dump(mode="json", exclude_none=True),
        "usage": usage.model_dump(mode="json"),
        "left_out": learned,
    }


def _print(checks: list[Check]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for column in ({}, {"no_wrap": True}, {"overflow": "fold"}):
        table.add_column(**column)
    styles = {"ok": "green", "note": "yellow", "fail": "bold red", "absent": "dim", "skipped": "yellow"}
    for check in checks:
        detail = Text(check.detail)
        if check.hint:
            detail.append(f"\n→ {check.hint}", "cyan")
        state = check.state.upper() if check.state == "fail" else check.state
        table.add_row(Text(state, styles[check.state]), Text(check.name, "bold"), detail)
    out().print(table)


async def run_checks(
    settings: Settings, pull: bool, quick: bool, report: Callable[[str], None]
) -> AsyncIterator[Check]:
    """Run all checks, the quick ones first; `report` is called with the check in progress."""
    from ..core.version import __version__

    machine = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"
    yield Check("reason", "ok", f"{__version__} on {machine}")
    yield _check_settings_files()
    yield await _attempt("run store", _try_store(settings.store))
    yield _check_cache(settings.cache_dir)
    yield _check_plugins()
    report("calling endpoints")
    for check in await check_endpoints(settings):
        yield check
    yield await asyncio.to_thread(_check_measurements, settings.data_dir)
    report("looking for servers on this machine")
    for check in await check_local_servers():
        yield check
    if not settings.model.startswith(IN_PROCESS):
        yield await _attempt("model", _find_provider(settings))
    if quick:
        return
    if settings.model.startswith(IN_PROCESS):
        report(f"loading {settings.model}")
        yield await _attempt("model", _try_model(settings, pull))
    report("loading the embedding model")
    yield await _attempt("embedding", _try_embedding(settings, pull), is_required=pull)
    report("loading the judge of claims")
    yield await _attempt("judge", _try_judge(settings, pull), is_required=pull)


async def _attempt(name: str, trial: Awaitable[str], *, is_required: bool = True) -> Check:
    """Await a trial, which returns the detail of its check; what is not available is a failure only if required."""
    from ..core.errors import BackendUnavailable, ReasonError

    try:
        return Check(name, "ok", await trial)
    except BackendUnavailable as e:
        return Check(name, "fail" if is_required else "note", e.message, e.hint)
    except ReasonError as e:
        return Check(name, "fail", e.message, e.hint)


def _check_plugins() -> Check:
    """Import everything that plugs in."""
    from ..reasoning.strategy import RESOURCES, STRATEGIES
    from ..serving.factory import LOADERS
    from ..serving.litellm.factory import SERVERS
    from ..verify.verifier import VERIFIERS

    registries = (STRATEGIES, VERIFIERS, LOADERS, SERVERS, RESOURCES)
    errors = [e for registry in registries for e in registry.load_errors().values()]
    if not errors:
        return Check("plugins", "ok", "all can be imported")
    return Check("plugins", "note", "; ".join(errors), "reinstall or remove the packages that are named")


def _check_settings_files() -> Check:
    from ..core.settings import config_files

    files = [str(path) for path in config_files() if path.is_file()]
    variables = sorted(name for name in os.environ if name.startswith("REASON_"))
    return Check("settings", "ok", ", ".join(files + variables) or "all defaults (no reason.toml, no REASON_ variable)")


async def _try_store(location: Path | str) -> str:
    from ..core.run import new_run_id
    from ..core.store import open_store
    from ..core.store.location import redacted_location

    store = await open_store(location)
    try:
        trial = f"doctor-{new_run_id()}"
        await store.create_run(trial, {})
        await store.delete_run(trial)
    finally:
        await store.aclose()
    return redacted_location(location)


def _check_cache(directory: Path) -> Check:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            free = shutil.disk_usage(directory).free
    except OSError as e:
        return Check("cache", "fail", f"cannot write to {directory}: {e.strerror}", "set REASON_CACHE_DIR")
    is_enough = free >= MIN_FREE_BYTES
    hint = "" if is_enough else "free some disk space, or set REASON_CACHE_DIR"
    return Check("cache", "ok" if is_enough else "note", f"{directory}, {free / 1e9:.1f} GB free", hint)


async def check_endpoints(settings: Settings) -> list[Check]:
    """Which providers have a key, and which endpoints respond; only free requests are sent."""
    from ..core.settings import ProviderSettings
    from ..serving.litellm.providers import KEY_VARIABLES, key_in_environment

    keys = {provider: key_in_environment(provider) for provider in KEY_VARIABLES}
    keys |= {p: s.api_key_env for p, s in settings.providers.items() if s.api_key_env and os.environ.get(s.api_key_env)}
    named = ", ".join(f"{provider} ({variable})" for provider, variable in sorted(keys.items()) if variable)
    suffix = "_API_BASE"
    bases = {
        name.removesuffix(suffix).lower(): (base, ProviderSettings())
        for name, base in os.environ.items()
        if name.endswith(suffix) and base
    }
    if base := os.environ.get("OPENAI_BASE_URL"):
        bases["openai"] = base, ProviderSettings()
    bases |= {name: (s.api_base, s) for name, s in settings.providers.items() if s.api_base}
    requests = [_check_endpoint(name, base, provider) for name, (base, provider) in sorted(bases.items())]
    return [Check("API keys", "ok", named or "none"), *await asyncio.gather(*requests)]


async def _check_endpoint(name: str, base: str, settings: ProviderSettings) -> Check:
    import httpx

    from ..serving.ollama import ollama_address

    variable = settings.api_key_env or f"{name.partition('/')[0].upper()}_API_KEY"
    key = os.environ.get(variable)
    headers = ({"Authorization": f"Bearer {key}"} if key else {}) | settings.headers
    title = f"{name} at {base}"
    try:
        base = ollama_address(base) if name.startswith("ollama") else base
        async with httpx.AsyncClient(timeout=ENDPOINT_TIMEOUT_S, headers=headers, follow_redirects=True) as client:
            response = await client.get(base.rstrip("/") + "/models")
    except (httpx.HTTPError, httpx.InvalidURL) as e:
        reason = str(e).strip() or type(e).__name__
        return Check("endpoint", "fail", f"{title}: {reason}", "start the server, or change its api_base")
    if response.status_code in (401, 403):
        return Check("endpoint", "fail", f"{title} rejects the key", f"set {variable}")
    if not response.is_success and response.status_code != 404:
        return Check("endpoint", "fail", f"{title} responds with status {response.status_code}")
    try:
        served = [str(model["id"]) for model in response.json()["data"]]
    except (ValueError, KeyError, TypeError):
        return Check("endpoint", "note", f"{title} responds, but does not list its models")
    return Check("endpoint", "ok", f"{title} serves {_shortened(served)}")


def _check_measurements(directory: Path) -> Check:
    """What is remembered of servers: when they were measured, and what they can do."""
    from datetime import UTC, datetime

    from ..serving.servers.measurements import list_measurements

    shown = []
    for one in list_measurements(directory):
        minutes = int((datetime.now(UTC) - one.date).total_seconds() // 60)
        age = f"{minutes} min" if minutes < 120 else f"{minutes // 60} h"
        can = [name for name in ("tools", "json_schema", "logprobs", "prefix") if getattr(one.capabilities, name)]
        shown.append(f"{one.model} {age} ago: {', '.join(can) or 'text only'}")
    hint = "measure one again: reason models probe MODEL --fresh" if shown else ""
    return Check("measured", "ok", "; ".join(shown) or "no server is remembered", hint)


def _shortened(models: Sequence[str]) -> str:
    more = f" and {len(models) - 5} more" if len(models) > 5 else ""
    return (", ".join(models[:5]) or "nothing") + more


async def check_local_servers() -> list[Check]:
    """The servers of one's own that run on this machine, with the command that asks each."""
    from ..serving.litellm.providers import split_address
    from ..serving.servers.discovery import default_addresses, find_local_servers

    checks = []
    for server in await find_local_servers(default_addresses()):
        served = [split_address(model)[0].partition("/")[2] for model in server.models]
        hint = f'reason ask "What is 17 * 23?" -m {server.models[0]}' if server.models else "load a model there"
        checks.append(Check("server", "ok", f"{server.name} at {server.address} serves {_shortened(served)}", hint))
    return checks


async def _find_provider(settings: Settings) -> str:
    from ..serving.litellm.providers import find_target

    target = await asyncio.to_thread(find_target, settings.model, settings)
    return f"{settings.model} would be called at {target.endpoint}; it was not, since that could cost money"


async def _try_model(settings: Settings, pull: bool) -> str:
    """Load the model as `reason ask` does, and generate a few tokens."""
    from ..core.errors import BackendError
    from ..core.messages import Prompt, Request
    from ..serving.factory import load_model
    from ..serving.model_files.find import find_model
    from ..serving.profiles.profile import quick_sampling

    name = settings.model
    if not name.startswith("gguf/"):  # nothing is downloaded unless requested
        local = "local/" + name.partition("/")[2]
        await asyncio.to_thread(find_model, local, cache_dir=settings.cache_dir, pull=pull)
    started = time.monotonic()
    model = await load_model(name, settings)
    try:
        loaded = time.monotonic()
        sampling = quick_sampling(model.capabilities.profile, max_tokens=4, seed=0)
        ((completion,),) = await model.generate([Request(prompt=Prompt.user("Say hello."), sampling=sampling)])
        ended = time.monotonic()
    finally:
        await model.aclose()
    if completion.failure is not None:
        raise BackendError(completion.failure.message)
    seconds = f"loaded in {loaded - started:.1f} s, {completion.usage.completion_tokens} tokens in "
    return f"{name} generated {completion.text!r} ({seconds}{ended - loaded:.2f} s)"


async def _try_embedding(settings: Settings, pull: bool) -> str:
    from ..serving.encoders.embeddings import load_embedding_model
    from ..serving.encoders.files import find_encoder

    name = settings.embedding_model
    if not name.startswith("local/"):
        return f"{name} is not called here"
    await asyncio.to_thread(find_encoder, name, sentence=True, cache_dir=settings.cache_dir, pull=pull)
    model = await load_embedding_model(name, settings)
    try:
        rows = await model.embed(["A cat sleeps."])
    finally:
        await model.aclose()
    return f"{name}, {rows.shape[1]} dimensions"


async def _try_judge(settings: Settings, pull: bool) -> str:
    """Load the judge that `davinci` uses by default, and judge a claim."""
    from ..core.errors import BackendError, BackendUnavailable
    from ..verify.entailment.factory import find_embedded, load_entailment, resolve_judge
    from ..verify.types import Pair
    from ..verify.verifier import AUTO, MODEL

    judge = resolve_judge(AUTO, settings, has_judge_model=settings.judge_model is not None)
    if judge == MODEL:
        return f"{settings.judge_model} is not called here"
    if find_embedded(settings) is None and not pull:
        raise BackendUnavailable(f"the judge {judge} is not on this machine", hint="reason doctor --pull")
    text = "The bridge was opened in June 1926."
    entailment = await load_entailment(judge, settings)
    try:
        (support,) = await entailment.judge([Pair(text, text)])
    finally:
        await entailment.aclose()
    if support is None or support.supports < 0.5:
        raise BackendError(f"the judge {judge} does not support a claim by the same sentence")
    return f"{judge}, which supports a claim by the same sentence with {support.supports:.2f}"
