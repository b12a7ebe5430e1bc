"""`ParameterMap`: a request's parameters as LiteLLM maps them for the model, worked out once for each set of them."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

from .target import Target, load_litellm

MOST_SETS = 256
"""Sets of parameters that are remembered."""
LONGEST_SET = 1 << 16
"""Characters of the longest one: tools and schemas may be long, and belong to a caller."""


class ParameterMap:
    """From the arguments of `litellm.acompletion` to the JSON that LiteLLM would send to a provider in OpenAI's format.

    What LiteLLM decides from the model and its parameters (`max_completion_tokens` instead of `max_tokens`, values that
    a model refuses) is the same for every request with these parameters, whatever the seed; so it is asked once. What
    it makes of messages depends on their roles and fields alone, since their contents are plain text: where it leaves
    them as they are, it is not asked again for these.
    """

    def __init__(self, target: Target) -> None:
        from litellm.types.utils import LlmProviders
        from litellm.utils import ProviderConfigManager

        self._litellm = load_litellm()
        self._target = target
        self._config: Any = ProviderConfigManager.get_provider_chat_config(
            model=target.served, provider=LlmProviders(target.provider)
        )
        self._sets: dict[object, dict[str, Any]] = {}
        self._plain: set[object] = set()

    def chat(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON of a chat request.

        Args:
            body: Messages, parameters and `extra_body`, as `litellm.acompletion` takes them.

        Raises:
            litellm.UnsupportedParamsError: The model does not take one of the parameters.
        """
        named = {k: v for k, v in body.items() if k not in ("messages", "extra_body", "seed")}
        seed = body.get("seed")
        key = (seed is None, *((k, _told(v)) for k, v in named.items()))
        mapped = self._sets.get(key)
        if mapped is None:
            mapped = self._ask(named if seed is None else {**named, "seed": seed})
            if sum(len(str(part)) for part in key) <= LONGEST_SET:
                if len(self._sets) >= MOST_SETS:
                    del self._sets[next(iter(self._sets))]
                self._sets[key] = mapped
        messages = body["messages"]
        whole = {"model": self._target.served, "messages": messages, **mapped}
        if seed is not None:
            whole["seed"] = seed
        form = None
        if key in self._sets:
            form = (key, *((m["role"], tuple(m), m.get("content") is None) for m in messages))
        if form is None or form not in self._plain:
            transformed = self._transform(messages, {k: v for k, v in whole.items() if k not in ("model", "messages")})
            if form is not None and transformed == whole:
                self._plain = {*self._plain, form} if len(self._plain) < MOST_SETS else {form}
            whole = transformed
        whole.update(body.get("extra_body") or {})
        return whole

    def _transform(self, messages: Any, optional: dict[str, Any]) -> dict[str, Any]:
        transformed: dict[str, Any] = self._config.transform_request(
            model=self._target.served,
            messages=copy.deepcopy(messages),
            optional_params=optional,
            litellm_params={},
            headers={},
        )
        return transformed

    def _ask(self, named: Mapping[str, Any]) -> dict[str, Any]:
        mapped: dict[str, Any] = self._litellm.get_optional_params(
            model=self._target.served, custom_llm_provider=self._target.provider, drop_params=False, **named
        )
        mapped.update(mapped.pop("extra_body", None) or {})
        return mapped


def _told(value: Any) -> object:
    """A parameter's value as part of a key: a schema's properties in another order are another schema."""
    return json.dumps(value) if isinstance(value, dict | list) else str(value)
