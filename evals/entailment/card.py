"""The card of an entailment training, in Markdown: what it was made of, how it was scored, what it cannot do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from pydantic import JsonValue

from ...core.version import __version__
from ...verify.entailment.embedded_delta import Delta
from ...verify.entailment.embedded_reading import FEATURES
from ...verify.entailment.embedded_tokens import MOST_TOKENS
from .plan import EntailmentPlan
from .scoring import Score
from .sides import WATCHED, Sides

_POINTS: Final = 16
"""Points of the learning curve that are shown."""

LIMITS: Final = """\
- English alone; sentences of encyclopedias and claims of crowd workers. Other texts are another matter: CLIMATE-FEVER
  shows how much another one.
- At most {tokens} tokens of title, text and claim together; longer texts have to be cut into windows.
- No arithmetic, no chains over several documents, no knowledge that is not in the text. Numbers are compared by rule.
- The held-back claims are of the same datasets as those trained on. Claims of one page are on both sides, and so are
  sentences of evidence; no claim and no contrast group is.
- Claims of FEVER without enough information carry label noise: some are contradicted by a sentence that the annotators
  did not see.
- A text can still mislead it by what it says. That texts which only tell the judge what to say do not is trained and
  tested, not proven.
- All benchmarks are public. The encoder was trained on a billion pairs of sentences by its authors, among them pairs of
  SNLI, MultiNLI and Wikipedia; which of them these claims resemble is not known."""


def card_text(
    plan: EntailmentPlan,
    sides: Sides,
    scores: Sequence[Score],
    unrounded: Sequence[Score],
    curve: Sequence[Mapping[str, JsonValue]],
    delta: Delta,
    size: int,
    seconds: float,
) -> str:
    """The card; the same for the same run.

    Args:
        plan: What was decided.
        sides: The claims.
        scores: By the weights of the file.
        unrounded: By the weights before rounding.
        curve: The learning curve.
        delta: What lies in the file.
        size: Bytes of the file.
        seconds: Seconds that the steps took.
    """
    before = {one.name: one for one in unrounded}
    weights = f"{size / 1e6:.2f} MB, {plan.bits} bits a weight and a scale a row"
    files = [(use.name, f"{use.claims:,}", use.licence, f"`{use.sha256[:16]}…`") for use in plan.data]
    parts = [
        "# The embedded judge of entailment",
        "This card was written by `reason train entailment` from its run; `benchmarks/entailment_table.py` scores the "
        "file again.",
        "## What it is",
        f"all-MiniLM-L6-v2 (fingerprint `{plan.base[:16]}`) as a cross-encoder, with a trained change of its layers "
        f"(digest `{delta.digest}`, {weights}), a mark for each word that says whether the other text has it, and a "
        f"head over {len(FEATURES)} features and the pooled tokens. Logits are divided by {delta.temperature:g}, "
        "fitted to the watched claims.",
        "## Data",
        table(("file", "claims", "licence", "SHA-256"), files),
        f"Split by SHA-256 of the claim's text: {plan.held:.0%} of the claims are kept back, {WATCHED:.0%} are watched "
        "(learning curve, temperature and gate are by these), the rest is trained on. Claims with the same text, and "
        "all claims of a contrast group, are on one side. Claims of FEVER Symmetric are left out of the training: many "
        "of its pairs are FEVER's own.",
        table(("side", "supports", "refutes", "neutral"), _counts(sides)),
        "Each epoch draws a text for each claim anew, and makes contrasts by rule (`evals/entailment/contrast.py`, "
        "`drawing.py`): exchanged numbers, dates, names and things in claim, text or both; negations; silent sentences "
        "that were retrieved; sentences that tell the judge what to say.",
        "## Settings",
        table(("setting", "value"), _settings(plan, seconds)),
        "## Scores on what was kept back",
        "Two labels: which of supports and refutes is likelier. Several texts: the verdict of the one that is surest "
        "of something. Intervals of 95 %: Wilson, or Student's t over groups of claims that belong together. *before*: "
        "the accuracy before the change was rounded.",
        score_table(scores, before),
        "FEVER Symmetric and CLIMATE-FEVER were never trained on. *The claim alone*: with an empty text; what is right "
        "there is right by the claims' wording. *gated*: a decisive verdict needs a confidence that "
        "was chosen by the watched claims.",
        "## Learning curve",
        "By the watched claims: accuracy (two labels) on FEVER's deciding texts, macro F1 on five retrieved ones, "
        "accuracy on VitaminC. The loss is of the training pairs, contrasts included.",
        curve_table(curve),
        "## Limits",
        LIMITS.format(tokens=MOST_TOKENS),
        f"Made by reason {__version__}, plan `{plan.digest}`.",
    ]
    return "\n\n".join(parts) + "\n"


def score_table(scores: Sequence[Score], before: Mapping[str, Score] | None = None) -> str:
    """Scores as a Markdown table."""
    head = ["set", "labels", "claims", "accuracy [95 %]", "macro F1", "ECE", "always the commonest"]
    rows = []
    for one in scores:
        name = one.name + (f" at {one.gate:g}" if one.gate else "")
        between = f"{one.accuracy:.3f} [{one.low:.3f}, {one.high:.3f}]"
        row = [
            name,
            str(one.labels),
            f"{one.claims:,}",
            between,
            f"{one.macro_f1:.3f}",
            f"{one.ece:.3f}",
            f"{one.always:.3f}",
        ]
        if before is not None:
            row.append(f"{before[one.name].accuracy:.3f}" if one.name in before else "")
        rows.append(row)
    return table([*head, "before"] if before is not None else head, rows)


def curve_table(curve: Sequence[Mapping[str, JsonValue]]) -> str:
    """The learning curve as a Markdown table of some of its points, the last one among them."""
    if not curve:
        return "The training was too short for a point."
    step = max(1, -(-len(curve) // _POINTS))
    shown = list(curve[::-1][::step][::-1])
    names = list(dict.fromkeys(name for point in curve for name in point))
    return table(names, [[str(point.get(name, "")) for name in names] for point in shown])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines)


def _counts(sides: Sides) -> list[list[str]]:
    rows = []
    for name, cases in (
        ("trained on", sides.training),
        ("watched", sides.watched),
        ("kept back", sides.held),
        ("left out for FEVER Symmetric", sides.apart),
    ):
        counts = Counter(case.label for case in cases)
        rows.append([name, *(f"{counts[label]:,}" for label in ("supports", "refutes", "neutral"))])
    return rows


def _settings(plan: EntailmentPlan, seconds: float) -> list[tuple[str, str]]:
    left_out = {"data", "base", "mix"}
    found = [(name, f"`{value}`") for name, value in plan.model_dump(mode="json").items() if name not in left_out]
    found += [(f"mix: {name}", f"`{value}`") for name, value in plan.mix.model_dump(mode="json").items()]
    return [*found, ("seconds of training", f"{seconds:,.0f}")]
