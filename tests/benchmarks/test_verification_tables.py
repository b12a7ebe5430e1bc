"""The tables of verification: which judges are opened, and how shown evidence is scored."""

from dataclasses import replace

import pytest
import verification_table
from labelled_claims import LabelledClaim
from reason.core.errors import DataError, UserError
from reason.core.settings import load_settings
from reason.reasoning.knowledge import Passage
from reason.verify.types import Support
from verdicts import ClaimVerdict, JudgedClaim


async def test_weights_of_a_file_need_the_name_of_an_embedded_judge(tmp_path):
    with pytest.raises(UserError, match="'tiny' is no embedded judge"):
        await verification_table.open_judge("tiny=weights.safetensors", load_settings())
    with pytest.raises(DataError, match="none.safetensors"):
        await verification_table.open_judge(f"small={tmp_path / 'none.safetensors'}", load_settings())


def test_evidence_is_scored_where_there_are_passages_to_choose_from():
    passages = tuple(Passage(id=name, source="s", text=f"Text {name}.") for name in "abc")
    probs = Support(0.9, 0.05, 0.05)

    def claim(gold, shown, label="supports", passages=passages, right=passages[:2]):
        row = LabelledClaim("s", "n", "Claim.", gold, passages, right, sets=(("a",), ("b", "c")))
        return JudgedClaim(row, (probs,) * len(passages)), ClaimVerdict(label, probs, shown)

    claims = [
        claim("supports", ("a",)),  # precision 1, recall 1/2; a sufficient set
        claim("supports", ("b", "c", "x")),  # precision 1/3, recall 1/2; the other set
        claim("supports", ("c",)),  # nothing right
        claim("refutes", ("a",)),  # a wrong verdict
        claim("supports", (), label="neutral"),
        claim("supports", ("a",), passages=passages[:1], right=passages[:1]),  # nothing to choose from
    ]
    method = verification_table.Method("j", verification_table.SHIPPED)
    one = verification_table.Measurement("k", "Set", tuple(c for c, _ in claims), {method: [v for _, v in claims]}, {})
    forced = replace(one, key=f"k: {verification_table.TWO_LABELS}")
    *_, row = verification_table.evidence_table([one, forced], "j").splitlines()
    assert row == "| Set | 3 | 0.444 | 0.333 | 0.356 | 0.667 |"
