"""Forms of English verbs: base, third person, past and participle, from a table of irregular verbs and spelling rules.

A form is returned only for verbs of the tables, or if the spelling decides it; otherwise None, so that the caller can
keep the sentence as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

# Base, past, participle; the participle is omitted if it equals the past.
_IRREGULAR_FORMS = """
arise arose arisen, awake awoke awoken, bear bore borne, beat beat beaten, become became become, begin began begun,
bend bent, bet bet, bind bound, bite bit bitten, bleed bled, blow blew blown, break broke broken, breed bred,
bring brought, broadcast broadcast, build built, burst burst, buy bought, cast cast, catch caught, choose chose chosen,
cling clung, come came come, cost cost, creep crept, cut cut, deal dealt, dig dug, do did done, draw drew drawn,
drink drank drunk, drive drove driven, eat ate eaten, fall fell fallen, feed fed, feel felt, fight fought, find found,
flee fled, fly flew flown, forbid forbade forbidden, forecast forecast, foresee foresaw foreseen,
forget forgot forgotten, forgive forgave forgiven, freeze froze frozen, get got, give gave given, go went gone,
grind ground, grow grew grown, hang hung, have had, hear heard, hide hid hidden, hit hit, hold held, hurt hurt,
keep kept, know knew known, lay laid, lead led, leave left, lend lent, let let, lie lay lain, lose lost, make made,
mean meant, meet met, overcome overcame overcome, overthrow overthrew overthrown, pay paid, put put, quit quit,
read read, rebuild rebuilt, rewrite rewrote rewritten, ride rode ridden, ring rang rung, rise rose risen, run ran run,
say said, see saw seen, seek sought, sell sold, send sent, set set, shake shook shaken, shed shed, shine shone,
shoot shot, show showed shown, shrink shrank shrunk, shut shut, sing sang sung, sink sank sunk, sit sat, sleep slept,
slide slid, speak spoke spoken, spend spent, spin spun, split split, spread spread, spring sprang sprung,
stand stood, steal stole stolen, stick stuck, sting stung, strike struck, swear swore sworn, sweep swept,
swim swam swum, swing swung, take took taken, teach taught, tear tore torn, tell told, think thought,
throw threw thrown, undergo underwent undergone, understand understood, undertake undertook undertaken,
wake woke woken, wear wore worn, weave wove woven, win won, withdraw withdrew withdrawn, write wrote written
"""
_REGULAR = """
abandon abolish absorb accept access accompany account achieve acquire act adapt add admit adopt advance affect agree
allow announce appear apply appoint approve argue arrange arrest arrive ask assassinate assist attack attend attract
authorise authorize award ban base belong boil border borrow bury call cancel capture care carry cause celebrate
change charge check claim clean climb close coin collaborate collapse collect combine command commission commit
compete complete compose comprise conduct confirm connect conquer consist construct consume contact contain continue
contract contribute control convert cook cover crash create cross crown crush damage dance date decide declare decline
decrease dedicate defeat defend define deliver demolish deny depend depict describe design destroy detect determine
develop die differ direct disappear discharge discover discuss disprove dissolve distribute divide divorce donate
double drop earn edit educate elect eliminate emerge emigrate emit employ enable enact end endorse enforce enjoy enter
equal escape establish estimate evolve examine exceed exclude execute exhibit exist expand expect expel experience
expire explain explode explore export express extend face fail favour favor fill film finance finish fire flood flow
fly follow force form found fuel function fund gain generate govern graduate guarantee guard guide halt handle happen
harvest head heal heat help hire host house identify ignore import improve include increase indicate influence inform
inherit injure inspect inspire install introduce invade invent invest investigate invite involve issue join judge jump
kick kill lack land last launch legalise legalize license like limit link list listen live locate look love maintain
manage manufacture march mark marry match measure melt mention merge migrate mine move murder name need negotiate
nominate note obtain occupy occur offer open operate oppose orbit order organise organize originate own paint
participate pass patent perform permit persuade pick place plan plant play point possess pour practise practice
predict prefer prepare present preserve prevent print proceed produce prohibit promise promote propose protect prove
provide publish pump purchase purify rain raise rank ratify reach react receive recognise recognize recommend record
recover reduce refer reflect refund refuse regain regulate reign reject relate release rely remain remember remove
rename renew renovate rent repair repeal replace report represent require rescue research resign resist respond
restore restrict result retire retain return reveal review rotate ruin rule sail sample save scale score search seem
select separate serve settle share sign smoke snow solve span sponsor stage start state stay stop store stretch study
submit succeed suffer suggest supply support surrender survive suspend swap sweat target taste tax test thank tie
touch tour trace track trade train transfer transform translate transmit transport travel treat trigger try turn tutor
unite unveil use vary view visit vote wait walk want warn wash watch water weigh wipe wish work worry wound
"""
_NOUN_FORMS = """
account act advance award ban base border call care cause change charge check claim coin contract control cover crash
cross crown damage dance date decline design double drop end escape experience export face film finance fire flood
flow force form function fund gain guard guide halt harvest head heat help host house import increase influence issue
judge jump lack land last launch limit link list look love march mark match measure murder name need note offer order
paint pass patent permit place plan plant play point practice present print promise pump purchase rain rank record
reign release rent repair report research result return review rule sample scale score search share sign smoke snow
span sponsor stage start state stay store stretch study supply support surrender swap target taste tax test tie touch
tour trace track trade train transfer transport travel trigger turn tutor use view visit vote wait walk want wash
watch water wish work worry wound bet cast cost cut deal drive fall fight find fly hit lead lie ride ring rise run set
show spread stand split strike swing forecast broadcast build
"""
_NOUNS_TOO = frozenset(_NOUN_FORMS.split())
"""Verbs that are nouns too, so that in "the war affected trade" another word is the verb."""
_DOUBLED_FORMS = """
admit ban commit control crop drop equip excel expel forbid occur omit permit plan prefer quit refer regret rebel skip
spin step stop submit swap swim transfer transmit trap trim wrap
"""
_DOUBLED = frozenset(_DOUBLED_FORMS.split())
_VOWELS = "aeiou"
_ADVERB_FORMS = """
also ever first still now originally officially already always never only then once later actually usually finally
currently really fully initially eventually formally not
"""
ADVERBS = frozenset(_ADVERB_FORMS.split())
"""Adverbs that stand before a verb; so do the words in -ly."""


def _forms() -> dict[str, tuple[str, str]]:
    forms = {}
    for entry in _IRREGULAR_FORMS.split(","):
        base, past, *participle = entry.split()
        forms[base] = (past, participle[0] if participle else past)
    return forms


def _regular_past(base: str) -> str:
    if base.endswith("e"):
        return base + "d"
    if base.endswith("y") and base[-2] not in _VOWELS:
        return base[:-1] + "ied"
    return base + (base[-1] if base in _DOUBLED else "") + "ed"


def third_person(base: str) -> str:
    """The third person singular of the present: "have" becomes "has"."""
    if base in ("have", "be"):
        return {"have": "has", "be": "is"}[base]
    if base.endswith(("s", "x", "z", "ch", "sh")) or base in ("do", "go", "undergo"):
        return base + "es"
    return base[:-1] + "ies" if base.endswith("y") and base[-2:-1] not in _VOWELS else base + "s"


_IRREGULAR = _forms()
BASES = frozenset(_REGULAR.split()) | _IRREGULAR.keys()
"""Base forms of the known verbs."""
UNAMBIGUOUS_BASES = BASES - _NOUNS_TOO
_NO_VERBS = frozenset(["ground", "bit", "bound", "wound", "saw", "shed", "fed", "bore"])
PASTS = frozenset(past for base, (past, _) in _IRREGULAR.items() if past != base) - _NO_VERBS
"""Past tenses of the irregular verbs."""
PARTICIPLES = frozenset(participle for _, participle in _IRREGULAR.values())
"""Past participles of the irregular verbs."""
INTRANSITIVE_BASES = frozenset([
    "begin", "close", "come", "end", "expire", "fail", "fall", "happen", "last", "occur", "open", "rise", "start",
    "stop", "take", "work",
])  # fmt: skip
THIRD_PERSONS = frozenset(third_person(base) for base in UNAMBIGUOUS_BASES)
"""Present tenses of the verbs that are no nouns."""
_PAST_OF = {base: _regular_past(base) for base in BASES} | {base: forms[0] for base, forms in _IRREGULAR.items()}
_BASE_OF_PAST = {past: base for base, past in _PAST_OF.items() if base != "lie"} | {"found": "find"}
_BASE_OF_PARTICIPLE = {_PAST_OF[base]: base for base in BASES - _IRREGULAR.keys()}
_BASE_OF_PARTICIPLE |= {forms[1]: base for base, forms in _IRREGULAR.items()}
_BASE_OF_THIRD = {third_person(base): base for base in BASES}
_OTHER_PARTICIPLES = frozenset(
    ["been", "born", "found", "known", "located", "situated", "named", "called", "based", "gotten"]
)
_NO_PARTICIPLES = frozenset(["shed", "hundred", "sacred", "naked", "wicked"])


def past_tense(base: str) -> str | None:
    """The past tense of a known verb."""
    return _PAST_OF.get(base)


def base_form(word: str) -> str | None:
    """The base form of a finite form of a known verb, in lower case."""
    if word in _BASE_OF_THIRD:
        return _BASE_OF_THIRD[word]
    return _BASE_OF_PAST.get(word, word if word in BASES else None)


def is_participle(word: str) -> bool:
    """Whether a word, in lower case, looks like a past participle."""
    if word in _BASE_OF_PARTICIPLE or word in _OTHER_PARTICIPLES:
        return True
    return len(word) > 4 and word.endswith("ed") and not word.endswith("eed") and word not in _NO_PARTICIPLES


def negated(auxiliary: str) -> str:
    """An auxiliary with "not"."""
    return "cannot" if auxiliary == "can" else f"{auxiliary} not"


def finite_phrase(auxiliary: str, predicate: Sequence[str]) -> str:
    """A predicate with its verb in the form that replaces an auxiliary: "did" and "win the race" give "won the race".

    Args:
        auxiliary: "do", "does" or "did"; it is kept if the verb is not known.
        predicate: The words of the predicate, the verb in its base form, adverbs before it.
    """
    for i, word in enumerate(predicate):
        base = word.lower()
        if base in ADVERBS or base.endswith("ly"):
            continue
        known = {"do": base, "does": third_person(base), "did": past_tense(base)}[auxiliary]
        if known is None or base == "not":
            break
        return " ".join([*predicate[:i], known, *predicate[i + 1 :]])
    return " ".join([auxiliary, *predicate])
