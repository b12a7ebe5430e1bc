"""`ParameterMap`: a request's parameters as LiteLLM maps them for the model, worked out once for each set of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .target import Target, load_litellm

MOST_SETS = 256
"""Sets of parameters that are remembered."""


class ParameterMap:
    """From the arguments of `litellm.acompletion` to the JSON that LiteLLM would send to a provider in OpenAI's format.

    What LiteLLM decides from the model and its parameters (`max_completion_tokens` instead of `max_tokens`, values that
    a model refuses) is the same for every request with these parameters, whatever the seed; so it is asked once.
    Messages are transformed by LiteLLM each time.
    """

    def __init__(self, target: Target) -> None:
        from litellm.types.utils import LlmProviders
        from litellm.utils import ProviderConfigManager

        self._litellm = load_litellm()
        self._target = target
        self._config: Any = ProviderConfigManager.get_provider_chat_config(
            model=target.served, provider=LlmProviders(target.provider)
        )
        self._sets: dict[str, dict[str, Any]] = {}

    def chat(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON of a chat request.

        Args:
            body: Messages, parameters and `extra_body`, as `litellm.acompletion` takes them.

        Raises:
            litellm.UnsupportedParamsError: The model does not take one of the parameters.
        """
        named = {k: v for k, v in body.items() if k not in ("messages", "extra_body", "seed")}
        seed = body.get("seed")
        key = f"{seed is None}{named}"
        mapped = self._sets.get(key)
        if mapped is None:
            mapped = self._ask(named if seed is None else {**named, "seed": seed})
            if len(self._sets) >= MOST_SETS:
                del self._sets[next(iter(self._sets))]
            self._sets[key] = mapped
        optional = dict(mapped)
        if seed is not None:
            optional["seed"] = seed
        whole: dict[str, Any] = self._config.transform_request(
            model=self._target.served,
            messages=body["messages"],
            optional_params=optional,
            litellm_params={},
            headers={},
        )
        whole.update(body.get("extra_body") or {})
        return whole

    def _ask(self, named: Mapping[str, Any]) -> dict[str, Any]:
        mapped: dict[str, Any] = self._litellm.get_optional_params(
            model=self._target.served, custom_llm_provider=self._target.provider, drop_params=False, **named
        )
        mapped.update(mapped.pop("extra_body", None) or {})
        return mapped
