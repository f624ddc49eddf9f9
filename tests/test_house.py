"""The repository keeps its own rules: notebooks, the order of lib, pins, what is not to be said."""

import ast
import json
import re
import subprocess
from pathlib import Path

import pytest

from lib.checks import EXERCISES

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "chapters").glob("*.ipynb"))
EACH = pytest.mark.parametrize("path", NOTEBOOKS, ids=[p.stem for p in NOTEBOOKS])
# lib in reading order; a module imports only what stands above it
CORE = ("tokenizer", "reference", "positions", "cache", "attention", "mla", "config",
        "transformer", "training", "generate", "accounting", "data")  # fmt: skip


def cells(path, kind="code"):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return [c for c in notebook["cells"] if c["cell_type"] == kind and "".join(c["source"]).strip()]


def code(cell):
    return "".join(cell["source"])


@EACH
def test_a_notebook_stores_text_outputs_only(path):
    stored = {mime for c in cells(path) for out in c["outputs"] for mime in out.get("data", {})}
    assert stored <= {"text/plain", "text/latex"}
    assert "widgets" not in json.loads(path.read_text(encoding="utf-8"))["metadata"]


@EACH
def test_every_cell_was_run_in_order_and_none_failed(path):
    counts = [c["execution_count"] for c in cells(path)]
    assert counts == list(range(1, len(counts) + 1))
    assert not [o for c in cells(path) for o in c["outputs"] if o["output_type"] == "error"]


@EACH
def test_cells_are_short(path):
    lengths = sorted(len(code(c).splitlines()) for c in cells(path))
    assert lengths[-1] <= 20
    assert lengths[len(lengths) // 2] <= 6


@EACH
def test_prose_between_cells_is_short(path):
    for cell in cells(path, "markdown"):
        prose = re.sub(r"(?s):::.*?:::|^\|.*$", "", code(cell), flags=re.M)
        if not prose.lstrip().startswith(("# ", "## Key points", "## Further")):
            assert len(prose.split()) <= 110, code(cell)[:60]


@EACH
def test_a_notebook_defines_nothing_that_the_core_of_lib_defines(path):
    ours = set()
    for name in CORE:
        file = ROOT / "lib" / f"{name}.py"
        if file.exists():
            tree = ast.parse(file.read_text(encoding="utf-8"))
            ours |= {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    stubs = {ex.name for ex in EXERCISES.values()}
    for cell in cells(path):
        for node in ast.walk(ast.parse(code(cell))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                assert node.name not in ours - stubs, f"{node.name} is lib's: quote it with source"


@EACH
def test_only_cells_with_timings_or_training_go_uncompared_and_a_claim_follows(path):
    code_cells = cells(path)
    for cell, after in zip(code_cells, [*code_cells[1:], None]):
        if "nbval-ignore-output" in cell["metadata"].get("tags", []):
            assert after is not None
            assert "nbval-ignore-output" not in after["metadata"].get("tags", [])
            assert after["outputs"], "a compared cell must state the claim"


@EACH
def test_a_cell_hidden_on_the_page_is_hidden_in_jupyterlab_too(path):
    for cell in cells(path):
        tags, lab = set(cell["metadata"].get("tags", [])), cell["metadata"].get("jupyter", {})
        assert bool(tags & {"hide-output", "hide-cell"}) == lab.get("outputs_hidden", False)
        assert bool(tags & {"hide-input", "hide-cell"}) == lab.get("source_hidden", False)


def chapter_of(exercise):
    """The notebook whose name ends with the exercise's chapter: 00_warm_up for warm_up."""
    return next(p for p in NOTEBOOKS if p.stem.partition("_")[2] == exercise.chapter)


@pytest.mark.parametrize("ex", EXERCISES.values(), ids=EXERCISES.keys())
def test_an_exercise_stands_in_its_chapter_with_task_stub_check_and_solution(ex):
    path = chapter_of(ex)
    text = "\n".join(code(c) for c in cells(path))
    assert f"checks.{ex.key}(" in text
    assert f"checks.{ex.key}.solution()" in text
    prose = "\n".join(code(c) for c in cells(path, "markdown"))
    assert f"· {ex.title}\n" in prose
    assert f"*{ex.difficulty.capitalize()}, {ex.minutes} minutes.*" in prose


def test_a_reader_can_find_every_chapter_and_every_exercise():
    contents = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    index = (ROOT / "chapters/exercises.md").read_text(encoding="utf-8")
    for path in NOTEBOOKS:
        assert f"chapters/{path.stem}" in contents
    for chapter in {ex.chapter for ex in EXERCISES.values()}:
        assert f'checks.progress("{chapter}")' in index


def imports(path):
    """The modules of lib that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lib":
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {n.name.split(".")[1] for n in node.names if n.name.startswith("lib.")}
    return found


def test_lib_is_imported_downwards_only():
    order = [*CORE, "figures", "widgets", "checks"]
    for number, name in enumerate(order):
        place = ROOT / "lib" / name
        files = list(place.glob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
        for file in filter(Path.exists, files):
            wrong = imports(file) - set(order[:number]) - {name}
            assert not wrong, f"{file.name} imports {wrong}"


def test_every_version_is_pinned_exactly_and_the_pins_agree():
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().lower().splitlines()
        if "==" in line
    )
    pins = {name.replace("_", "-"): version for name, version in pins.items()}
    for file in ("requirements.txt", "requirements-dev.txt"):
        for line in (ROOT / file).read_text().lower().splitlines():
            if line and not line.startswith(("#", "-e")):
                name, version = line.split("==")
                assert pins[name.replace("_", "-")] == version, line


def test_functions_of_lib_are_short():
    for file in (ROOT / "lib").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                doc = node.body[0] if ast.get_docstring(node) else None
                said = doc.end_lineno - doc.lineno + 1 if doc else 0
                assert node.end_lineno - node.lineno + 1 - said <= 27, f"{file.name}: {node.name}"


def test_the_repository_speaks_of_the_project_alone():
    hosts = ("py" + "pi.org", "python" + "hosted.org", "registry.npm" + "js", "deb.deb" + "ian")
    machine = re.compile(r"(?:^|[\s\"'(=:])/(?:work|root|home|tmp)/", re.M)
    listed = subprocess.check_output(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, text=True
    )
    for name in listed.splitlines():
        file = ROOT / name
        if file.suffix in (".png", ".ico") or not file.is_file():
            continue
        text = file.read_text(encoding="utf-8")
        assert not any(host in text for host in hosts), name
        assert not machine.search(text), f"{name} holds {machine.search(text)[0]}"
