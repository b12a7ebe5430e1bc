"""`load_reward_model`: from a model string to a reward model."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from typing import Final

from ...core.errors import UnknownName, UserError
from ...core.files import Progress
from ...core.registry import nearest
from ...core.settings import RewardSettings, Settings
from ..factory import load_model
from ..model import LanguageModel
from ..model_files.catalogue import PREFIX
from ..model_files.conversion import missing_extra
from ..model_files.downloads import run_pull
from ..model_files.find import find_model
from .model import RewardModel

JUDGE_PREFIX: Final = "judge/"
SERVED_PREFIX: Final = "hosted_vllm_pooling/"
PREFIXES: Final = (PREFIX, SERVED_PREFIX, JUDGE_PREFIX)


async def load_reward_model(
    name: str,
    settings: Settings,
    progress: Progress | None = None,
    language_model: Callable[[str], Awaitable[LanguageModel]] | None = None,
) -> RewardModel:
    """Load a reward model by its model string, off the event loop.

    | string | model |
    | --- | --- |
    | `local/<directory>`, `local/<hub id>` | a process or outcome reward model through transformers, in this process |
    | `hosted_vllm_pooling/<served name>` | on a vLLM server started with `--runner pooling` |
    | `judge/<model string>` | any language model, prompted to judge each step |

    Args:
        name: The model string.
        settings: Location of the files; the section `rewards` of this name; providers.
        progress: Called with the progress of a download, from another thread.
        language_model: Returns the language model of a judge by its model string, and keeps owning it; None loads one
            that is closed with the judge.

    Raises:
        UnknownName: No reward model has that name.
        UserError: A setting is invalid or an extra is missing.
        DataError: The model's files are damaged, or are no reward model.
        BackendUnavailable: It is not available here, or its server cannot be reached.
    """
    reward_settings = settings.rewards.get(name, RewardSettings())
    prefix = next((p for p in PREFIXES if name.startswith(p)), None)
    if prefix is None:
        head, slash, rest = name.partition("/")
        near = tuple(p + rest for p in nearest(head + "/", PREFIXES)) if slash else (JUDGE_PREFIX + PREFIX + name,)
        raise UnknownName("reward model", name, near, hint="it begins with " + ", ".join(PREFIXES))
    if not name.removeprefix(prefix).strip():
        raise UserError(f"reward model {name!r} names no model", hint=f"for example {JUDGE_PREFIX}local/smollm2-135m")
    if prefix == JUDGE_PREFIX:
        return await _load_judge(name, settings, reward_settings, progress, language_model)
    if reward_settings.form == "judge":
        raise UserError(f'a judge is requested as "{JUDGE_PREFIX}{name}", got {name!r} with form = "judge"')
    if prefix == SERVED_PREFIX:
        return await _connect(name, settings, reward_settings)
    return await run_pull(
        lambda cancel: _load_local(name, settings, reward_settings, progress, cancel), lambda model: model.aclose()
    )


async def _load_judge(
    name: str,
    settings: Settings,
    reward_settings: RewardSettings,
    progress: Progress | None,
    language_model: Callable[[str], Awaitable[LanguageModel]] | None,
) -> RewardModel:
    from .judge import JudgeReward

    if reward_settings.form not in ("auto", "judge") or reward_settings.step_tag is not None:
        raise UserError(f"{name} is a judge; form and step_tag are for trained reward models")
    model_string = name.removeprefix(JUDGE_PREFIX)
    if language_model is not None:
        return JudgeReward(name, await language_model(model_string), reward_settings, owns=False)
    model = await load_model(model_string, settings, progress)
    try:
        return JudgeReward(name, model, reward_settings)
    except BaseException:
        await model.aclose()
        raise


async def _connect(name: str, settings: Settings, reward_settings: RewardSettings) -> RewardModel:
    from ..litellm.pooling_server import connect_pooling_server
    from .served import ServedReward

    server = await connect_pooling_server(name, settings)
    try:
        return await ServedReward.connect(name, server, reward_settings)
    except BaseException:
        await server.aclose()
        raise


def _load_local(
    name: str, settings: Settings, reward_settings: RewardSettings, progress: Progress | None, cancel: threading.Event
) -> RewardModel:
    try:
        from .local import LocalReward
    except ModuleNotFoundError as e:
        raise missing_extra(e) from e
    files = find_model(name, cache_dir=settings.cache_dir, progress=progress, cancel=cancel)
    return LocalReward.load(name, files, reward_settings)
