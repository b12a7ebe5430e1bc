"""Parts of a report on rows made by hand: families, greedy beside sampled, one seed, labels, levels, unread answers."""

from __future__ import annotations

from pathlib import Path

import pytest
from reason.evals import comparison
from reason.evals.comparison import compare_greedy_with_sampled
from reason.evals.plan import DatasetInfo, DatasetSource, EvalPlan
from reason.evals.report import content
from reason.evals.report.content import build_content, method_families
from reason.evals.report.page import render_html, render_markdown
from reason.evals.results import ResultRow, RowLedger
from reason.evals.run_directory import EvalRun, RunManifest
from reason.evals.summary import summarize

GOLDEN = Path(__file__).with_name("report.md")
LABELS = ("SUPPORTS", "REFUTES", "NOT ENOUGH INFO")


def row(item: int, value: float, seed: int = 0, **more: object) -> ResultRow:
    given = {
        "id": f"i{item}", "seed": seed, "item_seed": 1, "run_id": f"r{item}", "question": "q", "strategy": "cot",
        "models": {"main": "local/m"}, "version": "1", "value": value, "correct": value == 1, "parsed": True,
        "ledger": RowLedger(completion_tokens=10),
    }  # fmt: skip
    return ResultRow.model_validate(given | more)


def stored(
    label: str, scores: list[list[int]], *, data: str = "d", strategy: str = "cot", **parameters: object
) -> EvalRun:
    """A run of `scores[item][seed]`."""
    seeds = tuple(range(len(scores[0])))
    plan = EvalPlan(
        dataset=DatasetInfo(name="sums", variant=data, source="s", fingerprint=data, size=len(scores)),
        strategy=strategy,
        parameters={"temperature": 1.0, **parameters},
        models={"main": "local/m"},
        seeds=seeds,
    )
    rows = [row(i, result[s], s, strategy=strategy) for i, result in enumerate(scores) for s in seeds]
    keys = tuple(r.key for r in rows)
    manifest = RunManifest(plan=plan, source=DatasetSource(dataset="sums"), label=label, keys=keys, complete=True)
    return EvalRun(Path(label), manifest, rows)


def test_greedy_and_sampled_by_hand():
    greedy = stored("greedy", [[1], [1], [0], [1]], temperature=0.0)
    sampled = stored("sampled", [[1, 1], [1, 0], [0, 1], [0, 0]])
    (result,) = compare_greedy_with_sampled([sampled, greedy])
    assert (result.greedy, result.sampled, result.items, result.seeds) == ("greedy", "sampled", 4, 2)
    assert (result.greedy_accuracy, result.sampled_accuracy, result.best) == (0.75, 0.5, 0.75)
    assert (result.sampling_gap, result.fragility) == (0.0, 0.5)


def test_greedy_is_not_compared_with_another_method():
    greedy = stored("greedy", [[1], [1]], temperature=0.0)
    scores = [[1, 0], [1, 1]]
    others = [
        stored("one seed", [[1], [0]]),
        stored("longer", scores, max_tokens=9),
        stored("other data", scores, data="e"),
        stored("votes", scores, strategy="self-consistency"),
        stored("greedy too", scores, temperature=0.0),
    ]
    assert compare_greedy_with_sampled([greedy, *others]) == []


def test_a_family_is_one_method_at_several_efforts():
    runs = [
        stored("a", [[1]], n=1, mode="vote", cut=0.5),
        stored("b", [[1]], n=4, mode="vote", cut=0.9),
        stored("c", [[1]], n=4, mode="vote", cut=0.9, temperature=0.0),
        stored("d", [[1, 1]], n=1, mode="vote", cut=0.5),
        stored("e", [[1]], n=1, mode="mean", cut=0.5),
        stored("f", [[1]], strategy="logprob"),
    ]
    own = [name.removeprefix("cot, m, ") for name in method_families(runs)]
    assert own == [
        "temperature 1.0, mode vote, seeds 0",
        "temperature 1.0, mode vote, seeds 0",
        "temperature 0.0, mode vote, seeds 0",
        "temperature 1.0, mode vote, seeds 0, 1",
        "temperature 1.0, mode mean, seeds 0",
        "logprob, m",
    ]
    assert method_families(runs[:2]) == ["cot, m", "cot, m"]
    assert method_families([runs[0], stored("g", [[1]], data="e", mode="mean")]) == ["cot, m", "cot, m"]


def test_runs_are_not_compared_with_all_others_to_be_grouped(monkeypatch):
    """The cost of a report is proportional to its runs, but for a bounded number of comparisons."""
    looks = 0

    class CountedSettings(dict[str, object]):
        def get(self, *given: object) -> object:
            nonlocal looks
            looks += 1
            return super().get(*given)

    settings_of = comparison.run_settings
    for module in (comparison, content):
        monkeypatch.setattr(module, "run_settings", lambda run: CountedSettings(settings_of(run)))

    def looks_at(number: int) -> int:
        nonlocal looks
        looks = 0
        runs = [stored(f"r{i}", [[1, 0]], temperature=i / 10, n=i) for i in range(number)]
        assert len(set(method_families(runs))) == number
        assert compare_greedy_with_sampled(runs) == []
        return looks

    assert looks_at(40) <= 2 * looks_at(20)


def mixed_runs() -> list[EvalRun]:
    """Runs with subjects, levels and labels, unread answers, seeds of two numbers, a greedy one, and two variants."""
    given = [("SUPPORTS", "SUPPORTS"), ("SUPPORTS", "REFUTES"), ("REFUTES", None), ("REFUTES", "REFUTES")]
    gold = {"type": "label", "labels": list(LABELS)}
    labelled = stored("labels <b>", [[int(g == p)] for g, p in given], temperature=0.0)
    rows = [
        row(
            i, float(g == p), gold=gold, label=g, prediction=p, parsed=p is not None, level=str(i // 2),
            subject=("Algebra", "Sets")[i % 2], confidence=0.9,
        )
        for i, (g, p) in enumerate(given)
    ]  # fmt: skip
    return [
        EvalRun(labelled.path, labelled.manifest, rows),
        stored("sampled | two", [[1, 1], [1, 0], [0, 1], [0, 0]]),
        stored("other data", [[1], [1]], data="e"),
    ]


def test_a_report_is_its_golden_file():
    content = build_content(mixed_runs(), "Report <i>")
    assert render_markdown(content).replace(content.made_with, "VERSION") == GOLDEN.read_text()


def test_the_page_escapes_texts_and_has_the_tables():
    pytest.importorskip("matplotlib")
    html = render_html(build_content(mixed_runs(), "Report <i>"))
    assert "Report &lt;i&gt;" in html
    assert "labels &lt;b&gt;" in html
    assert "<i>" not in html
    assert "<b>25.0</b>" in html  # above five per cent unparsed stands out
    assert html.count("<svg") == 3  # accuracy over tokens, confidences, seeds
    assert "Where the runs disagree" in html


def test_levels_and_subjects_are_separate():
    places = [("Algebra", "1"), ("Algebra", "2"), ("Geometry", "2"), ("Geometry", "")]
    rows = [row(i, float(i < 2), subject=s, level=x) for i, (s, x) in enumerate(places)]
    result = summarize(rows)
    assert {n: (m.items, m.value) for n, m in result.subjects.items()} == {"Algebra": (2, 1.0), "Geometry": (2, 0.0)}
    assert {n: (m.items, m.value) for n, m in result.levels.items()} == {"1": (1, 1.0), "2": (2, 0.5)}
    assert summarize(rows[:1]).levels == {}
