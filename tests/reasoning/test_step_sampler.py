"""Step sampling: batches, boundaries, duplicates, budgets and resuming."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.budget import Budget
from reason.core.errors import UserError
from reason.core.store.sqlite import SqliteStore
from reason.reasoning.continuations import Prefix
from support.scripted_model import END, ScriptedModel, replies
from support.step_sampling import CHAIN, ROOT, Harness, expanded, walked

# -- boundaries


async def test_steps_end_at_blank_lines_and_the_last_one_states_the_answer(store):
    harness, steps = await walked(store, CHAIN)
    assert [(s.text, s.end_reason, s.terminal, s.tokens) for s in steps] == [
        ("Step 1: two.", "delimiter", False, len("Step 1: two.\n\n")),
        ("Step 2: and two.", "delimiter", False, len("Step 2: and two.\n\n")),
        ("The answer is 4.", "answer", True, len("The answer is 4.E")),
    ]
    last = steps[-1].after
    assert list(last) == [s.text for s in steps]
    assert (last.text, last.token_ids) == (CHAIN, tuple(map(ord, CHAIN + END)))
    assert harness.spent.completion_tokens == len(CHAIN) + 1
    sent = [r.prompt.prefix for call in harness.model.generate_calls for r in call]
    assert sent == ["", *(s.after.token_ids for s in steps[:2])]


@pytest.mark.parametrize(
    "text",
    [
        "```python\na = 1\n\nb = 2\n\nc = 3\n```",
        "So\n\\[\nx\n\n= 1\n\\]",
        "So\n$$\nx\n\n= 1\n$$ holds.",
        "\\begin{align}\na\n\n\\begin{b}\n\n\\end{b}\n\n\\end{align}",
        "~~~\n```\n\n~~~",
    ],
)
async def test_a_blank_line_in_code_or_a_formula_ends_no_step(store, text):
    harness, steps = await walked(store, f"{text}\n\nThe answer is 4.")
    assert [s.text for s in steps] == [text, "The answer is 4."]
    assert len(harness.model.generate_calls) == 2 + text.count("\n\n")
    assert (steps[0].tokens, steps[0].token_ids) == (len(text) + 2, tuple(map(ord, text + "\n\n")))
    assert harness.spent.completion_tokens == sum(s.tokens for s in steps)


async def test_an_answer_within_open_code_is_none_and_a_text_may_end_there(store):
    text = "```\n# The answer is 5\n\nprint(4)"
    _, (step,) = await walked(store, text)
    assert (step.text, step.end_reason) == (text, "end")


async def test_only_unfinished_steps_are_continued(store):
    harness, made, expansion = await expanded(store, 8, "```\na\n\nb\n```\n\nX", "Plain.\n\nX")
    fenced = [s for s in expansion.samples if s.text.startswith("```")]
    assert 0 < len(fenced) < 8
    assert {s.text for s in expansion.samples} == {"```\na\n\nb\n```", "Plain."}
    assert [sum(len(r.indices) for r in call) for call in harness.model.generate_calls] == [8, len(fenced)]
    assert made.num_rounds == 2


async def test_a_step_that_is_too_long_ends_at_its_cap_and_continues_exactly(store):
    text = "x" * 25
    _, steps = await walked(store, text, max_step_tokens=10)
    assert [(s.text, s.end_reason) for s in steps] == [("x" * 10, "cap"), ("x" * 10, "cap"), ("x" * 5, "end")]
    assert steps[-1].after.text == text


async def test_the_cap_counts_all_rounds_of_a_step(store):
    _, (step, *_) = await walked(store, "```\na\n\n" + "b" * 50, max_step_tokens=20)
    assert (step.end_reason, step.tokens, step.text) == ("cap", 20, "```\na\n\n" + "b" * 13)


async def test_an_answer_at_a_cut_counts_only_if_complete(store):
    long = "The answer is 421.5 and that is all there is to say about it."
    _, (half, *_) = await walked(store, long, max_step_tokens=len("The answer is 42"))
    assert half.end_reason == "cap"
    _, (at_once,) = await walked(store, "The answer is 4. And so on and on.", name="s", max_step_tokens=24)
    assert (at_once.end_reason, at_once.tokens) == ("answer", 24)


async def test_an_answer_that_an_earlier_step_states_does_not_end_a_later_one(store):
    prefix = Prefix(("The answer is 5.",), "The answer is 5.\n\n", None)
    _, steps = await walked(store, "The answer is 5.\n\nNo, wait.\n\nThe answer is 4.", prefix=prefix)
    assert [(s.text, s.end_reason) for s in steps] == [("No, wait.", "delimiter"), ("The answer is 4.", "answer")]


async def test_another_delimiter(store):
    _, steps = await walked(store, "One.\nTwo.\nThe answer is 4.", delimiter="\n")
    assert [s.text for s in steps] == ["One.", "Two.", "The answer is 4."]


# -- batches, duplicates, empties


async def test_a_frontier_is_one_call(store):
    harness = Harness(store, ScriptedModel(replies("a.\n\nz", "b.\n\nz", "c.\n\nz")))
    sampler = await harness.sampler()
    level = [s.after for s in (await sampler.expand([ROOT], 30)).expansions[0].distinct]
    assert sorted(p.text for p in level) == ["a.\n\n", "b.\n\n", "c.\n\n"]
    made = await sampler.expand(level, 5)
    assert len(harness.model.generate_calls) == 2
    assert [len(r.indices) for r in harness.model.generate_calls[1]] == [5, 5, 5]
    assert made.num_rounds == 1
    assert [len(e.samples) for e in made.expansions] == [5, 5, 5]
    assert harness.spent.model_calls == 4


async def test_siblings_that_say_the_same_are_duplicates_of_the_first(store):
    texts = ("Step 1: two  times.\n\nz", "1. two times.\n\nz", "**Step 7** two times.\n\nz")
    harness, made, expansion = await expanded(store, 12, *texts)
    assert (len({s.text for s in expansion.samples}), len(expansion.distinct)) == (3, 1)
    assert [s.duplicate_of for s in expansion.samples] == [None] + [0] * 11
    assert made.tokens == harness.spent.completion_tokens == sum(s.tokens for s in expansion.samples)


async def test_a_terminal_step_is_no_duplicate_of_an_open_one(store):
    *_, expansion = await expanded(store, 16, "two", "two\n\nz")
    assert sorted((s.text, s.terminal) for s in expansion.distinct) == [("two", False), ("two", True)]


async def test_empty_continuations_are_set_apart_and_counted(store):
    _, made, expansion = await expanded(store, 24, "", "\n\nx", "two.\n\nz")
    assert {s.text for s in expansion.samples} == {"two."}
    assert {(s.tokens, s.end_reason) for s in expansion.empty} == {(1, "end"), (2, "delimiter")}
    assert len(expansion.samples) + len(expansion.empty) == 24
    assert made.tokens == sum(s.tokens for s in (*expansion.samples, *expansion.empty))


async def test_a_failed_sample_takes_no_sibling_along(store):
    *_, expansion = await expanded(store, 3, CHAIN, failing=frozenset({1}))
    assert (expansion.num_failed, [s.index for s in expansion.samples]) == (1, [0, 2])


async def test_an_ended_prefix_and_no_continuations_are_refused(store):
    sampler = await Harness(store, ScriptedModel(replies(CHAIN))).sampler()
    with pytest.raises(UserError, match="prefix 1 has ended"):
        await sampler.expand([ROOT, Prefix(("x",), "x", None, terminal=True)])
    with pytest.raises(UserError, match="must be positive, got 0"):
        await sampler.expand([ROOT], 0)
    assert (await sampler.expand([])).expansions == ()


# -- indices, seeds, resuming

LETTERS = replies(*(f"{a}.\n\n{b}.\n\nThe answer is {i}." for i, a in enumerate("abcdefgh") for b in "uvw"))


async def test_expanding_again_gives_new_samples_and_knows_the_old(store):
    harness = Harness(store, ScriptedModel(LETTERS))
    sampler = await harness.sampler()
    first = (await sampler.expand([ROOT], 4)).expansions[0]
    again = (await sampler.expand([ROOT], 4)).expansions[0]
    assert [s.index for s in (*first.samples, *again.samples)] == list(range(8))
    distinct = [s.text for s in (*first.distinct, *again.distinct)]
    assert len(set(distinct)) == len(distinct)
    at_once = await (await Harness(store, ScriptedModel(LETTERS)).sampler("s")).expand([ROOT], 8)
    assert [s.text for s in at_once.expansions[0].samples] == [s.text for s in (*first.samples, *again.samples)]


async def test_a_repeated_prefix_gets_new_samples(store):
    harness = Harness(store, ScriptedModel(LETTERS))
    made = await (await harness.sampler()).expand([ROOT, ROOT], 3)
    assert [[s.index for s in e.samples] for e in made.expansions] == [[0, 1, 2], [3, 4, 5]]
    assert len(harness.model.generate_calls) == 1
    assert [r.indices for r in harness.model.generate_calls[0]] == [(0, 1, 2, 3, 4, 5)]


async def test_sample_0_of_two_prefixes_uses_two_random_streams(store):
    coin = {"0": 0.5, "1": 0.5}
    harness = Harness(store, ScriptedModel(lambda text: coin))
    sampler = await harness.sampler(max_step_tokens=24)
    prefixes = [Prefix((c,), c, (ord(c),)) for c in "pq"]
    one, other = (await sampler.expand([ROOT, *prefixes], 1)).expansions[1:]
    assert one.samples[0].text != other.samples[0].text
    assert len({r.sampling.seed for r in harness.model.generate_calls[0]}) == 3


async def tree(sampler, levels=3, k=3):
    frontier, leaves = [ROOT], []
    for _ in range(levels):
        made = await sampler.expand(frontier, k)
        leaves += [s for e in made.expansions for s in e.samples]
        frontier = [s.after for e in made.expansions for s in e.distinct if not s.terminal]
        if not frontier:
            break
    return leaves


async def test_a_resumed_run_gets_the_same_tree_and_pays_for_nothing_twice(store):
    harness = Harness(store, ScriptedModel(LETTERS))
    first = await tree(await harness.sampler())
    made, calls = list(harness.model.made), len(harness.model.generate_calls)
    again = await tree(await harness.sampler())
    assert again == first
    assert harness.model.made == made
    assert len(harness.model.generate_calls) == calls
    assert harness.spent.replayed_tokens == harness.spent.completion_tokens > 0


# -- budgets


async def test_an_exhausted_budget_is_reported_not_raised(store):
    harness = Harness(store, ScriptedModel(replies(CHAIN)))
    sampler = await harness.sampler(budget=Budget(tokens=20))
    made = await sampler.expand([ROOT], 4)
    (expansion,) = made.expansions
    assert made.budget_exhausted
    assert made.tokens == harness.spent.completion_tokens == 20
    assert [(s.text, s.end_reason) for s in expansion.samples] == [("Step 1: two.", "delimiter"), ("Step 1", "budget")]
    assert expansion.num_skipped == 2
    assert expansion.distinct == expansion.samples[:1]
    nothing = await sampler.expand([ROOT, ROOT], 2)
    assert (nothing.budget_exhausted, nothing.tokens, [e.num_skipped for e in nothing.expansions]) == (True, 0, [2, 2])
    assert harness.sink.of_type("budget.exhausted")


async def test_a_step_cut_by_its_share_continues_with_the_remaining_tokens(store):
    text = "a long step of forty characters and more.\n\nz"
    harness, made, expansion = await expanded(
        store, 8, "s.\n\nz", text, budget=Budget(tokens=8 * 35), max_step_tokens=100
    )
    long = [s for s in expansion.samples if s.text == text[:-3]]
    assert long
    assert all(s.end_reason == "delimiter" for s in expansion.samples)
    assert not made.budget_exhausted
    assert made.num_rounds > 1
    assert made.tokens == harness.spent.completion_tokens == sum(s.tokens for s in expansion.samples)
    assert {s.token_ids for s in long} == {tuple(map(ord, text[:-1]))}


async def test_tokens_that_are_to_be_kept_are_kept(store):
    harness = Harness(store, ScriptedModel(replies("x" * 200)))
    sampler = await harness.sampler(budget=Budget(tokens=100), max_step_tokens=80)
    made = await sampler.expand([ROOT], 2, keep_tokens=60)
    assert made.budget_exhausted
    assert harness.spent.completion_tokens == 40


@given(st.integers(1, 300), st.integers(1, 6), st.integers(1, 60))
async def test_no_token_budget_is_exceeded_and_every_token_is_counted(tmp_path_factory, tokens, k, cap):
    store = await SqliteStore.open(tmp_path_factory.mktemp("budget") / "runs.sqlite3")
    try:
        harness = Harness(store, ScriptedModel(LETTERS))
        sampler = await harness.sampler(budget=Budget(tokens=tokens), max_step_tokens=cap)
        made = await sampler.expand([ROOT, Prefix(("a.",), "a.\n\n", None)], k)
        every = [s for e in made.expansions for s in (*e.samples, *e.empty)]
        assert made.tokens == harness.spent.completion_tokens == sum(s.tokens for s in every) <= tokens
        assert len(every) + sum(e.num_skipped for e in made.expansions) == 2 * k
        assert made.budget_exhausted or all(s.is_complete for s in every)
        assert all(s.tokens <= cap for s in every)
    finally:
        await store.aclose()
