"""Stage 4: what each opinion says of each claim of the final answer, from which the labels are counted.

Of a closed question the claim is the answer itself, and what an opinion says of it is what it chose: no text has to be
read. Claims of an open answer are held against the sentence of each opinion that speaks most of them, by an entailment;
or one call for each opinion has the judge model tell; where neither can be had, by their words.

Source: Kumar, "EdgeJury" (2025, arXiv:2601.00850), stage 4. Differs: see `agreement`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...core.errors import BackendError, LimitExceeded
from ...core.messages import Request
from ...core.run import Run
from ...reasoning.strategy import Models
from ..claims import Claim
from ..entailment.judge import JudgeEntailment
from ..entailment.lexical import LexicalEntailment
from ..entailment.protocol import Entailment, Pair
from ..entailment.windows import WindowedEntailment
from ..support import Support
from .agreement import Stance, stance_of
from .asked_stances import read_stances, stance_request
from .config import PanelConfig
from .opinions import Opinion
from .panel import Panel
from .panel_round import Ask
from .premises import premises_of

JUDGE, LEXICAL = "judge", "lexical"
"""Entailments that need nothing opened: the run's judge model, and shared words."""

Stances = dict[int, Stance]
"""What jurors say of one claim; those of whom it could not be told are left out."""


def wanted_entailment(config: PanelConfig, *, labels: bool) -> str:
    """The entailment that the parameters ask for; empty if none is asked.

    Args:
        config: The parameters.
        labels: Whether claims are labelled at all.
    """
    return config.entailment if labels and config.stances == "entailment" else ""


def chosen_stances(choice: str, opinions: Sequence[Opinion]) -> Stances:
    """What opinions say of a closed answer: who chose it supports it, who chose another contradicts it."""
    return {
        opinion.juror: "silent" if opinion.choice is None else "support" if opinion.choice == choice else "contradict"
        for opinion in opinions
        if opinion.ok
    }


async def stances_of(
    claims: Sequence[Claim],
    opinions: Sequence[Opinion],
    models: Models,
    panel: Panel,
    config: PanelConfig,
    run: Run,
    entailment: Entailment | None = None,
) -> list[Stances]:
    """What each opinion says of each claim.

    Args:
        claims: The claims.
        opinions: The opinions; those that failed are left out.
        models: The run's models: the judge, the embedding, and the entailment of a strategy.
        panel: The stage.
        config: Parameters.
        run: The run.
        entailment: What judges, where it was opened for a verifier; None takes what the parameters name.
    """
    given = [opinion for opinion in opinions if opinion.ok]
    if not claims or not given:
        return [{} for _ in claims]
    if config.stances == "model":
        return await _by_model(claims, given, models, panel, run)
    judge = entailment or entailment_of(config, models)
    if judge is None:
        run.degrade(f"claims and opinions are compared by their words: {config.entailment} cannot be had here")
        judge = LexicalEntailment()
    try:
        return await _by_entailment(claims, given, judge, models, run)
    except LimitExceeded as e:
        run.note_limit(e)
        why = e.message
    except BackendError as e:
        why = e.message
    run.degrade(f"claims and opinions are compared by their words: {why}")
    return await _by_entailment(claims, given, LexicalEntailment(), models, run)


def entailment_of(config: PanelConfig, models: Models) -> Entailment | None:
    """The entailment that the parameters name; None where it cannot be had."""
    if config.entailment == LEXICAL:
        return LexicalEntailment()
    if config.entailment == JUDGE:
        return JudgeEntailment(models.judge)
    return models.entailment if isinstance(models.entailment, Entailment) else None


async def supports_between(texts: Sequence[str], judge: Entailment) -> Mapping[tuple[int, int], Support]:
    """What each of some texts says of each other, by their positions; pairs that could not be judged are left out."""
    places = [(a, b) for a in range(len(texts)) for b in range(len(texts)) if a != b]
    told = await WindowedEntailment(judge).judge([Pair(texts[a], texts[b]) for a, b in places])
    return {place: verdict for place, verdict in zip(places, told, strict=True) if verdict is not None}


async def _by_entailment(
    claims: Sequence[Claim], opinions: Sequence[Opinion], judge: Entailment, models: Models, run: Run
) -> list[Stances]:
    """All pairs in one call."""
    texts = [claim.text for claim in claims]
    said = [opinion.text for opinion in opinions]
    premises = await premises_of(texts, said, models.knowledge.embedding, models.jury[0], run)
    pairs = [Pair(part, text) for text, row in zip(texts, premises, strict=True) for part in row]
    verdicts = iter(await WindowedEntailment(judge).judge(pairs))
    found: list[Stances] = []
    for _ in claims:
        told = [(opinion.juror, next(verdicts)) for opinion in opinions]
        found.append({juror: stance_of(verdict) for juror, verdict in told if verdict is not None})
    return found


async def _by_model(
    claims: Sequence[Claim], opinions: Sequence[Opinion], models: Models, panel: Panel, run: Run
) -> list[Stances]:
    """One call for each opinion, all at once; an opinion of which nothing could be read is compared by its words."""
    judge, texts = models.judge, [claim.text for claim in claims]
    requests = [stance_request(texts, opinion.text, judge.capabilities) for opinion in opinions]
    asks = [
        Ask(opinion.juror, judge, Request(prompt=asked.prompt, sampling=asked.sampling(0.0, len(claims))))
        for opinion, asked in zip(opinions, requests, strict=True)
    ]
    replies = await panel.ask(asks)
    found: list[Stances] = [{} for _ in claims]
    unread: list[Opinion] = []
    for opinion, asked, reply in zip(opinions, requests, replies, strict=True):
        told = read_stances(asked.opening + reply.text, len(claims)) if reply.ok else []
        if not any(told):
            unread.append(opinion)
        for stances, stance in zip(found, told, strict=bool(told)):
            if stance is not None:
                stances[opinion.juror] = stance
    if unread:
        run.degrade(f"{len(unread)} of {len(opinions)} opinions were compared with the claims by their words")
        for stances, more in zip(
            found, await _by_entailment(claims, unread, LexicalEntailment(), models, run), strict=True
        ):
            stances.update(more)
    return found
