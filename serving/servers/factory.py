"""`load_server_model`: a model at a server of one's own, with what its server was measured to support."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue

from ...core.errors import BackendError
from ...core.settings import Settings
from ..litellm.factory import priced
from ..litellm.model import LiteLLMModel
from ..litellm.profiles import provider_profile
from ..litellm.requests import RequestTraits
from ..model import Capabilities
from ..profiles.profile import ModelProfile
from .model import ServerModel
from .pages import version
from .probing import find_served_model, list_served_models, probe_capabilities


async def load_server_model(declared: LiteLLMModel, settings: Settings, *, is_probed: bool) -> ServerModel:
    """Measure what a model's server supports.

    Args:
        declared: The model as documented, whose connection is used.
        settings: Has the user's profiles.
        is_probed: Whether anything is measured; otherwise the capabilities stay as declared.
    """
    target = declared.target
    identity, context, root = target.identity, declared.capabilities.context_tokens, None

    def build(can: Capabilities, traits: RequestTraits) -> ServerModel:
        can = priced(can, traits, declared.prices)
        own = identity + can.profile.digest
        return ServerModel(target, declared.wire, can, traits, declared.prices, declared.limiter, own)

    plain = build(declared.capabilities, declared.traits)
    if not is_probed:
        return plain
    if listed := await list_served_models(plain):
        entry = find_served_model(listed, target)
        length = entry.get("max_model_len")
        context = length if isinstance(length, int) else context
        if entry.get("root"):  # vLLM reports which weights it serves under the name
            root = str(entry["root"])
            identity = f"{target.name}={root}"
    if target.vllm:
        identity += await _version(plain)

    def with_measured(measured: Mapping[str, JsonValue]) -> ModelProfile:
        return provider_profile(target, settings, measured=measured, root=root)

    return build(*await probe_capabilities(build, with_measured, context, target.vllm))


async def _version(model: ServerModel) -> str:
    try:
        reported, _ = await model.retried(lambda: version(model.wire.http))
    except BackendError:
        return ""
    return f"+vllm{reported}"
