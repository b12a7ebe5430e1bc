"""`ClaimChecker`: the run's verifiers check an answer sentence by sentence, while the rest of it is generated."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.types import CheckedClaim, Question
from ..verify.types import Entailment, Pair, Support
from ..verify.verifier import Verifier, VerifierContext, VerifiesParts
from .findings import finding_lines, rejected_claims


class ClaimChecker:
    """An `AnswerChecker` of claims.

    Args:
        question: The question.
        verifiers: The verifiers, each with what it works with.
    """

    def __init__(self, question: Question, verifiers: Sequence[tuple[VerifiesParts, VerifierContext]]) -> None:
        self._question, self._verifiers = question, verifiers
        self._has_evidence = False

    async def findings(self, text: str, start: int) -> tuple[str, ...]:
        """See `AnswerChecker.findings`; what the pipeline would send the complete answer back for."""
        claims: list[CheckedClaim] = []
        for verifier, context in self._verifiers:
            claims += await verifier.verify_part(self._question, text, start, context)
        self._has_evidence = self._has_evidence or any(claim.evidence for claim in claims)
        return tuple(finding_lines(rejected_claims(claims, has_evidence=self._has_evidence)))


def parts_of(
    verifiers: Sequence[tuple[Verifier, VerifierContext]],
) -> list[tuple[VerifiesParts, VerifierContext]] | None:
    """The verifiers as those of parts of an answer; None if one of them cannot check parts."""
    parts: list[tuple[VerifiesParts, VerifierContext]] = [
        (verifier, context) for verifier, context in verifiers if isinstance(verifier, VerifiesParts)
    ]
    return parts if verifiers and len(parts) == len(verifiers) else None


class RememberedEntailment:
    """An `Entailment` that judges a pair once: what was checked as a part is not judged again as the whole.

    Args:
        entailment: What judges.
    """

    def __init__(self, entailment: Entailment) -> None:
        self._entailment = entailment
        self.name, self.identity, self.max_words = entailment.name, entailment.identity, entailment.max_words
        self._known: dict[Pair, Support | None] = {}

    async def judge(self, pairs: Sequence[Pair]) -> list[Support | None]:
        """See `Entailment.judge`."""
        missing = [pair for pair in dict.fromkeys(pairs) if pair not in self._known]
        if missing:
            self._known |= zip(missing, await self._entailment.judge(missing), strict=True)
        return [self._known[pair] for pair in pairs]

    async def aclose(self) -> None:
        """Do nothing: the entailment is closed by its owner."""
