"""Which changes to the scorers' code the tests notice; fails where they notice less than 85 %.

    python benchmarks/mutants.py --sample 400 --seed 0

One change at a time is made to a copy of `alignvlm.evaluation.scorers` in a temporary folder: to a
comparison, a boolean or arithmetic operator, a condition, a number, a text, a returned value,
`break` or `continue`, a call such as `.lower()`. Messages of errors, annotations, docstrings and
decorators stay. A change is noticed when a test of tests/evaluation/scorers fails, or takes more
than ten times as long; test_properties.py is left out. What is not noticed is explained, by its
place, in tests/evaluation/scorers/survivors.json. Writes benchmarks/results/mutants.json and .md.
"""

from __future__ import annotations

import argparse
import ast
import compileall
import copy
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import Any

from measuring import Rows, facts, write
from mutant_tests import SCORERS, TESTS

ROOT = Path(__file__).resolve().parents[1]
BAR = 0.85
LEFT_OUT = ("__init__.py", "golden.py")
SHOWN = 70
TEXT_CALLS = ("lower", "upper", "strip", "rstrip", "split", "removesuffix", "removeprefix")

MISSED = "not noticed"
ENDS = {
    0: MISSED, 1: "a test fails", 2: "no import", -signal.SIGPROF: "too slow",
    -signal.SIGKILL: "no memory",
}  # fmt: skip
"""What the tests' exit status means."""

Change = Callable[[Any], None]

OPPOSITES: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.And: ast.Or, ast.Or: ast.And, ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div,
    ast.Div: ast.Mult, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """One change: the file, the function, the number of the node in `ast.walk`, and in words."""

    file: str
    function: str
    number: int
    name: str
    line: int


def _compare(node: ast.Compare) -> None:
    node.ops[0] = OPPOSITES[type(node.ops[0])]()


def _operator(node: Any) -> None:
    node.op = OPPOSITES[type(node.op)]()


def _unary(node: ast.UnaryOp) -> None:
    if isinstance(node.op, ast.Not):
        node.operand = ast.UnaryOp(ast.Not(), node.operand)
    else:
        node.op = ast.UAdd()


def _constant(node: ast.Constant) -> None:
    if isinstance(node.value, bool):
        node.value = not node.value
    elif isinstance(node.value, str):
        node.value = f"X{node.value}X"
    else:
        node.value += 1


def _branches(node: ast.IfExp) -> None:
    node.body, node.orelse = node.orelse, node.body


def _condition(node: ast.If | ast.While) -> None:
    node.test = ast.UnaryOp(ast.Not(), node.test)


def _filter(node: ast.comprehension) -> None:
    node.ifs[0] = ast.UnaryOp(ast.Not(), node.ifs[0])


def _return(node: ast.Return) -> None:
    node.value = ast.Constant(None)


def _loop(node: Any) -> None:
    node.__class__ = ast.Continue if isinstance(node, ast.Break) else ast.Break


def _call(node: Any) -> None:
    """A text's method is not called; what splits at blanks splits nowhere."""
    if node.func.attr == "split":
        node.args = [ast.Constant("\0")]
    else:
        node.func, node.args = ast.Name("str", ast.Load()), [node.func.value]


CHANGES: dict[type, Change] = {
    ast.Compare: _compare, ast.BoolOp: _operator, ast.BinOp: _operator, ast.UnaryOp: _unary,
    ast.Constant: _constant, ast.IfExp: _branches, ast.If: _condition, ast.While: _condition,
    ast.comprehension: _filter, ast.Return: _return, ast.Break: _loop, ast.Continue: _loop,
    ast.Call: _call,
}  # fmt: skip


def change_of(node: ast.AST) -> Change | None:
    """What is done to a node; None where nothing is, or where nothing would differ."""
    differs = True
    match node:
        case ast.BinOp(op=op):
            differs = type(op) in OPPOSITES
        case ast.UnaryOp(op=op):
            differs = isinstance(op, ast.Not | ast.USub)
        case ast.Constant(value=value):
            differs = isinstance(value, int | float) or (isinstance(value, str) and value != "")
        case ast.comprehension(ifs=ifs):
            differs = bool(ifs)
        case ast.Return(value=value):
            differs = value is not None and ast.unparse(value) != "None"
        case ast.Call(func=func):
            differs = isinstance(func, ast.Attribute) and func.attr in TEXT_CALLS
    return CHANGES.get(type(node)) if differs else None


def left_alone(tree: ast.Module) -> set[int]:
    """Nodes that only speak to people and type checkers, by `id`."""
    roots: list[ast.AST | None] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise | ast.Import | ast.ImportFrom):
            roots.append(node)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            roots.append(node)
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            roots += node.decorator_list
        if isinstance(node, ast.FunctionDef):
            roots.append(node.returns)
        if isinstance(node, ast.arg | ast.AnnAssign):
            roots.append(node.annotation)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript):
            roots.append(node)  # names of types
    return {id(node) for root in roots if root is not None for node in ast.walk(root)}


def places_in(path: Path) -> list[Place]:
    """Every change to a file; two of one name are numbered."""
    tree = ast.parse(path.read_text("utf-8"))
    alone = left_alone(tree)
    parents = {id(child): node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    found: list[Place] = []
    seen: dict[str, int] = {}
    for number, node in enumerate(ast.walk(tree)):
        if id(node) in alone or change_of(node) is None:
            continue
        chain = list(_above(node, parents))
        function = _qualified(chain)
        name = f"{path.stem}{function and '.' + function}: {_in_words(node, chain)}"
        seen[name] = seen.get(name, 0) + 1
        name += f" ({seen[name]})" if seen[name] > 1 else ""
        line = next(above.lineno for above in (node, *chain) if hasattr(above, "lineno"))
        found.append(Place(path.name, function.replace(".", ".<locals>."), number, name, line))
    return found


def _above(node: ast.AST, parents: dict[int, ast.AST]) -> Iterator[ast.AST]:
    while (above := parents.get(id(node))) is not None:
        yield above
        node = above


def _qualified(chain: list[ast.AST]) -> str:
    names = [one.name for one in chain if isinstance(one, ast.FunctionDef | ast.ClassDef)]
    return ".".join(reversed(names))


def _in_words(node: ast.AST, chain: list[ast.AST]) -> str:
    """Before and after; of a constant, a sign or a call also what it stands in."""
    changed = copy.deepcopy(node)
    change_of(node)(changed)  # type: ignore[misc]
    words = f"{_head(node)} -> {_head(changed)}"
    if isinstance(node, ast.Constant | ast.UnaryOp | ast.Call | ast.Break | ast.Continue):
        within = next(one for one in chain if isinstance(one, ast.stmt))
        words += f" in {_head(within)}"
    return words


def _head(node: ast.AST) -> str:
    """The first line of a node as code, at most `SHOWN` characters."""
    text = ast.unparse(ast.fix_missing_locations(node)).strip().splitlines()[0]
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def changed_source(path: Path, place: Place) -> str:
    """The file with this change."""
    tree = ast.parse(path.read_text("utf-8"))
    node = list(ast.walk(tree))[place.number]
    change_of(node)(node)  # type: ignore[misc]
    return ast.unparse(ast.fix_missing_locations(tree)) + "\n"


def copied(to: Path) -> None:
    """The package's code and the tests of the scorers."""

    def not_code(folder: str, names: list[str]) -> list[str]:
        return [n for n in names if not n.endswith(".py") and not (Path(folder) / n).is_dir()]

    shutil.copytree(ROOT / "src", to / "src", ignore=not_code)
    shutil.copytree(ROOT / TESTS, to / TESTS)
    for name in ("pyproject.toml", "docs/evaluation.md", "tests/conftest.py"):
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, to / name)
    for path in (to / SCORERS).glob("*.py"):  # so that all that a change changes is the change
        path.write_text(ast.unparse(ast.parse(path.read_text("utf-8"))) + "\n", "utf-8")
    compileall.compile_dir(to, quiet=2, invalidation_mode=PycInvalidationMode.CHECKED_HASH)


class Tests:
    """The process that runs the tests in a copy."""

    def __init__(self, folder: Path) -> None:
        script = Path(__file__).with_name("mutant_tests.py")
        self._process = subprocess.Popen(
            [sys.executable, "-P", script, folder],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        if not self._reply().get("ready"):
            raise SystemExit("The tests fail on unchanged code: repair them first")

    def status(self, place: Place, source: str) -> int:
        """How the tests end on changed code: see `ENDS`."""
        request = {
            "path": f"{SCORERS}/{place.file}",
            "place": f"{place.file}:{place.function}",
            "source": source,
        }
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._reply()["status"])

    def close(self) -> None:
        """Let the process end."""
        self._process.communicate()

    def _reply(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith('{"'):
                found: dict[str, Any] = json.loads(line)
                return found
        raise SystemExit("The tests ended without an answer")


def tried(chosen: list[Place]) -> dict[Place, str]:
    """How each change ended, in the words of `ENDS`."""
    found: dict[Place, str] = {}
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        copied(Path(folder))
        tests = Tests(Path(folder))
        for place in chosen:
            status = tests.status(place, changed_source(ROOT / SCORERS / place.file, place))
            if status not in ENDS:
                raise SystemExit(f"The tests ended with {status} on {place.name}")
            found[place] = ENDS[status]
            if not status:
                print(f"not noticed: line {place.line}, {place.name}", flush=True)
            if len(found) % 50 == 0:
                print(f"{len(found)} changes, {time.monotonic() - started:.0f} s", flush=True)
        tests.close()
    return found


def tables(ends: dict[Place, str], files: list[Path], reasons: dict[str, str]) -> tuple[Rows, Rows]:
    """How the changes to each module ended, and why those that were not noticed were not."""
    modules: Rows = []
    for name in (*(path.name for path in files), ""):
        counts = Counter(end for place, end in ends.items() if name in ("", place.file))
        row = {"module": name.removesuffix(".py") or "all", "changes": counts.total()}
        modules.append(row | {end: counts[end] for end in ENDS.values()})
    left = sorted(place.name for place, end in ends.items() if end == MISSED)
    return modules, [
        {"place": _cell(name), "why": reasons.get(name, "not explained")} for name in left
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sample", type=int, default=400, help="changes to try")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    options = parser.parse_args()
    files = [path for path in sorted((ROOT / SCORERS).glob("*.py")) if path.name not in LEFT_OUT]
    places = [place for path in files for place in places_in(path)]
    chosen = random.Random(options.seed).sample(places, min(options.sample, len(places)))
    reasons = json.loads((ROOT / TESTS / "survivors.json").read_text("utf-8"))
    ends = tried(chosen)
    modules, survivors = tables(ends, files, reasons)
    share = 1 - len(survivors) / len(ends)
    where = facts("cpu") | {
        "seed": options.seed, "places": len(places), "changes": len(ends),
        "noticed": f"{share:.1%}", "bar": f"{BAR:.0%}",
    }  # fmt: skip
    sections = {"modules": modules, "not noticed": survivors}
    write(ROOT / "benchmarks/results/mutants", where, sections)
    unexplained = [
        n for place, end in ends.items() if end == MISSED and (n := place.name) not in reasons
    ]
    stale = sorted(set(reasons) - {place.name for place in places})
    for text, names in (("not explained", unexplained), ("explained, but no such place", stale)):
        for name in names:
            print(f"{text}: {name}")
    print(f"{share:.1%} of {len(ends)} changes are noticed; bar {BAR:.0%}")
    return int(share < BAR or bool(unexplained) or bool(stale))


def _cell(text: str) -> str:
    return "`" + text.replace("|", "\\|").replace("`", "'") + "`"


if __name__ == "__main__":
    sys.exit(main())
