"""The tables of verification and its speed on small made data: every row is there, and pages are updated in place."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import verification_table
from labelled_claims import LabelledClaim
from reason.core.errors import DataError, UserError
from reason.core.settings import load_settings
from reason.reasoning.knowledge import Passage
from reason.verify.types import Support
from support.labelled_claims import write_fever, write_lines
from verdict_metrics import verdict_metrics
from verdicts import ClaimVerdict, JudgedClaim, VerdictStore

SPELLED = ("SUPPORTS", "REFUTES", "NOT ENOUGH INFO")
PLAIN = Path(__file__).parents[2] / "benchmarks" / "data" / "plain_claims"


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Four datasets, small; all of their claims are measured, with few resamples."""
    monkeypatch.setattr("labelled_claims.trained_claims", lambda paths, corpus: frozenset())
    monkeypatch.setitem(verdict_metrics.__kwdefaults__, "resamples", 50)
    write_fever(tmp_path, claims=60)
    vitamin, symmetric, facts = [], [], []
    for i in range(60):
        label = SPELLED[i % 3]
        text = {"SUPPORTS": f"Town {i} has {i} mills.", "REFUTES": f"Town {i} has 777 mills."}.get(label, f"Bread {i}.")
        line = {"id": f"v{i}", "claim": f"Town {i} has {i} mills.", "label": label, "evidence": text, "page": "Town"}
        vitamin.append(line | {"case_id": f"{i // 2}"})
        side = SPELLED[i % 2]
        text = f"Town {i} has {i if side == 'SUPPORTS' else 777} mills."
        symmetric.append(line | {"id": f"s{i}", "label": side, "evidence": text, "base_id": f"{i // 2}"})
        full = {
            "label_full": label if i % 3 < 2 else "SUPPORTS",
            "sufficiency": "NOT ENOUGH" if i % 3 == 2 else "ENOUGH",
        }
        facts.append({"id": f"f{i}", "claim": f"Town {i} has {i} mills."} | full)
        facts[-1]["evidence"] = [{"page": "Town", "text": vitamin[-1]["evidence"]}]
    write_lines(tmp_path / "sufficient_facts" / "dev.jsonl", facts)
    write_lines(tmp_path / "vitaminc" / "dev.jsonl", vitamin)
    write_lines(tmp_path / "fever_symmetric" / "dev.jsonl", symmetric)
    return tmp_path


def run(module, *arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["script.py", *map(str, arguments)])
    capsys.readouterr()
    module.main()
    return capsys.readouterr().out


def options(data, work):
    names = ("fever", "vitaminc", "fever_symmetric", "sufficient_facts")
    paths = [f"{name}={data / name}" for name in names] + [f"plain_claims={PLAIN}"]
    return [*(part for path in paths for part in ("--data", path)), "--corpus", data / "corpus", "--work", work]


@pytest.fixture
def words_as_small(monkeypatch):
    """Word overlap under the name of an embedded judge."""
    load = verification_table.load_entailment

    async def load_words(name, settings):
        return await load("lexical", settings)

    monkeypatch.setattr(verification_table, "load_entailment", load_words)


@pytest.mark.nightly
@pytest.mark.usefixtures("words_as_small")
def test_pages_are_updated_from_stored_verdicts(data, tmp_path, monkeypatch, capsys):
    work, docs = tmp_path / "work", tmp_path / "docs"
    (docs / "results" / "details").mkdir(parents=True)
    marks = {
        "verification.md": ("conclusion", "summary", "goals", "differences", "evidence", "cost"),
        "details/verification.md": ("made", "sets"),
    }
    for page, names in marks.items():
        parts = "\n\n".join(f"Text of {name}.\n\n<!-- table: {name} -->\nold\n<!-- end -->" for name in names)
        (docs / "results" / page).write_text(parts)
    assert run(verification_table, "judge", *options(data, work), monkeypatch=monkeypatch, capsys=capsys) == ""
    with VerdictStore(work / "verdicts.sqlite") as store:
        known = store.count("lexical-2")
    assert known > 300
    run(
        verification_table, "table", *options(data, work), "--judges", "small", "base", "--docs", docs,
        monkeypatch=monkeypatch, capsys=capsys,
    )  # fmt: skip
    with VerdictStore(work / "verdicts.sqlite") as store:
        assert store.count("lexical-2") == known  # nothing was left to judge
    page, details = ((docs / "results" / name).read_text() for name in marks)
    assert "old" not in page + details
    assert "Text of goals." in page
    for title in ("FEVER, deciding sentences, two labels", "VitaminC", "FEVER Symmetric", "Plain claims"):
        assert f"| {title} | " in page
        assert f"### {title} (n = " in details


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
