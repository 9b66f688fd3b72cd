"""What drawn pages say: real text, names, codes, numbers and dates, drawn from seeded sources."""

from __future__ import annotations

import datetime
import string
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from types import ModuleType
from typing import Any

from alignvlm.errors import MissingDependencyError
from alignvlm.synth import corpus
from alignvlm.synth.fonts import ALPHABET, Split

__all__ = [
    "CURRENCIES", "Pools", "amount", "code", "date", "email", "money", "number", "phone", "pools",
    "random_string", "run_of_text", "sentence", "url", "word",
]  # fmt: skip

CURRENCIES = ("$", "£", "€")

_LOCALES = ("en_US", "en_GB", "de_DE", "fr_FR", "es_ES", "it_IT", "nl_NL", "sv_SE", "pt_BR")
_POOL_SIZE = 400  # values of each sort and locale: enough that none is learned by heart
_SYMBOLS = string.punctuation
_EPOCH = datetime.date(1995, 1, 1)


@dataclass(frozen=True)
class Pools:
    """Values that are costly to make, made once a process."""

    names: tuple[str, ...]
    companies: tuple[str, ...]
    streets: tuple[str, ...]
    cities: tuple[str, ...]
    towns: tuple[str, ...]
    postcodes: tuple[str, ...]
    jobs: tuple[str, ...]


@lru_cache(maxsize=1)
def pools() -> Pools:
    """The pools, the same in every process that has the same faker version.

    Raises:
        MissingDependencyError: faker is not installed.
    """
    faker = _faker()
    names = ("names", "companies", "streets", "cities", "towns", "postcodes")
    sorts: dict[str, list[str]] = {name: [] for name in names}
    jobs: list[str] = []
    for locale in _LOCALES:
        fake = _fake(faker, locale)
        for _ in range(_POOL_SIZE if locale.startswith("en") else _POOL_SIZE // 4):
            sorts["names"].append(f"{fake.first_name()} {fake.last_name()}")
            sorts["companies"].append(fake.company())
            sorts["streets"].append(" ".join(fake.street_address().split()))
            sorts["towns"].append(fake.city())
            sorts["postcodes"].append(fake.postcode())
            sorts["cities"].append(f"{sorts['towns'][-1]} {sorts['postcodes'][-1]}")
            if locale == "en_US":
                jobs.append(fake.job())
    return Pools(**{k: tuple(v) for k, v in sorts.items()}, jobs=tuple(jobs))


def _fake(faker: ModuleType, locale: str) -> Any:
    """A source of values of one country, the same in every process."""
    fake = faker.Faker(locale, use_weighting=False)
    fake.seed_instance(20251)
    for provider in fake.get_providers():
        # Italy's towns are made from a set, whose order changes from process to process.
        if isinstance(getattr(provider, "cities", None), list):
            provider.cities = sorted(provider.cities)
    return fake


def _faker() -> ModuleType:
    try:
        import faker
    except ImportError as error:
        raise MissingDependencyError("faker", "draw pages", extra="synth") from error
    return faker


def word(rng: Random) -> str:
    """A word of real text, the same words for both splits; all of them are equally likely."""
    return rng.choice(corpus.words())


def sentence(rng: Random, split: Split) -> str:
    """A sentence of real text; the two splits share no text."""
    return rng.choice(corpus.sentences(split))


def random_string(rng: Random) -> str:
    """Characters without meaning, so that reading cannot become guessing."""
    shape = rng.random()
    if shape < 0.3:
        letters = string.ascii_letters + string.digits
    elif shape < 0.5:
        letters = string.digits
    elif shape < 0.65:
        letters = string.ascii_uppercase + string.digits
    elif shape < 0.8:
        letters = string.ascii_lowercase
    elif shape < 0.9:
        letters = string.ascii_letters + string.digits + 3 * _SYMBOLS
    else:
        letters = ALPHABET.replace(" ", "") + 2 * _SYMBOLS
    return "".join(rng.choices(letters, k=rng.randint(1, 10)))


def number(rng: Random, largest: int = 10**6) -> str:
    """A whole number or a decimal, thousands marked or not; small ones are as frequent as large."""
    value = int(largest ** rng.random())
    shape = rng.random()
    if shape < 0.4:
        return str(value)
    if shape < 0.6:
        return f"{value:,}"
    if shape < 0.85:
        return f"{value + rng.random():.{rng.randint(1, 3)}f}"
    return f"{rng.choice('+-~<>')}{value}" if rng.random() < 0.5 else f"{value}%"


def amount(value: float, style: str = ",") -> str:
    """A sum of money without its currency: style `","` gives 1,234.50, `"."` gives 1.234,50."""
    text = f"{value:,.2f}"
    if style == ".":
        return text.translate(str.maketrans(",.", ".,"))
    return text if style == "," else text.replace(",", "")


def money(rng: Random, largest: float = 20000.0) -> str:
    """A price with its currency."""
    value = largest ** rng.random() + rng.random()
    text = amount(value, rng.choice([",", ",", "", "."]))
    sign = rng.choice(CURRENCIES)
    shape = rng.random()
    if shape < 0.7:
        return f"{sign}{text}"
    return f"{text} {sign}" if shape < 0.85 else f"{text} {rng.choice(['USD', 'EUR', 'GBP'])}"


def date(rng: Random, style: str | None = None) -> str:
    """A day between 1995 and 2034, written in one of ten ways or in the `strftime` style given."""
    day = _EPOCH + datetime.timedelta(days=rng.randrange(14600))
    return write_date(day, style or rng.choice(DATE_STYLES))


DATE_STYLES = (
    "%Y-%m-%d", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%e %B %Y", "%B %e, %Y", "%d %b %Y",
    "%b %d, %Y", "%m/%d/%y", "%A, %e %B %Y",
)  # fmt: skip
"""Ways to write a date, as `strftime` formats (`%e` is the day without a leading zero)."""

_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
)  # fmt: skip
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def write_date(day: datetime.date, style: str) -> str:
    """The day in one of `DATE_STYLES`, in English whatever the system's locale."""
    month = _MONTHS[day.month - 1]
    parts = {
        "%Y": f"{day.year}", "%y": f"{day.year % 100:02d}", "%m": f"{day.month:02d}",
        "%d": f"{day.day:02d}", "%e": f"{day.day}", "%B": month, "%b": month[:3],
        "%A": _DAYS[day.weekday()],
    }  # fmt: skip
    for mark, value in parts.items():
        style = style.replace(mark, value)
    return style


def email(rng: Random) -> str:
    """An address at a made-up domain."""
    first, last = _ascii_name(rng)
    sep = rng.choice([".", "_", "-", "", "+"])
    return f"{first}{sep}{last}{rng.choice(['', '', str(rng.randint(1, 99))])}@{_domain(rng)}"


def url(rng: Random) -> str:
    """A web address at a made-up domain."""
    start = rng.choice(["https://www.", "http://", "www.", "https://", ""])
    paths = ["", f"/{word(rng).lower()}", f"/{word(rng)}?id={rng.randint(1, 9999)}", "/~user/#top"]
    return f"{start}{_domain(rng)}{rng.choice(paths)}"


def _domain(rng: Random) -> str:
    name = "".join(c for c in word(rng).lower() if c.isascii())
    return f"{name}.{rng.choice(['com', 'org', 'net', 'co.uk', 'de', 'io', 'edu', 'fr'])}"


def _ascii_name(rng: Random) -> tuple[str, str]:
    name = "".join(c for c in rng.choice(pools().names).lower() if c.isascii())
    first, _, last = name.partition(" ")
    return first, last.replace(" ", "").replace("'", "")


def phone(rng: Random) -> str:
    """A telephone number in one of several shapes."""
    shape = rng.choice(
        ["(###) ###-####", "+## ## #### ####", "###-###-####", "+1 ### ### ####", "0#### ######",
         "+##.###.######", "0##/#######", "### ### ##", "1-800-###-####"]
    )  # fmt: skip
    return "".join(rng.choice(string.digits) if c == "#" else c for c in shape)


def code(rng: Random) -> str:
    """A reference such as INV-2024-00391."""
    prefix = rng.choice(["INV", "PO", "REF", "ORD", "SN", "ID", "AC", "CUST", "DOC", "TX", "Q"])
    if rng.random() < 0.3:
        prefix = "".join(rng.choices(string.ascii_uppercase, k=rng.randint(1, 4)))
    sep = rng.choice(["-", "-", "/", "", ".", "#", "_"])
    tail = f"{rng.randrange(10 ** rng.randint(2, 8)):0{rng.randint(3, 6)}d}"
    if rng.random() < 0.4:
        return f"{prefix}{sep}{rng.randint(1999, 2030)}{sep}{tail}"
    end = rng.choice(string.ascii_uppercase) if rng.random() < 0.2 else ""
    return f"{prefix}{sep}{tail}{end}"


def run_of_text(rng: Random, num_words: int, split: Split) -> str:
    """About `num_words` words in which every character of `ALPHABET` turns up often.

    A sixth of the runs is real text of the split as it stands. Of the words of all others a quarter
    are random strings; the rest is words in every case, names, addresses, numbers, prices, dates,
    codes and addresses of the net.
    """
    if rng.random() < _REAL_SHARE:
        return _phrase(rng, num_words, split)
    case = rng.random()
    parts: list[str] = []
    while len(parts) < num_words:
        parts.append(_item(rng))
    text = " ".join(parts)
    if case < 0.12:
        return text.upper()
    return text.title() if case < 0.22 else text


# Unlike drawn words, real text can be guessed from what stands before: enough to meet its order
# and punctuation, too little to guess instead of reading.
_REAL_SHARE = 1 / 6


def _phrase(rng: Random, num_words: int, split: Split) -> str:
    """Words that follow each other in real text, from the middle of a sentence on."""
    parts = sentence(rng, split).split()
    start = rng.randrange(len(parts))
    parts = parts[start:]
    while len(parts) < num_words:
        parts += sentence(rng, split).split()
    return " ".join(parts[:num_words])


_FRAMES = ("({})", '"{}"', "'{}'", "[{}]", "{{{}}}", "<{}>", "*{}*", "“{}”", "‘{}’", "{}…", "_{}_")
_ENDS = (",", ".", ";", ":", "!", "?", "-", "/", "&", "|", "=", "+", " –", " —", "*", "%", "'s")


def _item(rng: Random) -> str:
    draw = rng.random()
    if draw < 0.24:
        return random_string(rng)
    if draw < 0.68:
        return _dressed(rng, word(rng))
    known = pools()
    makers = (number, number, money, money, date, code, phone, email, url)
    if draw < 0.86:
        return rng.choice(makers)(rng)
    values = (known.names, known.companies, known.streets, known.cities, known.jobs)
    return rng.choice(rng.choice(values))


def _dressed(rng: Random, text: str) -> str:
    """A word, sometimes in another case, sometimes with punctuation."""
    draw = rng.random()
    if draw < 0.15:
        text = text.capitalize()
    elif draw < 0.25:
        text = text.upper()
    draw = rng.random()
    if draw < 0.12:
        return text + rng.choice(_ENDS)
    if draw < 0.18:
        return rng.choice(_FRAMES).format(text)
    return f"{text}{rng.choice('-/.&@#_$^~`')}{word(rng)}" if draw < 0.23 else text
