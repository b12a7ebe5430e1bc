"""The checks of `reason doctor`. Each one tries what it reports on; none makes a request that could cost money."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ..core.errors import BackendUnavailable, ReasonError, UserError
from ..core.extras import install_command
from ..core.settings import DEFAULT_MODEL, ProviderSettings, Settings, config_files
from ..core.version import __version__

LOCAL, GGUF, VLLM = "local/", "gguf/", "vllm/"
MIN_FREE_BYTES = 1_000_000_000
"""Free space below which the cache directory gets a note; the default model takes a third of this."""
TRIAL_TOKENS = 4
VLLM_TRIAL_S = 300.0
"""Maximum seconds for vLLM's start, a few tokens and its shutdown."""
GRACE_S, GRACE_POLLS = 5.0, 50
"""Seconds that remaining vLLM processes get to exit, and the number of polls in that time."""

SMALL_VLLM: dict[str, Any] = {"max_model_len": 512, "max_num_seqs": 4, "kv_cache_bytes": 64 << 20}
"""vLLM settings of the trial, if the user's model runs on another backend."""

State = Literal["ok", "note", "fail"]


class Check(NamedTuple):
    """Result of one check.

    Attributes:
        name: What was checked.
        state: "ok"; "note" for information that prevents nothing; "fail" for something installed, or chosen, that does
            not work.
        detail: The result.
        hint: The remedy; empty if none is needed.
    """

    name: str
    state: State
    detail: str
    hint: str = ""


async def run_checks(
    settings: Settings, *, pull: bool, quick: bool, report: Callable[[str], None]
) -> AsyncIterator[Check]:
    """Run all checks, the quick ones first.

    Args:
        settings: The settings in force.
        pull: Whether to download missing default models.
        quick: Whether to skip checks that take more than a few seconds.
        report: Called with the check in progress.
    """
    report("checking this machine")
    yield _check_python()
    yield _check_settings_files()
    yield await _check_store(settings.store)
    yield _check_cache(settings.cache_dir)
    yield _check_plugins()
    is_local = settings.model.startswith(LOCAL)
    torch = await asyncio.to_thread(_check_torch, is_local)
    yield torch
    report("calling endpoints")
    for check in await check_providers(settings):
        yield check
    if torch.state == "ok":
        report("loading a local model")
        for check in await check_local(settings, pull):
            yield check
        report("embedding texts")
        yield await check_embedding(settings, pull)
        report("judging claims")
        yield await check_judge(settings, pull)
    if settings.model.startswith(GGUF):
        yield await check_answering(settings.model, settings)
    elif not is_local and not settings.model.startswith(VLLM):
        yield await check_provider(settings)
    yield await check_vllm(settings, pull=pull, quick=quick, report=report)


def _check_python() -> Check:
    runtime = (
        f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} processors"
    )
    return Check("reason", "ok", f"{__version__} on {runtime}")


def _check_settings_files() -> Check:
    read = [str(path) for path in config_files() if path.is_file()]
    from_environment = sorted(name for name in os.environ if name.startswith("REASON_"))
    sources = ", ".join(read + from_environment)
    return Check("settings", "ok", sources or "all defaults (no reason.toml, no REASON_ variables)")


async def _check_store(location: Path | str) -> Check:
    from ..core.run import new_run_id
    from ..core.store.location import open_store, redacted_location

    try:
        store = await open_store(location)
        try:
            trial = f"doctor-{new_run_id()}"
            await store.create_run(trial, {})
            await store.delete_run(trial)
            count = len(await store.list_runs(1000))
        finally:
            await store.aclose()
    except ReasonError as e:
        return Check("run store", "fail", e.message, e.hint)
    number = "1000 or more" if count == 1000 else str(count)
    return Check("run store", "ok", f"{redacted_location(location)}, {number} run{'' if count == 1 else 's'}")


def _check_cache(directory: Path) -> Check:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
        free = shutil.disk_usage(directory).free
    except OSError as e:
        return Check("cache", "fail", f"cannot write to {directory}: {e.strerror}", "set REASON_CACHE_DIR")
    detail = f"{directory}, {free / 1e9:.1f} GB free"
    if free < MIN_FREE_BYTES:
        return Check("cache", "note", detail, "free some disk space, or set REASON_CACHE_DIR")
    return Check("cache", "ok", detail)


def _check_plugins() -> Check:
    from ..reasoning.strategy import STRATEGIES

    errors = STRATEGIES.load_errors()
    if errors:
        return Check("strategies", "note", "; ".join(errors.values()), "reinstall or remove these packages")
    return Check("strategies", "ok", ", ".join(STRATEGIES.names()))


def _check_torch(needed: bool) -> Check:
    if importlib.util.find_spec("torch") is None:
        hint = install_command("local")
        return Check("torch", "fail" if needed else "note", "not installed: no local models", hint)
    import torch

    from ..serving.local.hardware import max_threads, native_format

    native = "native bf16" if native_format() == "bf16" else "no native bf16 (fp32 is used)"
    return Check("torch", "ok", f"{torch.__version__}, up to {max_threads()} threads, {native}")


async def check_local(settings: Settings, pull: bool) -> list[Check]:
    """Load a model on the embedded engine and generate a few tokens; a note if it is neither downloaded nor needed."""
    needed = settings.model.startswith(LOCAL)
    name = settings.model if needed else DEFAULT_MODEL
    files = await asyncio.to_thread(_check_files, name, settings, pull, needed)
    return [files, *([await check_answering(name, settings)] if files.state == "ok" else [])]


def _check_files(name: str, settings: Settings, pull: bool, needed: bool) -> Check:
    from ..serving.model_files.find import find_model

    try:
        files = find_model(LOCAL + name.partition("/")[2], cache_dir=settings.cache_dir, pull=pull)
    except BackendUnavailable as e:
        hint = e.hint if pull else f"reason doctor --pull, or reason models pull {LOCAL}{name.partition('/')[2]}"
        return Check("model", "fail" if needed else "note", e.message, hint)
    except ReasonError as e:
        return Check("model", "fail" if needed else "note", e.message, e.hint)
    return Check("model", "ok", f"{files.name} in {files.directory}")


async def check_answering(name: str, settings: Settings) -> Check:
    """Load a model as `reason ask` does, and generate a few tokens."""
    from ..core.messages import Prompt, Request
    from ..serving.capability_checks import trial_sampling
    from ..serving.factory import load_model

    started = time.monotonic()
    try:
        model = await load_model(name, settings)
        try:
            loaded = time.monotonic()
            sampling = trial_sampling(model.capabilities.profile, max_tokens=TRIAL_TOKENS)
            ((completion,),) = await model.generate([Request(prompt=Prompt.user("Say hello."), sampling=sampling)])
            ended = time.monotonic()
        finally:
            await model.aclose()
    except ReasonError as e:
        return Check("answering", "fail", e.message, e.hint)
    if completion.failure is not None:
        return Check("answering", "fail", completion.failure.message)
    timing = (
        f"loaded in {loaded - started:.1f} s, {completion.usage.completion_tokens} tokens in {ended - loaded:.2f} s"
    )
    return Check("answering", "ok", f"{name} generated {completion.text!r} ({timing})")


async def check_vllm(settings: Settings, *, pull: bool, quick: bool, report: Callable[[str], None]) -> Check:
    """Start vLLM in a separate process, generate with a logits processor, and check that no process remains."""
    from ..serving.vllm.installation import require_vllm

    if importlib.util.find_spec("vllm") is None:
        return Check("vllm", "note", "not installed: no vllm/… models", install_command("vllm"))
    try:
        installed = require_vllm()
    except UserError as e:
        return Check("vllm", "fail", e.message, e.hint)
    if quick:
        return Check("vllm", "ok", f"{installed}; not started (--quick)")
    chosen = settings.model.startswith(VLLM)
    name = settings.model if chosen else VLLM + DEFAULT_MODEL.removeprefix(LOCAL)
    files = await asyncio.to_thread(_check_files, name, settings, pull, chosen)
    if files.state != "ok":
        return Check("vllm", files.state, f"{installed}; not started: {files.detail}", files.hint)
    vllm = settings.vllm if chosen else settings.vllm.model_copy(update=SMALL_VLLM)
    report("starting vLLM, which takes half a minute or more")
    result = await _run_trial(name, settings.model_copy(update={"vllm": vllm}))
    if "error" in result:
        return Check("vllm", "fail", f"{installed}: {result['error']}", result.get("hint", ""))
    if result["logits_processors"] is False:
        return Check(
            "vllm",
            "fail",
            f"{installed} generates, but does not run our logits processors",
            "see docs/logits-processors.md",
        )
    if result["left"]:
        return Check("vllm", "fail", f"{installed} left processes running after its shutdown; they are terminated now")
    timing = f"started in {result['started_s']:.0f} s, ended in {result['ended_s']:.0f} s"
    processors = (
        "logits processors work" if result["logits_processors"] else "no logits processors with speculative decoding"
    )
    return Check("vllm", "ok", f"{installed}: {name} generated {result['text']!r}, {processors} ({timing})")


async def _run_trial(name: str, settings: Settings) -> dict[str, Any]:
    """The result of the trial program; `left` is whether processes had to be terminated after it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"{__package__}.engine_trial", name),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    if process.stdin is None or process.stdout is None or process.stderr is None:
        raise RuntimeError("the process has no pipes")
    left = True
    try:
        async with asyncio.timeout(VLLM_TRIAL_S):
            process.stdin.write(settings.model_dump_json().encode() + b"\n")
            await process.stdin.drain()
            output, last_error = await asyncio.gather(process.stdout.readline(), _last_line(process.stderr))
            await process.wait()
        left = not await _group_ended(process.pid)
    except TimeoutError:
        return {"error": f"the trial took more than {VLLM_TRIAL_S:.0f} s", "hint": "reason doctor --quick skips it"}
    except (BrokenPipeError, ConnectionResetError):
        output, last_error = b"", await _last_line(process.stderr)
    finally:
        if left:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    try:
        return {"left": left, **json.loads(output)}
    except ValueError:
        return {"error": f"the trial process ended with status {process.returncode}: {last_error or 'no output'}"}


async def _group_ended(group: int) -> bool:
    """Whether all processes of a group end within a few seconds."""
    for _ in range(GRACE_POLLS):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        await asyncio.sleep(GRACE_S / GRACE_POLLS)
    return False


async def _last_line(stream: asyncio.StreamReader) -> str:
    last = ""
    async for line in stream:
        last = line.decode(errors="replace").strip() or last
    return last


async def check_embedding(settings: Settings, pull: bool) -> Check:
    """Embed three texts and check that the two similar ones are closer."""
    name = settings.embedding_model
    if not name.startswith(LOCAL):
        return Check("embedding", "note", f"{name}: not called, since that could cost money")
    if importlib.util.find_spec("sentence_transformers") is None:
        return Check("embedding", "note", "not installed: no local embeddings", install_command("local"))
    from ..serving.encoders.factory import load_embedding_model
    from ..serving.encoders.files import find_encoder

    started = time.monotonic()
    try:
        await asyncio.to_thread(find_encoder, name, sentence=True, cache_dir=settings.cache_dir, pull=pull)
    except BackendUnavailable as e:
        return Check("embedding", "fail" if pull else "note", e.message, e.hint if pull else "reason doctor --pull")
    except ReasonError as e:
        return Check("embedding", "fail", e.message, e.hint)
    try:
        model = await load_embedding_model(name, settings)
        try:
            rows = await model.embed(["A cat sleeps.", "A kitten is asleep.", "Taxes are due in April."])
        finally:
            await model.aclose()
    except ReasonError as e:
        return Check("embedding", "fail", e.message, e.hint)
    near, far = float(rows[0] @ rows[1]), float(rows[0] @ rows[2])
    detail = (
        f"{name}: {rows.shape[1]} dimensions; similarity of similar texts {near:.2f}, of others {far:.2f} "
        f"({time.monotonic() - started:.1f} s)"
    )
    return Check("embedding", "ok" if near > far else "fail", detail)


async def check_providers(settings: Settings) -> list[Check]:
    """Which providers have a key, and which endpoints respond; only free requests are made."""
    try:
        installed = version("litellm")
    except PackageNotFoundError:
        return [Check("litellm", "note", "not installed: no hosted models", "pip install litellm")]
    providers = await asyncio.to_thread(_providers)
    keys = {p: v for p in providers if os.environ.get(v := f"{p.upper()}_API_KEY")}
    keys |= {p: s.api_key_env for p, s in settings.providers.items() if s.api_key_env and os.environ.get(s.api_key_env)}
    named = ", ".join(f"{p} ({variable})" for p, variable in sorted(keys.items()))
    checks = [Check("litellm", "ok", f"{installed}; keys: {named or 'none set'}")]
    bases = {p: (base, ProviderSettings()) for p in providers if (base := os.environ.get(f"{p.upper()}_API_BASE"))}
    bases |= {p: (s.api_base, s) for p, s in settings.providers.items() if s.api_base}
    requests = [_check_endpoint(name, base, chosen) for name, (base, chosen) in sorted(bases.items())]
    return [*checks, *await asyncio.gather(*requests)]


def _providers() -> list[str]:
    from ..serving.litellm.providers import load_litellm

    return sorted({getattr(p, "value", str(p)) for p in load_litellm().provider_list})


async def _check_endpoint(name: str, base: str, chosen: ProviderSettings) -> Check:
    """Whether an endpoint lists its models."""
    import httpx

    provider = name.partition("/")[0]
    key = os.environ.get(chosen.api_key_env or f"{provider.upper()}_API_KEY")
    headers = ({"Authorization": f"Bearer {key}"} if key else {}) | chosen.headers
    title, url = f"{name} at {base}", base.rstrip("/") + "/models"
    try:
        async with httpx.AsyncClient(timeout=10.0, headers=headers, follow_redirects=True) as client:
            response = await client.get(url)
    except (httpx.HTTPError, httpx.InvalidURL) as e:
        reason = str(e).strip() or type(e).__name__
        return Check("endpoint", "fail", f"{title}: {reason}", "start the server, or change its api_base")
    if response.status_code in (401, 403):
        return Check(
            "endpoint", "fail", f"{title} refuses the key", f"set {chosen.api_key_env or provider.upper() + '_API_KEY'}"
        )
    if response.status_code == 404:
        return Check("endpoint", "note", f"{title} responds, but lists no models")
    if not response.is_success:
        return Check("endpoint", "fail", f"{title} responds with status {response.status_code}")
    try:
        served = [str(m["id"]) for m in response.json()["data"]]
    except (ValueError, KeyError, TypeError):
        return Check("endpoint", "note", f"{title} responds without a list of models")
    more = f" and {len(served) - 5} more" if len(served) > 5 else ""
    return Check("endpoint", "ok", f"{title} serves {', '.join(served[:5]) or 'nothing'}{more}")


async def check_provider(settings: Settings) -> Check:
    """Whether the main model, a provider's, can be called: its name, key and address. It is not called."""
    from ..serving.litellm.providers import find_target

    try:
        target = await asyncio.to_thread(find_target, settings.model, settings)
    except ReasonError as e:
        return Check("answering", "fail", e.message, e.hint)
    return Check(
        "answering",
        "ok",
        f"{settings.model} would be called at {target.endpoint}; it was not, since that could cost money",
    )


async def check_judge(settings: Settings, pull: bool) -> Check:
    """Which judge verifies claims by default; an embedded one judges two claims."""
    from ..verify.entailment.factory import SMALL, find_embedded, load_entailment, resolve_judge
    from ..verify.types import Pair
    from ..verify.verifier import AUTO, MODEL

    judge = resolve_judge(AUTO, settings, has_judge_model=settings.judge_model is not None)
    if judge == MODEL:
        return Check("judge", "ok", f"{AUTO} is the judge model {settings.judge_model}, which is not called here")
    if find_embedded(settings) is None and not pull:
        return Check("judge", "note", f"{AUTO} is {judge}, which is not on this machine yet", "reason doctor --pull")
    text = "The bridge was opened in June 1926."
    started = time.monotonic()
    try:
        entailment = await load_entailment(judge, settings)
        try:
            same, other = await entailment.judge([Pair(text, text), Pair(text, "The bridge was opened in June 1931.")])
        finally:
            await entailment.aclose()
    except BackendUnavailable as e:
        return Check("judge", "fail" if pull else "note", e.message, e.hint)
    except ReasonError as e:
        return Check("judge", "fail", e.message, e.hint)
    if same is None or other is None:
        return Check("judge", "fail", f"{judge} judged nothing")
    detail = (
        f"{AUTO} is {judge}: supported with {same.supports:.2f} by the same sentence, with {other.supports:.2f} by one "
        f"with another year ({time.monotonic() - started:.1f} s)"
    )
    hint = "the larger judge is not on this machine; --verify-set davinci.judge=base downloads it once"
    return Check("judge", "ok" if same.supports > other.supports else "fail", detail, hint if judge == SMALL else "")
