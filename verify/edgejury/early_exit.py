"""`agreed_on`: the answer on which all jurors agree, where that is enough to leave out review and chair.

Source: Kumar, "EdgeJury" (2025, arXiv:2601.00850), for leaving early; the rules are our own. Of closed questions the
answers in normal form have to be the same; open ones have to entail each other, each pair both ways.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...core.errors import BackendError, LimitExceeded
from ...core.question import Question
from ...core.run import Run
from ...reasoning.strategy import Models
from .closed import EXIT_LEAST, closed_kind, mutually_entailed, unanimous
from .config import JuryConfig
from .deciding import Final, stated
from .opinions import Opinion
from .stances import entailment_of, supports_between


async def agreed_on(
    opinions: Sequence[Opinion], question: Question, models: Models, config: JuryConfig, run: Run
) -> Final | None:
    """The answer of a jury that agrees; None if it does not, or is not to end early.

    Args:
        opinions: All opinions, failed ones too.
        question: What they answer.
        models: The run's models: what compares open answers.
        config: Parameters.
        run: The run.
    """
    given = [opinion for opinion in opinions if opinion.ok]
    if config.early_exit == "never":
        return None
    if closed_kind(question) is not None:
        choice = unanimous(opinions, least=config.exit_min)
        if choice is None:
            return None
        first = next(opinion for opinion in given if opinion.choice == choice)
        return Final(stated(first.text, choice, question), choice, first.juror)
    if config.early_exit != "always" or len(given) < max(EXIT_LEAST, config.exit_min):
        return None
    judge = entailment_of(config, models)
    if judge is None:
        run.degrade(f"no early exit: {config.entailment} cannot be had here")
        return None
    try:
        same = mutually_entailed(len(given), await supports_between([opinion.text for opinion in given], judge))
    except LimitExceeded as e:
        run.note_limit(e)
        return None
    except (BackendError, KeyError):  # a pair that could not be judged is no agreement
        return None
    return Final(given[0].text, None, given[0].juror) if same else None
