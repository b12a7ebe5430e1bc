"""Pieces of text that, repeated, are hard for parsers, regular expressions and Unicode."""

from __future__ import annotations

PATTERNS = (
    *("a", "0", "9", " ", "\n", "\t", "\r", ".", ",", "-", "=", "%", "^", "_", "/", "\\", "$", "<", "|", "*", "#"),
    *("(", "[", "{", ")", "]", "}", '"', "'", "`", "<think>", "</think>", "<tool_call>", "</", "\\boxed{", "\\frac{"),
    *("1,", "1.", "1/", "1 ", "1e9", "(1+", "x^2+", "2^", "a b ", "A. ", "(A) ", "- a\n", "* ", "# ", "| a ", "\n\n"),
    *(
        "Step 1: ",
        "The answer is ",
        "Answer: ",
        "answer",
        "Mr. ",
        "e.g. ",
        "U.S. ",
        "...",
        "?!",
        "In 1932, ",
        "no, not ",
    ),
    *("http://a.", "a@b.", "[1]", "[1] ", "[^1]: ", "```", "```json\n", '{"a":', '{"a":[', "[[", '","', "\\u0041"),
    *(
        "é",
        "e\u0301",
        "\u0301",
        "\u0301\u0323",
        "ß",
        "İ",
        "\u00a0",
        "\u2028",
        "\u200b",
        "\ufeff",
        "\u202e",
        "\ufdfa",
        "１",
        "½",
        "。",
    ),
    *("\U0001f468\u200d", "\U00010000", "\x00", "\x1b[31m", "&lt;", "%s", "{0}", "../", "' OR 1=1 --", "<script>"),
    *("The bridge was opened in 1932. ", "It is 300 m long, and 3 * 4 = 12. ", "Bern is the capital of Switzerland. "),
)
