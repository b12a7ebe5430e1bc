"""What a run that has ended comes to, from what the store has of it."""

from __future__ import annotations

import math

from ...core.answer import Answer
from ...core.run import RunConfig
from ...core.store import RunRecord, RunStore
from .answering import Ended
from .asking import Asked
from .outcome import outcome_of
from .said_text import SaidText
from .telling import Telling, whole_thoughts
from .thoughts import Piece


async def stored_end(store: RunStore, record: RunRecord, config: RunConfig) -> Ended:
    """The end of a run whose answer is stored, with its thoughts.

    Args:
        store: Has its events.
        record: The run, with an answer.
        config: Its configuration.
    """
    answer = Answer.model_validate(record.answer)
    telling = Telling(config, SaidText(), after=math.inf)
    pieces: list[Piece] = []
    for event in await store.events(record.id):
        pieces += telling.take(event)
    pieces += telling.finish()
    asked = Asked(model=config.strategy, configs=(config,))
    return Ended(record.id, outcome_of(answer, asked, telling), thoughts=whole_thoughts(pieces))
