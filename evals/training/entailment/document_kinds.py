"""Kinds of synthetic documents: what each has to state, and in which words."""

# ruff: noqa: E501 - sentences are one line each

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final

from .document_facts import (
    COLOURS,
    COUNTRY_NAMES,
    LANGUAGES,
    MATERIALS,
    MONTHS,
    WEEKDAYS,
    Choice,
    Clock,
    Count,
    Date,
    Document,
    Fact,
    Measure,
    Money,
    Name,
    Percent,
    Person,
    coined,
    company,
    company_name,
    place,
    place_name,
    school_name,
    surname,
    word,
)

_IT: Final = ("it", "its")
_NO_PRONOUN: Final = ("", "")


def _pronoun(person: Person) -> tuple[str, str]:
    return ("she", "her") if person.is_female else ("he", "his")


def _years(rng: random.Random, first: int, last: int, count: int) -> list[int]:
    """Years in order, at least four apart."""
    step = (last - first) // count
    return [first + i * step + rng.randint(0, max(0, step - 4)) for i in range(count)]


def _dated(year: int, rng: random.Random) -> Date:
    return Date.sample(rng, year, year)


def _round(rng: random.Random, low: int, high: int, unit: int = 1) -> int:
    return rng.randint(max(1, low // unit), max(1, high // unit)) * unit


def _choice(rng: random.Random, key: str, states: Sequence[str], claims: Sequence[tuple[str, str]]) -> Choice:
    return Choice(key, rng.randrange(len(states)), tuple(states), tuple(claims))


def _persons(rng: random.Random, count: int) -> list[Person]:
    """Persons with different surnames."""
    people: list[Person] = []
    while len(people) < count:
        person = Person.sample(rng)
        if all(p.last != person.last and p.first != person.first for p in people):
            people.append(person)
    return people


def _origin(key: str, person: Person, role: str, rng: random.Random) -> Fact:
    """Where a person comes from, for claims that name them by their role."""
    n = person.name
    return Fact(
        f"origin {key}",
        place_name(rng),
        f"{n} was born in $v.|{n} comes from $v.|{n} grew up in $v.",
        f"{n} [comes/does not come] from $v.",
        via=key,
        via_claims=f"{role} [comes/does not come] from $v.|{role} [is/is not] from $v.",
    )


def _career(key: str, person: Person, role: str, rng: random.Random) -> Fact:
    """What a person did before, for claims that name them by their role."""
    n = person.name
    return Fact(
        f"career {key}",
        company_name(rng),
        f"Immediately before, {n} had worked for $v.|{n} came to the post directly from $v.|The previous employer of {n} was $v.",
        f"{n} [came/did not come] directly from $v.|The previous employer of {n} [was/was not] $v.",
        via=key,
        via_claims=f"{role} [came/did not come] directly from $v.|The previous employer of {role[0].lower() + role[1:]} [was/was not] $v.",
    )


# fmt: off
_ASIDES: Final = (
    "The neighbouring chapel was not affected by the fire.",
    "No records survive from the first years.",
    "The old quarry across the river has never reopened.",
    "Local newspapers did not report on it at the time.",
    "The weather that week was mild.",
    "A second proposal was not pursued.",
    "The nearby station has no step-free access.",
    "Nobody was hurt when a tree fell in the yard next door.",
    "The photographs were not published.",
    "Similar projects elsewhere have been less fortunate.",
    "Not every visitor notices the small plaque by the entrance.",
    "The former tollkeeper's cottage is not part of the site.",
)
_OFFICE_ASIDES: Final = (
    "Questions should be sent to the help desk.",
    "This page does not replace the full text.",
    "Nothing here affects rights under the law.",
    "The previous version is no longer valid.",
    "Forms that are not signed will be returned.",
    "Please do not reply to the automatic message.",
    "Managers have been informed.",
)


def _venue(rng: random.Random) -> list[Fact | Choice]:
    """What places that can be visited have in common."""
    day, other = rng.sample(WEEKDAYS, 2)
    all_facts: list[Fact | Choice] = [
        _choice(rng, "closed day", [
            f"$S is closed on {day}s.|$S does not open on {day}s.|There is no admission on {day}s.",
            f"$S is open every day, {day}s included.|$S opens on {day}s too.",
        ], [
            (f"$S is closed on {day}s.", "SR"), (f"$S is open on {day}s.", "RS"),
            (f"Visitors cannot visit $S on {day}s.", "SR"), (f"$S can be visited on a {day}.", "RS"),
        ]),
        _choice(rng, "photos", [
            "Photography is allowed without flash.|Visitors may take photographs if they do not use a flash.",
            "Photography is not allowed anywhere.|Taking photographs is forbidden.",
            "Photography, with or without flash, is welcome.",
        ], [
            ("Visitors may take photographs.|Taking photographs is permitted.", "SRS"),
            ("Taking pictures is prohibited.|Visitors are not allowed to take photographs.", "RSR"),
            ("Flash photography is allowed.", "RRS"), ("Visitors must not use a flash.", "SSR"),
        ]),
        _choice(rng, "dogs", [
            "Dogs are welcome if they are kept on a lead.", "Dogs are not admitted, except for assistance dogs.",
            "No animals are admitted.",
        ], [
            ("Visitors can bring a dog on a lead.", "SRR"), ("Pet dogs are not allowed in.", "RSS"),
            ("Dogs may run free.", "RRR"), ("All animals are excluded.", "RRS"),
        ]),
        _choice(rng, "parking", [
            "Parking is free for visitors.|Visitors park free of charge.", "There is a charge for parking.|Visitors have to pay for parking.",
        ], [
            ("Parking costs nothing.|Visitors do not have to pay for parking.", "SR"), ("Visitors pay to park.", "RS"),
            ("No fee is charged for parking.", "SR"), ("Parking is not free.", "RS"),
        ]),
        _choice(rng, "lift", [
            "Wheelchair users can reach all floors by lift.|All floors are accessible to wheelchair users by lift.",
            "Only the ground floor is accessible to wheelchair users.|Wheelchair users can reach the ground floor only.",
            "The upper floors cannot be reached by wheelchair.",
        ], [
            ("Wheelchair users can reach all floors.", "SRR"),
            ("Wheelchair users cannot get to the upper floors.", "RSS"), ("At least one floor is out of reach for wheelchair users.", "RSS"), ("No floor is accessible to wheelchair users.", "RRN"),
        ]),
        _choice(rng, "children", [
            f"Children under {(age := rng.choice((5, 6, 10, 12, 14, 16)))} get in free.|Admission is free for children under {age}.",
            f"Children under {age} pay half price.|There is a reduced price, half of the full one, for children under {age}.",
            f"Children under {age} are not admitted.",
        ], [
            (f"A child of {age - 2} gets in free of charge.", "SRR"), (f"Children under {age} pay nothing.", "SRR"),
            (f"A child of {age - 2} has to pay the full price.", "RRR"), (f"Children under {age} pay half.", "RSR"),
            (f"Children under {age} are allowed in.", "SSR"), (f"Children under {age} cannot enter.", "RRS"),
        ]),
        Fact("hours", Clock.sample(rng, 7, 12), f"The doors open at $v.|$S opens at $v from {other} on.", "The doors [open/do not open] at $v.|$S [opens/does not open] at $v."),
        Fact("close", Clock.sample(rng, 16, 22), "Last admission is at $v.|Visitors are admitted until $v.", "The last visitors [are/are not] admitted at $v.|Last admission [is/is not] at $v."),
        Fact("price", Money(_round(rng, 3, 40), rng.choice("£$€")), "Admission costs $v.|A ticket costs $v for adults.|Adults pay $v.", "[An adult pays/Adults do not pay] $v to get in.|The price of an adult ticket [is/is not] $v.", "the price of an adult ticket", True),
        Fact("guide price", Money(_round(rng, 3, 60), rng.choice("£$€")), "A guided tour costs $v.|Guided tours are offered for $v.", "A guided tour [costs/does not cost] $v.|The price of a guided tour [is/is not] $v.", "the price of a guided tour", True),
    ]
    return rng.sample(all_facts, 5)


def _plans(rng: random.Random, what: str, verb: str, done: str) -> Choice:
    """Something that has been done, is planned, may be done or has been given up."""
    year = rng.randint(2026, 2032)
    return _choice(rng, f"plan {what}", [
        f"{what} has been {done}.|{what} was {done} last year.",
        f"{what} will be {done} in {year}.|There are firm plans to {verb} {what} in {year}.",
        f"{what} may be {done} in {year}, but no decision has been made.|Whether to {verb} {what} is still being discussed; nothing has been decided.",
        f"The plan to {verb} {what} has been dropped.|{what} will not be {done}.",
    ], [
        (f"{what} has already been {done}.", "SRRR"), (f"{what} has not been {done} yet.", "RSSS"),
        (f"It is certain that {what} will be {done}.", "NSRR"), (f"{what} will be {done}.", "NSNR"), (f"{what} might be {done}.", "NNSR"),
        (f"The plan to {verb} {what} was given up.", "RRRS"), (f"There is no longer a plan to {verb} {what}.", "NRRS"),
    ])


def _cause(rng: random.Random, key: str, event: str, claim: str, causes: Sequence[str]) -> Choice:
    """An event with one of two causes, or with none."""
    a, b = rng.sample(list(causes), 2)
    lower = claim[0].lower() + claim[1:]
    return _choice(rng, key, [f"{event} because of {a}.|{event} owing to {a}.", f"{event} because of {b}.|{event} as a result of {b}.", f"{event}.|{event}, for reasons that are not recorded."], [
        (f"{claim} because of {a}.|The reason why {lower} was {a}.", "SRN"),
        (f"{claim} because of {b}.|The reason why {lower} was {b}.", "RSN"),
        (f"{claim}.", "SSS"),
    ])


def _bridge(rng: random.Random) -> Document:
    name = f"the {place(rng)} Bridge"
    architect, engineer, mayor = _persons(rng, 3)
    begun, opened, widened = _years(rng, 1840, 1980, 3)
    return Document("bridge", name[4:], name, ("the bridge", "the crossing", "the structure"), _IT, (
        Fact("river", Name(f"the {place(rng)}", "river", lambda r: f"the {place(r)}"), "$S crosses $v.|$S spans $v, a river.|$S carries traffic over $v.", "$S [crosses/does not cross] $v.|$v [is/is not] crossed by $S."),
        Fact("begun", _dated(begun, rng), "Construction began $v.|Work on $S started $v.", "Construction of $S [began/did not begin] $v.|The building work [started/did not start] $v."),
        Fact("opened", _dated(opened, rng), "$S opened $v.|$S was opened to traffic $v.|$S was inaugurated $v.", "$S [was/was not] opened $v.|$S [opened/did not open] $v.|The opening of $S [took/did not take] place $v."),
        Fact("designer", architect, "$S was designed by the architect $v.|The architect $v designed $S.|The design of $S is the work of $v.", "$v [designed/did not design] $S.|$S [was/was not] designed by $v.|The architect of $S [was/was not] $v."),
        Fact("engineer", engineer, "$v was the chief engineer.|The works were directed by $v as chief engineer.", "The chief engineer [was/was not] $v.|$v [was/was not] the chief engineer."),
        Fact("mayor", mayor, "$v, then mayor, cut the ribbon at the opening.|The opening ceremony was led by the mayor, $v.", "The mayor at the opening [was/was not] $v.|$v [led/did not lead] the opening ceremony."),
        Fact("length", Measure(_round(rng, 60, 3000, 5), "length"), "$S is $v long.|$S has a length of $v.|From bank to bank $S measures $v.", "$S [is/is not] $v long.|The length of $S [is/is not] $v.", "the length of $S", True),
        Fact("height", Measure(_round(rng, 8, 90), "length"), "The deck lies $v above the water.|The roadway is $v above the water.", "The deck [is/is not] $v above the water.|The height of the deck above the water [is/is not] $v.", "the height of the deck above the water", True),
        Fact("material", word(MATERIALS, "material", rng), "$S is built of $v.|$S was made of $v.|The main arches are of $v.", "The main material of $S [is/is not] $v.|$S [is/is not] built of $v."),
        Fact("cost", Money(_round(rng, 20, 900) * rng.choice((100, 1000)), "£"), "The works cost $v.|Building $S cost $v.|The bill came to $v.", "The construction of $S [cost/did not cost] $v.|The building cost of $S [was/was not] $v.", "", True),
        Fact("widened", _dated(widened, rng), "$S was widened $v.|A third lane was added $v, which made $S wider.", "$S [was/was not] widened $v.|The widening of $S [happened/did not happen] $v."),
        Fact("spans", Count(rng.randint(2, 21)), "$S has $v spans.|$S consists of $v spans.", "$S [has/does not have] $v spans.|The number of spans [is/is not] $v.", "the number of spans", True),
        _choice(rng, "toll", ["Drivers pay a toll.|A toll is charged for vehicles.", "There is no toll for vehicles.|Drivers cross free of charge.", "The toll for vehicles was abolished years ago."], [
            ("Drivers have to pay a toll.", "SRR"), ("Drivers can cross without paying.", "RSS"), ("Vehicles pay no toll.", "RSS")]),
        _choice(rng, "flood", ["$S was damaged in the great flood.|The great flood damaged $S.", "$S was not damaged in the great flood.|$S survived the great flood without damage.", "$S was destroyed in the great flood and rebuilt.|The great flood swept $S away; it was rebuilt."], [
            ("$S did not come through the great flood unharmed.", "SRS"), ("The great flood left $S undamaged.", "RSR"), ("$S had to be rebuilt after the great flood.", "NRS"), ("The flood did no damage to $S.", "RSR")]),
        _choice(rng, "lorries", ["Lorries are banned from $S.|No lorries are allowed on $S.", "Lorries may use $S only at night.|At night, and only then, lorries are allowed on $S.", "Lorries may use $S at any time.|There is no restriction on lorries."], [
            ("Lorries are allowed on $S in the daytime.", "RRS"), ("Lorries may use $S at night.", "RSS"), ("Lorries are never allowed on $S.", "SRR"), ("Lorries must not use $S in the daytime.", "SSR"), ("Lorries can use $S without any restriction.", "RRS")]),
        _origin("designer", architect, "The designer of $S", rng), _origin("engineer", engineer, "The chief engineer", rng), _career("designer", architect, "The architect of $S", rng),
        _plans(rng, "the deck", "replace", "replaced"),
        Fact("cars", Count(_round(rng, 500, 60000, 100)), "About $v vehicles use $S every day.|Every day roughly $v vehicles cross.", "The number of vehicles a day [is/is not] roughly $v."),
    ), _ASIDES)


def _building(rng: random.Random) -> Document:
    what = rng.choice(("Town Hall", "Theatre", "Library", "Lighthouse", "Mill", "Station", "Castle", "Observatory", "Market Hall"))
    name = f"the {place(rng)} {what}"
    architect, owner, restorer = _persons(rng, 3)
    done, restored = _years(rng, 1780, 2010, 2)
    a, b = rng.sample(("the east wing", "the west wing", "the tower", "the north gallery", "the roof", "the great hall"), 2)
    return Document("building", name[4:], name, ("the building", f"the {what.lower()}"), _IT, (
        Fact("done", _dated(done, rng), "$S was completed $v.|$S was finished $v.|Building work ended $v.", "$S [was/was not] completed $v.|The building of $S [was/was not] finished $v."),
        Fact("restored", _dated(restored, rng), "$S was restored $v.|A restoration of $S was carried out $v.", "$S [was/was not] restored $v.|The restoration of $S [took/did not take] place $v."),
        Fact("architect", architect, "$S was designed by $v.|Its plans were drawn by $v.|$v was the architect.", "$S [was/was not] designed by $v.|$v [was/was not] the architect of $S.|$v [drew/did not draw] the plans of $S."),
        Fact("owner", owner, "$S belongs to $v.|$S is owned by $v.", "$v [owns/does not own] $S.|$S [is/is not] the property of $v.|The owner of $S [is/is not] $v."),
        Fact("restorer", restorer, "The restoration was directed by $v.|$v directed the restoration.", "The restoration [was/was not] directed by $v.|$v [directed/did not direct] the restoration of $S."),
        Fact("height", Measure(_round(rng, 9, 120), "length"), "$S is $v high.|$S rises to a height of $v.|$S is $v tall.", "$S [is/is not] $v high.|The height of $S [is/is not] $v.", "the height of $S", True),
        Fact("width", Measure(_round(rng, 9, 160), "length"), "The front is $v wide.|The facade has a width of $v.", "The facade [is/is not] $v wide.|The front of $S [is/is not] $v wide.", "the width of the facade", True),
        Fact("material", word(MATERIALS, "material", rng), "The walls are of $v.|Its walls were built of $v.", "The walls [are/are not] made of $v.|$v [was/was not] used for the walls."),
        Fact("rooms", Count(rng.randint(3, 140)), "$S has $v rooms.|There are $v rooms.", "$S [has/does not have] $v rooms.|The number of rooms [is/is not] $v.", "the number of rooms", True),
        Fact("seats", Count(_round(rng, 40, 2400, 10)), "The main hall seats $v people.|There are $v seats in the main hall.", "The main hall [has/does not have] $v seats.|The main hall [seats/does not seat] $v people.", "the number of seats in the main hall", True),
        Fact("cost", Money(_round(rng, 20, 900) * 1000, rng.choice("£$€")), "The restoration cost $v.|$v was spent on the restoration.", "Restoring $S [cost/did not cost] $v.|The cost of the restoration [was/was not] $v.", "", True),
        _choice(rng, "fire", [f"A fire destroyed {a}, but {b} was spared.|In a fire {a} was lost; {b} was not harmed.", f"A fire destroyed {b}, but {a} was spared.|In a fire {b} was lost, whereas {a} survived.", f"A fire destroyed both {a} and {b}.|Both {a} and {b} were lost in a fire."], [
            (f"A fire destroyed {a}.", "SRS"), (f"{b} was lost in a fire.", "RSS"), (f"{a} survived the fire.", "RSR"), (f"{b} was not destroyed by the fire.", "SRR"), (f"Neither {a} nor {b} was lost in the fire.", "RRR"), (f"The fire destroyed {a} as well as {b}.", "RRS")]),
        _cause(rng, "closed", "$S was closed for a year", "$S was closed for a year", ("a lack of money", "structural damage", "an epidemic", "a dispute over its ownership", "asbestos in the ceilings")),
        _choice(rng, "public", ["Guided tours are held on weekends only.|Tours take place only at weekends.", "Guided tours are held every day.|There are tours each day.", "No guided tours are offered.|There are no tours."], [
            ("Tours can be taken on a Wednesday.", "RSR"), ("There are tours at the weekend.", "SSR"), ("Guided tours are not offered.", "RRS"), ("Tours are given daily.", "RSR"), ("There are no tours on weekdays.", "SRS")]),
        _origin("architect", architect, "The architect of $S", rng), _origin("owner", owner, "The owner of $S", rng), _career("restorer", restorer, "The director of the restoration", rng),
        _plans(rng, "the courtyard", "pave", "paved"),
    ), _ASIDES)


def _biography(rng: random.Random) -> Document:
    me, teacher, rival, spouse = _persons(rng, 4)
    born = rng.randint(1820, 1985)
    field = rng.choice(("botanist", "composer", "painter", "chemist", "explorer", "engineer", "novelist", "surgeon", "physicist", "photographer", "geologist"))
    a, b = rng.sample(("the Halden Medal", "the Corvin Prize", "the Meridian Award", "the Tessel Prize", "the Golden Compass", "the Ardent Medal"), 2)
    return Document("biography", me.name, me.name, (me.last, f"the {field}"), _pronoun(me), (
        Fact("born", _dated(born, rng), "$S was born $v.|$S came into the world $v.", "$S [was/was not] born $v.|$P birth [was/was not] $v."),
        Fact("birthplace", place_name(rng), "$P birthplace is $v.|$S was a native of $v.", "$S [was/was not] born in $v.|$v [is/is not] where $S was born.") ,
        Fact("home", place_name(rng), "$S spent most of $P life in $v.|For most of $P life $S lived in $v.", "$S [lived/did not live] in $v for most of $P life.|Most of the life of $S [was/was not] spent in $v."),
        Fact("studied", school_name(rng), "$S took $P degree at $v.|$P degree is from $v.", "$S [took/did not take] $P degree at $v.|The degree of $S [is/is not] from $v."),
        Fact("taught", school_name(rng), "Later $S held a chair at $v until retirement.|$S was a professor at $v until $P retirement.", "The chair of $S [was/was not] at $v.|$S [retired/did not retire] as a professor of $v."),
        Fact("teacher", teacher, "$S had a single teacher, $v.|The only teacher of $S was $v.", "$v [was/was not] the teacher of $S.|$S [was/was not] taught by $v."),
        Fact("spouse", spouse, "$S married once: $v.|$P only marriage was to $v.", "$S [was/was not] married to $v.|$v [was/was not] married to $S."),
        Fact("children", Count(rng.randint(1, 9)), "$S had $v children.", "$S [had/did not have] $v children.|The number of children of $S [was/was not] $v."),
        Fact("first", Date(born + rng.randint(24, 30)), "$S published $P first major work $v.|$P first major work appeared $v.", "The first major work of $S [appeared/did not appear] $v.|$S [published/did not publish] a first major work $v."),
        Fact("prize", Date(born + rng.randint(36, 60)), f"$S received {a} $v.|{a[0].upper() + a[1:]} was awarded to $S $v.", f"$S [was/was not] given {a} $v.|$S [won/did not win] {a} $v."),
        Fact("moved", word(COUNTRY_NAMES, "country", rng), "As a young adult $S moved to $v.|$S emigrated to $v at a young age.", "$S [emigrated/did not emigrate] to $v.|$S [moved/did not move] to $v."),
        _choice(rng, "second prize", [f"$S was nominated for {b} but did not win it.|Although nominated, $S never won {b}.", f"$S won {b} twice.|{b[0].upper() + b[1:]} was awarded to $S on two occasions.", f"$S declined {b}.|{b[0].upper() + b[1:]} was offered to $S, who refused it."], [
            (f"$S was awarded {b} two times.", "RSR"), (f"$S turned down {b}.", "RRS"), (f"$S accepted {b}.", "RSR"), (f"$S was nominated for {b}.", "SNN")]),
        _choice(rng, "rival", [f"$S defeated {rival.name} in the election to the academy.|In the election to the academy, {rival.name} lost to $S.", f"{rival.name} defeated $S in the election to the academy.|In the election to the academy, $S lost to {rival.name}."], [
            (f"$S beat {rival.name} in the election to the academy.", "SR"), (f"{rival.name} was defeated by $S.", "SR"), (f"{rival.name} beat $S in the election to the academy.", "RS"), (f"$S was defeated by {rival.name} in the election.", "RS")]),
        _choice(rng, "siblings", ["$S was the eldest of four siblings.", "$S was the youngest of four siblings.", "$S was an only child."], [
            ("$S was younger than $P siblings.", "RSR"), ("$S was the eldest child.", "SRN"), ("$S had brothers or sisters.", "SSR"), ("$S had no siblings.", "RRS")]),
        _choice(rng, "memoir", ["$S never wrote a memoir.|No memoir by $S exists, for none was written.", "$S wrote and published a memoir in old age.|In old age $S wrote and published a memoir.", "$S began a memoir but did not finish it.|A memoir by $S was left unfinished."], [
            ("$S completed a memoir.", "RSR"), ("$S did not write any memoir.", "SRR"), ("The memoir of $S remained unfinished.", "RNS"), ("$S started to write a memoir.", "RSS")]),
        _choice(rng, "job", [f"Before becoming a {field}, $S worked as a clerk.", f"Before becoming a {field}, $S worked as a sailor.", f"$S never had a profession other than that of {field}."] if field[0] not in "aeiou" else [f"Before becoming an {field}, $S worked as a clerk.", f"Before becoming an {field}, $S worked as a sailor.", f"$S never had a profession other than that of {field}."], [
            ("$S once worked as a clerk.", "SNR"), ("$S was a sailor at one time.", "NSR"), ("$S never did any other work.", "RRS")]),
        _origin("teacher", teacher, "The teacher of $S", rng), _origin("spouse", spouse, "The person whom $S married", rng), _career("teacher", teacher, "The teacher of $S", rng),
    ), ("Critics did not agree about the late work.", "No portrait from that time is known.", "The family archive was not opened until recently.", "A street was later renamed, though not without protest."))


def _company_profile(rng: random.Random) -> Document:
    name = company(rng)
    founder, head, finance = _persons(rng, 3)
    other = company(rng)
    founded = rng.randint(1890, 2015)
    product = rng.choice(("pumps", "bicycles", "tea", "hearing aids", "paper", "drones", "glass", "cheese", "sensors", "toys", "sails", "tractors"))
    return Document("company profile", name, name, ("the company", "the firm", "the business"), _IT, (
        Fact("founded", _dated(founded, rng), "$S was founded $v.|$S was established $v.|$S has existed since it was set up $v.", "$S [was/was not] founded $v.|The foundation of $S [took/did not take] place $v.|$S [was/was not] set up $v."),
        Fact("founder", founder, "$v founded $S.|The founder is $v.|$S was started by $v.", "$S [was/was not] founded by $v.|$v [is/is not] the founder of $S.|$v [started/did not start] $S."),
        Fact("head", head, "$v is the chief executive.|Its chief executive is $v.|$S is led by $v as chief executive.", "$v [is/is not] the chief executive of $S.|$S [is/is not] run by $v.|The chief executive of $S [is/is not] $v."),
        Fact("finance", finance, "$v is in charge of finances.|The finance director is $v.", "The finance director [is/is not] $v.|$v [is/is not] the finance director of $S."),
        Fact("seat", place_name(rng), "$S has its headquarters in $v.|The head office is in $v.|$S is based in $v.", "$S [is/is not] based in $v.|The headquarters of $S [are/are not] in $v."),
        Fact("plant", place_name(rng), "Its main factory is in $v.|$S produces at a factory in $v.", "The factory [is/is not] in $v.|$S [has/does not have] its factory in $v."),
        Fact("staff", Count(_round(rng, 12, 9000, 1) if rng.random() < 0.4 else _round(rng, 50, 9000, 50)), "$S employs $v people.|$S has $v employees.|Its staff numbers $v.", "$S [has/does not have] $v employees.|$S [employs/does not employ] $v people.", "the number of employees", True),
        Fact("shops", Count(rng.randint(3, 400)), "$S runs $v shops.|There are $v shops.", "$S [runs/does not run] $v shops.|The number of shops [is/is not] $v.", "the number of shops", True),
        Fact("revenue", Money(_round(rng, 2, 900) * 1000000, rng.choice("£$€")), "Last year's revenue was $v.|Revenue reached $v last year.|$S turned over $v last year.", "Last year $S [had/did not have] a revenue of $v.|The revenue of $S last year [was/was not] $v.", "last year's revenue", True),
        Fact("share", Percent(rng.randint(3, 70)), "Exports account for $v of sales.|$v of sales are exports.", "Exports [make/do not make] up $v of sales.|The share of exports in sales [is/is not] $v.", "the share of exports", True),
        Fact("growth", Percent(rng.randint(2, 40)), "Energy costs rose by $v.|The bill for energy grew by $v.", "Energy costs [went/did not go] up by $v.|The rise in energy costs [was/was not] $v.", "the rise in energy costs", True),
        Fact("product", Name(product, "product", lambda r: r.choice(("pumps", "bicycles", "tea", "hearing aids", "paper", "drones", "glass", "cheese", "sensors", "toys", "sails", "tractors"))), "$S makes $v and nothing else.|The only products of $S are $v.|$S manufactures only $v.", "$S [makes/does not make] $v.|$S [produces/does not produce] $v."),
        _choice(rng, "deal", [f"$S acquired {other} in a cash deal.|{other} was taken over by $S.", f"{other} acquired $S in a cash deal.|$S was taken over by {other}.", f"$S tried to acquire {other}, but the deal fell through.|An attempt by $S to buy {other} failed."], [
            (f"$S bought {other}.", "SRR"), (f"{other} bought $S.", "RSN"), (f"{other} was acquired by $S.", "SRR"), (f"$S was acquired by {other}.", "RSN"), (f"$S failed to take over {other}.", "RNS")]),
        _choice(rng, "sales", ["Sales rose last year.|Sales were higher last year than the year before.", "Sales fell last year.|Last year sales were lower than the year before.", "Sales did not change last year.|Last year sales stayed the same."], [
            ("Sales increased last year.", "SRR"), ("Sales declined last year.", "RSR"), ("Sales were flat last year.", "RRS"), ("Sales did not grow last year.", "RSS"), ("Sales did not fall last year.", "SRS")]),
        _choice(rng, "listed", ["$S is listed on the stock exchange.|Shares of $S are traded on the stock exchange.", "$S is owned by a family and not listed on any exchange.|$S remains a family business and has never gone public."], [
            ("$S is a listed company.", "SR"), ("Shares of $S can be bought on the stock exchange.", "SR"), ("$S is not listed on a stock exchange.", "RS")]),
        _choice(rng, "union", ["All of the employees are members of a union.|Every employee belongs to a union.", "Most but not all of the employees are members of a union.|The majority of the employees, though not everyone, belongs to a union.", "None of the employees is a member of a union.|No employee belongs to a union."], [
            ("Every employee is in a union.", "SRR"), ("Some employees are not in a union.", "RSS"), ("No employee is in a union.", "RRS"), ("At least some of the employees are union members.", "SSR"), ("More than half of the employees are in a union.", "SSR")]),
        _cause(rng, "loss", "$S made a loss that year", "$S made a loss that year", ("a strike", "high energy prices", "a failed product", "a fire at the factory", "unpaid bills of a customer")),
        _origin("founder", founder, "The founder of $S", rng), _origin("head", head, "The chief executive of $S", rng), _career("head", head, "The chief executive of $S", rng), _career("finance", finance, "The finance director", rng),
        _plans(rng, "a plant abroad", "build", "built"),
    ), ("Analysts did not expect the result.", "The firm has never commented on the rumours.", "No dividend was discussed at the meeting of suppliers.", "A rival without a factory of its own left the market."))


def _expenses(rng: random.Random) -> Document:
    c = rng.choice("£$€")
    amounts = rng.sample(range(2, 60), 6)
    grade = rng.choice(("managers", "directors", "interns"))
    days = rng.sample((5, 7, 10, 14, 21, 28, 30, 45, 60, 90), 3)
    org = company(rng)
    return Document("expense policy", rng.choice(("Travel and expense policy", f"{org}: business travel", "Expenses", "Reimbursement of travel costs")), "", (), _NO_PRONOUN, (
        Fact("hotel", Money(amounts[0] * 10, c), "Hotel rooms are reimbursed up to $v a night.|Employees may spend at most $v a night on a hotel.|The limit for accommodation is $v per night.", "The limit for a hotel room [is/is not] $v a night.|The company [pays/does not pay] up to $v for a night in a hotel.", "the limit for a hotel night"),
        Fact("dinner", Money(amounts[1], c), "For dinner, up to $v can be claimed.|Dinner is paid up to $v.", "The limit for dinner [is/is not] $v.|The maximum for dinner [is/is not] $v.", "the limit for dinner"),
        Fact("lunch", Money(amounts[2], c), "Lunch is covered up to $v.|Up to $v is paid for lunch.", "The limit for lunch [is/is not] $v.|The maximum for lunch [is/is not] $v.", "the limit for lunch"),
        Fact("taxi", Money(amounts[3], c), "A single taxi ride may cost no more than $v.|Taxi rides are refunded up to $v each.", "The limit for a taxi ride [is/is not] $v.|The maximum for a single taxi ride [is/is not] $v.", "the limit for a taxi ride"),
        Fact("gift", Money(amounts[4], c), "Gifts to customers must not be worth more than $v.|The value of a gift to a customer is limited to $v.", "The limit for a gift to a customer [is/is not] $v.|The maximum value of a gift to a customer [is/is not] $v.", "the limit for a gift"),
        Fact("deadline", Measure(days[0], "term"), "Claims must be submitted within $v of the trip.|Employees have $v after a trip to file their claim.", "Claims [have/do not have] to be filed within $v of the trip.|The time to submit a claim [is/is not] $v.", "the time to submit a claim"),
        Fact("payment", Measure(days[1], "term"), "Approved claims are paid within $v.|Payment follows $v after approval at the latest.", "An approved claim [is/is not] paid within $v at the latest.|The period for paying approved claims [is/is not] $v.", "the period for paying approved claims"),
        Fact("mileage", Count(rng.randint(18, 70)), "Private cars are refunded at $v cents per kilometre.|For private cars, $v cents per kilometre are paid.", "The rate for private cars [is/is not] $v cents per kilometre.|Using a private car [earns/does not earn] $v cents per kilometre.", "", True),
        Fact("flight", Measure(rng.randint(4, 12) * 60, "time"), "Business class may be booked on flights longer than $v.|Flights of more than $v may be taken in business class.", "Flights must be longer than $v to be booked in business class.", ""),
        _choice(rng, "first class", ["First class is never reimbursed.|The cost of first class is not refunded under any circumstances.", f"First class is reimbursed for {grade} only.|Only {grade} may travel first class.", "First class may be booked by all employees.|All employees may travel first class."], [
            (f"First class is open to {grade}.", "RSN") if grade in ("contractors", "interns") else (f"First class is open to {grade}.", "RSS"), ("Nobody may travel first class at the company's expense.", "SRR"), ("Every employee may travel first class.", "RRS"), (f"Only {grade} may go first class.", "RSR")]),
        _choice(rng, "alcohol", ["Alcohol is not reimbursed.|The company does not pay for alcoholic drinks.", "Alcohol is reimbursed only at dinners with customers.|Alcoholic drinks are paid for only when dining with customers.", "Alcohol is reimbursed.|The company also pays for alcoholic drinks."], [
            ("Alcoholic drinks are never paid for.", "SRR"), ("Wine at a dinner with a customer is reimbursed.", "RSS"), ("A beer that an employee drinks alone is paid for by the company.", "RRS"), ("The company does not refund alcohol in any case.", "SRR")]),
        _choice(rng, "approval", ["Trips abroad need the approval of a director.|A director has to approve trips abroad.", "Trips abroad need no approval.|Employees may travel abroad without approval."], [
            ("Employees must get approval from a director before a trip abroad.", "SR"), ("No one has to approve a trip abroad.", "RS"), ("A trip abroad is possible without approval.", "RS"), ("A director's consent is necessary for trips abroad.", "SR")]),
        _choice(rng, "receipts", ["Receipts are required for all expenses.|Every expense needs a receipt.", f"Receipts are required only for expenses above {c}25.|An expense needs a receipt only if it exceeds {c}25.", "No receipts are required.|Expenses are refunded without receipts."], [
            (f"A receipt is needed for an expense of {c}10.", "SRR"), (f"A receipt is needed for an expense of {c}80.", "SSR"), ("Employees never need a receipt.", "RRS"), ("Some expenses can be claimed without a receipt.", "RSS"), ("Every claim must come with a receipt.", "SRR")]),
        _choice(rng, "contractors", ["The policy applies to employees and contractors alike.|Contractors are covered as employees are.", "Contractors are excluded from the policy.|The policy does not apply to contractors."], [
            ("Contractors are covered by the policy.", "SR"), ("Contractors cannot rely on the policy.", "RS"), ("The policy covers contractors too.", "SR"), ("The policy is not for contractors.", "RS")]),
        _choice(rng, "train", ["Employees must take the train where a journey takes less than four hours.|For journeys under four hours the train is mandatory.", "Employees are encouraged, but not obliged, to take the train.|Taking the train is recommended but voluntary."], [
            ("Taking the train is compulsory on some journeys.", "SR"), ("Employees are free to decide whether they take the train.", "RS"), ("Nobody is obliged to take the train.", "RS"), ("A journey of three hours has to be made by train.", "SR")]),
        Fact("approver", Person.sample(rng), "Exceptions are decided by $v.|$v decides on exceptions.", "$v [decides/does not decide] on exceptions.|Exceptions [are/are not] approved by $v."),
        Fact("contact", Person.sample(rng), "$v in accounting handles claims.|Claims are handled by $v in accounting.", "The person who handles claims [is/is not] $v.|$v [handles/does not handle] claims."),
    ), _OFFICE_ASIDES)


def _product(rng: random.Random) -> Document:
    what = rng.choice(("headphones", "drill", "lamp", "camera", "kettle", "vacuum cleaner", "tent", "speaker", "e-reader", "rice cooker", "bicycle light", "air purifier"))
    plural = what.endswith("s") and what == "headphones"
    name = f"the {coined(rng)} {rng.choice(('', 'X', 'Pro ', 'S', 'Mini ', 'Go '))}{rng.randint(2, 990)}"
    pro = _IT
    what = "headset" if plural else what
    c1, c2 = rng.sample(COLOURS, 2)
    c = rng.choice("£$€")
    price, old = sorted(rng.sample(range(9, 900), 2))
    return Document("product sheet", name[4:], name, ("the device", f"the {what}", "this model"), pro, (
        Fact("weight", Measure(_round(rng, 60, 6000, 10), "weight"), "$S weighs $v.|Its weight is $v.", "$S [weighs/does not weigh] $v.|The weight of $S [is/is not] $v.", "", True),
        Fact("battery", Measure(rng.choice((30, 45, 90, 120, 150, 180, 240, 360, 480, 600, 720, 900, 1200)), "time"), "A full charge lasts $v.|The battery runs for $v.", "The battery [lasts/does not last] $v.|$S [runs/does not run] for $v on one charge.", "the battery life", True),
        Fact("charging", Measure(rng.choice((15, 20, 30, 40, 60, 90, 120, 150, 180)), "time"), "Charging takes $v.|The battery is full after $v.", "It [takes/does not take] $v to charge $S.|The charging time [is/is not] $v.", "the charging time", True),
        Fact("warranty", Measure(rng.choice((6, 12, 18, 24, 36, 48, 60)), "age"), "$S comes with a warranty of $v.|The warranty runs for $v.", "The warranty [lasts/does not last] $v.|The warranty of $S [is/is not] $v long.", "the warranty", True),
        Fact("support", Measure(rng.choice((12, 24, 36, 48, 60, 72, 84)), "age"), "Spare parts are available for $v.|The maker supplies spare parts for $v.", "Spare parts [are/are not] available for $v.", "the period in which spare parts are available", True),
        Fact("price", Money(price, c), "$S costs $v.|The price is $v.|$S sells for $v.", "$S [costs/does not cost] $v.|The price of $S [is/is not] $v.", "", True),
        Fact("old", Money(old, c), "The previous model sold for $v.|Its predecessor cost $v.", "The predecessor [cost/did not cost] $v.|The price of the previous model [was/was not] $v.", "", True),
        Fact("colour", word(COLOURS, "colour", rng), "The carrying bag is $v.|$S comes in a $v bag.", "The carrying bag [is/is not] $v.|The colour of the carrying bag [is/is not] $v."),
        Fact("cable", word(COLOURS, "colour", rng), "The cable is $v.|A $v cable is included.", "The cable [is/is not] $v.|The colour of the cable [is/is not] $v."),
        Fact("maker", company_name(rng), "$S is made by $v.|The maker is $v.|$v manufactures $S.", "$v [makes/does not make] $S.|$S [is/is not] a product of $v.|The manufacturer of $S [is/is not] $v."),
        Fact("origin", word(COUNTRY_NAMES, "country", rng), "$S is assembled in $v.|Assembly takes place in $v.", "$S [is/is not] assembled in $v.|The assembly of $S [takes/does not take] place in $v."),
        Fact("design", word(COUNTRY_NAMES, "country", rng), "$S was designed in $v.|The design comes from $v.", "$S [was/was not] designed in $v.|The design of $S [was/was not] made in $v."),
        _choice(rng, "water", ["$S is waterproof.|$S can be put under water without harm.", "$S is splash-proof but must not be put under water.|$S withstands splashes, though it is not waterproof.", "$S must be kept dry; even splashes can damage it."], [
            ("$S may be put under water.", "SRR"), ("Splashes do not harm $S.", "SSR"), ("$S is not waterproof.", "RSS"), ("Putting $S under water is not allowed.", "RSS")]),
        _choice(rng, "charger", ["A charger is included.|The box contains a charger.", "The charger is not included and has to be bought separately.|The box contains no charger; it is sold separately."], [
            ("$S comes with a charger.", "SR"), ("Buyers have to buy the charger separately.", "RS"), ("There is a charger in the box.", "SR"), ("The charger is not part of the package.", "RS")]),
        _choice(rng, "colours", [f"$S is available in {c1} and {c2}.|Buyers can choose between {c1} and {c2}.", f"$S is available in {c1} only.|There is no colour other than {c1} to choose."], [
            (f"$S can be bought in {c1}.", "SS"), (f"$S can be bought in {c2}.", "SR"), (f"{c1} is the only colour.", "RS"), ("There is a choice of colours.", "SR")]),
        _choice(rng, "app", ["$S works without the app.|The app is optional.", "$S does not work without the app.|The app is required to use $S."], [
            ("$S can be used without the app.", "SR"), ("The app is necessary.", "RS"), ("Users do not need the app.", "SR"), ("$S cannot be used unless the app is installed.", "RS")]),
        _choice(rng, "loud", ["$S is quieter than its predecessor.|Its predecessor was louder.", "$S is louder than its predecessor.|Its predecessor was quieter."], [
            ("$S makes less noise than the model before it.", "SR"), ("$S is louder than the model before it.", "RS"), ("The predecessor was quieter than $S.", "RS"), ("The predecessor was noisier than $S.", "SR")]),
    ), ("The box contains no batteries of other types.", "Do not throw packaging into household waste.", "Reviews of the app were mixed.", "Accessories of other makers are not covered here."))


def _minutes(rng: random.Random) -> Document:
    chair, clerk, a, b, c = _persons(rng, 5)
    cur = rng.choice("£$€")
    n, m = rng.sample(range(2, 30), 2)
    act = rng.sample(("the website", "the budget report", "the office move", "the recruitment drive", "the annual fair", "the newsletter", "the safety review", "the supplier contract"), 3)
    motion = rng.choice(("the motion on overtime", "the new statutes", "the motion to merge the two teams", "the parking motion", "the revised dress code"))
    return Document("minutes", rng.choice(("Minutes", "Minutes of the meeting", f"{company(rng)}: minutes of the board", f"{place(rng)} Allotment Society: minutes")), "", (), _NO_PRONOUN, (
        Fact("chair", chair, "$v chaired the meeting.|The meeting was chaired by $v.|$v was in the chair.", "$v [chaired/did not chair] the meeting.|The chair [was/was not] $v.|The meeting [was/was not] led by $v."),
        Fact("clerk", clerk, "$v took the minutes.|The minutes were taken by $v.", "$v [wrote/did not write] the minutes.|The minutes [were/were not] taken by $v."),
        Fact("task a", a, f"$v will prepare {act[0]}.|{act[0]} was assigned to $v.", f"$v [is/is not] responsible for {act[0]}.|The person in charge of {act[0]} [is/is not] $v."),
        Fact("task b", b, f"$v takes care of {act[1]}.|{act[1]} will be handled by $v.", f"$v [is/is not] in charge of {act[1]}.|Responsibility for {act[1]} [lies/does not lie] with $v."),
        Fact("task c", c, f"$v agreed to lead {act[2]}.|It was agreed that $v leads {act[2]}.", f"$v [is/is not] to lead {act[2]}.|The leader of {act[2]} [will/will not] be $v."),
        Fact("budget a", Money(_round(rng, 1, 90) * 500, cur), f"A budget of $v was approved for {act[0]}.|The members granted $v for {act[0]}.", f"The budget for {act[0]} [is/is not] $v.|The sum granted for {act[0]} [was/was not] $v.", f"the budget for {act[0]}", True),
        Fact("budget b", Money(_round(rng, 1, 90) * 500, cur), f"For {act[1]}, $v was set aside.|$v will be available for {act[1]}.", f"The budget for {act[1]} [is/is not] $v.|The sum set aside for {act[1]} [was/was not] $v.", f"the budget for {act[1]}", True),
        Fact("date", Date.sample(rng, 2018, 2029, 3), "The meeting took place $v.|The members met $v.", "The meeting [was/was not] held $v.|The members [met/did not meet] $v."),
        Fact("next", Clock.sample(rng, 8, 19), "The meeting began at $v.|The chair opened the meeting at $v.", "The meeting [started/did not start] at $v.|The start of the meeting [was/was not] at $v.", "the start of the meeting"),
        Fact("room", Name(f"room {rng.randint(1, 40)}", "room", lambda r: f"room {r.randint(1, 40)}"), "The next meeting will be held in $v.|$v is booked for the next meeting.", "The next meeting [will/will not] be held in $v.|The next meeting [takes/does not take] place in $v."),
        Fact("present", Count(rng.randint(4, 60)), "$v guests were present.|There were $v guests.", "The number of guests [was/was not] $v.", "the number of guests", True),
        _choice(rng, "vote", [f"The members adopted {motion} by {max(n, m)} votes to {min(n, m)}.|{motion} was carried by {max(n, m)} votes to {min(n, m)}.", f"The members rejected {motion} by {max(n, m)} votes to {min(n, m)}.|{motion} was defeated by {max(n, m)} votes to {min(n, m)}.", f"The vote on {motion} was postponed.|No vote was taken on {motion}; it was put off."], [
            (f"{motion} was accepted.", "SRR"), (f"{motion} was voted down.", "RSR"), (f"{motion} did not pass at this meeting.", "RSS"), (f"The members have not yet voted on {motion}.", "RRS"), (f"{max(n, m)} members voted in favour of {motion}.", "SRR"), (f"{max(n, m)} members voted against {motion}.", "RSR")]),
        _choice(rng, "unanimous", ["The accounts were approved unanimously.|All members present approved the accounts.", "The accounts were approved with two abstentions.|With two abstentions, the accounts were approved.", "The accounts were not approved.|Approval of the accounts was refused."], [
            ("Everyone present voted for the accounts.", "SRR"), ("The accounts were approved.", "SSR"), ("Two members abstained from the vote on the accounts.", "RSN"), ("Approval was denied to the accounts.", "RRS")]),
        _choice(rng, "absent", [f"{chair.name} left early, before the coffee break.|Before the coffee break {chair.name} had to leave.", f"{chair.name} left only after the coffee break.|{chair.name} stayed for the coffee break and left after it."], [
            (f"{chair.name} had gone when the coffee break began.", "SR"), (f"{chair.name} was still there during the coffee break.", "RS"), (f"{chair.name} left after the coffee break.", "RS"), (f"The coffee break came after {chair.name} had left.", "SR")]),
        _choice(rng, "fee", ["The membership fee will be raised.|It was decided to raise the membership fee.", "The membership fee will stay as it is.|It was decided not to raise the membership fee.", "The membership fee will be lowered.|It was decided to reduce the membership fee."], [
            ("Members will pay a higher fee.", "SRR"), ("The fee remains unchanged.", "RSR"), ("The fee goes down.", "RRS"), ("The fee will not go up.", "RSS")]),
        _origin("chair", chair, "The chair of the meeting", rng), _career("clerk", clerk, "The person who took the minutes", rng), _career("task a", a, f"The person responsible for {act[0]}", rng),
        _plans(rng, "the storage room", "renovate", "renovated"),
    ), ("There was no other business.", "Apologies were received from two members.", "Nobody objected to the agenda.", "The projector did not work at first."))


def _recipe(rng: random.Random) -> Document:
    dish = f"{rng.choice(('lentil', 'pumpkin', 'almond', 'leek', 'barley', 'plum', 'fennel', 'chickpea', 'apricot', 'beetroot', 'walnut', 'mushroom'))} {rng.choice(('soup', 'cake', 'pie', 'stew', 'bread', 'tart', 'salad', 'pudding', 'dumplings', 'casserole'))}"
    times = rng.sample((10, 15, 20, 25, 30, 40, 45, 60, 75, 90, 120), 3)
    grams = rng.sample(range(2, 30), 4)
    sweet, fat = word(("honey", "brown sugar", "maple syrup", "date syrup"), "sweetener", rng), word(("butter", "olive oil", "lard", "coconut oil", "sunflower oil"), "fat", rng)
    is_are = "are" if dish.endswith("s") else "is"
    return Document("recipe", dish.capitalize(), f"the {dish}", ("the dish",), _NO_PRONOUN, (
        Fact("flour", Measure(grams[0] * 25, "weight"), "Weigh out $v of flour.|The recipe calls for $v of flour.|You need $v of flour.", "The amount of flour [is/is not] $v.|The recipe [needs/does not need] $v of flour.", "the amount of flour", True),
        Fact("carrots", Measure(grams[1] * 25, "weight"), "Add $v of chopped carrots.|$v of carrots are grated.", "The amount of carrots [is/is not] $v.|The recipe [uses/does not use] $v of carrots.", "the amount of carrots", True),
        Fact("cheese", Measure(grams[2] * 10, "weight"), "Sprinkle $v of cheese on top.|$v of cheese goes on top.", "The amount of cheese [is/is not] $v.|$v of cheese [is/is not] used.", "the amount of cheese", True),
        Fact("milk", Measure(rng.randint(2, 30) * 50, "volume"), "Pour in $v of milk.|Then $v of milk is stirred in.", "The amount of milk [is/is not] $v.|$v of milk [is/is not] needed.", "the amount of milk", True),
        Fact("bake", Measure(times[0], "time"), "Bake for $v.|It stays in the oven for $v.", "The baking time [is/is not] $v.|The dish [bakes/does not bake] for $v.", "the baking time", True),
        Fact("rest", Measure(times[1], "time"), "Let it rest for $v before serving.|Leave to rest for $v before it is served.", "The resting time [is/is not] $v.|It [rests/does not rest] for $v before serving.", "the resting time", True),
        Fact("prep", Measure(times[2], "time"), "Preparation takes $v.|Allow $v for preparation.", "The preparation time [is/is not] $v.", "the preparation time", True),
        Fact("eggs", Count(rng.randint(2, 12)), "Beat $v eggs.|$v eggs are needed.", "The recipe [uses/does not use] $v eggs.|The number of eggs [is/is not] $v.", "", True),
        Fact("serves", Count(rng.randint(2, 16)), "$S serves $v people." if is_are == "is" else "The recipe serves $v people.|It is enough for $v people.", "The recipe [feeds/does not feed] $v people.|The quantities [are/are not] meant for $v people.", "", False),
        Fact("oven", Count(rng.randint(14, 24) * 10), "Heat the oven to $v °C.|The oven should be at $v degrees Celsius.", "The temperature of the oven [is/is not] $v °C.", "", True),
        Fact("sweet", sweet, "Sweeten with $v.|$v is used as the sweetener.", "$v [is/is not] the sweetener.|It [is/is not] sweetened with $v."),
        Fact("fat", fat, "Fry the onions in $v.|The onions are fried in $v.", "The onions [are/are not] fried in $v.|$v [is/is not] used to fry the onions."),
        _choice(rng, "order", ["Add the onions before the garlic.|The onions go in first, then the garlic.", "Add the garlic before the onions.|The garlic goes in first, and the onions follow."], [
            ("The garlic is added after the onions.", "SR"), ("The garlic is added before the onions.", "RS"), ("The onions go in after the garlic.", "RS"), ("The onions go in earlier than the garlic.", "SR")]),
        _choice(rng, "freeze", ["$S can be frozen." if is_are == "is" else "The dish can be frozen.", "The dish does not freeze well and should be eaten fresh.|Do not freeze the dish."], [
            ("The dish is suitable for freezing.", "SR"), ("The dish should not be frozen.", "RS"), ("Freezing is possible.", "SR"), ("Freezing is not recommended.", "RS")]),
        _choice(rng, "nuts", ["The nuts are optional.|The nuts can be left out.", "The nuts are essential and cannot be left out.|Do not leave out the nuts.", "The recipe contains no nuts.|There are no nuts in it."], [
            ("The recipe works without the nuts.", "SRN"), ("The nuts must not be omitted.", "RSN"), ("Nuts are indispensable here.", "RSR")]),
        _choice(rng, "serve", ["Serve hot.|It is served hot.", "Serve chilled.|It is served cold.", "Serve hot or cold, as you like.|It can be eaten hot or cold."], [
            ("The dish is meant to be served hot only.", "SRR"), ("The dish may be served cold.", "RSS"), ("It does not matter whether the dish is hot or cold.", "RRS"), ("The dish should be served hot and not cold.", "SRR")]),
        _choice(rng, "vegan", ["The stock must be made from vegetables only.|Only vegetable stock is used.", "Use chicken stock.|The stock is made from chicken.", "Either vegetable or chicken stock will do.|You may use vegetable stock or chicken stock."], [
            ("Chicken stock can be used.", "RSS"), ("Vegetable stock is the only stock that is allowed.", "SRR"), ("The cook can choose between two kinds of stock.", "RRS"), ("The recipe does not allow chicken stock.", "SRR")]),
    ), ("No special equipment is necessary.", "Wash your hands first.", "The kitchen should not be too cold.", "My grandmother never wrote this down."))


def _release(rng: random.Random) -> Document:
    name = coined(rng)
    v = f"{rng.randint(1, 9)}.{rng.randint(0, 20)}"
    a, b = _persons(rng, 2)
    formats = rng.sample(("JSON", "YAML", "CSV", "TOML", "XML", "Parquet"), 3)
    ports = rng.sample(range(1024, 9999), 2)
    py = Name(f"3.{rng.randint(7, 14)}", "version", lambda r: f"3.{r.randint(7, 14)}")
    return Document("release notes", rng.choice((f"{name} {v}", f"{name} {v}: release notes", f"README of {name}")), name, ("the tool", "the program"), _IT, (
        Fact("python", py, "$S needs Python $v or newer.|The minimum version of Python is $v.", "The oldest Python that $S supports [is/is not] $v.|The minimum version of Python [is/is not] $v."),
        Fact("port", Name(str(ports[0]), "port", lambda r: str(r.randint(1024, 9999))), "By default, $S listens on port $v.|The default port is $v.", "$S [listens/does not listen] on port $v by default.|The default port [is/is not] $v."),
        Fact("metrics", Name(str(ports[1]), "port", lambda r: str(r.randint(1024, 9999))), "Metrics are served on port $v.|Port $v serves metrics.", "Metrics [are/are not] available on port $v.|The port of the metrics [is/is not] $v."),
        Fact("format", Name(formats[0], "format", lambda r: r.choice(("JSON", "YAML", "CSV", "TOML", "XML", "Parquet"))), "The configuration is written in $v.|$S reads its configuration from a $v file." if formats[0] not in ("XML",) else "The configuration is written in $v.", "The format of the configuration [is/is not] $v.|The configuration [is/is not] a $v file." if formats[0] != "XML" else "The format of the configuration [is/is not] $v."),
        Fact("export", Name(formats[1], "format", lambda r: r.choice(("JSON", "YAML", "CSV", "TOML", "XML", "Parquet"))), "Results are exported as $v.|The export format is $v.", "Results [are/are not] exported as $v.|The format of the exports [is/is not] $v."),
        Fact("licence", word(("the MIT licence", "the Apache licence", "the GPL", "the BSD licence", "a commercial licence"), "licence", rng), "$S is distributed under $v.|The code is under $v.", "$S [is/is not] available under $v.|$S [is/is not] released under $v."),
        Fact("released", Date.sample(rng, 2015, 2029, 3), f"Version {v} was released $v.|Version {v} came out $v.", f"Version {v} [was/was not] published $v.|The release of version {v} [was/was not] $v."),
        Fact("timeout", Count(rng.choice((5, 10, 15, 20, 30, 45, 60, 90, 120))), "Requests time out after $v seconds.|The timeout of a request is $v seconds.", "A request [is/is not] aborted after $v seconds.|The timeout [is/is not] $v seconds.", "the timeout in seconds", True),
        Fact("retries", Count(rng.randint(2, 12)), "A failed request is retried $v times.|There are $v retries.", "The number of retries [is/is not] $v.|A failed request [is/is not] retried $v times.", "", True),
        Fact("limit", Count(_round(rng, 10, 5000, 10)), "At most $v files can be open at once.|The limit is $v open files.", "The maximum number of open files [is/is not] $v.|The limit of open files [is/is not] $v.", "the limit of open files"),
        Fact("lang", word(("Rust", "Go", "C", "Zig", "Haskell", "OCaml", "Kotlin"), "language", rng), "$S is written in $v.|The core is written in $v.", "The core of $S [is/is not] written in $v.|$v [is/is not] the language of the core."),
        Fact("maintainer", a, "$v maintains the project.|The maintainer is $v.", "$v [is/is not] the maintainer of $S.|The project [is/is not] maintained by $v."),
        Fact("reporter", b, "The crash on start was reported by $v.|$v reported the crash on start.", "$v [reported/did not report] the crash on start.|The person who reported the crash on start [was/was not] $v."),
        _choice(rng, "windows", ["$S runs on Linux and macOS, but not on Windows.|Windows is not supported; Linux and macOS are.", "$S runs on Linux, macOS and Windows.|All three systems, Linux, macOS and Windows, are supported.", "$S runs on Linux only.|Linux is the only supported system."], [
            ("$S can be used on Windows.", "RSR"), ("$S can be used on macOS.", "SSR"), ("$S does not support Windows.", "SRS"), ("$S works on no system but Linux.", "RRS"), ("$S supports Linux.", "SSS")]),
        _choice(rng, "telemetry", ["Telemetry is off by default.|No telemetry is sent unless it is turned on.", "Telemetry is on by default and can be turned off.|Unless it is turned off, telemetry is sent.", "Telemetry has been removed.|There is no telemetry any more."], [
            ("Telemetry is sent by default.", "RSR"), ("By default, no telemetry is sent.", "SRS"), ("$S no longer has telemetry.", "RRS")]),
        _choice(rng, "flag", ["The option --fast was removed.|This release removes the option --fast.", "The option --fast was added.|This release adds the option --fast.", "The option --fast is deprecated and will be removed in the next release.|--fast still works but is deprecated; the next release removes it."], [
            ("The option --fast is new.", "RSR"), ("The option --fast no longer exists.", "SRR"), ("The option --fast will be removed later.", "RNS"), ("This release still has the option --fast.", "RSS")]),
        _choice(rng, "speed", ["Startup is faster than in the previous release.|The previous release started more slowly.", "Startup is slower than in the previous release.|The previous release started more quickly.", "Startup takes as long as in the previous release."], [
            ("The start takes less time than before.", "SRR"), ("The start takes longer than before.", "RSR"), ("The startup time has not changed.", "RRS"), ("The start did not become faster.", "RSS")]),
        _choice(rng, "db", ["$S stores nothing on disk.|$S keeps all data in memory and writes none to disk.", "$S stores its data in a local database.|Data are kept in a database on disk."], [
            ("$S writes data to disk.", "RS"), ("$S does not store data on disk.", "SR"), ("Data are kept in memory only.", "SR"), ("$S keeps its data in a database.", "RS")]),
        _career("maintainer", a, "The maintainer of $S", rng), _origin("reporter", b, "The person who reported the crash", rng),
        _plans(rng, "the plugin interface", "rewrite", "rewritten"),
    ), ("The documentation of older versions is not updated.", "No other changes were made to the tests.", "Thanks to everyone who sent patches.", "The mailing list no longer exists."))


def _museum(rng: random.Random) -> Document:
    name = f"the {place(rng)} {rng.choice(('Museum of Clocks', 'Maritime Museum', 'Museum of Glass', 'Railway Museum', 'Gallery', 'Museum of Dolls', 'Botanical Garden', 'Aquarium', 'Zoo', 'Folk Museum'))}"
    donor, director = _persons(rng, 2)
    founded, moved = _years(rng, 1850, 2015, 2)
    return Document("museum", name[4:], name, ("the museum",) if "Museum" in name else (name.split()[-1].lower().join(("the ", "")),), _IT, (
        Fact("founded", _dated(founded, rng), "$S was founded $v.|$S was set up $v.", "$S [was/was not] founded $v.|$S [was/was not] set up $v."),
        Fact("moved", _dated(moved, rng), "$S moved to its present site $v.|$S has been at its present site since it moved there $v.", "$S [moved/did not move] to its present site $v.|The move to the present site [happened/did not happen] $v."),
        Fact("director", director, "$v is the director.|$S is directed by $v.", "$v [is/is not] the director of $S.|$S [is/is not] directed by $v."),
        Fact("donor", donor, "Most of the collection was given by $v.|$v donated most of the collection.", "$v [donated/did not donate] most of the collection.|Most of the collection [was/was not] a gift of $v."),
        Fact("items", Count(_round(rng, 200, 90000, 10)), "The collection comprises $v objects.|$S owns $v objects.", "The collection of $S [has/does not have] $v objects.|The number of objects [is/is not] $v.", "the number of objects", True),
        Fact("visitors", Count(_round(rng, 2000, 900000, 100)), "Last year $v people visited $S.|$S had $v visitors last year.", "$S [had/did not have] $v visitors last year.|The number of visitors last year [was/was not] $v.", "the number of visitors last year", True),
        Fact("street", Name(f"{surname(rng)} Street", "street", lambda r: f"{surname(r)} Street"), "$S is in $v.|You find $S in $v.", "$S [is/is not] located in $v.|The address of $S [is/is not] in $v."),
        _choice(rng, "shop", ["The shop is run by volunteers and the cafe by a caterer.|Volunteers run the shop; a caterer runs the cafe.", "The cafe is run by volunteers and the shop by a company.|Volunteers run the cafe; a company runs the shop."], [
            ("Volunteers run the shop.", "SR"), ("Volunteers run the cafe.", "RS"), ("The cafe is in the hands of volunteers.", "RS"), ("A caterer runs the cafe.", "SR")]),
        _cause(rng, "closed wing", "The west wing is closed", "The west wing is closed", ("water damage", "a shortage of staff", "an inventory of the collection", "building work", "an infestation with moths")),
        *_venue(rng), _origin("director", director, "The director of $S", rng), _career("director", director, "The director of $S", rng),
        _plans(rng, "a second building", "open", "opened"),
    ), _ASIDES)


def _lease(rng: random.Random) -> Document:
    landlord, tenant, agent = _persons(rng, 3)
    c = rng.choice("£$€")
    rent = _round(rng, 300, 3000, 10)
    d1, d2 = rng.sample((7, 14, 21, 28, 30, 42, 56, 60, 84, 90), 2)
    return Document("lease", rng.choice(("Lease", "Tenancy agreement", "Rental contract", f"Lease of a flat in {place(rng)}")), "", (), _NO_PRONOUN, (
        Fact("landlord", landlord, "The flat is let by $v.|The landlord is $v.", "The landlord [is/is not] $v.|$v [is/is not] the landlord."),
        Fact("tenant", tenant, "The tenant is $v.|The flat is rented by $v.", "$v [is/is not] the tenant.|The tenant [is/is not] $v."),
        Fact("agent", agent, "$v holds the keys.|The keys are kept by $v.", "The keys [are/are not] with $v.|$v [keeps/does not keep] the keys."),
        Fact("rent", Money(rent, c), "The monthly rent is $v.|The tenant pays $v of rent each month.", "The rent [is/is not] $v a month.|Each month, the tenant [owes/does not owe] $v of rent.", "the monthly rent", True),
        Fact("deposit", Money(rent * rng.choice((1, 2, 3)) + rng.choice((0, 50)), c), "A deposit of $v is due on signing.|The deposit amounts to $v.", "The deposit [is/is not] $v.|The tenant [has/does not have] to pay a deposit of $v.", "the deposit", True),
        Fact("late fee", Money(_round(rng, 5, 95, 5), c), "For late payment a fee of $v is charged.|Whoever pays late owes an extra $v.", "The fee for late payment [is/is not] $v.|Paying late [costs/does not cost] $v.", "the fee for late payment", True),
        Fact("notice", Measure(d1, "term"), "The tenant may end the lease with notice of $v.|The tenant's notice period is $v.", "The notice period of the tenant [is/is not] $v.|The tenant [has/does not have] to give notice of $v.", "the notice period of the tenant"),
        Fact("landlord notice", Measure(d2, "term"), "The landlord has to give notice of $v.|The notice period of the landlord is $v.", "The landlord's notice period [is/is not] $v.|If the landlord ends the lease, the notice period [is/is not] $v.", "the notice period of the landlord"),
        Fact("begin", Date.sample(rng, 2012, 2029, 3), "The lease begins $v.|The lease takes effect $v.", "The lease [starts/does not start] $v.|The beginning of the lease [is/is not] $v."),
        Fact("area", Count(rng.randint(22, 190)), "The flat measures $v square metres.|The living space is $v square metres.", "The flat [has/does not have] $v square metres.|The size of the flat [is/is not] $v square metres.", "", True),
        Fact("floor", word(("ground", "first", "second", "third", "fourth", "fifth", "sixth"), "floor", rng), "The flat is on the $v floor.|It lies on the $v floor.", "The flat [is/is not] on the $v floor."),
        Fact("walls", word(COLOURS, "colour", rng), "The front door is $v.|The front door has been painted $v.", "The front door [is/is not] $v.|The colour of the front door [is/is not] $v."),
        _choice(rng, "pets", ["Pets are not allowed.|The tenant must not keep any pets.", "Cats may be kept, but no dogs.|The tenant may keep cats; dogs are forbidden.", "Pets are allowed if the landlord agrees in writing.|With the landlord's written consent, pets may be kept."], [
            ("The tenant may keep a cat without asking.", "RSR"), ("No pets are permitted.", "SRR"), ("A dog can be kept with the written consent of the landlord.", "RRS"), ("The tenant may not keep a dog under any circumstances.", "SSR")]),
        _choice(rng, "sublet", ["Subletting is forbidden.|The tenant must not sublet the flat.", "The tenant may sublet one room but not the flat.|Only one room may be sublet, never the flat as such.", "The tenant may sublet the flat without asking.|Subletting needs no consent."], [
            ("The tenant is allowed to sublet one room.", "RSS"), ("Nothing may be sublet.", "SRR"), ("The complete flat may be sublet.", "RRS"), ("It is forbidden to sublet the complete flat.", "SSR")]),
        _choice(rng, "repairs", ["Small repairs are paid by the tenant, large ones by the landlord.|The tenant pays for small repairs and the landlord for large ones.", "All repairs are paid by the landlord.|The landlord pays for every repair.", "All repairs are paid by the tenant.|The tenant bears the cost of every repair."], [
            ("The landlord pays for large repairs.", "SSR"), ("The tenant pays for small repairs.", "SRS"), ("The tenant never pays for repairs.", "RSR"), ("The landlord pays for no repairs.", "RRS"), ("Small repairs are at the landlord's expense.", "RSR")]),
        _choice(rng, "heating", ["Heating is included in the rent.|The rent includes heating.", "Heating is not included in the rent and is billed separately.|The rent does not cover heating, which is billed apart."], [
            ("The tenant pays extra for heating.", "RS"), ("The rent covers heating.", "SR"), ("Heating costs are part of the rent.", "SR"), ("Heating is charged in addition to the rent.", "RS")]),
        _choice(rng, "furnished", ["The kitchen is furnished; the other rooms are empty.|Only the kitchen is furnished.", "All rooms are furnished.|The flat is let fully furnished.", "The flat is let unfurnished.|None of the rooms is furnished."], [
            ("The kitchen comes with furniture.", "SSR"), ("Every room is furnished.", "RSR"), ("No room is furnished.", "RRS"), ("At least one room is not furnished.", "SRS")]),
        _choice(rng, "extend", ["The lease may be extended once, by a year.|An extension by one year is possible, but only once.", "The lease cannot be extended.|No extension is possible.", "The lease is extended automatically unless one side objects.|Unless one side objects, the lease goes on automatically."], [
            ("The lease is extended without anybody doing anything.", "RRS"), ("The lease can never be extended.", "RSR"), ("The lease can be extended twice.", "RRN"), ("An extension is possible.", "SRS")]),
        _origin("tenant", tenant, "The tenant", rng), _origin("landlord", landlord, "The landlord", rng),
    ), _OFFICE_ASIDES)


def _course(rng: random.Random) -> Document:
    subject = rng.choice(("Marine Ecology", "Medieval History", "Linear Algebra", "Music Theory", "Pottery", "Beekeeping", "Statistics", "Astronomy", "Bookbinding", "Economics", "Carpentry", "Genetics", "Creative Writing"))
    name = rng.choice((f"Introduction to {subject}", f"{subject} I", f"Advanced {subject}"))
    a, b, c = _persons(rng, 3)
    d1, d2, d3 = rng.sample(WEEKDAYS[:5], 3)
    p1, p2 = rng.sample(range(10, 60), 2)
    return Document("course", name, name, ("the course", "the class"), _IT, (
        Fact("teacher", a, "$S is taught by $v.|The lecturer is $v.|$v teaches $S.", "$v [teaches/does not teach] $S.|The lecturer of $S [is/is not] $v."),
        Fact("assistant", b, "$v leads the exercises.|The exercises are led by $v.", "The exercises [are/are not] led by $v.|$v [leads/does not lead] the exercises."),
        Fact("examiner", c, "The exam is set by $v.|$v sets the exam.", "$v [sets/does not set] the exam.|The exam [is/is not] set by $v."),
        Fact("day", Name(d1, "weekday", lambda r: r.choice(WEEKDAYS)), "Lectures take place on $vs.|There is a lecture every $v.", "The lectures [are/are not] on $vs.|The lecture day [is/is not] $v."),
        Fact("exercise day", Name(d2, "weekday", lambda r: r.choice(WEEKDAYS)), "Exercises take place on $vs.|The exercises are held every $v.", "The exercises [are/are not] on $vs.|The day of the exercises [is/is not] $v."),
        Fact("office", Name(d3, "weekday", lambda r: r.choice(WEEKDAYS)), "Office hours are on $vs.|The lecturer is available for questions on $vs.", "Office hours [are/are not] on $vs."),
        Fact("credits", Count(rng.randint(2, 15)), "$S is worth $v credits.|Students earn $v credits.", "$S [gives/does not give] $v credits.|The number of credits [is/is not] $v.", "", True),
        Fact("places", Count(rng.randint(8, 220)), "There are $v places.|At most $v students are admitted.", "$S [has/does not have] $v places.|The number of places [is/is not] $v.", "the number of places", True),
        Fact("weeks", Measure(rng.randint(2, 20) * 7, "term"), "$S lasts $v.|$S runs for $v.", "$S [takes/does not take] $v.|The duration of $S [is/is not] $v.", "the duration of the course", True),
        Fact("exam", Measure(rng.choice((45, 60, 90, 120, 150, 180, 240)), "time"), "The exam lasts $v.|Students have $v for the exam.", "The exam [takes/does not take] $v.|The length of the exam [is/is not] $v.", "the length of the exam", True),
        Fact("lecture", Measure(rng.choice((45, 60, 75, 90, 105, 135)), "time"), "Each lecture takes $v.|A lecture lasts $v.", "A lecture [is/is not] $v long.|The length of a lecture [is/is not] $v.", "the length of a lecture", True),
        Fact("exam share", Percent(p1), "The exam counts for $v of the grade.|$v of the grade depends on the exam.", "The weight of the exam in the grade [is/is not] $v.|The exam [makes/does not make] up $v of the grade.", "the weight of the exam", True),
        Fact("project share", Percent(p2), "The project counts for $v of the grade.|$v of the grade comes from the project.", "The weight of the project in the grade [is/is not] $v.|The project [makes/does not make] up $v of the grade.", "the weight of the project", True),
        Fact("fee", Money(_round(rng, 20, 900, 5), rng.choice("£$€")), "The fee is $v.|Participants pay $v.", "$S [costs/does not cost] $v.|The fee for $S [is/is not] $v.", "", True),
        Fact("language", word(LANGUAGES, "tongue", rng), "$S is held in $v.|The language of instruction is $v.", "$S [is/is not] taught in $v.|The language of $S [is/is not] $v."),
        _choice(rng, "attendance", ["Attendance is compulsory.|Students have to attend.", "Attendance is voluntary.|Students need not attend.", "Attendance is compulsory for the exercises only.|Only the exercises have to be attended; the lectures need not be."], [
            ("Students must attend the lectures.", "SRR"), ("Students must attend the exercises.", "SRS"), ("No attendance is required at all.", "RSR"), ("The lectures may be missed.", "RSS")]),
        _choice(rng, "prior", ["Prior knowledge is not required.|Beginners are welcome, and no prior knowledge is needed.", "Prior knowledge is required.|Beginners cannot take part; prior knowledge is necessary.", "Prior knowledge is helpful but not required.|Students benefit from prior knowledge, though they do not need it."], [
            ("Beginners may take part.", "SRS"), ("One cannot take part without prior knowledge.", "RSR"), ("Participants must know the subject already.", "RSR")]),
        _choice(rng, "resit", ["A failed exam may be repeated once.|Students may retake a failed exam one time.", "A failed exam cannot be repeated.|There is no second attempt at a failed exam.", "A failed exam may be repeated as often as one likes.|There is no limit on how often a failed exam is repeated."], [
            ("Those who fail get a second attempt.", "SRS"), ("Those who fail twice may try again.", "RRS"), ("Students who fail have no other chance.", "RSR"), ("The exam can be taken at most twice.", "SSR")]),
        _choice(rng, "passed", ["All students passed last year.|Last year nobody failed.", "Most students passed last year, but some failed.|Last year the majority passed, though a few failed.", "No student passed last year.|Last year everybody failed."], [
            ("Every student passed last year.", "SRR"), ("Some students failed last year.", "RSS"), ("Nobody passed last year.", "RRS"), ("More students passed than failed last year.", "SSR"), ("At least one student passed last year.", "SSR")]),
        _origin("teacher", a, "The lecturer", rng), _career("assistant", b, "The leader of the exercises", rng), _origin("examiner", c, "The person who sets the exam", rng),
    ), ("The library does not hold a copy of the old script.", "Bring no food into the lab.", "Last year's room is no longer available.", "Former students rated the seminar next door highly."))


def _event(rng: random.Random) -> Document:
    name = f"the {place(rng)} {rng.choice(('Jazz Festival', 'Book Fair', 'Marathon', 'Food Market', 'Film Week', 'Regatta', 'Flower Show', 'Chess Open', 'Harvest Fair', 'Science Night'))}"
    opener, closer, host = _persons(rng, 3)
    return Document("event", name[4:], name, ("the event",), _IT, (
        Fact("date", Date.sample(rng, 2019, 2030, 3), "$S takes place $v.|$S will be held $v.", "$S [is/is not] held $v.|$S [takes/does not take] place $v."),
        Fact("place", place_name(rng), "The opening concert is in $v.|People meet for the opening in $v.", "The opening [is/is not] in $v.|The opening [takes/does not take] place in $v."),
        Fact("final place", place_name(rng), "The closing party is in $v.|People gather for the closing party in $v.", "The closing party [is/is not] in $v.|The closing party [takes/does not take] place in $v."),
        Fact("opener", opener, "$v gives the opening speech.|The opening speech is given by $v.", "$v [speaks/does not speak] at the opening.|The opening speaker [is/is not] $v."),
        Fact("closer", closer, "$v hands out the prizes.|The prizes are handed out by $v.", "The prizes [are/are not] handed out by $v.|$v [hands/does not hand] out the prizes."),
        Fact("host", host, "$S is organized by $v.|The organizer is $v.", "$v [organizes/does not organize] $S.|The organizer of $S [is/is not] $v."),
        Fact("sponsor", company_name(rng), "The only sponsor is $v.|$v is the sole sponsor.", "The sponsor [is/is not] $v.|$S [is/is not] sponsored by $v."),
        Fact("start", Clock.sample(rng, 7, 12), "$S starts at $v.|$S begins at $v.", "The start [is/is not] at $v.|$S [begins/does not begin] at $v.", "the start of the event"),
        Fact("end", Clock.sample(rng, 15, 23), "$S ends at $v.|$S closes at $v.", "The end [is/is not] at $v.|$S [ends/does not end] at $v."),
        Fact("adult", Money(_round(rng, 4, 90), c := rng.choice("£$€")), "Tickets cost $v in advance.|In advance, a ticket is $v.", "A ticket bought in advance [costs/does not cost] $v.|The advance price [is/is not] $v.", "the advance price", True),
        Fact("camp", Money(_round(rng, 4, 99), c), "A pitch on the campsite costs $v.|Camping costs $v.", "A pitch on the campsite [costs/does not cost] $v.|The price of camping [is/is not] $v.", "the price of camping", True),
        Fact("stalls", Count(rng.randint(5, 200)), "There are $v stalls.|$v stalls will be set up.", "The number of stalls [is/is not] $v.|$S [has/does not have] $v stalls.", "the number of stalls", True),
        Fact("guests", Count(_round(rng, 100, 90000, 50)), "Last time $v people came.|The last edition drew $v visitors.", "The last edition [had/did not have] $v visitors.|Last time the number of visitors [was/was not] $v.", "", True),
        _choice(rng, "rain", ["If it rains, $S moves indoors.|$S takes place indoors if it rains.", "If it rains, $S is cancelled.|$S will not take place if it rains.", "$S takes place outdoors whatever the weather.|Even if it rains, $S stays outdoors."], [
            ("In the event of rain, $S is held indoors.", "SRR"), ("$S is called off if it rains.", "RSR"), ("Rain does not change where $S is held.", "RRS"), ("$S takes place even if it rains.", "SRS")]),
        _choice(rng, "booking", ["Tickets must be booked in advance; there are none at the door.|There are no tickets at the door, so booking is necessary.", "Tickets can be bought at the door, but booking is recommended.|Booking is recommended, though tickets are also sold at the door."], [
            ("Visitors can get a ticket at the door.", "RS"), ("Nobody gets in without booking.", "SR"), ("Booking ahead is not compulsory.", "RS"), ("No tickets are sold at the door.", "SR")]),
        _choice(rng, "age", ["Only adults may take part.|Participants have to be adults.", "People of any age may take part.|There is no age limit for participants.", "Only children may take part.|Participants must be children."], [
            ("Children are allowed to take part.", "RSS"), ("Adults are allowed to take part.", "SSR"), ("Participants can be of any age.", "RSR"), ("Children cannot take part.", "SRR")]),
        _choice(rng, "winner", [f"Last time {opener.last} won ahead of {closer.last}.|Last time {closer.last} finished second behind {opener.last}.", f"Last time {closer.last} won ahead of {opener.last}.|Last time {opener.last} finished second behind {closer.last}."], [
            (f"{opener.last} won last time.", "SR"), (f"{closer.last} won last time.", "RS"), (f"{closer.last} came second last time.", "SR"), (f"{closer.last} beat {opener.last} last time.", "RS")]),
        _origin("host", host, "The organizer of $S", rng), _origin("opener", opener, "The opening speaker", rng),
        _plans(rng, "a children's day", "introduce", "introduced"),
    ), ("The campsite by the lake is not part of it.", "Bags will not be searched on the ferry.", "No fireworks were planned in earlier years.", "The town's hotels were not full last year."))


def _leaflet(rng: random.Random) -> Document:
    name = coined(rng).replace(" ", "")
    a = rng.choice(("a headache", "dizziness", "nausea", "a skin rash", "tiredness", "a dry mouth", "stomach pain", "insomnia"))
    use = rng.choice(("hay fever", "high blood pressure", "migraine", "asthma", "joint pain", "heartburn", "eczema", "travel sickness"))
    d = rng.sample((5, 7, 10, 14, 21, 28), 2)
    m1, m2 = rng.sample((5, 10, 20, 25, 40, 50, 75, 100, 200, 250, 400, 500), 2)
    return Document("leaflet", rng.choice((name, f"{name}: information for patients")), name, ("the medicine",), _IT, (
        Fact("use", Name(use, "disease", lambda r: r.choice(("hay fever", "high blood pressure", "migraine", "asthma", "joint pain", "heartburn", "eczema", "travel sickness"))), "$S is used only to treat $v.|$S is taken for $v and for nothing else.", "$S [is/is not] a medicine for $v.|$S [is/is not] used against $v."),
        Fact("adult", Count(m1), "The daily dose for adults is $v mg.|Adults take $v mg a day.", "Adults [take/do not take] $v mg a day.|The adult dose [is/is not] $v mg a day.", "the daily dose for adults", True),
        Fact("child", Count(m2), "Children from six years on take $v mg a day.|For children over six, the daily dose is $v mg.", "Children over six [take/do not take] $v mg a day.|The dose for a child of eight [is/is not] $v mg a day.", "the daily dose for children", True),
        Fact("duration", Measure(d[0], "term"), "Do not take it for longer than $v.|The treatment must not exceed $v.", "The longest permitted treatment [is/is not] $v.|The maximum duration of the treatment [is/is not] $v.", "the maximum duration of the treatment"),
        Fact("open", Measure(d[1], "term"), "Once opened, the bottle keeps for $v.|An opened bottle must be used within $v.", "An opened bottle [keeps/does not keep] for $v.|The shelf life after opening [is/is not] $v.", "the shelf life after opening"),
        Fact("storage", Count(rng.randint(4, 30)), "Store below $v °C.|It must not be stored above $v °C.", "The highest storage temperature [is/is not] $v °C.", "", False),
        Fact("frequency", Count(rng.randint(2, 6)), "The daily dose is divided into $v portions.|The day's dose is taken in $v portions.", "The daily dose [is/is not] divided into $v portions.|The number of portions a day [is/is not] $v.", "", True),
        Fact("colour", word(COLOURS, "colour", rng), "The tablets are $v.|It comes as $v tablets.", "The tablets [are/are not] $v.|The colour of the tablets [is/is not] $v."),
        Fact("cap", word(COLOURS, "colour", rng), "The cap of the bottle is $v.|The bottle has a $v cap.", "The cap [is/is not] $v.|The colour of the cap [is/is not] $v."),
        Fact("maker", company_name(rng), "$S is made by $v.|The manufacturer is $v.", "$v [makes/does not make] $S.|$S [is/is not] made by $v."),
        _choice(rng, "food", ["Take it before meals.|It is taken on an empty stomach, before eating.", "Take it after meals.|It is taken after eating.", "It may be taken before or after meals.|Whether it is taken before or after eating makes no difference."], [
            ("It has to be taken before eating.", "SRR"), ("It has to be taken after eating.", "RSR"), ("Patients can choose whether to take it before or after a meal.", "RRS"), ("Taking it after a meal is allowed.", "RSS")]),
        _choice(rng, "side", [f"It may cause {a}.|{a} is a possible side effect.", f"It often causes {a}.|{a} is a frequent side effect.", f"{a} has not been observed as a side effect.|It is not known to cause {a}."], [
            (f"{a} can be a side effect.", "SSN"), (f"Everyone who takes it gets {a}.", "NNR"), (f"Many patients get {a} from it.", "NSR"), (f"It never causes {a}.", "RRN"), (f"{a} has been seen as a side effect.", "NSR")]),
        _choice(rng, "drive", ["It does not affect the ability to drive.|Patients can drive as usual.", "Do not drive after taking it.|Patients must not drive while they take it.", "It may affect the ability to drive.|The ability to drive could be impaired."], [
            ("Driving is forbidden while taking it.", "RSN"), ("It has no influence on driving.", "SRN"), ("Driving might be impaired.", "RNS")]),
        _choice(rng, "pregnant", ["Pregnant women must not take it.|It must not be taken in pregnancy.", "Pregnant women may take it only if a doctor advises it.|In pregnancy it is taken on a doctor's advice only.", "Pregnant women may take it.|It can be taken in pregnancy without asking a doctor."], [
            ("A pregnant woman may take it without asking a doctor.", "RRS"), ("It is forbidden for pregnant women in all cases.", "SRR"), ("If a doctor recommends it, a pregnant woman may take it.", "RSS")]),
        _choice(rng, "prescription", ["It is available only on prescription.|A prescription is needed.", "It is sold without prescription.|No prescription is needed."], [
            ("Patients need a prescription.", "SR"), ("It can be bought without a prescription.", "RS"), ("It is not sold unless a doctor prescribes it.", "SR"), ("A doctor does not have to prescribe it.", "RS")]),
        _choice(rng, "alcohol", ["Avoid alcohol during the treatment.|No alcohol should be drunk during the treatment.", "Moderate drinking is safe during the treatment.|Small amounts of alcohol do no harm during the treatment."], [
            ("Patients should not drink alcohol.", "SR"), ("A little alcohol is acceptable.", "RS"), ("Patients ought to stay away from alcohol.", "SR")]),
        _choice(rng, "forgot", ["If a dose is forgotten, skip it.|A forgotten dose is left out.", "If a dose is forgotten, take it as soon as possible.|A forgotten dose should be made up for as soon as possible.", "If a dose is forgotten, take a double dose next time.|After a forgotten dose, the next one is doubled."], [
            ("A missed dose should be skipped.", "SRR"), ("A missed dose should be taken as soon as it is noticed.", "RSR"), ("After a missed dose, patients take twice the amount.", "RRS"), ("Patients should never double the dose after missing one.", "NNR")]),
    ), ("Do not pass this leaflet on without its last page.", "Used needles do not belong in household waste.", "Ask a pharmacist if the text cannot be read.", "The older formula is no longer sold."))


def _geography(rng: random.Random) -> Document:
    what = rng.choice(("island", "lake", "valley", "peninsula"))
    name = {"island": f"{place(rng)} Island", "lake": f"Lake {place(rng)}", "valley": f"the {place(rng)} Valley", "peninsula": f"the {place(rng)} Peninsula"}[what]
    a, b = place(rng), place(rng)
    w, s = rng.sample(MONTHS, 2)
    return Document("geography", name.removeprefix("the "), name, (f"the {what}",), _IT, (
        Fact("country", word(COUNTRY_NAMES, "country", rng), "$S lies in $v.|$S is in $v.", "$S [is/is not] in $v.|$S [lies/does not lie] in $v."),
        Fact("trade", word(COUNTRY_NAMES, "country", rng), "Most of the tourists come from $v.|$v is where most of the tourists come from.", "Most tourists [are/are not] from $v.|The majority of the tourists [comes/does not come] from $v."),
        Fact("area", Count(_round(rng, 12, 9000)), "Its area is $v square kilometres.|$S covers $v square kilometres.", "$S [has/does not have] an area of $v square kilometres.|The area of $S [is/is not] $v square kilometres.", "", True),
        Fact("people", Count(_round(rng, 20, 90000, 10)), "About $v people live there.|$S has roughly $v inhabitants.", "The population of $S [is/is not] roughly $v."),
        Fact("length", Measure(_round(rng, 2, 160) * 1000, "length"), "From end to end $S measures $v.|$S is $v long.", "$S [is/is not] $v long.|The length of $S [is/is not] $v.", "the length of $S", True),
        Fact("width", Measure(_round(rng, 1, 60) * 500, "length"), "At its widest point $S is $v wide.|The greatest width is $v.", "The greatest width of $S [is/is not] $v.", "", True),
        Fact("town", Name(a, "place", place), "The largest town is $v.|$v is the largest town.", "$v [is/is not] the largest town.|The biggest town [is/is not] $v."),
        Fact("port", Name(b, "place", place), "Ferries leave from $v.|The ferry port is $v.", "The ferry port [is/is not] $v.|Ferries [leave/do not leave] from $v."),
        Fact("ferry", Measure(rng.choice((15, 20, 30, 45, 60, 75, 90, 120, 150, 180)), "time"), "The crossing by ferry takes $v.|The ferry needs $v.", "The ferry [takes/does not take] $v.|The crossing [lasts/does not last] $v.", "the crossing by ferry", True),
        Fact("bus", Measure(rng.choice((10, 15, 25, 30, 40, 60, 90, 120)), "time"), "The bus from one end to the other takes $v.|A bus ride across takes $v.", "The bus ride across [takes/does not take] $v.|The bus ride [lasts/does not last] $v.", "the bus ride", True),
        Fact("summer", Count(rng.randint(1, 36)), "The average temperature in the warmest month is $v °C.|In the warmest month the average is $v °C.", "The average in the warmest month [is/is not] $v °C.", "", True),
        Fact("wet", Name(w, "month", lambda r: r.choice(MONTHS)), "The wettest month is $v.|Most rain falls in $v.", "$v [is/is not] the wettest month.|The month with most rain [is/is not] $v."),
        Fact("dry", Name(s, "month", lambda r: r.choice(MONTHS)), "The driest month is $v.|Least rain falls in $v.", "$v [is/is not] the driest month.|The month with least rain [is/is not] $v."),
        Fact("language", word(LANGUAGES, "tongue", rng), "The official language is $v.|$v is the only official language.", "The official language [is/is not] $v.|$v [is/is not] the official language."),
        _choice(rng, "side", ["The northern part is mountainous, and the southern part is flat.|There are mountains in the north, whereas the south is flat.", "The southern part is mountainous, and the northern part is flat.|There are mountains in the south, whereas the north is flat."], [
            ("The north is mountainous.", "SR"), ("The south is mountainous.", "RS"), ("The northern part is flat.", "RS"), ("The land is flat in the south.", "SR"), ("There are no mountains in the north.", "RS")]),
        _choice(rng, "cars", ["Cars are banned.|No cars are allowed.", "Cars are allowed in winter only.|In winter, and only then, cars are allowed.", "Cars are allowed all year.|Cars may be driven at any time of the year."], [
            ("Cars may be driven in summer.", "RRS"), ("Cars may be driven in winter.", "RSS"), ("Cars are never allowed.", "SRR"), ("Cars are forbidden in summer.", "SSR")]),
        _choice(rng, "frozen", ["It has snowed there every winter on record.|Every winter on record brought snow.", "It has never snowed there.|Snow has never fallen there.", "It snows there in some winters but not in others.|Some winters bring snow, others do not."], [
            ("Snow falls there each winter.", "SRR"), ("There has been no snow there.", "RSR"), ("There are winters without snow.", "RSS"), ("Snow has fallen there at least once.", "SRS")]),
        _choice(rng, "salt", ["The northern beach is sandy and the southern one stony.|There is sand on the northern beach and stones on the southern one.", "The northern beach is stony and the southern one sandy.|There are stones on the northern beach and sand on the southern one.", "Both beaches, the northern and the southern one, are sandy.|The northern beach and the southern beach are both of sand."], [
            ("The northern beach is sandy.", "SRS"), ("The southern beach is sandy.", "RSS"), ("Both beaches are sandy.", "RRS"), ("Only one of the two beaches is sandy.", "SSR"), ("The southern beach is stony.", "SRR")]),
        _choice(rng, "water", ["The spring water is safe to drink.|One can drink the spring water safely.", "The spring water is not safe to drink.|Drinking the spring water is unsafe.", "Nobody has tested whether the spring water is safe to drink.|It is unknown whether the spring water is safe to drink."], [
            ("The spring water can be drunk safely.", "SRN"), ("It is unsafe to drink the spring water.", "RSN"), ("It is not known if the spring water is safe.", "RRS")]),
        _plans(rng, "a tunnel to the mainland", "build", "built"),
    ), ("The old map in the town hall does not show the reefs.", "No ship sank in that storm.", "Not far away there is a quarry that has been abandoned.", "A travel writer did not like the food."))


def _match(rng: random.Random) -> Document:
    h, g = place(rng), place(rng)
    while g == h:
        g = place(rng)
    home, guest = f"{h} {rng.choice(('United', 'Rovers', 'City', 'Athletic'))}", f"{g} {rng.choice(('Wanderers', 'Town', 'Albion', 'Sporting'))}"
    keeper, scorer, ref, coach = _persons(rng, 4)
    x, y = sorted(rng.sample(range(7), 2))
    return Document("match report", f"{home} against {guest}", f"{home} against {guest}", ("the match", "the game"), _IT, (
        _choice(rng, "result", [f"{home} beat {guest} {y}-{x}.|{guest} lost {x}-{y} to {home}.", f"{guest} beat {home} {y}-{x}.|{home} lost {x}-{y} to {guest}.", f"{home} and {guest} drew {y}-{y}.|The game between {home} and {guest} ended in a {y}-{y} draw."], [
            (f"{home} won against {guest}.", "SRR"), (f"{guest} defeated {home}.", "RSR"), ("Neither team won.", "RRS"), (f"{home} did not lose.", "SRS"), (f"{guest} was beaten by {home}.", "SRR"), (f"{home} lost the game.", "RSR"), (f"{home} scored more goals than {guest}.", "SRR"), (f"{guest} did not win.", "SRS")]),
        Fact("referee", ref, "The referee was $v.|$v refereed.", "$v [was/was not] the referee.|The match [was/was not] refereed by $v."),
        Fact("coach", coach, f"{home} is coached by $v.|The coach of {home} is $v.", f"$v [is/is not] the coach of {home}.|{home} [is/is not] coached by $v."),
        Fact("keeper", keeper, f"$v was in goal for {guest}.|The goalkeeper of {guest} was $v.", f"$v [was/was not] the goalkeeper of {guest}.|The goalkeeper of {guest} [was/was not] $v."),
        Fact("scorer", scorer, "The first goal was scored by $v.|$v scored the first goal.", "$v [scored/did not score] the first goal.|The scorer of the first goal [was/was not] $v."),
        Fact("first", Count(rng.randint(2, 89)), "The first red card was shown in minute $v.|In minute $v came the first red card.", "The first red card [came/did not come] in minute $v.", ""),
        Fact("crowd", Count(_round(rng, 100, 80000, 1)), "There were $v spectators.|$v people watched in the stadium.", "The number of spectators [was/was not] $v.|$S [had/did not have] $v spectators.", "the number of spectators", True),
        Fact("corners", Count(rng.randint(2, 14)), f"{home} had $v corner kicks.|There were $v corner kicks for {home}.", f"{home} [got/did not get] $v corner kicks.|The number of corner kicks for {home} [was/was not] $v.", f"the number of corner kicks for {home}", True),
        Fact("corners 2", Count(rng.randint(2, 14)), f"{guest} had $v corner kicks.|There were $v corner kicks for {guest}.", f"{guest} [got/did not get] $v corner kicks.|The number of corner kicks for {guest} [was/was not] $v.", f"the number of corner kicks for {guest}", True),
        Fact("ticket", Money(_round(rng, 5, 90), rng.choice("£$€")), "A standing ticket cost $v.|Standing tickets were sold for $v.", "A standing ticket [was/was not] $v.|The price of a standing ticket [was/was not] $v.", "", True),
        Fact("date", Date.sample(rng, 1950, 2027, 3), "The match was played $v.|The teams met $v.", "The match [took/did not take] place $v.|The teams [met/did not meet] $v."),
        Fact("stadium", Name(f"{surname(rng)} Park", "ground", lambda r: f"{surname(r)} Park"), "It was played at $v.|The venue was $v.", "The match [was/was not] played at $v.|The venue [was/was not] $v."),
        Fact("start", Clock.sample(rng, 12, 21), "Kick-off was at $v.|The match started at $v.", "The kick-off [was/was not] at $v.|The match [started/did not start] at $v."),
        Fact("shirt", word(COLOURS, "colour", rng), f"{home} played in $v.|The shirts of {home} were $v.", f"{home} [wore/did not wear] $v.|The shirts of {home} [were/were not] $v."),
        Fact("shirt 2", word(COLOURS, "colour", rng), f"{guest} played in $v.|The shirts of {guest} were $v.", f"{guest} [wore/did not wear] $v.|The shirts of {guest} [were/were not] $v."),
        _choice(rng, "penalty", [f"{scorer.name} missed a penalty after the break.|After the break {scorer.name} failed to convert a penalty.", f"{scorer.name} converted a penalty after the break.|After the break {scorer.name} scored from a penalty.", f"{scorer.name} missed a penalty before the break.|Before the break {scorer.name} failed to convert a penalty."], [
            (f"{scorer.name} scored from the penalty.", "RSR"), (f"The penalty of {scorer.name} did not go in.", "SRS"), (f"{scorer.name} took the penalty in the first half.", "RRS"), (f"{scorer.name} took the penalty in the second half.", "SSR")]),
        _choice(rng, "injury", [f"{keeper.name} was injured and had to be replaced.|{keeper.name} had to leave the pitch injured.", f"{keeper.name} was injured but played to the end.|Although injured, {keeper.name} played to the end.", f"{keeper.name} came back after an injury and played to the end without trouble."], [
            (f"{keeper.name} was taken off.", "SRR"), (f"{keeper.name} played to the end.", "RSS"), (f"{keeper.name} got hurt in the match.", "SSN")]),
        _choice(rng, "next", [f"{home} will play in the cup final if the next match is won.|If {home} wins the next match, it will play in the cup final.", f"{home} has qualified for the cup final.|{home} is through to the cup final.", f"{home} can no longer reach the cup final.|The cup final is now out of reach for {home}."], [
            (f"{home} will play in the cup final.", "NSR"), (f"It is still open whether {home} will play in the cup final.", "SRR"), (f"{home} has no chance to reach the cup final.", "RRS"), (f"{home} has already qualified for the cup final.", "RSR")]),
        _origin("referee", ref, "The referee", rng), _origin("scorer", scorer, "The scorer of the first goal", rng), _origin("coach", coach, f"The coach of {home}", rng),
    ), ("There was no trouble on the way to the station.", "Rain did not stop until evening.", "The women's side did not play that weekend.", "A drum that had been stolen was not found."))


def _timetable(rng: random.Random) -> Document:
    a, b, c = place(rng), place(rng), place(rng)
    d = place(rng)
    n1, n2 = rng.sample(range(1, 99), 2)
    t = rng.sample(range(20, 70), 4)
    day = rng.choice(WEEKDAYS)
    return Document("timetable", rng.choice((f"Buses and trains in {a}", f"Timetable {a}", f"{a}: getting around")), "", (), _NO_PRONOUN, (
        Fact("first", Clock.sample(rng, 4, 8), f"The first train to {b} leaves at $v.|Trains to {b} run from $v on.", f"The first train to {b} [departs/does not depart] at $v.|The earliest train to {b} [is/is not] at $v."),
        Fact("last", Clock.sample(rng, 20, 24), f"The last train to {b} leaves at $v.|The last departure for {b} is at $v.", f"The last train to {b} [departs/does not depart] at $v.|The latest train to {b} [is/is not] at $v.", f"the last train to {b}"),
        Fact("last c", Clock.sample(rng, 19, 24), f"The last train to {c} leaves at $v.|The last departure for {c} is at $v.", f"The last train to {c} [departs/does not depart] at $v.|The latest train to {c} [is/is not] at $v.", f"the last train to {c}"),
        Fact("ride b", Measure(t[0], "time"), f"The ride to {b} takes $v.|A train needs $v to {b}.", f"It [takes/does not take] $v to get to {b} by train.|The train ride to {b} [lasts/does not last] $v.", f"the ride to {b}", True),
        Fact("ride c", Measure(t[1], "time"), f"The ride to {c} takes $v.|A train needs $v to {c}.", f"It [takes/does not take] $v to get to {c} by train.|The train ride to {c} [lasts/does not last] $v.", f"the ride to {c}", True),
        Fact("fare b", Money(t[2] // 3, cur := rng.choice("£$€")), f"A single ticket to {b} costs $v.|The fare to {b} is $v.", f"The single fare to {b} [is/is not] $v.|Going to {b} [costs/does not cost] $v.", f"the fare to {b}", True),
        Fact("fare c", Money(t[3] // 3 + 1, cur), f"A single ticket to {c} costs $v.|The fare to {c} is $v.", f"The single fare to {c} [is/is not] $v.|Going to {c} [costs/does not cost] $v.", f"the fare to {c}", True),
        Fact("bus", Count(n1), "The bus to the hospital is line $v.|Line $v goes to the hospital.", "The hospital bus [is/is not] line $v."),
        Fact("airport", Count(n2), "The bus to the airport is line $v.|Line $v goes to the airport.", "The airport bus [is/is not] line $v."),
        Fact("platform", Count(rng.randint(1, 14)), f"Trains to {b} depart from platform $v.|The platform for {b} is number $v.", f"Trains to {b} [leave/do not leave] from platform $v."),
        Fact("interval", Measure(rng.choice((5, 10, 15, 20, 30, 60, 120)), "time"), "Buses run every $v.|There is a bus every $v.", "The interval between buses [is/is not] $v.|Buses [come/do not come] every $v.", "the interval between buses"),
        Fact("tram", Measure(rng.choice((4, 6, 8, 12, 18, 24)), "time"), "Trams run every $v.|There is a tram every $v.", "The interval between trams [is/is not] $v.|Trams [come/do not come] every $v.", "the interval between trams"),
        Fact("office", Clock.sample(rng, 6, 11), "The ticket office opens at $v.|Tickets are sold at the office from $v.", "The ticket office [opens/does not open] at $v.|The opening of the ticket office [is/is not] at $v."),
        _choice(rng, "sunday", [f"There is no service on {day}s.|No trains run on {day}s.", f"On {day}s trains run as on other days.|The {day} service is the same as on other days.", f"On {day}s trains run only in the morning.|{day} trains run in the morning only."], [
            (f"One can take a train on a {day} morning.", "RSS"), (f"One can take a train on a {day} evening.", "RNR"), (f"Trains do not run on {day}s.", "SRR"), (f"The {day} service is limited to the morning.", "RRS")]),
        _choice(rng, "stop", [f"The express does not stop in {c}.|{c} is not a stop of the express.", f"The express stops in {c}.|{c} is a stop of the express.", f"The express stops in {c} on request only.|In {c} the express stops only on request."], [
            (f"Passengers can get off the express in {c}.", "RSS"), (f"The express never stops in {c}.", "SRR"), (f"The express stops in {c} only if someone asks.", "RRS")]),
        _choice(rng, "bikes", ["Bicycles are carried free of charge.|Passengers pay nothing for a bicycle.", "Bicycles need a ticket of their own.|For a bicycle, a separate ticket is needed.", "Bicycles are not carried.|Passengers cannot take a bicycle along."], [
            ("A bicycle can be taken along for free.", "SRR"), ("Bicycles cannot be taken on board.", "RRS"), ("Passengers must pay for a bicycle.", "RSR"), ("It is possible to take a bicycle along.", "SSR")]),
        _choice(rng, "order", [f"Trains to {d} call at {b} first.|On the way to {d}, trains stop at {b}.", f"Trains to {b} call at {d} first.|On the way to {b}, trains stop at {d}."], [
            (f"{b} comes before {d} on the line.", "SR"), (f"{d} comes before {b} on the line.", "RS"), (f"A train reaches {b} earlier than {d}.", "SR"), (f"A train reaches {d} before it gets to {b}.", "RS")]),
        _choice(rng, "delay", ["The delay was caused by a broken signal.|A broken signal caused the delay.", "The delay was caused by ice on the track.|Ice on the track caused the delay.", "There was a delay, the cause of which is still being examined.|The cause of the delay has not been established yet."], [
            ("A broken signal was the cause of the delay.", "SRN"), ("The cause of the delay was ice on the track.", "RSN"), ("The cause of the delay is known.", "SSR"), ("There was a delay.", "SSS")]),
        _plans(rng, "the night line", "extend", "extended"),
    ), ("Lost property is not kept at the station.", "Line maps of other regions are not shown here.", "The waiting room has no heating.", "Prices in the kiosk did not change."))


def _handbook(rng: random.Random) -> Document:
    d = rng.sample(range(3, 40), 4)
    w = rng.sample((2, 3, 4, 6, 8, 10, 12, 14, 16, 20, 26), 3)
    lead, officer = _persons(rng, 2)
    day = rng.choice(WEEKDAYS[:5])
    return Document("handbook", rng.choice(("Staff handbook", "Working here", f"{company(rng)}: handbook for employees", "Rules for employees")), "", (), _NO_PRONOUN, (
        Fact("leave", Count(d[0] + 15), "Full-time employees have $v days of annual leave.|The annual leave is $v days for full-time staff.", "The annual leave of full-time staff [is/is not] $v days.|A full-time employee [gets/does not get] $v days of leave a year.", "the annual leave of full-time staff in days", True),
        Fact("carry", Count(d[1] % 12 + 2), "Up to $v days of leave can be carried into the next year.|At most $v days of leave may be carried over.", "The maximum leave to be carried over [is/is not] $v days.", "", False),
        Fact("training", Count(d[2] % 12 + 2), "There are $v training days a year.|Each employee has $v training days a year.", "The number of training days a year [is/is not] $v.|Employees [get/do not get] $v training days a year.", "the number of training days a year", True),
        Fact("parental", Measure(w[0] * 7, "term"), "Paid parental leave lasts $v.|Parents receive paid leave of $v.", "Paid parental leave [is/is not] $v long.|The paid parental leave [lasts/does not last] $v.", "the paid parental leave", True),
        Fact("probation", Measure(w[1] * 7, "term"), "The probation period is $v.|New employees are on probation for $v.", "Probation [lasts/does not last] $v.|The probation period [is/is not] $v.", "the probation period", True),
        Fact("sick", Measure(w[2] * 7, "term"), "Sick pay is paid for up to $v.|Employees who are ill receive sick pay for at most $v.", "The maximum duration of sick pay [is/is not] $v.", "the maximum duration of sick pay"),
        Fact("start", Clock.sample(rng, 6, 10), "Core hours begin at $v.|Everybody has to be at work by $v.", "Core hours [start/do not start] at $v.", ""),
        Fact("end", Clock.sample(rng, 14, 18), "Core hours end at $v.|Core hours last until $v.", "Core hours [are/are not] over at $v.|Core hours [end/do not end] at $v."),
        Fact("bonus", Percent(rng.randint(2, 25)), "The annual bonus is $v of the salary.|Employees receive an annual bonus of $v of their salary.", "The annual bonus [is/is not] $v of the salary.|The bonus [amounts/does not amount] to $v of the salary.", "the bonus", True),
        Fact("pension", Percent(rng.randint(2, 15)), "The company pays $v of the salary into the pension plan.|The pension contribution of the company is $v of the salary.", "The company's pension contribution [is/is not] $v of the salary.", "the pension contribution", True),
        Fact("lead", lead, "$v heads the personnel department.|The head of personnel is $v.", "$v [is/is not] the head of personnel.|The personnel department [is/is not] headed by $v."),
        Fact("officer", officer, "The safety officer is $v.|$v is responsible for safety at work.", "$v [is/is not] the safety officer.|Safety at work [is/is not] the responsibility of $v."),
        _choice(rng, "remote", [f"Employees may work from home two days a week, except on {day}s.|Working from home is possible on two days a week, but not on {day}s.", "Employees may work from home as often as they like.|There is no limit on working from home.", "Working from home is not possible.|All work has to be done at the office."], [
            (f"An employee may work from home on a {day}.", "RSR"), ("Some work may be done from home.", "SSR"), ("Employees may work from home five days a week.", "RSR"), ("Employees can never work from home.", "RRS"), ("There is a limit on working from home.", "SRN")]),
        _choice(rng, "overtime", ["Overtime is paid.|Employees are paid for overtime.", "Overtime is not paid but compensated with free time.|Employees get time off, not money, for overtime.", "Overtime is neither paid nor compensated.|Employees get nothing for overtime."], [
            ("Employees get money for overtime.", "SRR"), ("Those who work overtime get time off.", "NSR"), ("Overtime is not compensated in any way.", "RRS"), ("No money is paid for overtime.", "RSS")]),
        _choice(rng, "note", ["A doctor's note is needed from the first day of illness.|Employees who are ill need a doctor's note from day one.", "A doctor's note is needed only if an illness lasts more than three days.|For up to three days of illness no doctor's note is needed, but for longer ones it is."], [
            ("An employee who is ill for two days has to bring a doctor's note.", "SR"), ("For an illness of five days a doctor's note is necessary.", "SS"), ("Two days of illness need no doctor's note.", "RS")]),
        _choice(rng, "dress", ["There is no dress code.|Employees can wear what they like.", "Staff with customer contact must wear a uniform; others need not.|Only staff with customer contact have to wear a uniform.", "All employees must wear a uniform.|Everyone has to wear a uniform."], [
            ("Everybody has to wear a uniform.", "RRS"), ("Nobody has to wear a uniform.", "SRR"), ("Staff with customer contact wear a uniform.", "RSS"), ("Employees without customer contact may wear what they like.", "SNR")]),
        _choice(rng, "gifts", ["Employees may accept small gifts.|Small gifts may be accepted.", "Employees must not accept any gifts.|No gifts may be accepted.", "Employees may accept gifts if their manager agrees.|With a manager's consent, gifts may be accepted."], [
            ("It is forbidden to accept a gift, however small.", "RSR"), ("With a manager's consent, an employee may accept a small gift.", "SRS"), ("No gift is acceptable.", "RSR")]),
        _choice(rng, "phones", ["Private calls are allowed during breaks only.|Employees may make private calls only in their breaks.", "Private calls are allowed at any time.|Employees may make private calls whenever they want.", "Private calls are forbidden at all times.|Employees may never make private calls at work."], [
            ("An employee may make a private call in a break.", "SSR"), ("Private calls outside breaks are permitted.", "RSR"), ("Private calls are never permitted.", "RRS")]),
        _origin("officer", officer, "The safety officer", rng), _career("lead", lead, "The head of personnel", rng),
        _plans(rng, "the canteen", "enlarge", "enlarged"),
    ), _OFFICE_ASIDES)


def _study(rng: random.Random) -> Document:
    drug = rng.choice(("vitamin D", "green tea", "a short nap", "daily walking", "a new fertilizer", "music lessons", "a salt-free diet", "light therapy", "a shorter working week"))
    effect, other = rng.sample(("sleep", "memory", "blood pressure", "mood", "concentration", "back pain", "crop yield", "reaction time", "weight"), 2)
    lead, stat = _persons(rng, 2)
    return Document("abstract", f"Effects of {drug} on {effect}", "", (), _NO_PRONOUN, (
        Fact("n", Count(_round(rng, 20, 5000, 1)), "The study included $v participants.|$v people took part in the study.", "The study [had/did not have] $v participants.|The number of participants [was/was not] $v.", "the number of participants", True),
        Fact("dropped", Count(rng.randint(2, 15)), "$v participants dropped out.|In the course of the study, $v participants left it.", "The number of participants who dropped out [was/was not] $v.", "", True),
        Fact("weeks", Measure(rng.randint(2, 60) * 7, "term"), "The study lasted $v.|Participants were observed for $v.", "The study [took/did not take] $v.|The duration of the study [was/was not] $v.", "the duration of the study", True),
        Fact("follow", Measure(rng.randint(2, 40) * 7, "term"), "A follow-up took place $v later.|The participants were examined again $v later.", "The follow-up [was/was not] $v later.", "", True),
        Fact("women", Percent(rng.randint(20, 80)), "$v of the participants were women.|Women made up $v of the participants.", "The share of women [was/was not] $v.|Women [made/did not make] up $v of the participants.", "the share of women", True),
        Fact("smokers", Percent(rng.randint(2, 45)), "$v of the participants smoked.|Smokers made up $v of the participants.", "The share of smokers [was/was not] $v.|Smokers [made/did not make] up $v of the participants.", "the share of smokers", True),
        Fact("lead", lead, "The study was led by $v.|$v led the study.", "$v [led/did not lead] the study.|The leader of the study [was/was not] $v."),
        Fact("stat", stat, "The statistics were done by $v.|$v did the statistics.", "$v [was/was not] responsible for the statistics.|The statistics [were/were not] done by $v."),
        Fact("school", school_name(rng), "The study was carried out at $v.|The work was done at $v.", "The study [was/was not] carried out at $v."),
        Fact("funder", company_name(rng), "The only funding came from $v.|The study was funded solely by $v.", "$v [funded/did not fund] the study.|The study [was/was not] funded by $v."),
        Fact("country", word(COUNTRY_NAMES, "country", rng), "All participants lived in $v.|The participants were recruited in $v only.", "The study [was/was not] done with people from $v."),
        _choice(rng, "main", [f"{drug} improved {effect}.|With {drug}, {effect} got better.", f"{drug} had no effect on {effect}.|No effect of {drug} on {effect} was found.", f"{drug} made {effect} worse.|With {drug}, {effect} got worse.", f"Whether {drug} affects {effect} could not be determined.|The data were too few to say whether {drug} affects {effect}."], [
            (f"{drug} had a positive effect on {effect}.", "SRRN"), (f"{drug} had a negative effect on {effect}.", "RRSN"), (f"{drug} did not influence {effect}.", "RSRN"), (f"The question whether {drug} affects {effect} remained open.", "RRRS")]),
        _choice(rng, "second", [f"In addition, {other} improved.|There was an improvement in {other} too.", f"By contrast, {other} did not change.|No change in {other} was seen.", f"By contrast, {other} deteriorated.|There was a deterioration in {other}."], [
            (f"{other} got better.", "SRR"), (f"{other} got worse.", "RRS"), (f"{other} stayed the same.", "RSR"), (f"{other} did not improve.", "RSS")]),
        _choice(rng, "cause", ["The study shows a correlation but cannot prove a cause.|The design does not allow conclusions about causes, only about correlation.", "Since participants were assigned at random, the effect is causal.|Random assignment allows the conclusion that the effect is causal."], [
            ("The study proves a causal effect.", "RS"), ("The study found no more than a correlation.", "SR"), ("The participants were assigned at random.", "NS")]),
        _choice(rng, "age", ["Older participants benefited more than younger ones.|The benefit was greater among older participants than among younger ones.", "Younger participants benefited more than older ones.|The benefit was greater among younger participants than among older ones.", "Age made no difference.|Older and younger participants benefited equally."], [
            ("The benefit was larger for older people.", "SRR"), ("The benefit was larger for younger people.", "RSR"), ("The benefit did not depend on age.", "RRS"), ("Younger participants benefited less.", "SRR")]),
        _choice(rng, "harm", ["No side effects were reported.|None of the participants reported side effects.", "A few participants reported side effects.|Side effects were reported by some participants.", "All participants reported side effects.|Every participant reported side effects."], [
            ("Nobody had side effects.", "SRR"), ("Some participants had side effects.", "RSS"), ("Every participant had side effects.", "RRS"), ("Not all participants had side effects.", "SSR")]),
        _choice(rng, "replic", ["A second group confirmed the result.|The result was confirmed by a second group.", "A second group could not confirm the result.|An attempt of a second group to confirm the result failed.", "Nobody has tried to repeat the study yet.|The study has not been repeated so far."], [
            ("The result has been confirmed.", "SRR"), ("The attempt to confirm the result failed.", "RSR"), ("The study still has to be repeated for the first time.", "RRS")]),
        _choice(rng, "blind", ["The participants did not know which group they were in, but the doctors did.|The doctors knew the groups; the participants did not.", "Neither the participants nor the doctors knew the groups.|Nobody, neither doctors nor participants, knew the groups.", "Both the participants and the doctors knew the groups.|The groups were known to doctors and participants alike."], [
            ("The doctors knew who was in which group.", "SRS"), ("The participants knew their group.", "RRS"), ("The doctors did not know the groups.", "RSR"), ("The participants were not told their group.", "SSR")]),
        _career("lead", lead, "The leader of the study", rng), _origin("stat", stat, "The person who did the statistics", rng),
    ), ("Earlier reports were not peer-reviewed.", "The questionnaire was not translated.", "No animals were involved.", "Limitations are discussed elsewhere."))


def _town(rng: random.Random) -> Document:
    name = place(rng)
    mayor, founder, poet = _persons(rng, 3)
    rival = place(rng)
    y1, y2, y3, y4 = _years(rng, 1200, 1990, 4)
    return Document("town history", rng.choice((name, f"History of {name}")), name, ("the town",), _IT, (
        Fact("first", Date(y1), "$S is first mentioned in a document written $v.|The first document that mentions $S was written $v.", "The first mention of $S [was/was not] $v.|$S [is/is not] first mentioned $v."),
        Fact("charter", Date(y2), "$S received its town charter $v.|The town charter was granted $v.", "$S [became/did not become] a chartered town $v.|The charter [was/was not] granted $v."),
        Fact("fire", Date(y3), "A great fire broke out $v.|$S burned in a great fire $v.", "The great fire [was/was not] $v.|$S [burned/did not burn] in the great fire $v."),
        Fact("railway", _dated(max(y4, 1835), rng), "The railway reached $S $v.|$S was connected to the railway $v.", "$S [got/did not get] its railway $v.|The railway [came/did not come] to $S $v."),
        Fact("pop", Count(_round(rng, 300, 400000, 1)), "$S has $v inhabitants.|The population is $v.", "The population of $S [is/is not] $v.|$S [has/does not have] $v inhabitants.", "the present population", True),
        Fact("pop old", Count(_round(rng, 200, 100000, 1)), "A century ago the population was $v.|$v people lived in $S a century ago.", "A century ago $S [had/did not have] $v inhabitants.|The population a century ago [was/was not] $v.", "the population a century ago", True),
        Fact("mayor", mayor, "The mayor is $v.|$v is the mayor.", "$v [is/is not] the mayor of $S.|The mayor of $S [is/is not] $v."),
        Fact("founder", founder, "The school was founded by $v.|$v founded the school.", "$v [founded/did not found] the school.|The founder of the school [was/was not] $v."),
        Fact("poet", poet, "The statue in the square shows $v.|$v is shown by the statue in the square.", "The statue [shows/does not show] $v.|The statue in the square [is/is not] of $v."),
        Fact("river", Name(f"the {place(rng)}", "river", lambda r: f"the {place(r)}"), "$S lies on $v, a river.|The river on which $S lies is $v.", "$S [is/is not] on $v.|The river of $S [is/is not] $v."),
        Fact("twin", place_name(rng), "Its only twin town is $v.|$S is twinned with one town, $v.", "$S [is/is not] twinned with $v.|The twin town of $S [is/is not] $v."),
        Fact("industry", word(("weaving", "mining", "fishing", "brewing", "shipbuilding", "papermaking", "tanning", "tourism", "steelmaking"), "trade", rng), "For centuries the main trade was $v.|People there lived mainly from $v for centuries.", "For centuries the main trade [was/was not] $v."),
        Fact("now", word(("weaving", "mining", "fishing", "brewing", "shipbuilding", "papermaking", "tanning", "tourism", "steelmaking"), "trade", rng), "Today the most important business is $v.|Nowadays $v is the most important business.", "The most important business today [is/is not] $v."),
        Fact("distance", Measure(_round(rng, 2, 90) * 500, "length"), f"The distance to {rival} is $v.|{rival} is $v away.", f"{rival} [is/is not] $v from $S.|The distance between $S and {rival} [is/is not] $v.", "", True),
        _choice(rng, "siege", ["$S was besieged but never taken.|Though besieged, $S was never captured.", "$S was besieged and taken.|After a siege, $S was captured.", "$S was taken without a siege.|$S was captured without being besieged."], [
            ("$S was captured.", "RSS"), ("$S withstood the siege.", "SRR"), ("There was a siege of $S.", "SSR")]),
        _choice(rng, "war", [f"$S sided with the king, and {rival} with the rebels.|{rival} joined the rebels, whereas $S remained loyal to the king.", f"$S sided with the rebels, and {rival} with the king.|{rival} remained loyal to the king, whereas $S joined the rebels."], [
            ("$S supported the rebels.", "RS"), ("$S was on the side of the king.", "SR"), (f"{rival} supported the rebels.", "SR"), (f"{rival} was loyal to the king.", "RS"), (f"{rival} did not join the rebels.", "RS")]),
        _choice(rng, "larger", [f"$S is larger than {rival}.|{rival} is smaller than $S.", f"$S is smaller than {rival}.|{rival} is larger than $S."], [
            (f"$S is bigger than {rival}.", "SR"), (f"{rival} is the bigger town.", "RS"), (f"{rival} is not as big as $S.", "SR"), ("$S is the smaller of the two towns.", "RS")]),
        _choice(rng, "walls", ["The town walls still stand.|The town walls have been preserved.", "The town walls were pulled down.|The town walls no longer exist, having been pulled down.", "Only one gate of the town walls still stands; the rest is gone.|Of the town walls nothing but a gate has been preserved."], [
            ("Nothing is left of the town walls.", "RSR"), ("The town walls are completely preserved.", "NRR"), ("The town walls were demolished.", "RSN")]),
        _choice(rng, "uni", ["$S has no university.|There is no university in $S.", "$S has a university.|There is a university in $S.", "$S used to have a university, which was closed.|The university of $S was closed."], [
            ("There is a university in $S today.", "RSR"), ("One cannot attend a university in $S.", "SRS"), ("$S once had a university that has since closed.", "NRS")]),
        _cause(rng, "decline", "$S declined afterwards", "$S declined", ("the plague", "the silting of its harbour", "the end of the salt trade", "a change of the river's course", "high taxes")),
        _origin("mayor", mayor, "The mayor of $S", rng), _origin("founder", founder, "The founder of the school", rng), _career("mayor", mayor, "The mayor of $S", rng),
        _plans(rng, "a bypass road", "build", "built"),
    ), _ASIDES)


def _work(rng: random.Random) -> Document:
    what = rng.choice(("film", "novel", "opera", "album", "play", "series"))
    name = rng.choice(("The", "A", "My")) + " " + rng.choice(("Silent", "Last", "Crimson", "Borrowed", "Hollow", "Distant", "Broken", "Golden", "Second", "Paper", "Winter")) + " " + rng.choice(("Harbour", "Orchard", "Letter", "Compass", "Garden", "Lantern", "Witness", "Crossing", "Mirror", "Kingdom", "Summer"))
    maker, star, composer, critic = _persons(rng, 4)
    role = {"film": "director", "novel": "author", "opera": "librettist", "album": "producer", "play": "playwright", "series": "creator"}[what]
    hero, villain = _persons(rng, 2)
    return Document("work", rng.choice((name, f"{name} ({what})")), name, (f"the {what}",), _IT, (
        Fact("maker", maker, f"The {role} of $S is $v.|$v is the {role}.", f"$v [is/is not] the {role} of $S.|The {role} of $S [is/is not] $v."),
        Fact("patron", star, "$S is dedicated to $v.|$P dedication is to $v.", "$S [is/is not] dedicated to $v.|$v [is/is not] the person to whom $S is dedicated."),
        Fact("cover", composer, "The cover was drawn by $v.|$v drew the cover.", "$v [drew/did not draw] the cover.|The cover [was/was not] drawn by $v."),
        Fact("out", Date.sample(rng, 1900, 2024), "$S came out $v.|$S was first presented to the public $v.", "$S [came/did not come] out $v.|$S [was/was not] first presented $v."),
        Fact("setting", place_name(rng), "The story is set in $v.|Its story takes place in $v.", "$S [is/is not] set in $v.|The story [takes/does not take] place in $v."),
        Fact("made", place_name(rng), "$S was made in $v.|The work on it was done in $v.", "$S [was/was not] made in $v."),
        Fact("language", word(LANGUAGES, "tongue", rng), "The original language is $v.|Its original is in $v.", "The original language of $S [is/is not] $v.|The original [is/is not] in $v."),
        Fact("translation", word(LANGUAGES, "tongue", rng), "It has been translated into one language, $v.|The only translation is into $v.", "There [is/is not] a translation into $v.|It [has/has not] been translated into $v."),
        Fact("budget", Money(_round(rng, 5, 900) * 1000, cur := rng.choice("£$€")), "The production cost $v.|$v was spent on the production.", "The production cost [was/was not] $v.|Making it [cost/did not cost] $v.", "the production cost", True),
        Fact("income", Money(_round(rng, 5, 900) * 1000, cur), "In its first year it earned $v.|The income of the first year was $v.", "The income of the first year [was/was not] $v.|It [earned/did not earn] $v in its first year.", "the income of the first year", True),
        Fact("parts", Count(rng.randint(2, 40)), "$S has $v parts.|$S is divided into $v parts.", "$S [has/does not have] $v parts.|The number of parts [is/is not] $v.", "", True),
        Fact("publisher", company_name(rng), "$S was brought out by $v.|$v brought it out.", "$v [brought/did not bring] out $S.|$S [was/was not] brought out by $v."),
        _choice(rng, "plot", [f"In the story, {hero.name} betrays {villain.name}.|{villain.name} is betrayed by {hero.name}.", f"In the story, {villain.name} betrays {hero.name}.|{hero.name} is betrayed by {villain.name}."], [
            (f"{hero.name} betrays {villain.name}.", "SR"), (f"{villain.name} betrays {hero.name}.", "RS"), (f"{hero.name} is the one who is betrayed.", "RS"), (f"{villain.name} is the victim of a betrayal.", "SR")]),
        _choice(rng, "end", [f"In the end {hero.name} leaves the city and {villain.name} stays.|At the end {villain.name} stays in the city, while {hero.name} goes away.", f"In the end {villain.name} leaves the city and {hero.name} stays.|At the end {hero.name} stays in the city, while {villain.name} goes away.", f"In the end both {hero.name} and {villain.name} leave the city.|At the end neither {hero.name} nor {villain.name} stays in the city."], [
            (f"{hero.name} leaves the city in the end.", "SRS"), (f"{villain.name} leaves the city in the end.", "RSS"), (f"{hero.name} remains in the city.", "RSR"), ("One of the two stays in the city.", "SSR"), ("Both leave the city.", "RRS")]),
        _choice(rng, "critic", [f"The critic {critic.name} praised $S.|$S was praised by the critic {critic.name}.", f"The critic {critic.name} attacked $S.|$S was attacked by the critic {critic.name}.", f"The critic {critic.name} has not reviewed $S.|$S has not been reviewed by the critic {critic.name}."], [
            (f"{critic.name} spoke well of $S.", "SRR"), (f"{critic.name} criticized $S harshly.", "RSR"), (f"{critic.name} wrote no review of $S.", "RRS")]),
        _choice(rng, "true", ["$S is based on a true story.|The story really happened.", "$S is not based on a true story; its plot is invented.|The story is invented."], [
            ("The plot is fictional.", "RS"), ("The story is a true one.", "SR"), ("The events did not happen in reality.", "RS"), ("$S tells of real events.", "SR")]),
        _choice(rng, "prize", ["$S was nominated for a prize but did not win.|Though nominated for a prize, $S went away empty-handed.", "$S won a prize.|$S was awarded a prize.", "$S was not nominated for any prize.|No prize jury nominated $S."], [
            ("$S received a prize.", "RSR"), ("$S was nominated for a prize.", "SNR"), ("$S was nominated in vain.", "SRR")]),
        _origin("maker", maker, f"The {role} of $S", rng), _origin("cover", composer, "The person who drew the cover", rng),
        _plans(rng, "a sequel", "make", "made"),
    ), ("Another work of that title is not related.", "The estate has never given permission to quote from the letters.", "No copy of the early draft survives.", "The poster was not kept."))


def _incident(rng: random.Random) -> Document:
    place_a, place_b = rng.sample(("the warehouse", "the loading dock", "the boiler room", "the laboratory", "the canteen", "the car park", "the server room", "the workshop"), 2)
    finder, driver, head = _persons(rng, 3)
    t1, t2 = sorted(rng.sample(range(6 * 4, 22 * 4), 2))
    return Document("incident report", rng.choice(("Incident report", f"Report on the incident at {company(rng)}", "Accident report")), "", (), _NO_PRONOUN, (
        Fact("finder", finder, "The fire was discovered by $v.|$v discovered the fire.", "$v [discovered/did not discover] the fire.|The person who discovered the fire [was/was not] $v."),
        Fact("caller", driver, "$v called the fire brigade.|The fire brigade was called by $v.", "The call to the fire brigade [was/was not] made by $v.|$v [called/did not call] the fire brigade."),
        Fact("head", head, "The inquiry is led by $v.|$v leads the inquiry.", "$v [is/is not] in charge of the inquiry.|The inquiry [is/is not] led by $v."),
        Fact("start", Clock(t1 * 15), "The fire broke out at $v.|The fire started at $v.", "The fire [began/did not begin] at $v.|The outbreak of the fire [was/was not] at $v.", ""),
        Fact("end", Clock(t2 * 15), "By $v the fire was out.|The fire was put out at $v.", "The fire [was/was not] put out at $v."),
        Fact("date", Date.sample(rng, 1990, 2027, 3), "It happened $v.|The incident occurred $v.", "The incident [happened/did not happen] $v.|It [took/did not take] place $v."),
        Fact("damage", Money(_round(rng, 2, 900) * 500, cur := rng.choice("£$€")), "The damage is put at $v.|Damage of $v was done.", "The damage [amounts/does not amount] to $v.|The amount of the damage [is/is not] $v.", "the damage", True),
        Fact("insured", Money(_round(rng, 2, 900) * 500, cur), "The insurance covers $v.|$v is covered by the insurance.", "The insurance [pays/does not pay] $v.|The sum covered by the insurance [is/is not] $v.", "the sum covered by the insurance", True),
        Fact("evacuated", Count(rng.randint(4, 900)), "$v people were evacuated.|The building was cleared of $v people.", "The number of evacuated people [was/was not] $v.", "the number of evacuated people", True),
        Fact("engines", Count(rng.randint(2, 30)), "$v fire engines were sent.|The fire brigade came with $v fire engines.", "The number of fire engines [was/was not] $v.|The fire brigade [sent/did not send] $v fire engines.", "the number of fire engines", True),
        _choice(rng, "where", [f"The fire started in {place_a} and spread to {place_b}.|From {place_a}, where it began, the fire spread to {place_b}.", f"The fire started in {place_b} and spread to {place_a}.|From {place_b}, where it began, the fire spread to {place_a}.", f"The fire started in {place_a} but did not reach {place_b}.|The fire, which began in {place_a}, never reached {place_b}."], [
            (f"The fire began in {place_a}.", "SRS"), (f"The fire began in {place_b}.", "RSR"), (f"The fire reached {place_b}.", "SSR"), (f"{place_b} was not reached by the fire.", "RRS")]),
        _choice(rng, "injured", ["Nobody was injured.|There were no injuries.", "Two people were slightly injured; nobody was killed.|Two people suffered slight injuries, but there were no deaths.", "One person was seriously injured.|One person suffered serious injuries."], [
            ("No one was hurt.", "SRR"), ("Somebody was seriously injured.", "RRS"), ("At least one person was injured.", "RSS"), ("Two people were injured.", "RSR"), ("All injuries were slight.", "NSR")]),
        _choice(rng, "cause", ["The cause was a faulty cable.|A faulty cable caused the fire.", "The cause was a cigarette.|A cigarette caused the fire.", "The cause is not known.|What caused the fire is unknown.", "A faulty cable may have been the cause.|It is possible that a faulty cable caused the fire."], [
            ("A faulty cable was the cause of the fire.", "SRNN"), ("A cigarette was the cause of the fire.", "RSNN"), ("The cause of the fire has been established.", "SSRR"), ("The fire was possibly caused by a faulty cable.", "SRNS"), ("It is unclear what caused the fire.", "RRSS")]),
        _choice(rng, "alarm", ["The alarm did not go off.|The alarm failed.", "The alarm went off at once.|The alarm sounded immediately.", "The alarm went off only after half an hour.|It took half an hour until the alarm sounded."], [
            ("The alarm failed to sound.", "SRR"), ("The alarm sounded without delay.", "RSR"), ("The alarm sounded with a delay.", "RRS"), ("The alarm went off.", "RSS")]),
        _choice(rng, "exit", ["All emergency exits were open.|Every emergency exit was open.", "One of the emergency exits was blocked.|An emergency exit was blocked, while the others were open.", "All emergency exits were blocked.|None of the emergency exits was open."], [
            ("Every emergency exit could be used.", "SRR"), ("At least one emergency exit was blocked.", "RSS"), ("No emergency exit was open.", "RRS"), ("Some emergency exits were open.", "SSR")]),
        _choice(rng, "fault", [f"{finder.name} blamed {head.name} for the fire.|{head.name} was blamed for the fire by {finder.name}.", f"{head.name} blamed {finder.name} for the fire.|{finder.name} was blamed for the fire by {head.name}.", f"{finder.name} blamed nobody for the fire.|Nobody was blamed by {finder.name}."], [
            (f"{finder.name} put the blame on {head.name}.", "SNR"), (f"{head.name} put the blame on {finder.name}.", "NSN"), (f"{finder.name} did not blame anybody.", "RNS")]),
        _choice(rng, "reopen", ["Work resumed the next day.|The next day work went on.", "Work has not resumed.|Work is still suspended.", "Work may resume next week if the inspection is passed.|If the inspection is passed, work can resume next week."], [
            ("Work has started again.", "SRR"), ("Work will certainly resume next week.", "RNN"), ("Work is still at a standstill.", "RSS"), ("Work might start again next week.", "NNS")]),
        _origin("finder", finder, "The person who discovered the fire", rng), _career("head", head, "The person who leads the inquiry", rng),
    ), ("The neighbouring school was not affected.", "No previous report mentions the shed.", "The weather played no role in earlier cases.", "Reporters were not admitted."))


def _council(rng: random.Random) -> Document:
    town = place(rng)
    mayor, opp, planner = _persons(rng, 3)
    a, b, c = rng.sample(("the swimming pool", "the tram line", "the public library", "the market square", "the sports hall", "the harbour", "the cemetery", "the youth centre", "the town park"), 3)
    cur = rng.choice("£$€")
    yes, no = rng.sample(range(5, 50), 2)
    return Document("council decision", rng.choice((f"Council of {town}", f"{town}: decisions of the council", "From the council meeting")), "", (), _NO_PRONOUN, (
        Fact("a", Money(_round(rng, 2, 400) * 10000, cur), f"The council granted $v for {a}.|$v will be spent on {a}.", f"The sum for {a} [is/is not] $v.|{a} [receives/does not receive] $v.", f"the sum for {a}", True),
        Fact("b", Money(_round(rng, 2, 400) * 10000, cur), f"The council granted $v for {b}.|$v will be spent on {b}.", f"The sum for {b} [is/is not] $v.|{b} [receives/does not receive] $v.", f"the sum for {b}", True),
        Fact("tax", Percent(rng.randint(2, 30)), "The property tax goes up by $v.|The council raised the property tax by $v.", "The property tax [rises/does not rise] by $v.|The rise in property tax [is/is not] $v.", "the rise in property tax", True),
        Fact("fees", Percent(rng.randint(2, 30)), "Parking fees go up by $v.|The council raised parking fees by $v.", "Parking fees [rise/do not rise] by $v.|The rise in parking fees [is/is not] $v.", "the rise in parking fees", True),
        Fact("mayor", mayor, "The meeting was led by the mayor, $v.|The mayor, $v, led the meeting.", "The mayor [is/is not] $v.|The meeting [was/was not] led by $v."),
        Fact("opp", opp, "$v spoke for the opposition.|The speaker of the opposition was $v.", "$v [was/was not] the speaker of the opposition.|The opposition [was/was not] represented by $v."),
        Fact("planner", planner, f"The plans for {a} were presented by $v.|$v presented the plans for {a}.", f"$v [presented/did not present] the plans for {a}.|The plans for {a} [were/were not] presented by $v."),
        Fact("builder", company_name(rng), f"The contract for {b} went to $v.|$v was given the contract for {b}.", f"$v [got/did not get] the contract for {b}.|The contract for {b} [was/was not] given to $v."),
        Fact("seats", Count(rng.randint(12, 90)), "The council has $v committees.|There are $v committees in the council.", "The number of committees [is/is not] $v.|The council [has/does not have] $v committees.", "the number of committees", True),
        Fact("public", Count(rng.randint(3, 300)), "$v residents attended.|The meeting was attended by $v residents.", "The number of residents who attended [was/was not] $v.", "the number of residents who attended", True),
        Fact("date", Date.sample(rng, 1995, 2028, 3), "The decisions were taken $v.|The council met $v.", "The council [met/did not meet] $v.|The meeting [was/was not] held $v."),
        _choice(rng, "vote", [f"The council approved the plan for {c} by {max(yes, no)} votes to {min(yes, no)}.|With {max(yes, no)} votes to {min(yes, no)} the plan for {c} was adopted.", f"The council rejected the plan for {c} by {max(yes, no)} votes to {min(yes, no)}.|With {max(yes, no)} votes to {min(yes, no)} the plan for {c} was turned down.", f"The council put off the vote on {c}.|The vote on {c} was adjourned."], [
            (f"The plan for {c} was accepted.", "SRR"), (f"The plan for {c} failed.", "RSR"), (f"No decision about {c} was taken.", "RRS"), (f"{min(yes, no)} members voted for the plan for {c}.", "RSR"), (f"{min(yes, no)} members voted against the plan for {c}.", "SRR"), (f"The plan for {c} did not find a majority at this meeting.", "RSS")]),
        _choice(rng, "stance", [f"{mayor.name} was for the plan, and {opp.name} was against it.|{opp.name} opposed the plan, which {mayor.name} supported.", f"{mayor.name} was against the plan, and {opp.name} was for it.|{opp.name} supported the plan, which {mayor.name} opposed.", f"Both {mayor.name} and {opp.name} were for the plan.|{mayor.name} supported the plan, and so did {opp.name}."], [
            (f"{mayor.name} supported the plan.", "SRS"), (f"{opp.name} supported the plan.", "RSS"), (f"{mayor.name} was opposed to the plan.", "RSR"), (f"{mayor.name} and {opp.name} agreed about the plan.", "RRS"), (f"{opp.name} did not support the plan.", "SRR")]),
        _choice(rng, "closure", [f"{a} will be closed for repairs from May to July.|From May to July {a} is closed for repairs.", f"{a} will stay open during the repairs.|During the repairs {a} is not going to close.", f"{a} will be closed for good.|{a} is to be closed permanently."], [
            (f"{a} will be closed in June.", "SRN"), (f"{a} will never open again.", "RRS"), (f"{a} can be used during the repairs.", "RSN"), (f"The closure of {a} is temporary.", "SRR")]),
        _choice(rng, "debt", ["The town has no debts.|The town is free of debt.", "The debts of the town rose.|The town's debts have increased.", "The debts of the town fell, but some remain.|The town's debts have decreased without being paid off."], [
            ("The town owes money.", "RSS"), ("The debts went up.", "RSR"), ("The debts went down.", "NRS"), ("The town does not have any debts.", "SRR")]),
        _choice(rng, "petition", ["All petitions were accepted.|Every petition was granted.", "Some petitions were accepted and others were not.|Not every petition was granted, though some were.", "All petitions were rejected.|No petition was granted."], [
            ("Every petition succeeded.", "SRR"), ("No petition succeeded.", "RRS"), ("At least one petition was rejected.", "RSS"), ("At least one petition was granted.", "SSR")]),
        _origin("opp", opp, "The speaker of the opposition", rng), _career("planner", planner, f"The person who presented the plans for {a}", rng),
        _plans(rng, "the old bus station", "demolish", "demolished"),
    ), ("The report on noise was not discussed.", "The fountain is not working.", "No complaints about the fair were received.", "A former member was not re-elected elsewhere."))


def _species(rng: random.Random) -> Document:
    adjective = rng.choice(("spotted", "lesser", "northern", "crested", "long-tailed", "marsh", "golden", "pygmy", "grey-footed", "river"))
    kind = rng.choice(("heron", "otter", "lizard", "owl", "beetle", "fox", "bat", "toad", "gull", "mouse", "trout", "moth", "deer"))
    name = f"the {place(rng)} {kind}" if rng.random() < 0.5 else f"the {adjective} {coined(rng).lower()}"
    month1, month2 = rng.sample(MONTHS, 2)
    finder, keeper = _persons(rng, 2)
    food = ("insects", "fish", "seeds", "snails", "fruit", "worms", "leaves", "small mammals", "crabs")
    return Document("species", name[4:].capitalize() if name[4].islower() else name[4:], name, ("the animal", "the species"), _IT, (
        Fact("length", Count(rng.randint(3, 180)), "$S is $v centimetres long.|Its body length is $v centimetres.", "The body length of $S [is/is not] $v centimetres.|$S [is/is not] $v centimetres long.", "the body length in centimetres", True),
        Fact("tail", Count(rng.randint(2, 90)), "Its tail measures $v centimetres.|The tail is $v centimetres long.", "The tail [is/is not] $v centimetres long.|The length of the tail [is/is not] $v centimetres.", "the length of the tail in centimetres", True),
        Fact("weight", Measure(_round(rng, 3, 900, 1) * 10, "weight"), "$S weighs $v.|Its weight is $v.", "$S [weighs/does not weigh] $v.|The weight of $S [is/is not] $v.", "", True),
        Fact("life", Count(rng.randint(2, 60)), "$S lives for up to $v years.|Its maximum age is $v years.", "The maximum age of $S [is/is not] $v years.", "", False),
        Fact("young", Count(rng.randint(2, 14)), "A litter has $v young.|Females raise $v young at a time.", "The number of young raised at a time [is/is not] $v.|A litter [has/does not have] $v young.", "", True),
        Fact("back", word(COLOURS, "colour", rng), "Its back is $v.|$S has a $v back.", "The back of $S [is/is not] $v.|The colour of its back [is/is not] $v."),
        Fact("belly", word(COLOURS, "colour", rng), "The belly is $v.|Its belly is $v.", "The belly of $S [is/is not] $v.|The colour of its belly [is/is not] $v."),
        Fact("food", Name(rng.choice(food), "food", lambda r: r.choice(food)), "$S feeds only on $v.|Its only food is $v.", "$S [eats/does not eat] $v.|The food of $S [consists/does not consist] of $v."),
        Fact("young food", Name(rng.choice(food), "food", lambda r: r.choice(food)), "The young are fed only on $v.|Its young eat nothing but $v.", "The young [eat/do not eat] $v.|The food of the young [consists/does not consist] of $v."),
        Fact("country", word(COUNTRY_NAMES, "country", rng), "$S is found only in $v.|$S lives in $v and nowhere else.", "$S [lives/does not live] in $v.|The home of $S [is/is not] $v."),
        Fact("breed", Name(month1, "month", lambda r: r.choice(MONTHS)), "The young are born in $v.|$v is the month in which the young are born.", "The young [are/are not] born in $v.|The month of birth [is/is not] $v."),
        Fact("moult", Name(month2, "month", lambda r: r.choice(MONTHS)), "The first individuals are seen in $v.|It is first seen each year in $v.", "It [is/is not] first seen each year in $v."),
        Fact("finder", finder, "$S was first described by $v.|$v was the first to describe $S.", "$v [described/did not describe] $S first.|The first description of $S [is/is not] by $v."),
        Fact("keeper", keeper, "It was first bred in captivity by $v.|$v was the first to breed it in captivity.", "The first person to breed $S in captivity [was/was not] $v."),
        Fact("year", Date(rng.randint(1760, 2015)), "The first description was published $v.|$S was first described $v.", "$S [was/was not] first described $v.|The first description [appeared/did not appear] $v."),
        _choice(rng, "active", ["$S is active at night.|$S hunts by night and sleeps by day.", "$S is active by day.|$S sleeps at night and is active in the daytime."], [
            ("$S is nocturnal.", "SR"), ("$S is active in the daytime.", "RS"), ("$S is not active at night.", "RS")]),
        _choice(rng, "sexes", ["Males are larger than females.|Females are smaller than males.", "Females are larger than males.|Males are smaller than females.", "Males and females are equally large.|There is no difference in size between males and females."], [
            ("The male is bigger than the female.", "SRR"), ("The female is bigger than the male.", "RSR"), ("Both sexes have the same size.", "RRS"), ("Females are not larger than males.", "SRS")]),
        _choice(rng, "threat", ["$S is endangered.|$S is in danger of dying out.", "$S is not endangered.|$S is in no danger of dying out.", "Whether $S is endangered has never been studied.|It is unknown whether $S is endangered."], [
            ("$S is at risk of extinction.", "SRN"), ("The species is not at risk.", "RSN"), ("It is known whether $S is endangered.", "SSR")]),
        _choice(rng, "number", ["Its numbers are rising.|There are more of them each year.", "Its numbers are falling.|There are fewer of them each year.", "Its numbers are stable.|Its numbers neither rise nor fall."], [
            ("The population is growing.", "SRR"), ("The population is shrinking.", "RSR"), ("The population remains the same.", "RRS"), ("The population is not growing.", "RSS")]),
        _choice(rng, "migrate", ["All of them migrate south in winter.|In winter every one of them moves south.", "Only the young migrate south in winter; adults stay.|In winter the young move south, whereas adults stay.", "They do not migrate.|They stay in the same place all year."], [
            ("Adults migrate in winter.", "SRR"), ("The young migrate in winter.", "SSR"), ("None of them migrates.", "RRS"), ("Adults stay where they are in winter.", "RSS")]),
        _choice(rng, "social", ["$S lives alone.|$S avoids others of its kind.", "$S lives in groups.|$S forms groups."], [
            ("$S is a solitary animal.", "SR"), ("$S lives together with others of its kind.", "RS"), ("$S does not live in groups.", "SR")]),
        _choice(rng, "poison", ["$S is venomous but harmless to humans.|Though venomous, $S does humans no harm.", "$S is venomous and dangerous to humans.|$S has a venom that is dangerous to humans.", "$S is not venomous.|$S has no venom."], [
            ("$S is dangerous to people.", "RSN"), ("$S has venom.", "SSR"), ("$S is not venomous.", "RRS"), ("$S does no harm to people.", "SRN")]),
        _cause(rng, "decline", "$S vanished from the coast", "$S vanished from the coast", ("hunting", "pollution", "a disease", "the loss of its nesting sites", "a new predator")),
    ), ("A stuffed one was not for sale.", "No fossils of its relatives are known.", "The nature reserve is not open at night.", "Its name has nothing to do with its voice."))


# verb, past, participle, noun phrase of the thing; both sides are persons
_DEALS: Final = (
    ("sold", "{a} sold {t} to {b}", "{b} bought {t} from {a}", "{t} was bought by {b}"),
    ("lent", "{a} lent {t} to {b}", "{b} borrowed {t} from {a}", "{t} was borrowed by {b}"),
    ("gave", "{a} gave {t} to {b}", "{b} received {t} from {a}", "{t} was given to {b}"),
    ("taught", "{a} taught {b} how to repair {t}", "{b} learned from {a} how to repair {t}", "{b} was taught how to repair {t}"),
    ("showed", "{a} showed {t} to {b}", "{b} was shown {t} by {a}", "{t} was shown to {b}"),
    ("stole", "{b} stole {t} from {a}", "{t} was stolen from {a} by {b}", "the thief of {t} was {b}"),
    ("rented", "{a} rented out {t} to {b}", "{b} rented {t} from {a}", "the one who rented {t} was {b}"),
    ("won", "{b} won {t} from {a} in a bet", "{a} lost {t} to {b} in a bet", "the winner of {t} was {b}"),
    ("inherited", "{b} inherited {t} from {a}", "{a} left {t} to {b}", "the heir to {t} was {b}"),
    ("sent", "{a} sent {t} to {b}", "{b} got {t} from {a}", "the recipient of {t} was {b}"),
)
_THINGS: Final = ("bicycle", "boat", "piano", "camera", "tent", "clock", "van", "telescope", "violin", "typewriter", "kayak", "sewing machine", "painting", "tractor", "ladder")


def _story(rng: random.Random) -> Document:
    """Who did what to whom, on which day and where."""
    people = _persons(rng, 6)
    facts: list[Fact | Choice] = []
    things = rng.sample(_THINGS, 5)
    days = rng.sample(WEEKDAYS, 5)
    for thing, day in zip(things, days, strict=True):
        a, b = (p.name for p in rng.sample(people, 2))
        other = rng.choice([d for d in WEEKDAYS if d != day])
        t = f"the {rng.choice(('old', 'new', 'red', 'broken', 'small', 'heavy', 'wooden'))} {thing}"
        key, *forms = rng.choice(_DEALS)
        one, two, short = (f.format(a=a, b=b, t=t) for f in forms)
        rev_one, rev_two, rev_short = (f.format(a=b, b=a, t=t) for f in forms)
        planned = rng.choice((f"In the end, it is not true that {one}; nothing came of it.", f"It was planned that {b} should get {t} from {a}, but nothing came of it.")) if key in ("sold", "gave", "lent", "sent") else ""
        states = [f"On {day} {one}.|{two} on {day}.", f"On {day} {rev_one}.|{rev_two} on {day}.", f"On {other} {one}.|{two} on {other}."]
        claims = [(f"{one}.", "SRS"), (f"{two}.", "SRS"), (f"{rev_one}.", "RSR"), (f"{rev_two}.", "RSR"), (f"{short}.", "SRS"), (f"{rev_short}.", "RSR"), (f"{one} on {day}.", "SRR"), (f"{two} on {other}.", "RRS"), (f"It was on {day} that {one}.", "SRR"), (f"It is not true that {one}.", "RSR"), (f"It is not true that {rev_one}.", "SRS")]
        if planned:
            states.append(planned)
            claims = [(text, codes + ("S" if "not true that " + one in text else "N" if text[:-1] in (rev_one, rev_two, rev_short) or rev_one in text else "R")) for text, codes in claims]
        facts.append(_choice(rng, f"{thing} {key}", states, claims))
    for person in people[:4]:
        n = person.name
        facts.append(Fact(f"job {n}", word(("baker", "nurse", "carpenter", "teacher", "lawyer", "gardener", "pilot", "tailor", "farmer", "dentist", "plumber", "librarian"), "job", rng), f"{n} is a $v by profession.|{n} works full-time as a $v.", f"{n} [is/is not] a $v.|{n} [works/does not work] as a $v."))
        facts.append(Fact(f"home {n}", place_name(rng), f"{n} lives in $v.|The home of {n} is in $v.", f"{n} [lives/does not live] in $v."))
        facts.append(Fact(f"age {n}", Count(rng.randint(19, 88)), f"{n} is $v years old.|The age of {n} is $v.", f"{n} [is/is not] $v years old.|The age of {n} [is/is not] $v.", f"the age of {n}", True))
    rng.shuffle(facts)
    return Document("story", rng.choice(("", "Village news", f"News from {place(rng)}", "Diary")), "", (), _NO_PRONOUN, tuple(facts), ("It had not rained for weeks.", "Nobody else was there.", "The bakery did not open that day.", "The shop next door has been empty for years."))


def _club(rng: random.Random) -> Document:
    name = f"the {place(rng)} {rng.choice(('Rowing Club', 'Chess Club', 'Choir', 'Sailing Club', 'Garden Society', 'Cycling Club', 'Library Friends', 'Swimming Pool'))}"
    head, coach, cashier = _persons(rng, 3)
    cur = rng.choice("£$€")
    return Document("club rules", rng.choice((name[4:], f"Rules of {name}")), name, ("the club",) if "Club" in name else ("the association",), _IT, (
        Fact("head", head, "The president is $v.|$v is the president.", "$v [is/is not] the president of $S.|The president [is/is not] $v."),
        Fact("coach", coach, "New members are trained by $v.|$v trains new members.", "$v [trains/does not train] new members.|New members [are/are not] trained by $v."),
        Fact("cashier", cashier, "$v keeps the accounts.|The accounts are kept by $v.", "$v [keeps/does not keep] the accounts.|The accounts [are/are not] kept by $v."),
        Fact("members", Count(rng.randint(12, 2000)), "$S has $v members.|The membership stands at $v.", "The number of members [is/is not] $v.|$S [has/does not have] $v members.", "the number of members", True),
        Fact("juniors", Count(rng.randint(5, 300)), "There is a youth section with $v children.|The youth section has $v children.", "The number of children in the youth section [is/is not] $v.", "the number of children in the youth section", True),
        Fact("fee", Money(_round(rng, 10, 500, 5), cur), "The yearly fee is $v.|Members pay $v a year.", "Members [pay/do not pay] $v a year.|The yearly fee [is/is not] $v.", "the yearly fee", True),
        Fact("join", Money(_round(rng, 5, 250, 5), cur), "Joining costs $v once.|A single payment of $v is due on joining.", "The joining fee [is/is not] $v.", "the joining fee", True),
        Fact("locker", Money(_round(rng, 2, 80), cur), "A locker costs $v a year.|Lockers are rented for $v a year.", "A locker [costs/does not cost] $v a year.|The price of a locker [is/is not] $v a year.", "the price of a locker", True),
        Fact("day", word(WEEKDAYS, "weekday", rng), "Training is on $vs.|Members train every $v.", "Training [is/is not] on $vs."),
        Fact("board", word(WEEKDAYS, "weekday", rng), "The board meets on $vs.|Board meetings are on $vs.", "The board [meets/does not meet] on $vs."),
        Fact("founded", Date.sample(rng, 1860, 2015), "$S was founded $v.|$S was formed $v.", "$S [was/was not] founded $v.|$S [was/was not] formed $v."),
        Fact("age", Count(rng.randint(6, 21)), "The minimum age is $v.|Members must be at least $v years old.", "The minimum age for members [is/is not] $v."),
        _choice(rng, "guests", ["Members may bring one guest.|One guest per member is admitted.", "Members may not bring guests.|Guests are not admitted.", "Members may bring as many guests as they like.|There is no limit on the number of guests."], [
            ("A member may bring three guests.", "RRS"), ("A member may bring a guest.", "SRS"), ("Guests are excluded.", "RSR"), ("The number of guests is unlimited.", "RRS")]),
        _choice(rng, "vote", ["Only members over eighteen may vote.|Members who are eighteen or younger may not vote.", "All members may vote, whatever their age.|Every member has a vote, regardless of age."], [
            ("A member of sixteen may vote.", "RS"), ("A member of sixteen has no vote.", "SR"), ("A member of forty may vote.", "SS"), ("The right to vote depends on age.", "SR")]),
        _choice(rng, "elect", [f"{head.name} defeated {coach.name} in the election for team captain.|In the election for team captain {coach.name} lost to {head.name}.", f"{coach.name} withdrew, so {head.name} was elected unopposed.|{head.name} was elected unopposed after {coach.name} had withdrawn."], [
            (f"{head.name} won the election for team captain.", "SS"), (f"{coach.name} won the election for team captain.", "RR"), (f"{coach.name} lost the vote to {head.name}.", "SR"), (f"{coach.name} withdrew from the election.", "RS")]),
        _choice(rng, "boats", ["Equipment can be borrowed free of charge.|Members borrow equipment for nothing.", "Equipment can be borrowed for a fee.|Members pay for borrowing equipment.", "Equipment cannot be borrowed.|Members have to bring their own equipment, for none is lent."], [
            ("Members can borrow equipment.", "SSR"), ("Borrowing equipment costs something.", "RSR"), ("No equipment is lent.", "RRS"), ("Equipment is lent for free.", "SRR")]),
        _choice(rng, "leave", ["Members can leave at any time.|It is possible to leave whenever one likes.", "Members can leave only at the end of the year.|Leaving is possible at the end of a year only."], [
            ("A member may leave in the middle of the year.", "SR"), ("Members have to stay until the end of the year.", "RS"), ("It is not possible to leave before the end of the year.", "RS")]),
        _choice(rng, "women", ["Women were admitted from the beginning.|From the beginning women could join.", "Women were admitted only later, after a long dispute.|It took a long dispute until women could join.", "Women have never been admitted.|Women still cannot join."], [
            ("Women have never been able to join.", "RRS"), ("Women could join from the start.", "SRR"), ("At first women could not join.", "RSS")]),
        _origin("head", head, "The president of $S", rng), _career("coach", coach, "The person who trains new members", rng), _origin("cashier", cashier, "The person who keeps the accounts", rng),
        _plans(rng, "a second clubhouse", "build", "built"),
    ), ("The old boathouse is not in use.", "No minutes from that year exist.", "The kiosk by the gate is not run by the club.", "Keys must not be copied."))
# fmt: on

KINDS: Final[tuple[Callable[[random.Random], Document], ...]] = (
    _bridge,
    _building,
    _biography,
    _company_profile,
    _expenses,
    _product,
    _minutes,
    _recipe,
    _release,
    _museum,
    _lease,
    _course,
    _event,
    _leaflet,
    _geography,
    _match,
    _timetable,
    _handbook,
    _study,
    _town,
    _work,
    _incident,
    _council,
    _species,
    _story,
    _club,
)
"""Makers of documents."""
