"""From a reward model's string to the model (see `serving.rewards.load_reward_model`)."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable

from ...core.errors import UnknownName, UserError
from ...core.registry import nearest
from ...core.scorer_settings import RewardSettings
from ...core.settings import Settings
from ..factory import load_model
from ..model import LanguageModel
from ..model_files.catalogue import PREFIX
from ..model_files.conversion import missing_extra
from ..model_files.downloads import Progress, run_pull
from ..model_files.find import find_model
from .model import RewardModel

JUDGE_PREFIX = "judge/"
VLLM_PREFIX = "vllm-pooling/"
SERVED_PREFIX = "hosted_vllm_pooling/"
PREFIXES = (PREFIX, VLLM_PREFIX, SERVED_PREFIX, JUDGE_PREFIX)


async def open_by_name(
    name: str,
    settings: Settings,
    progress: Progress | None,
    language_model: Callable[[str], Awaitable[LanguageModel]] | None = None,
) -> RewardModel:
    """See `load_reward_model`."""
    chosen = settings.rewards.get(name, RewardSettings())
    prefix = next((p for p in PREFIXES if name.startswith(p)), None)
    if prefix is None:
        head, slash, rest = name.partition("/")
        near = tuple(p + rest for p in nearest(head + "/", PREFIXES)) if slash else (JUDGE_PREFIX + PREFIX + name,)
        raise UnknownName("reward model", name, near, hint="it begins with " + ", ".join(PREFIXES))
    if not name.removeprefix(prefix).strip():
        raise UserError(f"reward model {name!r} names no model", hint=f"for example {JUDGE_PREFIX}local/smollm2-135m")
    if prefix == JUDGE_PREFIX:
        return await _open_judge(name, settings, chosen, progress, language_model)
    if chosen.form == "judge":
        raise UserError(f'reward model {name!r} is asked as a judge by the name "{JUDGE_PREFIX}{name}"')
    if prefix == SERVED_PREFIX:
        return await _open_served(name, settings, chosen)
    if prefix == VLLM_PREFIX:
        from ..vllm.installation import require_main_guard, require_vllm

        require_vllm()
        require_main_guard()
        return await run_pull(lambda cancel: _load_vllm(name, settings, chosen, progress, cancel), lambda m: m.aclose())
    return await run_pull(lambda cancel: _load_local(name, settings, chosen, progress, cancel), lambda m: m.aclose())


async def _open_judge(
    name: str,
    settings: Settings,
    chosen: RewardSettings,
    progress: Progress | None,
    language_model: Callable[[str], Awaitable[LanguageModel]] | None,
) -> RewardModel:
    from .judge import JudgeReward

    if chosen.form not in ("auto", "judge") or chosen.step_tag is not None:
        raise UserError(f"{name} is a judge; form and step_tag are for trained reward models")
    behind = name.removeprefix(JUDGE_PREFIX)
    if language_model is not None:
        return JudgeReward(name, await language_model(behind), chosen, owns=False)
    model = await load_model(behind, settings, progress)
    try:
        return JudgeReward(name, model, chosen)
    except BaseException:
        await model.aclose()
        raise


async def _open_served(name: str, settings: Settings, chosen: RewardSettings) -> RewardModel:
    from ..litellm.pooling_server import connect_pooling_server
    from .served import ServedReward

    server = await connect_pooling_server(name, settings)
    try:
        return await ServedReward.open(name, server, chosen)
    except BaseException:
        await server.aclose()
        raise


def _load_vllm(
    name: str, settings: Settings, chosen: RewardSettings, progress: Progress | None, cancel: threading.Event
) -> RewardModel:
    from .served import VllmReward

    place = PREFIX + name.removeprefix(VLLM_PREFIX)
    files = find_model(place, cache_dir=settings.cache_dir, progress=progress, cancel=cancel)
    return VllmReward.load(name, files, chosen, settings.vllm)


def _load_local(
    name: str, settings: Settings, chosen: RewardSettings, progress: Progress | None, cancel: threading.Event
) -> RewardModel:
    try:
        from .local import LocalReward
    except ModuleNotFoundError as e:
        raise missing_extra(e) from e
    files = find_model(name, cache_dir=settings.cache_dir, progress=progress, cancel=cancel)
    return LocalReward.load(name, files, chosen)
