"""Parts of a report on rows made by hand: families, greedy beside sampled, one seed, labels, levels, unread answers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from reason.evals import comparison
from reason.evals.comparison import compare_greedy_with_sampled
from reason.evals.plan import DatasetInfo, DatasetSource, EvalPlan
from reason.evals.report import content
from reason.evals.report.content import build_content, method_families
from reason.evals.report.html import render_html
from reason.evals.report.markdown import render_markdown
from reason.evals.results import ResultRow, RowLedger
from reason.evals.run_directory import RunManifest, StoredRun
from reason.evals.summary import EvalSummary, summarize

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
) -> StoredRun:
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
    manifest = RunManifest(plan=plan, task=DatasetSource(dataset="sums"), label=label, keys=keys, complete=True)
    return StoredRun(Path(label), manifest, rows)


def page_of(*runs: StoredRun) -> tuple[str, str]:
    pytest.importorskip("matplotlib")
    content = build_content(runs, "Report")
    return re.sub(r"<svg.*?</svg>", "<svg/>", render_html(content), flags=re.DOTALL), render_markdown(content)


def test_greedy_and_sampled_by_hand() -> None:
    greedy = stored("greedy", [[1], [1], [0], [1]], temperature=0.0)
    sampled = stored("sampled", [[1, 1], [1, 0], [0, 1], [0, 0]])
    (result,) = compare_greedy_with_sampled([sampled, greedy])
    assert (result.greedy, result.sampled, result.items, result.seeds) == ("greedy", "sampled", 4, 2)
    assert (result.greedy_accuracy, result.sampled_accuracy, result.best) == (0.75, 0.5, 0.75)
    assert (result.sampling_gap, result.fragility) == (0.0, 0.5)
    html, markdown = page_of(sampled, greedy)
    assert "Greedy beside sampled" in html
    assert "| greedy beside sampled | 75.0 | 50.0 | 75.0 | +0.0 | +50.0 |" in markdown


def test_greedy_is_not_compared_with_another_method() -> None:
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


def test_a_family_is_one_method_at_several_efforts() -> None:
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


def test_one_seed_is_reported_as_not_estimable() -> None:
    html, markdown = page_of(stored("a", [[1], [0]]), stored("b", [[1], [1]], max_tokens=9))
    assert "one a run, so what another seed would give is not estimable" in html
    assert html.count("not estimable with one seed") == 2
    assert "what another seed would give is not estimable" in markdown
    html, markdown = page_of(stored("a", [[1], [0]]), stored("b", [[1, 0], [1, 1]], max_tokens=9))
    assert html.count("not estimable with one seed") == 1
    assert (
        "| a | 1 | 50.0 | not estimable | not estimable | not estimable | not estimable | @1 50.0 | @1 50.0 |"
        in markdown
    )
    assert (
        "| b | 2 | 75.0 | 35.4 | 50.0 … 100.0 | 50.0 | 50.0 / 0.0 | @1 75.0, @2 100.0 | @1 25.0, @2 50.0 |" in markdown
    )


@pytest.mark.parametrize(("unread", "flagged"), [(0, False), (1, False), (2, True)])
def test_above_five_per_cent_unread_is_red(unread: int, flagged: bool) -> None:
    run = stored("a", [[1]] * 20)
    rows = [r.model_copy(update={"parsed": i >= unread}) for i, r in enumerate(run.rows)]
    html, markdown = page_of(StoredRun(run.path, run.manifest, rows))
    assert (f'<td class="num bad">{5 * unread:.1f}</td>' in html) is flagged
    assert ('<p class="alarm">a: 10.0% of the answers could not be read</p>' in html) is flagged
    assert ("**10.0**" in markdown) is flagged
    assert ("> - a: 10.0% of the answers could not be read" in markdown) is flagged


def test_two_variants_of_a_dataset_are_separate() -> None:
    html, markdown = page_of(stored("a", [[1], [0]], data="1-2"), stored("b", [[1], [1]], data="3"))
    for variant in ("1-2", "3"):
        assert html.count(f"sums ({variant})") == 3  # in the headline, above its runs, below Data
        assert markdown.count(f"sums ({variant})") == 2
    assert "Item by item" not in html


def summary_of(rows: list[ResultRow]) -> tuple[EvalSummary, str, str]:
    run = stored("a", [[1]] * len(rows))
    return summarize(rows), *page_of(StoredRun(run.path, run.manifest, rows))


def test_levels_and_subjects_are_separate() -> None:
    places = [("Algebra", "1"), ("Algebra", "2"), ("Geometry", "2"), ("Geometry", "")]
    rows = [row(i, float(i < 2), subject=s, level=x) for i, (s, x) in enumerate(places)]
    result, html, markdown = summary_of(rows)
    assert {n: (m.items, m.value) for n, m in result.subjects.items()} == {"Algebra": (2, 1.0), "Geometry": (2, 0.0)}
    assert {n: (m.items, m.value) for n, m in result.levels.items()} == {"1": (1, 1.0), "2": (2, 0.5)}
    assert summarize(rows[:1]).levels == {}
    assert "<b>Levels</b>" in html
    assert "Accuracy % by level:" in markdown


def test_labels_are_shown_with_their_confusions() -> None:
    given = [("SUPPORTS", "SUPPORTS"), ("SUPPORTS", "REFUTES"), ("REFUTES", None), ("REFUTES", "REFUTES")]
    gold = {"type": "label", "labels": list(LABELS)}
    rows = [row(i, float(g == p), gold=gold, label=g, prediction=p) for i, (g, p) in enumerate(given)]
    _, html, markdown = summary_of(rows)
    assert "macro F1 58.3%, weighted F1 58.3%" in html
    heads = re.findall(r"<th>(as [^<]*)</th>", html)
    assert heads == ["as SUPPORTS", "as REFUTES", "as unread"]
    line = re.search(r"<tr><td>REFUTES</td>(.*?)</tr>", html)
    assert line is not None
    assert re.findall(r">([^<]+)</td>", line[1]) == ["2", "2", "50.0", "50.0", "50.0", "–", "1", "1"]
    assert "| REFUTES | 2 | 2 | 50.0 | 50.0 | 50.0 | REFUTES 1, unread 1 |" in markdown
    assert "| NOT ENOUGH INFO | 0 | 0 | - | - | - | - |" in markdown


def test_runs_are_not_compared_with_all_others_to_be_grouped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cost of a report is proportional to its runs, but for a bounded number of comparisons."""
    looks = 0

    class CountedSettings(dict[str, object]):
        def get(self, *given: object) -> object:
            nonlocal looks
            looks += 1
            return super().get(*given)  # type: ignore[call-overload]

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


def test_only_the_shown_disagreements_are_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "MAX_DISAGREEMENTS", 2)
    monkeypatch.setattr(content, "MAX_SIDES", 3)
    built = []
    side = content._side
    monkeypatch.setattr(content, "_side", lambda run, row: built.append(run.label) or side(run, row))
    # the last run alone is right; of the items on which all are wrong none is a disagreement
    runs = [stored(f"r{i}", [[0]] * 5 + [[0]]) for i in range(6)] + [stored("right", [[1]] * 5 + [[0]])]
    found = build_content(runs, "")
    assert (found.disagreeing, len(found.disagreements)) == (5, 2)
    assert [[s.run for s in d.sides] for d in found.disagreements] == [["r0", "r1", "right"]] * 2
    assert len(built) == 6
