"""Claims of a thought in the terminal: below those of the answer, and neither marked nor counted with them."""

from __future__ import annotations

import pytest
from reason.cli.render.claims import answer_with_marks, print_checked
from reason.cli.render.console import out
from reason.core.types import CheckedClaim, Evidence, Verification

TEXT = "Rain is wet. Snow is cold."


def claim(text: str, start: int, **given) -> CheckedClaim:
    evidence = (Evidence(source="weather.md", text=text),)
    return CheckedClaim(text=text, start=start, end=start + len(text), evidence=evidence, confidence=0.9, **given)


VERIFICATION = Verification(
    verdict="supported",
    claims=(
        claim("Rain is wet.", 0, verdict="supported"),
        claim("Snow is cold.", 13, verdict="supported"),
        claim("Rain is dry.", 0, verdict="refuted", part="thought"),
        claim("Fog is old.", 5, verdict="supported", part="thought"),
    ),
    verifiers=("davinci",),
)


def test_claims_of_the_thought_mark_nothing_in_the_answer() -> None:
    assert answer_with_marks(TEXT, VERIFICATION.claims).plain == "Rain is wet.[1] Snow is cold.[2]"


def test_claims_of_the_thought_come_last_and_do_not_count(capsys: pytest.CaptureFixture[str]) -> None:
    print_checked(out(), VERIFICATION)
    assert capsys.readouterr().out.splitlines() == [
        "supported: 2 of 2 claims supported",
        "[1] supported (90% sure)  Rain is wet.",
        '    weather.md "Rain is wet."',
        "[2] supported (90% sure)  Snow is cold.",
        '    weather.md "Snow is cold."',
        "in the thought, which does not count for the verdict: 1 of 2 claims supported, 1 refuted",
        "[3] refuted (90% sure)  Rain is dry.",
        '    weather.md "Rain is dry."',
        "[4] supported (90% sure)  Fog is old.",
        '    weather.md "Fog is old."',
    ]
