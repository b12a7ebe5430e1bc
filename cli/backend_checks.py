"""What `reason doctor` tries of the backends: each that is installed is started and does something small."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ..core.errors import BackendUnavailable, ReasonError, UserError
from ..core.settings import DEFAULT_MODEL, ProviderSettings, Settings
from .check import Check

LOCAL, VLLM = "local/", "vllm/"
TRIAL_TOKENS = 4
VLLM_TRIAL_S = 300.0
"""Most seconds for vLLM's start, a few tokens and its end."""
GRACE_S, GRACE_LOOKS = 5.0, 50
"""Seconds that what is left of vLLM gets to end by itself, and how often to look."""

SMALL_VLLM: dict[str, Any] = {"max_model_len": 512, "max_num_seqs": 4, "kv_bytes": 64 << 20}
"""vLLM's settings for the trial, where the user's own model is another backend's."""


async def try_local(settings: Settings, pull: bool) -> list[Check]:
    """Load a model on the embedded engine, and let it write a few tokens; a note if it is not here and not needed."""
    needed = settings.model.startswith(LOCAL)
    name = settings.model if needed else DEFAULT_MODEL
    files = await asyncio.to_thread(_files, name, settings, pull, needed)
    return [files, *([await answer(name, settings)] if files.state == "ok" else [])]


def _files(name: str, settings: Settings, pull: bool, needed: bool) -> Check:
    from ..serving.model_files.find import find_model

    try:
        files = find_model(LOCAL + name.partition("/")[2], cache_dir=settings.cache_dir, pull=pull)
    except BackendUnavailable as e:
        hint = e.hint if pull else f"reason doctor --pull, or reason models pull {LOCAL}{name.partition('/')[2]}"
        return Check("model", "fail" if needed else "note", e.message, hint)
    except ReasonError as e:
        return Check("model", "fail" if needed else "note", e.message, e.hint)
    return Check("model", "ok", f"{files.name} in {files.folder}")


async def answer(name: str, settings: Settings) -> Check:
    """Open a model as a question would, and let it write a few tokens."""
    from ..core.messages import Prompt, Request, SamplingParams
    from ..serving.open import open_model

    began = time.monotonic()
    try:
        model = await open_model(name, settings)
        try:
            opened = time.monotonic()
            sampling = Sampling(temperature=0.0, max_tokens=TRIAL_TOKENS)
            ((reply,),) = await model.generate([Request(prompt=Prompt.user("Say hello."), sampling=sampling)])
            ended = time.monotonic()
        finally:
            await model.aclose()
    except ReasonError as e:
        return Check("answering", "fail", e.message, e.hint)
    if reply.failure is not None:
        return Check("answering", "fail", reply.failure.message)
    took = f"loaded in {opened - began:.1f} s, {reply.usage.completion_tokens} tokens in {ended - opened:.2f} s"
    return Check("answering", "ok", f"{name} wrote {reply.text!r} ({took})")


async def try_vllm(settings: Settings, *, pull: bool, quick: bool, tell: Callable[[str], None]) -> Check:
    """Start vLLM in a process of its own, let it write with a hook, and see that nothing of it is left."""
    from ..serving.vllm.installed import require_vllm

    if importlib.util.find_spec("vllm") is None:
        return Check("vllm", "note", "not installed: no models of vllm/…", "pip install 'reason-orchestrator[vllm]'")
    try:
        found = require_vllm()
    except UserError as e:
        return Check("vllm", "fail", e.message, e.hint)
    if quick:
        return Check("vllm", "ok", f"{found}; not started (--quick)")
    own = settings.model.startswith(VLLM)
    name = settings.model if own else VLLM + DEFAULT_MODEL.removeprefix(LOCAL)
    files = await asyncio.to_thread(_files, name, settings, pull, own)
    if files.state != "ok":
        return Check("vllm", files.state, f"{found}; not started: {files.detail}", files.hint)
    chosen = settings.vllm if own else settings.vllm.model_copy(update=SMALL_VLLM)
    tell("starting vLLM, which takes half a minute or more")
    result = await _run_trial(name, settings.model_copy(update={"vllm": chosen}))
    if "error" in result:
        return Check("vllm", "fail", f"{found}: {result['error']}", result.get("hint", ""))
    if result["hooks"] is False:
        return Check("vllm", "fail", f"{found} writes, but runs no hooks of ours", "see docs/hooks.md")
    if result["left"]:
        return Check("vllm", "fail", f"{found} left processes behind when it was ended; they are ended now")
    took = f"started in {result['started_s']:.0f} s, ended in {result['ended_s']:.0f} s"
    hooks = "hooks act" if result["hooks"] else "has no hooks, since it drafts"
    return Check("vllm", "ok", f"{found}: {name} wrote {result['text']!r}, and {hooks} ({took})")


async def _run_trial(name: str, settings: Settings) -> dict[str, Any]:
    """What the trial's program says; `left` is whether processes had to be ended after it."""
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"{__package__}.engine_trial", name),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    if program.stdin is None or program.stdout is None or program.stderr is None:
        raise RuntimeError("a program with pipes has them")
    left = True
    try:
        async with asyncio.timeout(VLLM_TRIAL_S):
            program.stdin.write(settings.model_dump_json().encode() + b"\n")
            await program.stdin.drain()
            told, said = await asyncio.gather(program.stdout.readline(), _last_line(program.stderr))
            await program.wait()
        left = not await _gone(program.pid)
    except TimeoutError:
        return {"error": f"it took more than {VLLM_TRIAL_S:.0f} s", "hint": "reason doctor --quick leaves it out"}
    except (BrokenPipeError, ConnectionResetError):
        told, said = b"", await _last_line(program.stderr)
    finally:
        if left:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(program.pid, signal.SIGKILL)
        await program.wait()
    try:
        return {"left": left, **json.loads(told)}
    except ValueError:
        return {"error": f"its process ended with status {program.returncode}: {said or 'it said nothing'}"}


async def _gone(group: int) -> bool:
    """Whether all processes of a group have ended, within a few seconds."""
    for _ in range(GRACE_LOOKS):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        await asyncio.sleep(GRACE_S / GRACE_LOOKS)
    return False


async def _last_line(stream: asyncio.StreamReader) -> str:
    last = ""
    async for line in stream:
        last = line.decode(errors="replace").strip() or last
    return last


async def try_embedding(settings: Settings, pull: bool) -> Check:
    """Embed three texts with the embedding model, and see that the two alike are closer."""
    name = settings.embedding_model
    if not name.startswith(LOCAL):
        return Check("embedding", "note", f"{name}: not asked, which could cost money")
    if importlib.util.find_spec("sentence_transformers") is None:
        return Check(
            "embedding", "note", "not installed: no local embeddings", "pip install 'reason-orchestrator[local]'"
        )
    from ..serving.embeddings import open_embedding
    from ..serving.encoders.encoder_files import find_encoder

    began = time.monotonic()
    try:
        await asyncio.to_thread(find_encoder, name, sentence=True, cache_dir=settings.cache_dir, pull=pull)
    except BackendUnavailable as e:
        return Check("embedding", "fail" if pull else "note", e.message, e.hint if pull else "reason doctor --pull")
    except ReasonError as e:
        return Check("embedding", "fail", e.message, e.hint)
    try:
        model = await open_embedding(name, settings)
        try:
            rows = await model.embed(["A cat sleeps.", "A kitten is asleep.", "Taxes are due in April."])
        finally:
            await model.aclose()
    except ReasonError as e:
        return Check("embedding", "fail", e.message, e.hint)
    near, far = float(rows[0] @ rows[1]), float(rows[0] @ rows[2])
    detail = (
        f"{name}: {rows.shape[1]} numbers; texts alike {near:.2f}, unlike {far:.2f} ({time.monotonic() - began:.1f} s)"
    )
    return Check("embedding", "ok" if near > far else "fail", detail)


async def look_at_providers(settings: Settings) -> list[Check]:
    """Which providers have a key, and which endpoints answer. Nothing here is ever paid for."""
    try:
        found = version("litellm")
    except PackageNotFoundError:
        return [Check("litellm", "note", "not installed: no hosted models", "pip install litellm")]
    providers = await asyncio.to_thread(_providers)
    keys = {p: v for p in providers if os.environ.get(v := f"{p.upper()}_API_KEY")}
    keys |= {p: s.api_key_env for p, s in settings.providers.items() if s.api_key_env and os.environ.get(s.api_key_env)}
    named = ", ".join(f"{p} ({variable})" for p, variable in sorted(keys.items()))
    checks = [Check("litellm", "ok", f"{found}; keys: {named or 'none set'}")]
    bases = {p: (base, ProviderSettings()) for p in providers if (base := os.environ.get(f"{p.upper()}_API_BASE"))}
    bases |= {p: (s.api_base, s) for p, s in settings.providers.items() if s.api_base}
    looks = [_endpoint(name, base, chosen) for name, (base, chosen) in sorted(bases.items())]
    return [*checks, *await asyncio.gather(*looks)]


def _providers() -> list[str]:
    from ..serving.litellm.target import load_litellm

    return sorted({getattr(p, "value", str(p)) for p in load_litellm().provider_list})


async def _endpoint(name: str, base: str, chosen: ProviderSettings) -> Check:
    """Whether an endpoint answers the question which models it serves."""
    import httpx

    provider = name.partition("/")[0]
    key = os.environ.get(chosen.api_key_env or f"{provider.upper()}_API_KEY")
    headers = ({"Authorization": f"Bearer {key}"} if key else {}) | chosen.headers
    title, url = f"{name} at {base}", base.rstrip("/") + "/models"
    try:
        async with httpx.AsyncClient(timeout=10.0, headers=headers, follow_redirects=True) as client:
            reply = await client.get(url)
    except (httpx.HTTPError, httpx.InvalidURL) as e:
        reason = str(e).strip() or type(e).__name__
        return Check("endpoint", "fail", f"{title}: {reason}", "start the server, or change its api_base")
    if reply.status_code in (401, 403):
        return Check(
            "endpoint", "fail", f"{title} refuses the key", f"set {chosen.api_key_env or provider.upper() + '_API_KEY'}"
        )
    if reply.status_code == 404:
        return Check("endpoint", "note", f"{title} answers, and lists no models")
    if not reply.is_success:
        return Check("endpoint", "fail", f"{title} answers with status {reply.status_code}")
    try:
        served = [str(m["id"]) for m in reply.json()["data"]]
    except (ValueError, KeyError, TypeError):
        return Check("endpoint", "note", f"{title} answers, with no list of models")
    more = f" and {len(served) - 5} more" if len(served) > 5 else ""
    return Check("endpoint", "ok", f"{title} serves {', '.join(served[:5]) or 'nothing'}{more}")


async def try_provider(settings: Settings) -> Check:
    """Whether the main model, a provider's, could be asked: its name, its key, its address. It is not asked."""
    from ..serving.litellm.target import find_target

    try:
        target = await asyncio.to_thread(find_target, settings.model, settings)
    except ReasonError as e:
        return Check("answering", "fail", e.message, e.hint)
    return Check(
        "answering", "ok", f"{settings.model} would be asked at {target.place}; it was not, which could cost money"
    )
