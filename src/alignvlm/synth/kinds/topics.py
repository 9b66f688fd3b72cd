"""Subjects of tables and charts: what is counted, for whom, when, in which range."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from alignvlm.synth import content

__all__ = ["Series", "Topic", "make_series"]


@dataclass(frozen=True)
class Topic:
    """A quantity with the things it is known for.

    Attributes:
        title: heading, e.g. `"Rainfall"`.
        quantity: how a question calls it, e.g. `"rainfall"`.
        unit: written behind the numbers or in the heading, may be empty.
        head: header of the first column, e.g. `"City"`.
        rows: what the rows can be; empty for made-up towns or names.
        columns: what the columns can be, in order.
        largest: numbers lie between 0 and this.
        decimals: digits after the point.
    """

    title: str
    quantity: str
    unit: str
    head: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    largest: float
    decimals: int


@dataclass(frozen=True)
class Series:
    """One drawn set of numbers: `values[i][j]` belongs to `rows[i]` and `columns[j]`."""

    topic: Topic
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]

    def cell(self, row: int, column: int) -> str:
        """A number as it is written on the page."""
        return f"{self.values[row][column]:.{self.topic.decimals}f}"


_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September",
           "October", "November", "December")  # fmt: skip
_QUARTERS = ("Q1", "Q2", "Q3", "Q4")
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_REGIONS = ("North", "South", "East", "West", "Centre", "Coast", "Islands", "Highlands")
_YEARS = tuple(str(year) for year in range(2001, 2031))
_FRUIT = ("Apples", "Pears", "Plums", "Cherries", "Oranges", "Lemons", "Grapes", "Figs", "Dates")
_SUBJECTS = ("Maths", "Physics", "History", "Biology", "French", "Music", "Art", "Sports")
_SPORTS = ("Football", "Tennis", "Rowing", "Hockey", "Judo", "Chess", "Sailing", "Golf", "Rugby")
_PLANTS = ("Wheat", "Barley", "Oats", "Maize", "Rye", "Rice", "Soy", "Cotton", "Flax")
_ANIMALS = ("Cows", "Sheep", "Goats", "Horses", "Pigs", "Hens", "Ducks", "Bees", "Donkeys")
_SOURCES = ("Coal", "Gas", "Oil", "Nuclear", "Wind", "Solar", "Hydro", "Biomass", "Peat")
_DEPARTMENTS = ("Sales", "Finance", "Research", "Support", "Legal", "Design", "Logistics", "IT")
_TRANSPORT = ("Bus", "Train", "Tram", "Car", "Bicycle", "On foot", "Ferry", "Plane")

TOPICS = (
    Topic("Rainfall", "rainfall", "mm", "Town", (), _MONTHS, 180, 0),
    Topic("Temperature", "temperature", "°C", "Town", (), _MONTHS, 35, 1),
    Topic("Sales", "sales", "units", "Region", _REGIONS, _QUARTERS, 9000, 0),
    Topic("Revenue", "revenue", "million", "Region", _REGIONS, _YEARS, 99, 1),
    Topic("Fruit sold", "number sold", "kg", "Fruit", _FRUIT, _DAYS, 500, 0),
    Topic("Exam results", "score", "points", "Student", (), _SUBJECTS, 100, 0),
    Topic("Members", "number of members", "", "Club", _SPORTS, _YEARS, 800, 0),
    Topic("Harvest", "harvest", "tonnes", "Crop", _PLANTS, _YEARS, 5000, 0),
    Topic("Animals on the farm", "number", "", "Animal", _ANIMALS, _YEARS, 300, 0),
    Topic("Energy sources", "output", "GWh", "Source", _SOURCES, _YEARS, 900, 1),
    Topic("Staff", "number of staff", "", "Department", _DEPARTMENTS, _YEARS, 400, 0),
    Topic("Ways to work", "share", "%", "Transport", _TRANSPORT, _YEARS, 60, 1),
    Topic("Visitors", "number of visitors", "", "Museum", (), _MONTHS, 30000, 0),
    Topic("Population", "population", "thousand", "Town", (), _YEARS, 900, 1),
)  # fmt: skip


def make_series(rng: Random, num_rows: int, num_columns: int) -> Series:
    """A random topic with random numbers; columns keep their natural order."""
    topic = rng.choice(TOPICS)
    if topic.rows:
        rows = rng.sample(topic.rows, min(num_rows, len(topic.rows)))
    else:
        pool = content.pools().names if topic.head == "Student" else content.pools().towns
        short = sorted({name.split()[0] for name in pool if len(name.split()[0]) < 11})
        rows = rng.sample(short, num_rows)
    num_columns = min(num_columns, len(topic.columns))
    start = rng.randrange(len(topic.columns) - num_columns + 1)
    values = tuple(
        tuple(
            round(topic.largest * rng.uniform(0.04, 1.0), topic.decimals)
            for _ in range(num_columns)
        )
        for _ in rows
    )
    return Series(topic, tuple(rows), topic.columns[start : start + num_columns], values)
