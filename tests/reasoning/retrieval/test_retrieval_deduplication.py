"""Normal forms, hashes and overlaps: what counts as the same, and what must not."""

import hashlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from reason.reasoning.retrieval.deduplication import (
    TextFingerprint,
    containment,
    jaccard,
    normalized_text,
    text_hash,
)
from reason.reasoning.retrieval.words import content_terms

A_TO_H = "a b c d e f g h"


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("Paris is the capital.", "paris  IS the capital"),
        ("ﬁne", "FINE"),
        ("Straße", "STRASSE"),
        ("don't", "Don’t!"),
        ("1,000,000 people", "1000000 people"),
        ("−5 °C", "-5 °C"),
        ("so\u00adft\u200b ware", "soft ware"),
        ("(a) well-known fact", "a well known fact"),
        ("e\u0301te\u0301", "ÉTÉ"),
        ("line\nbreak\tand\u00a0blank", "line break and blank"),
        ("１２３", "123"),
    ],
)
def test_what_means_the_same_has_one_form(left, right):
    assert normalized_text(left) == normalized_text(right)
    assert text_hash(left) == text_hash(right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("3.5 km", "35 km"),
        ("it is -5 degrees", "it is 5 degrees"),
        ("5% of it", "5 of it"),
        ("3/4", "34"),
        ("3/4", "3*4"),
        ("C# is a language", "C is a language"),
        ("C++ is a language", "C is a language"),
        ("2 + 2", "2 2"),
        ("x = y", "x y"),
    ],
)
def test_what_changes_a_fact_stays(left, right):
    assert normalized_text(left) != normalized_text(right)
    assert text_hash(left) != text_hash(right)


def test_the_hash_is_that_of_the_normal_form():
    assert normalized_text(" Hello,\n WORLD! ") == "hello world"
    assert (
        text_hash(" Hello,\n WORLD! ")
        == hashlib.sha256(b"hello world").hexdigest()
        == TextFingerprint.of("hello world").hash
    )
    assert normalized_text("?! … — \u200b\ud800") == ""


@given(st.text())
@example("a\u200b\u0301")
@example("1,,000")
@example("-\u00ad-5")
@example("'\u0345'")
def test_a_normal_form_is_its_own(text):
    form = normalized_text(text)
    assert normalized_text(form) == form
    assert form == " ".join(form.split())
    assert normalized_text(f" «{form}»\n") == form


def test_scripts_without_blanks_have_a_word_for_each_sign():
    assert TextFingerprint.of("東京は日本。Tokyo!").words == {"東", "京", "は", "日", "本", "tokyo"}
    assert jaccard(
        TextFingerprint.of("東京は日本の首都です"), TextFingerprint.of("東京は日本の首都でした")
    ) == pytest.approx(7 / 10)


@pytest.mark.parametrize(
    ("left", "right", "share"),
    [
        (A_TO_H, A_TO_H, 1.0),
        (A_TO_H, "a b c d e f g", 5 / 6),
        (A_TO_H, "a b c d", 2 / 6),
        (A_TO_H, "h g f e d c b a", 0.0),
        ("a b", "b a", 1.0),  # fewer than three words: by words
        ("a b", "a b c d", 2 / 4),
        ("", "", 0.0),
    ],
)
def test_jaccard(left, right, share):
    assert jaccard(TextFingerprint.of(left), TextFingerprint.of(right)) == pytest.approx(share)
    assert jaccard(TextFingerprint.of(right), TextFingerprint.of(left)) == pytest.approx(share)


@pytest.mark.parametrize(
    ("item", "text", "share"),
    [
        ("b c d e", A_TO_H, 1.0),
        (A_TO_H, "b c d e", 2 / 6),
        ("b c d x", A_TO_H, 1 / 2),
        ("a h", A_TO_H, 1.0),
        ("a z", A_TO_H, 0.5),
        ("a b c", "a b", 0.0),
        ("", A_TO_H, 0.0),
    ],
)
def test_containment(item, text, share):
    assert containment(TextFingerprint.of(item), TextFingerprint.of(text)) == pytest.approx(share)


def test_content_words():
    assert content_terms("What is the capital of these Countries?") == {"capital", "country"}
    assert content_terms("glass 7 miss is its") == {"glass", "7", "miss"}
    assert content_terms("what is it?") == frozenset()
