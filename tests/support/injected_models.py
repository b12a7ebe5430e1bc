"""Scripted models in the place of those that a reasoner would open."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from reason.agents import reasoner as reasoner_module
from reason.serving.model import LanguageModel


@contextmanager
def loaded_models(models: Mapping[str, LanguageModel]) -> Iterator[None]:
    """Inside, reasoners open these, by their strings, and no others."""

    async def load_model(name: str, *_: object) -> LanguageModel:
        return models[name]

    before = reasoner_module.load_model
    reasoner_module.load_model = load_model
    try:
        yield
    finally:
        reasoner_module.load_model = before
