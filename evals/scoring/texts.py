"""Short texts: exact match and F1 of words after SQuAD's normalisation; and overlap with true and false references.

Source: Rajpurkar et al., "SQuAD" (EMNLP 2016), section 6.1, for exact match and F1. Yang et al., "HotpotQA" (EMNLP
2018) and its evaluation script, for F1 where the answer is a yes or a no. Lin, "ROUGE" (2004), sections 2 and
3.1, for ROUGE-1 and ROUGE-L. Lin, Hilton and Evans, "TruthfulQA" (ACL 2022), appendix B, for their use there.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

from ...core.answer import Answer
from ..items import Score, TextGold, TruthfulGold

_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_WHOLE = frozenset({("yes",), ("no",), ("noanswer",)})
"""Answers that share a part with no other one."""
_WORD = re.compile(r"[^\W_]+")
MAX_WORDS = 2000
"""Words of a text that ROUGE-L looks at; its time grows with the product of two lengths."""


def score_text(gold: TextGold, answer: Answer) -> Score:
    """Exact match with any of the right answers is the score; `f1` is the best `answer_f1` with one."""
    given = answer.answer or ""
    match = max(float(squad_words(given) == squad_words(right)) for right in gold.answers)
    return Score(
        value=match,
        correct=match == 1.0,
        parsed=answer.answer is not None,
        label=gold.answers[0],
        prediction=answer.answer,
        confidence=answer.confidence,
        metrics={"f1": max(answer_f1(given, right) for right in gold.answers)},
    )


def score_truthful(gold: TruthfulGold, answer: Answer) -> Score:
    """Whether a free answer is closer to a true reference than to every false one, in words: a proxy, not a judgement.

    The score is by ROUGE-1; `rouge_l` is the same by ROUGE-L, and the two `…_margin` say by how much.

    Differs: the paper's judge is a fine-tuned model; of its measures by overlap, BLEU and BLEURT are left out.
    """
    given = words(answer.answer or answer.text)
    metrics: dict[str, float] = {}
    measures: dict[str, Callable[[Sequence[str], Sequence[str]], float]] = {"rouge_1": overlap, "rouge_l": common_order}
    for name, measure in measures.items():
        true, false = (max(measure(given, words(r)) for r in side) for side in (gold.correct, gold.incorrect))
        metrics[name] = float(true > false)
        metrics[f"{name}_margin"] = true - false
    return Score(
        value=metrics["rouge_1"],
        correct=metrics["rouge_1"] == 1.0,
        parsed=bool(given),
        label=gold.best,
        prediction=answer.answer,
        confidence=answer.confidence,
        metrics=metrics,
    )


def squad_words(text: str) -> tuple[str, ...]:
    """Words in lower case, without ASCII punctuation, and without articles wherever they are a word of their own."""
    return tuple(_ARTICLES.sub(" ", text.lower().translate(_WITHOUT_PUNCTUATION)).split())


def answer_f1(given: str, right: str) -> float:
    """F1 of the words of two short answers, in [0, 1].

    As HotpotQA has it, "yes" and "no" (and "noanswer") are right as a whole or not at all: "no, he was not" shares a
    word with "no", and is no answer to it.

    Differs: two answers without a word are the same, and not strangers.
    """
    a, b = squad_words(given), squad_words(right)
    return float(a == b) if a in _WHOLE or b in _WHOLE else overlap(a, b)


def words(text: str) -> tuple[str, ...]:
    """Runs of letters and digits, case folded; at most `MAX_WORDS`."""
    return tuple(_WORD.findall(text.casefold())[:MAX_WORDS])


def overlap(given: Sequence[str], right: Sequence[str]) -> float:
    """F1 of two bags of words, in [0, 1]; two empty ones are the same, an empty and a full one share nothing."""
    if not given or not right:
        return float(given == right)
    return _f1(sum((Counter(given) & Counter(right)).values()), len(given), len(right))


def common_order(given: Sequence[str], right: Sequence[str]) -> float:
    """F1 of the longest common subsequence of two texts' words, in [0, 1] (ROUGE-L)."""
    if not given or not right:
        return float(given == right)
    row = [0] * (len(right) + 1)
    for word in given:
        above = 0
        for j, other in enumerate(right, 1):
            above, row[j] = row[j], above + 1 if word == other else max(row[j], row[j - 1])
    return _f1(row[-1], len(given), len(right))


def _f1(common: int, given: int, right: int) -> float:
    return 2 * common / (given + right)
