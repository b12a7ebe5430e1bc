"""Kinds of synthetic documents: what each has to state, and in which words."""

# ruff: noqa: E501 - sentences are one line each

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from document_facts import (
    COLOURS,
    COUNTRY_NAMES,
    MATERIALS,
    Choice,
    Clock,
    Count,
    Date,
    Document,
    Fact,
    Measure,
    Money,
    Name,
    Person,
    coined,
    company,
    company_name,
    place,
    place_name,
    school_name,
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


# fmt: on

KINDS: Final = (_bridge, _biography, _product, _minutes)
"""Makers of documents."""
