"""Which parts of a run there are, what they are called, and which of them were put before the model."""

from reason.core.types import Candidate, Document, Evidence, Question, Solution, Step
from reason.verify.attribution import (
    MAX_SEGMENT_WORDS,
    ContextPrompt,
    Segment,
    context_segments,
    samples_of,
    segments_of,
)

QUESTION = Question(
    text="When did the boat leave?",
    choices=("at noon", "at dusk"),
    documents=(Document(name="log.txt", text="The boat left at dusk."), Document(name="log.txt", text="It rained.")),
)
SOLUTION = Solution(
    chosen=0,
    candidates=(
        Candidate(
            text="I look it up.\n\nAt dusk.",
            steps=(Step(text="I look it up.\n\n"), Step(text="At dusk.")),
            citations=(Evidence(source="log.txt", text="The boat left at dusk."),),
        ),
        Candidate(text="At noon.", citations=(Evidence(source="log.txt", text="The boat left at dusk."),)),
    ),
)


def test_the_parts_come_in_the_order_in_which_they_came_to_be():
    found = segments_of(QUESTION, SOLUTION)
    assert [(s.name, s.kind, s.text) for s in found] == [
        ("question", "question", "When did the boat leave?"),
        ("choices", "question", "A) at noon\nB) at dusk"),
        ("document «log.txt»", "document", "The boat left at dusk."),
        ("document «log.txt» (2)", "document", "It rained."),
        ("citation 1 («log.txt»)", "citation", "The boat left at dusk."),
        ("sample 1, step 1", "step", "I look it up.\n\n"),
        ("sample 1, step 2", "step", "At dusk."),
        ("sample 1", "sample", "I look it up.\n\nAt dusk."),
        ("sample 2", "sample", "At noon."),
    ]
    assert [s.name for s in samples_of(found)] == ["sample 1", "sample 2"]


def test_a_candidate_without_steps_is_cut_into_them():
    solution = Solution(chosen=None, candidates=(Candidate(text="First this.\n\nThen that."),))
    found = segments_of(Question(text="Why?"), solution)
    assert [(s.name, s.text) for s in found[1:]] == [
        ("sample 1, step 1", "First this.\n\n"),
        ("sample 1, step 2", "Then that."),
        ("sample 1", "First this.\n\nThen that."),
    ]


def test_a_long_document_is_cut_between_sentences_and_loses_no_word():
    text = " ".join(f"Sentence number {i} has six words." for i in range(140))
    parts = segments_of(Question(text="What?", documents=(Document(name="d", text=text),)))[1:]
    assert len(parts) == 7
    assert all(len(s.text.split()) <= MAX_SEGMENT_WORDS and s.text.endswith(".") and s.text in text for s in parts)
    assert " ".join(s.text for s in parts).split() == text.split()
    assert parts[2].name == "document «d», part 3"
    assert {s.source for s in parts} == {"d"}


def test_given_are_documents_and_citations_that_stand_nowhere_else():
    segments = segments_of(QUESTION, SOLUTION)
    elsewhere = Segment(name="citation 2", kind="citation", text="It snowed.")
    assert [s.name for s in context_segments([*segments, elsewhere])] == [
        "document «log.txt»",
        "document «log.txt» (2)",
        "citation 2",
    ]


def test_the_prompt_shows_the_kept_parts_as_strategies_do():
    shown = ContextPrompt.of(segments_of(QUESTION, SOLUTION))
    (message,) = shown.prompt([True, False]).messages
    assert message.content == (
        "Document «log.txt»:\nThe boat left at dusk.\n\nWhen did the boat leave?\n\nA) at noon\nB) at dusk"
    )
    assert shown.prompt([False] * 2).messages[0].content.startswith("When did")
