"""Facts of synthetic documents: typed values, and how sentences and claims state them.

Templates are separated by `|`. `$S` is the subject, `$P` its possessive, `$v` the value; `[a/b]` is `a` in a positive
and `b` in a negative claim.
"""

from __future__ import annotations

import random
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Final, NamedTuple

from reason.verify.types import Label, Pair


class LabelledPair(NamedTuple):
    """A text and a claim with their label; pairs of one group differ in little and belong into one batch."""

    pair: Pair
    label: Label
    kind: str
    group: str


# fmt: off
_FEMALE: Final = [
    "Maria", "Anna", "Elena", "Sofia", "Ingrid", "Astrid", "Fatima", "Aisha", "Leila", "Yasmin", "Priya", "Ananya",
    "Meera", "Kavita", "Mei", "Xiu", "Hana", "Yuki", "Sakura", "Ji-woo", "Min-seo", "Linh", "Thuy", "Nokuthula",
    "Thandiwe", "Amara", "Chioma", "Ngozi", "Adaeze", "Zanele", "Wanjiru", "Akinyi", "Efua", "Abena", "Camila",
    "Valentina", "Lucia", "Ines", "Beatriz", "Catarina", "Chiara", "Giulia", "Francesca", "Claire", "Amelie",
    "Margaux", "Delphine", "Greta", "Katrin", "Heike", "Birgit", "Zofia", "Agnieszka", "Katarzyna", "Milena",
    "Jelena", "Dragana", "Olga", "Svetlana", "Irina", "Tamar", "Nino", "Noa", "Miriam", "Rivka", "Zeynep", "Elif",
    "Defne", "Eszter", "Ildiko", "Aino", "Helmi", "Saoirse", "Niamh", "Orla", "Bronwen", "Carys", "Eleanor",
    "Harriet", "Alice", "Margaret", "Dorothy", "Edith", "Florence", "Grace", "Ruth", "Hannah", "Naomi", "Rosa",
    "Teresa", "Guadalupe", "Marisol", "Leilani", "Moana", "Aroha", "Siti", "Dewi", "Putri", "Nadia", "Samira", "Hala",
    "Rania", "Ioana", "Roxana", "Kristina", "Liga", "Ruta", "Anneli", "Petra", "Lenka", "Hedda", "Solveig", "Marit",
    "Femke", "Anouk", "Lotte", "Esperanza", "Josefa", "Rukmini", "Lakshmi",
]
_MALE: Final = [
    "Carlos", "Diego", "Mateo", "Joaquin", "Rafael", "Thiago", "Bruno", "Paulo", "Marco", "Luca", "Alessandro",
    "Giovanni", "Pierre", "Olivier", "Laurent", "Etienne", "Hans", "Klaus", "Jurgen", "Matthias", "Piotr", "Tomasz",
    "Wojciech", "Jakub", "Milos", "Nikola", "Dragan", "Dmitri", "Sergei", "Boris", "Andrei", "Giorgi", "Levan", "Avi",
    "Yosef", "Omer", "Mehmet", "Emre", "Kerem", "Istvan", "Laszlo", "Eero", "Mikko", "Juhani", "Sean", "Cormac",
    "Padraig", "Rhys", "Gareth", "Owen", "Henry", "Arthur", "Walter", "Frederick", "Edmund", "Samuel", "Isaac",
    "Elijah", "Daniel", "Ravi", "Arjun", "Vikram", "Suresh", "Rajesh", "Wei", "Jun", "Hao", "Kenji", "Hiroshi",
    "Takumi", "Min-jun", "Dae-ho", "Quang", "Duc", "Sipho", "Themba", "Kwame", "Kofi", "Chidi", "Emeka", "Obinna",
    "Kamau", "Otieno", "Tariq", "Hassan", "Omar", "Youssef", "Karim", "Bilal", "Ahmad", "Budi", "Agus", "Tane",
    "Rangi", "Kai", "Lars", "Bjorn", "Magnus", "Henrik", "Sven", "Anders", "Pieter", "Joost", "Willem", "Radu",
    "Mihai", "Janis", "Andris", "Kestutis", "Ondrej", "Pavel", "Nikos", "Yannis", "Stavros", "Ernesto", "Ignacio",
    "Benedict", "Clement", "Stanley", "Howard", "Leon", "Victor", "Hugo", "Felix", "Oscar", "Theo", "Jerome",
    "Abdoulaye", "Mamadou",
]
_SURNAMES: Final = (
    "Okafor", "Adeyemi", "Nwosu", "Mensah", "Boateng", "Dlamini", "Khumalo", "Mwangi", "Odhiambo", "Kariuki",
    "Diallo", "Traore", "Haile", "Tesfaye", "Abebe", "Hassan", "Mansour", "Haddad", "Khoury", "Rahimi", "Karimi",
    "Yilmaz", "Demir", "Kaya", "Ozturk", "Sharma", "Gupta", "Iyer", "Nair", "Chatterjee", "Banerjee", "Reddy",
    "Patel", "Kulkarni", "Perera", "Fernando", "Silva", "Wickrama", "Tanaka", "Suzuki", "Watanabe", "Kobayashi",
    "Nakamura", "Kim", "Park", "Choi", "Jung", "Nguyen", "Tran", "Pham", "Hoang", "Chen", "Zhang", "Liu", "Huang",
    "Zhao", "Lin", "Santoso", "Wijaya", "Rahman", "Reyes", "Santos", "Bautista", "Garcia", "Ortega", "Moreno",
    "Navarro", "Castillo", "Fuentes", "Herrera", "Quispe", "Mamani", "Rojas", "Vega", "Salazar", "Pereira", "Almeida",
    "Carvalho", "Teixeira", "Rossi", "Ferrari", "Bianchi", "Ricci", "Colombo", "Dubois", "Lefebvre", "Girard",
    "Fournier", "Mercier", "Muller", "Schneider", "Fischer", "Weber", "Hoffmann", "Krause", "Vogel", "Brandt",
    "Novak", "Dvorak", "Svoboda", "Kowalski", "Nowak", "Zielinski", "Lewandowski", "Horvat", "Petrovic", "Jovanovic",
    "Popescu", "Ionescu", "Ivanov", "Petrov", "Sokolov", "Morozov", "Kovalenko", "Shevchenko", "Beridze", "Lindqvist",
    "Johansson", "Bergstrom", "Nilsson", "Hansen", "Dahl", "Solberg", "Haugen", "Virtanen", "Korhonen", "Laine",
    "Saarinen", "Kask", "Ozols", "Kazlauskas", "Nagy", "Szabo", "Kovacs", "Papadakis", "Nikolaidis", "Byrne",
    "Gallagher", "Doyle", "Kavanagh", "MacLeod", "Fraser", "Sinclair", "Pritchard", "Llewellyn", "Vaughan",
    "Whitfield", "Hargreaves", "Ashworth", "Thornton", "Blackwood", "Pemberton", "Langley", "Radcliffe", "Marlowe",
    "Winslow", "Hale", "Pryor", "Stokes", "Bexley", "Crane", "Holloway", "Mayhew", "Prescott", "Tindall", "Ferris",
    "Goodwin", "Barlow", "Whetu", "Parata", "Kealoha", "Begay", "Tso", "Yazzie", "Cohen", "Levy", "Mizrahi",
    "Goldstein", "de Vries", "van Dijk", "Bakker", "Janssen", "Visser", "Mulder", "Aguirre", "Etxeberria", "Puig",
    "Ferrer",
)
_PLACE_HEADS: Final = [
    "Har", "Wex", "Bram", "Cald", "El", "Fen", "Glen", "Hol", "Kirk", "Lang", "Mar", "Nor", "Os", "Pen", "Quar",
    "Rav", "Sel", "Thorn", "Ul", "Ver", "West", "Yar", "Ald", "Birch", "Crom", "Dun", "East", "Farn", "Grim", "Hazel",
    "Inver", "Kes", "Lind", "Mill", "Net", "Oak", "Pres", "Rush", "Stan", "Tar", "Ash", "Bal", "Cor", "Dor", "Ever",
    "Forn", "Gal", "Heath", "Ker", "Lor", "Mont", "Nav", "Or", "Pol", "Ros", "San", "Tol", "Val", "Wil", "Zel", "Bor",
    "Kal", "Mir", "Sor", "Vel", "Tre",
]
_PLACE_TAILS: Final = [
    "ton", "ford", "ham", "bury", "field", "wick", "worth", "stead", "ley", "more", "dale", "mouth", "combe", "by",
    "thorpe", "bridge", "burn", "den", "gate", "minster", "haven", "well", "shaw", "mere", "vik", "stad", "berg",
    "holm", "sund", "grad", "ova", "ica", "ano", "ella", "ona", "eira", "ara", "enna", "igny", "ville", "court",
    "mont", "sur", "oux", "ava", "una", "esti", "inov", "owice", "eja",
]
_SYLLABLES: Final = [
    "ka", "lo", "ve", "ri", "ta", "no", "mi", "xa", "zu", "pe", "tri", "bel", "cor", "dan", "fel", "gor", "hal",
    "jun", "kel", "lum", "mor", "nex", "or", "pra", "qui", "ros", "sol", "tan", "ur", "vor", "wyn", "yel", "zen",
    "bri", "cal", "dex", "eno", "fra", "gly", "hex", "ion", "jax", "kri", "lyr",
]
_ENDS: Final = ["a", "o", "ix", "on", "us", "el", "ar", "en", "is", "um", "ra", "ta", "va", "ly"]
_ORG_WORDS: Final = [
    "Systems", "Foods", "Textiles", "Logistics", "Energy", "Robotics", "Instruments", "Shipping", "Ceramics",
    "Optics", "Publishing", "Motors", "Paper", "Biotech", "Software", "Foundries", "Brewery", "Airlines", "Furniture",
    "Seeds", "Chemicals", "Insurance", "Analytics", "Cycles", "Glassworks", "Dairy", "Timber", "Labs", "Holdings",
    "Partners",
]
_SCHOOLS: Final = (
    "the University of {}", "{} Technical College", "{} Polytechnic", "the {} Academy of Arts", "{} State University",
    "the {} Conservatory",
)
MONTHS: Final = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
]
COLOURS: Final = (
    "red", "blue", "green", "black", "white", "grey", "yellow", "orange", "brown", "purple", "silver", "beige",
)
MATERIALS: Final = (
    "granite", "limestone", "brick", "steel", "oak", "sandstone", "concrete", "cast iron", "marble", "aluminium",
    "bamboo", "copper",
)
COUNTRY_NAMES: Final = (
    "Portugal", "Norway", "Kenya", "Peru", "Vietnam", "Canada", "Japan", "Poland", "Ghana", "Chile", "Turkey",
    "Ireland", "Greece", "India", "Austria", "Estonia", "Morocco", "Brazil", "Finland", "Nepal", "Iceland", "Mexico",
    "Egypt", "Croatia", "Uruguay", "Thailand", "Senegal", "Belgium", "Romania", "Jordan", "Ecuador", "Denmark",
    "Malaysia", "Hungary", "Bolivia", "Lebanon", "Sweden", "Slovenia",
)
LANGUAGES: Final = (
    "English", "French", "Spanish", "German", "Italian", "Polish", "Arabic", "Japanese", "Portuguese", "Swahili",
    "Turkish", "Korean", "Hindi", "Dutch", "Finnish", "Greek", "Welsh",
)
_ONES: Final = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]
_TENS: Final = ["_", "_", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
# fmt: on


def number_words(number: int) -> str:
    """A number from 0 to 99 in words."""
    if number < 20:
        return _ONES[number]
    tens, ones = divmod(number, 10)
    return _TENS[tens] + (f"-{_ONES[ones]}" if ones else "")


def place(rng: random.Random) -> str:
    """An invented name of a town."""
    name = rng.choice(_PLACE_HEADS) + rng.choice(_PLACE_TAILS)
    prefix = rng.random()
    if prefix < 0.06:
        return f"{rng.choice(('Port', 'New', 'Upper', 'Lower', 'Saint', 'Great', 'Little', 'Old'))} {name}"
    return f"{name}-on-{rng.choice(_PLACE_HEADS)}" if prefix > 0.98 else name


def coined(rng: random.Random) -> str:
    """An invented name of a brand."""
    return "".join(rng.choice(_SYLLABLES) for _ in range(rng.choice((1, 2, 2)))).capitalize() + rng.choice(_ENDS)


def surname(rng: random.Random) -> str:
    """A surname."""
    return rng.choice(_SURNAMES)


def company(rng: random.Random) -> str:
    """An invented name of a company."""
    form = rng.random()
    if form < 0.3:
        return f"{coined(rng)} {rng.choice(_ORG_WORDS)}"
    if form < 0.55:
        return f"{surname(rng)} {rng.choice(_ORG_WORDS)}"
    if form < 0.7:
        return f"{surname(rng)} & {surname(rng)}"
    return f"{place(rng)} {rng.choice(_ORG_WORDS)}" if form < 0.9 else coined(rng)


def school(rng: random.Random) -> str:
    """An invented name of a university."""
    return rng.choice(_SCHOOLS).format(place(rng))


class Value(ABC):
    """Something that a fact states."""

    sort: str

    @abstractmethod
    def stated(self, rng: random.Random) -> str:
        """How a document states it."""

    def claimed(self, rng: random.Random) -> str:
        """How a claim states it, no more exactly than the document."""
        return self.stated(rng)

    @abstractmethod
    def other(self, rng: random.Random) -> Value:
        """Another value of the sort, which excludes this one."""

    def excludes(self, other: Value) -> bool:
        """Whether a claim of the other is false where this is stated."""
        return self != other

    def bound(self, rng: random.Random, holds: bool) -> str:
        """A comparison that holds, or does not; empty if there is none."""
        return ""

    def finer(self, rng: random.Random) -> Value | None:
        """A more exact value that this one leaves open; None if there is none."""
        return None

    @property
    def size(self) -> float | None:
        """What values of the sort are compared by; None if they are not."""
        return None


@dataclass(frozen=True)
class Name(Value):
    """A name or a word."""

    text: str
    sort: str
    make: Callable[[random.Random], str] = field(compare=False)

    def stated(self, rng: random.Random) -> str:
        return self.text

    def other(self, rng: random.Random) -> Value:
        while (text := self.make(rng)) == self.text:
            pass
        return replace(self, text=text)


def word(options: Sequence[str], sort: str, rng: random.Random) -> Name:
    """One of several words that exclude each other."""
    return Name(rng.choice(options), sort, lambda r: r.choice(options))


def place_name(rng: random.Random) -> Name:
    """A town as a value."""
    return Name(place(rng), "place", place)


def company_name(rng: random.Random) -> Name:
    """A company as a value."""
    return Name(company(rng), "company", company)


def school_name(rng: random.Random) -> Name:
    """A university as a value."""
    return Name(school(rng), "school", school)


@dataclass(frozen=True)
class Person(Value):
    """A person."""

    first: str
    last: str
    is_female: bool
    sort = "person"

    @classmethod
    def sample(cls, rng: random.Random) -> Person:
        """A random person."""
        is_female = rng.random() < 0.5
        return cls(rng.choice(_FEMALE if is_female else _MALE), surname(rng), is_female)

    @property
    def name(self) -> str:
        """The full name."""
        return f"{self.first} {self.last}"

    def stated(self, rng: random.Random) -> str:
        return self.name

    def claimed(self, rng: random.Random) -> str:
        return self.last if rng.random() < 0.12 else self.name

    def excludes(self, other: Value) -> bool:
        return isinstance(other, Person) and other.last != self.last

    def other(self, rng: random.Random) -> Value:
        while not self.excludes(person := Person.sample(rng)):
            pass
        return person


@dataclass(frozen=True)
class Date(Value):
    """A date with its preposition: "in 1926", "in June 1926", "on 12 June 1926"."""

    year: int
    month: int = 0
    day: int = 0
    sort = "date"

    @classmethod
    def sample(cls, rng: random.Random, first: int, last: int, precision: int = 0) -> Date:
        """A random date; precision 1 is the year, 2 the month, 3 the day, 0 any."""
        precision = precision or rng.choice((1, 1, 2, 3, 3))
        return cls(
            rng.randint(first, last),
            rng.randint(1, 12) if precision > 1 else 0,
            rng.randint(1, 28) if precision > 2 else 0,
        )

    def stated(self, rng: random.Random) -> str:
        if not self.month:
            return f"in {self.year}"
        month = MONTHS[self.month - 1]
        if not self.day:
            return f"in {month} {self.year}"
        form = rng.random()
        if form < 0.55:
            return f"on {self.day} {month} {self.year}"
        return f"on {month} {self.day}, {self.year}" if form < 0.9 else f"on {self.year}-{self.month:02}-{self.day:02}"

    def claimed(self, rng: random.Random) -> str:
        form = rng.random()
        if self.day and form < 0.3:
            return replace(self, day=0).stated(rng)
        return Date(self.year).stated(rng) if form > 0.65 else self.stated(rng)

    def other(self, rng: random.Random) -> Value:
        what = rng.random()
        if self.day and what < 0.2:
            return _Exact(self.year, self.month, (self.day + rng.randint(1, 26) - 1) % 28 + 1)
        if self.month and what < 0.4:
            return _Exact(self.year, (self.month + rng.randint(1, 10) - 1) % 12 + 1, self.day)
        return replace(self, year=self.year + rng.choice((-1, 1)) * rng.choice((1, 1, 2, 3, 4, 6, 10, 20)))

    def excludes(self, other: Value) -> bool:
        return isinstance(other, Date) and other.year != self.year

    def bound(self, rng: random.Random, holds: bool) -> str:
        form = rng.random()
        if form < 0.25:
            decade = self.year // 10 * 10
            return f"in the {decade if holds else decade + rng.choice((-20, -10, 10, 20))}s"
        if form < 0.4:
            century = (self.year - 1) // 100 + 1
            century = century if holds else century + rng.choice((-1, 1))
            return f"in the {century}{'st' if century % 10 == 1 else 'nd' if century % 10 == 2 else 'th'} century"
        gap = rng.choice((1, 2, 3, 5, 8, 12))
        if form < 0.7:
            return f"before {self.year + gap if holds else self.year - gap + 1}"
        return f"after {self.year - gap if holds else self.year + gap - 1}"

    def finer(self, rng: random.Random) -> Value | None:
        if self.day:
            return None
        return _Exact(
            self.year,
            self.month or rng.randint(1, 12),
            rng.choice((0, rng.randint(1, 28))) if not self.month else rng.randint(1, 28),
        )

    @property
    def size(self) -> float | None:
        return self.year


class _Exact(Date):
    """A date that is always stated in full."""

    def claimed(self, rng: random.Random) -> str:
        return self.stated(rng)


@dataclass(frozen=True)
class Count(Value):
    """A count; the template names what is counted."""

    number: int
    sort: str = "count"

    def stated(self, rng: random.Random) -> str:
        is_worded = (self.number < 13 and rng.random() < 0.6) or (self.number < 100 and rng.random() < 0.12)
        return number_words(self.number) if is_worded else f"{self.number:,}"

    def other(self, rng: random.Random) -> Value:
        return replace(self, number=_near(self.number, rng))

    def bound(self, rng: random.Random, holds: bool) -> str:
        return _bound(rng, holds, self.number, lambda n: replace(self, number=n).stated(rng), "fewer than")

    @property
    def size(self) -> float | None:
        return self.number


def _near(number: int, rng: random.Random) -> int:
    """Another positive number of similar size and roundness."""
    unit = 1
    while number % (unit * 10) == 0:
        unit *= 10
    steps = max(1, number // unit)
    while True:
        if (form := rng.random()) < 0.15 and number >= 5:
            other = number * rng.choice((2, 10)) if form < 0.1 or number % 10 else number // 10
        else:
            other = unit * max(1, steps + rng.choice((-1, 1)) * rng.randint(1, max(2, steps // 2)))
        if other != number and other > 0:
            return other


def _bound(rng: random.Random, holds: bool, number: int, text: Callable[[int], str], less: str) -> str:
    if number < 2:
        return ""
    gap = max(1, round(number * rng.choice((0.05, 0.1, 0.2, 0.3, 0.5))))
    scale = 10 ** max(0, len(str(number)) - 2)
    low, high = max(1, (number - gap) // scale * scale), -(-(number + gap) // scale) * scale
    if low >= number or high <= number:
        return ""
    if rng.random() < 0.5:
        least = "no fewer than" if less == "fewer than" else "no less than"
        return f"{rng.choice(('more than', 'at least', 'over', least))} {text(low if holds else high)}"
    return f"{rng.choice((less, 'at most', 'under', 'no more than'))} {text(high if holds else low)}"


_CURRENCIES: Final = {
    "£": ("pounds", "GBP"),
    "$": ("dollars", "USD"),
    "€": ("euros", "EUR"),
}


@dataclass(frozen=True)
class Money(Value):
    """An amount of money."""

    amount: int
    currency: str = "£"
    sort = "money"

    def stated(self, rng: random.Random) -> str:
        form, (plural, code) = rng.random(), _CURRENCIES[self.currency]
        if form < 0.6:
            return f"{self.currency}{self.amount:,}"
        return f"{self.amount:,} {plural}" if form < 0.9 and self.amount > 1 else f"{code} {self.amount:,}"

    def other(self, rng: random.Random) -> Value:
        if rng.random() < 0.12:
            return replace(self, currency=rng.choice([c for c in _CURRENCIES if c != self.currency]))
        return replace(self, amount=_near(self.amount, rng))

    def bound(self, rng: random.Random, holds: bool) -> str:
        return _bound(rng, holds, self.amount, lambda n: replace(self, amount=n).stated(rng), "less than")

    @property
    def size(self) -> float | None:
        return self.amount


# fmt: off
_UNITS: Final[dict[str, tuple[tuple[str, str, int], ...]]] = {
    # name, abbreviation, and how many of the smallest unit
    "length": (("metre", "m", 1), ("kilometre", "km", 1000)),
    "weight": (("gram", "g", 1), ("kilogram", "kg", 1000)),
    "volume": (("millilitre", "ml", 1), ("litre", "l", 1000)),
    "time": (("minute", "min", 1), ("hour", "", 60)),
    "term": (("day", "", 1), ("week", "", 7)),
    "age": (("month", "", 1), ("year", "", 12)),
}
# fmt: on
_OTHER_UNITS: Final = {"kilometre": "mile", "metre": "foot", "kilogram": "pound", "gram": "ounce", "litre": "gallon"}


@dataclass(frozen=True)
class Measure(Value):
    """A length, weight, volume or duration, in the smallest unit of its sort."""

    amount: int
    sort: str
    foreign: bool = False

    def stated(self, rng: random.Random) -> str:
        units = [(n, a, k) for n, a, k in _UNITS[self.sort] if k == 1 or self._fits(k)]
        name, abbreviation, factor = units[-1] if rng.random() < 0.6 else units[0]
        value = self.amount / factor
        if self.foreign and name in _OTHER_UNITS:
            name, abbreviation = _OTHER_UNITS[name], ""
        text = f"{int(value):,}" if value == int(value) else f"{value:g}"
        if value == int(value) and value < 21 and rng.random() < 0.3:
            return f"{number_words(int(value))} {_plural(name, value)}"
        is_short = abbreviation and rng.random() < 0.4
        return f"{text} {abbreviation if is_short else _plural(name, value)}"

    def _fits(self, factor: int) -> bool:
        quarter = self.amount / factor * (4 if factor == 60 else 10 if factor == 1000 else 1)
        return self.amount >= factor * (0.5 if factor == 1000 else 1) and quarter == int(quarter)

    def other(self, rng: random.Random) -> Value:
        if rng.random() < 0.12 and any(n in _OTHER_UNITS for n, _, _ in _UNITS[self.sort]):
            return replace(self, foreign=True)
        factor = _UNITS[self.sort][1][2]
        if self.amount % factor == 0:
            return replace(self, amount=_near(self.amount // factor, rng) * factor)
        return replace(self, amount=_near(self.amount, rng))

    def bound(self, rng: random.Random, holds: bool) -> str:
        factor = _UNITS[self.sort][1][2] if self.amount % _UNITS[self.sort][1][2] == 0 else 1
        return _bound(
            rng, holds, self.amount // factor, lambda n: replace(self, amount=n * factor).stated(rng), "less than"
        )

    @property
    def size(self) -> float | None:
        return self.amount


def _plural(unit: str, value: float) -> str:
    return unit if value == 1 else "feet" if unit == "foot" else f"{unit}s"


@dataclass(frozen=True)
class Clock(Value):
    """A time of day, in minutes."""

    minutes: int
    sort = "clock"

    @classmethod
    def sample(cls, rng: random.Random, first: int, last: int) -> Clock:
        """A random time between two hours."""
        return cls(rng.randint(first, last - 1) * 60 + rng.choice((0, 0, 15, 30, 30, 45)))

    def stated(self, rng: random.Random) -> str:
        hour, minute = divmod(self.minutes, 60)
        if rng.random() < 0.5:
            return f"{hour:02}:{minute:02}"
        half, shown = ("a.m." if hour < 12 else "p.m."), (hour - 1) % 12 + 1
        if hour == 12 and not minute:
            return "noon"
        return f"{shown} {half}" if not minute else f"{shown}:{minute:02} {half}"

    def other(self, rng: random.Random) -> Value:
        while (minutes := self.minutes + rng.choice((-1, 1)) * rng.choice((15, 30, 60, 60, 120, 180))) < 60 or (
            minutes >= 24 * 60
        ):
            pass
        return Clock(minutes)

    @property
    def size(self) -> float | None:
        return self.minutes


@dataclass(frozen=True)
class Fact:
    """A value, the sentences that state it, and the claims about it."""

    key: str
    value: Value
    says: str
    claims: str
    noun: str = ""
    has_bounds: bool = False
    via: str = ""
    via_claims: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Choice:
    """One of several states of affairs."""

    key: str
    state: int
    states: tuple[str, ...]
    claims: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Document:
    """A subject, and what there is to state about it."""

    kind: str
    title: str
    name: str
    nouns: tuple[str, ...]
    pronoun: tuple[str, str]
    facts: tuple[Fact | Choice, ...]
    asides: tuple[str, ...] = ()


_TOGGLE = re.compile(r"\[([^/\]]*)/([^\]]*)\]")


@cache
def alternatives(templates: str) -> tuple[str, ...]:
    """The templates that `|` separates."""
    return tuple(t.strip() for t in templates.split("|"))


def toggled(template: str, is_negative: bool) -> str:
    """A template with its toggles set."""
    return _TOGGLE.sub(r"\2" if is_negative else r"\1", template)
