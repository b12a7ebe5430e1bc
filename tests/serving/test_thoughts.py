"""`ThoughtSplitter`: what it splits does not depend on how the text is cut, whatever the family's tags."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reason.serving.profiles.profile import ModelProfile
from reason.serving.thoughts import COMMON_TAGS, ThoughtSplitter, prompt_tags, split_thought

CHANNEL = ModelProfile(thinks="always", thought="channel")
FAMILIES = [ModelProfile(thinks="always", open_tag=opening, close_tag=closing) for opening, closing in COMMON_TAGS]
RAW = "<|channel|>analysis<|message|>so<|end|><|start|>assistant<|channel|>final<|message|>Four.<|return|>"


@pytest.mark.parametrize("profile", FAMILIES, ids=[tags[0] for tags in COMMON_TAGS])
def test_a_thought_between_the_familys_tags_is_no_answer(profile):
    opening, closing = profile.open_tag, profile.close_tag
    for text, opened, expected in (
        (f"{opening}a < b{closing}\n\nFour.\n", False, ("a < b", "Four.\n", False, True)),
        (f"a < b{closing}\n\nFour.\n", True, ("a < b", "Four.\n", False, True)),
        (f"\n {opening}a < b{closing}Four.", False, ("a < b", "Four.", False, True)),  # late
        (f"{opening}a < b", False, ("a < b", "", True, True)),  # cut
        ("Four <b>.", False, ("", "Four <b>.", False, False)),
    ):
        split = split_thought(text, profile, opened=opened)
        assert (split.thought.strip(), split.answer, split.is_thinking, split.has_thought) == expected


@pytest.mark.parametrize(
    ("text", "thought", "answer"),
    [
        (RAW, "so", "Four."),
        ("analysissoassistantfinalFour.", "so", "Four."),
        ("<|channel|>final<|message|>Four.<|return|>", "", "Four."),
        ("<|channel|>analysis<|message|>so", "so", ""),
        ("The analysis is short.", "", "The analysis is short."),
    ],
)
def test_harmonys_channels_are_split_raw_and_without_special_tokens(text, thought, answer):
    split = split_thought(text, CHANNEL)
    assert (split.thought, split.answer) == (thought, answer)


def test_a_closing_tag_ends_a_thought_that_the_prompt_may_have_opened():
    profile = FAMILIES[0]
    unknown = split_thought("so</think>Four.", profile)
    assert (unknown.thought, unknown.answer) == ("so", "Four.")
    known = ThoughtSplitter(profile, is_known=True)
    assert known.push("so</think>Four.").answer + known.finish().answer == "so</think>Four."
    assert not known.has_thought


PARTS = st.sampled_from(
    [
        *(tag.strip() for tags in COMMON_TAGS for tag in tags),
        *("<|channel|>", "analysis", "final", "<|message|>", "<|end|>", "<|start|>", "assistant", "<|return|>"),
        *("so", " ", "\n\n", "<", "think", "</", ">", "[", "Four."),
    ]
)


@given(
    st.lists(PARTS, max_size=10).map("".join),
    st.lists(st.integers(1, 9), min_size=1, max_size=5),
    st.sampled_from([*FAMILIES, CHANNEL]),
    st.booleans(),
)
@settings(max_examples=400)
def test_cuts_do_not_matter(text, sizes, profile, opened):
    complete = ThoughtSplitter(profile, opened=opened, is_known=True)
    complete.push(text)
    complete.finish()
    pieces = ThoughtSplitter(profile, opened=opened, is_known=True)
    thought = answer = ""
    at = 0
    while at < len(text):
        size = sizes[at % len(sizes)]
        new = pieces.push(text[at : at + size])
        thought, answer, at = thought + new.thought, answer + new.answer, at + size
    new = pieces.finish()
    assert (pieces.thought, pieces.answer) == (complete.thought, complete.answer)
    assert (pieces.is_thinking, pieces.has_thought) == (complete.is_thinking, complete.has_thought)
    if profile.thought != "channel":  # harmony's answer may have a late tag
        assert (thought + new.thought, answer + new.answer) == (complete.thought, complete.answer)


def test_an_empty_thought_is_written_as_the_template_does():
    shown = ModelProfile(thinks="default", open_tag="<think>\n", close_tag="\n</think>\n\n")
    assert prompt_tags(shown) == ("<think>\n", "\n</think>\n\n", "<think>\n\n</think>\n\n")
    always = ModelProfile(thinks="always", open_tag="<think>\n", close_tag="</think>")
    assert prompt_tags(always)[2] == "<think>\n\n</think>\n\n"
    off = {"none": {"chat_template_kwargs": {"thinking": False}}}
    bare = ModelProfile(thinks="opt-in", efforts=off)
    assert prompt_tags(bare) == ("<think>", "</think>", "<think></think>")
    assert prompt_tags(CHANNEL)[2] == "<|channel|>final<|message|>"
