"""`labels_of`: the claims of the final answer, each with how far the jurors agree on it.

Of a closed question the one claim is the answer itself; nothing is asked for it. An open answer is cut into claims by
rules, or by the judge model.

Source: Kumar, "EdgeJury" (2025, arXiv:2601.00850), stage 4. Differs: closed answers, whose claims the method does not
tell of; and see `agreement`.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...core.jury_events import ClaimLabelled
from ...core.question import Question
from ...core.run import Run
from ...reasoning.answers import extract
from ...reasoning.prompts import LETTERS
from ...reasoning.strategy import Models
from ..claims import Claim
from ..splitting.by_model import split_by_model
from ..splitting.rules import split_by_rules
from .agreement import label_claim
from .closed import closed_kind
from .config import JuryConfig
from .opinions import ClaimLabel, Opinion
from .panel import Panel
from .stances import chosen_stances, stances_of


async def labels_of(
    answer: str,
    choice: str | None,
    opinions: Sequence[Opinion],
    question: Question,
    models: Models,
    panel: Panel,
    config: JuryConfig,
    run: Run,
) -> tuple[ClaimLabel, ...]:
    """The claims with their labels, in order of the answer.

    Args:
        answer: The final answer.
        choice: The same in normal form, where the question is closed.
        opinions: The opinions.
        question: The question.
        models: The run's models.
        panel: The stage.
        config: Parameters.
        run: The run.
    """
    if not answer.strip():
        return ()
    if closed_kind(question) is not None and choice is not None:
        claims = [answer_claim(answer, choice, question)]
        stances = [chosen_stances(choice, opinions)]
    else:
        claims = await _claims(answer, question, models, config, run)
        stances = await stances_of(claims, opinions, models, panel, config, run)
    labels = tuple(label_claim(claim, told, config.theta) for claim, told in zip(claims, stances, strict=True))
    tell_labels(labels, run)
    return labels


def tell_labels(labels: Sequence[ClaimLabel], run: Run) -> None:
    """Put labels into the trace."""
    for index, label in enumerate(labels):
        run.emit(ClaimLabelled(index=index, report=label.model_dump(mode="json")))


def answer_claim(answer: str, choice: str, question: Question) -> Claim:
    """A closed answer as a claim: what it says, and where in the text it stands.

    Args:
        answer: The text.
        choice: The answer in normal form.
        question: The question.
    """
    found = extract(answer, question)
    start, end = (found.start, found.end) if found is not None and found.end > found.start else (0, len(answer))
    place = LETTERS.find(choice) if len(choice) == 1 else -1
    option = f" ({question.choices[place].strip()})" if 0 <= place < len(question.choices) else ""
    return Claim(text=f"The answer is {choice}{option}.", start=start, end=end)


async def _claims(answer: str, question: Question, models: Models, config: JuryConfig, run: Run) -> list[Claim]:
    if config.claims == "rules":
        return split_by_rules(answer, question.text, config.max_claims)
    seed = run.derive_seed("edgejury", "claims")
    split = await split_by_model(answer, question.text, models.judge, most=config.max_claims, seed=seed)
    if split.degraded:
        run.degrade(f"edgejury: {split.degraded}")
    return list(split.claims)
