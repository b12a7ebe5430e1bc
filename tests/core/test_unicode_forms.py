"""Normal forms of texts, with rows of combining marks of any length."""

import unicodedata

import pytest
from reason.core.unicode_forms import MAX_MARKS, normalize

MARKS = "\u0301\u0323"
"""An accent above and a dot below, which the normal forms put first."""


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
def test_texts_are_normalized_as_by_unicode(form):
    text = ("e\u0301 \ufb01 \u2460 e" + MARKS * (MAX_MARKS // 2) + " \uac00") * 100
    assert len(text) > 1000
    assert normalize(form, text) == unicodedata.normalize(form, text)
    assert normalize(form, "e\u0301") == unicodedata.normalize(form, "e\u0301")


def test_a_long_row_of_marks_is_normalized_in_linear_time():
    text = normalize("NFKC", "e" + MARKS * 200_000)  # by `unicodedata` in more than a minute
    assert text.startswith("\u1eb9" + "\u0323" * 14)
    assert len(text) == 400_000
