"""Pairs made by hand for the embedded judge; none of them is in a dataset."""

from __future__ import annotations

from reason.verify.types import Pair

REFUTED = [
    Pair(
        "Marta Lindqvist was born on 4 May 1961 in Uppsala, Sweden.",
        "Marta Lindqvist was born in 1974.",
        "Marta Lindqvist",
    ),
    Pair("The Orvane Bridge is a suspension bridge in Portugal.", "The Orvane Bridge is in Norway.", "Orvane Bridge"),
    Pair("The film was released on 12 June 1998.", "The Glass Harbour was released in 2004.", "The Glass Harbour"),
    Pair("Tolmin Works employs 450 people.", "Tolmin Works employs more than 900 people.", "Tolmin Works"),
    Pair("It was directed by Hanna Okafor.", "Winter Ledger was directed by Paul Green.", "Winter Ledger"),
    Pair("Derin Vale is a Scottish footballer.", "Derin Vale is a Canadian footballer.", "Derin Vale"),
    Pair("The town has a population of 8,200.", "Ashmere has a population of under 5,000.", "Ashmere"),
    Pair("The album was not released in Japan.", "The album Blue Tin was released in Japan.", "Blue Tin"),
    Pair("She won the silver medal in 1988.", "Ilse Brandt did not win a medal in 1988.", "Ilse Brandt"),
    Pair("Corvo is the capital of the province of Meria.", "Corvo is not the capital of Meria.", "Corvo"),
    Pair("Peter Hallam died on 3 March 1952.", "Peter Hallam died in 1967.", "Peter Hallam"),
    Pair("The company was founded in 1923 in Chicago.", "Brackett Tools was founded in Boston.", "Brackett Tools"),
    Pair("The series ran for three seasons.", "Night Ferry ran for seven seasons.", "Night Ferry"),
    Pair("The river is 310 kilometres long.", "The Selva is over 400 kilometres long.", "Selva (river)"),
    Pair("Amara Singh is an Indian chemist.", "Amara Singh is a French chemist.", "Amara Singh"),
    Pair("The novel was published in 1931.", "The novel The Salt Year was published in 1990.", "The Salt Year"),
    Pair("The museum opened in October 1975.", "The Vell Museum opened in April 1975.", "Vell Museum"),
    Pair("Kite Road was written by Lena Moss.", "Kite Road was written by Robert Hayes.", "Kite Road"),
    Pair("The stadium holds 21,000 people.", "The Orsay Stadium holds fewer than 10,000 people.", "Orsay Stadium"),
    Pair("He played for Leeds from 2001 to 2006.", "Tom Arden never played for Leeds.", "Tom Arden"),
]
"""Texts that refute their claims."""

SUPPORTED = [
    Pair(
        "Marta Lindqvist was born on 4 May 1961 in Uppsala, Sweden.",
        "Marta Lindqvist was born in 1961.",
        "Marta Lindqvist",
    ),
    Pair("The Orvane Bridge is a suspension bridge in Portugal.", "The Orvane Bridge is in Portugal.", "Orvane Bridge"),
    Pair("The film was released on 12 June 1998.", "The Glass Harbour was released in 1998.", "The Glass Harbour"),
    Pair("Tolmin Works employs 450 people.", "Tolmin Works employs more than 400 people.", "Tolmin Works"),
    Pair("It was directed by Hanna Okafor.", "Winter Ledger was directed by Hanna Okafor.", "Winter Ledger"),
    Pair("Derin Vale is a Scottish footballer.", "Derin Vale is a footballer.", "Derin Vale"),
    Pair("The album was not released in Japan.", "The album Blue Tin was not released in Japan.", "Blue Tin"),
    Pair("The company was founded in 1923 in Chicago.", "Brackett Tools was founded in Chicago.", "Brackett Tools"),
    Pair("The novel was published in 1931.", "The novel The Salt Year was published in 1931.", "The Salt Year"),
    Pair("The stadium holds 21,000 people.", "The Orsay Stadium holds over 20,000 people.", "Orsay Stadium"),
]
"""Texts that support their claims."""

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
