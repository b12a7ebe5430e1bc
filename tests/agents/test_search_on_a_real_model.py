"""Searches over steps on real weights, as a user's script would run them."""

import pytest
from reason import Reasoner, Settings
from reason.core.events import MemorySink, SearchEnded

QUESTION = "Natalia sold clips to 48 friends in April, and half as many in May. How many clips did she sell in all?"
SMALL = {"max_step_tokens": 16, "max_depth": 2, "limits": {"finish_tokens": 16}}
SIZES = {"astar": {"k": 2}}

pytestmark = pytest.mark.real


@pytest.fixture
def settings(tmp_path, smollm2_files):
    return Settings(store=tmp_path / "runs.sqlite3", cache_dir=smollm2_files.directory.parent.parent, seed=1)


def path_text(sink: MemorySink, node_id: int | None) -> str:
    """The partial solution of a node."""
    nodes = {node.id: node for e in sink.of_type("search.nodes") for node in e.nodes}
    texts = []
    while node_id is not None:
        texts.append(nodes[node_id].text)
        node_id = nodes[node_id].parent
    return "".join(reversed(texts))


async def test_a_search_answers_replays_and_reuses_what_was_computed(settings):
    async with Reasoner(settings=settings) as reasoner:
        for name, size in SIZES.items():
            variant = await reasoner.variant(name, parameters={**SMALL, **size})
            sink = MemorySink()
            answer = await variant.aask(QUESTION, run_id=name, sinks=[sink])
            assert answer.text
            assert answer.stopped == "done"
            # so small a model may state no answer, or go on after it to the maximum of tokens
            has_answer = answer.answer is not None
            assert has_answer == all("after an answer" in note for note in answer.degraded), answer.degraded
            (ended,) = [e for e in sink.events if isinstance(e, SearchEnded)]
            assert ended.cost["gen_tokens"] == answer.usage.completion_tokens
            # the model judges its own steps: a pass for each different one
            assert 0 < answer.usage.reward_calls <= ended.cost["prm_passes"]
            main = next(row for role, row in answer.usage.by_role.items() if role.startswith("main:"))
            # all but the question, of which the first call computes nearly all, and the last token of each prompt
            computed = main.prompt_tokens - main.cached_tokens
            assert computed <= main.prompt_tokens / main.model_calls + 2 * main.model_calls, (computed, main)
            assert answer.text == path_text(sink, ended.chosen)
            replayed = await reasoner.areplay(name)
            assert (replayed.text, replayed.confidence) == (answer.text, answer.confidence)


@pytest.mark.nightly
async def test_thoughts_with_documents_cite_replay_and_take_three_calls_an_expansion(settings, tmp_path):
    folder = tmp_path / "towers"
    folder.mkdir()
    (folder / "towers.md").write_text(
        "# Towers\n\nThe Wibble Tower stands in the city of Quax. It was built in 1887.\n"
    )
    (folder / "fish.txt").write_text("Fish swim in the sea.")
    parameters = {"k": 2, "expansions": 2, "max_step_tokens": 32}
    question = "In which city is the Wibble Tower?"
    for association in ("written", "quoted"):
        chosen = {**parameters, "association": association, "limits": {"finish_tokens": 24}}
        async with Reasoner(strategy="coat", parameters=chosen, settings=settings, context=[str(folder)]) as reasoner:
            sink = MemorySink()
            answer = await reasoner.aask(question, run_id=association, sinks=[sink])
            assert answer.answer is not None
            assert answer.stopped == "done"
            assert answer.degraded == ()
            (ended,) = sink.of_type("search.ended")
            assert 0 < ended.cost["expansions"] <= 2
            calls = [e for e in sink.of_type("call.started") if e.operation == "generate"]
            # beside the three of each expansion, notes for the question and a final answer that is asked for
            assert len(calls) <= 3 * ended.cost["expansions"] + 2
            associated = sink.of_type("memory.associated")
            assert associated
            assert all(e.snippets for e in associated)
            if association == "quoted":
                notes = [item for e in associated for item in e.items]
                assert any("Wibble Tower" in note.text and "towers.md" in note.source_id for note in notes)
            replayed = await reasoner.areplay(association)
            assert (replayed.text, replayed.citations) == (answer.text, answer.citations)
