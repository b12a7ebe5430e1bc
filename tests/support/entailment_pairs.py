"""Pairs made by hand for the embedded judge; none of them is in a dataset."""

from reason.verify.types import Pair

SWAPPED = [
    Pair(
        "Marta Lindqvist, who studied law in Lund and Paris, is a Swedish judge and a writer of crime novels.",
        "Marta Lindqvist is a judge.",
        "Marta Lindqvist",
    ),
    Pair(
        "The Orvane Bridge is a suspension bridge in Portugal, opened in 1966 and used by 40,000 cars a day.",
        "The Orvane Bridge is a bridge.",
        "Orvane Bridge",
    ),
    Pair(
        "Winter Ledger is a 2011 American drama film directed by Hanna Okafor, and it won two prizes in Venice.",
        "Winter Ledger is a film.",
        "Winter Ledger",
    ),
    Pair(
        "Corvo, the capital of the province of Meria since 1804, has a cathedral, a university and two harbours.",
        "Corvo is the capital of Meria.",
        "Corvo",
    ),
    Pair(
        "Brackett Tools was founded in 1923 in Chicago by two brothers and makes drills, saws and lamps.",
        "Brackett Tools was founded in Chicago.",
        "Brackett Tools",
    ),
    Pair(
        "Tom Arden is an English footballer who played for Leeds from 2001 to 2006 and then for Derby.",
        "Tom Arden is a footballer.",
        "Tom Arden",
    ),
    Pair(
        "The Salt Year is a novel by Lena Moss, published in 1931, that tells of a family of fishers in Galway.",
        "The Salt Year is a novel.",
        "The Salt Year",
    ),
    Pair(
        "Amara Singh is an Indian chemist, known for her work on dyes, who taught at Delhi for thirty years.",
        "Amara Singh is a chemist.",
        "Amara Singh",
    ),
]
"""Texts that support their claims and say much more; the claims say little of the texts."""
