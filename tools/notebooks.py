"""The chapters as files: run and store their text outputs; make and renew the reader's copies.

    python -m tools.notebooks outputs [00 ...]   run chapters, store their text outputs
    python -m tools.notebooks copies             in work/, a copy of each chapter that has none
    python -m tools.notebooks fresh 00           a new copy of one chapter; the old one is kept

A chapter is named by its number or by any unambiguous beginning of its file name.
"""

import re
import shutil
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from pybtex.database import parse_file

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS, WORK = ROOT / "chapters", ROOT / "work"
TEXT = ("text/plain", "text/latex")  # all that is stored; the rest is made at build time


def find(name: str) -> Path:
    """The chapter whose file name begins with `name`."""
    found = sorted(CHAPTERS.glob(f"{name}*.ipynb")) if name else []
    if len(found) != 1:
        there = ", ".join(f.stem for f in sorted(CHAPTERS.glob("*.ipynb")))
        raise SystemExit(f"Say which chapter, for instance CHAPTER=00. There are: {there}")
    return found[0]


def text_only(notebook) -> None:
    """Strip, in place, every output that is not text, and what differs from run to run."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            if "data" in output:
                output["data"] = {m: v for m, v in output["data"].items() if m in TEXT}
            output.pop("metadata", None)
            if output["output_type"] in ("execute_result", "display_data"):
                output["metadata"] = {}
    merge_streams(notebook)


def merge_streams(notebook) -> None:
    """Join neighbouring pieces of one stream: how they were cut is a matter of timing."""
    for cell in notebook.cells:
        merged = []
        for output in cell.get("outputs", []):
            last = merged[-1] if merged else {}
            if output.get("name") and output["name"] == last.get("name"):
                last["text"] += output["text"]
            else:
                merged.append(output)
        if cell.cell_type == "code":
            cell.outputs = merged


def outputs(names: list[str]) -> None:
    """Run chapters, all of them if none is named, and store their text outputs."""
    for path in [find(n) for n in names] or sorted(CHAPTERS.glob("*.ipynb")):
        start = time.perf_counter()
        notebook = nbformat.read(path, as_version=4)
        NotebookClient(notebook, timeout=180, resources={"metadata": {"path": CHAPTERS}}).execute()
        text_only(notebook)
        nbformat.write(notebook, path)
        print(f"{path.name}: {time.perf_counter() - start:.1f} s")


def citations() -> dict[str, str]:
    """Citation key -> a Markdown link such as [Shannon 1948](...), from references.bib."""
    links = {}
    for key, entry in parse_file(str(ROOT / "references.bib")).entries.items():
        names = [" ".join(person.last_names) for person in entry.persons["author"]]
        who = names[0] if len(names) == 1 else " and ".join(names) if len(names) == 2 else ""
        text = f"{who or names[0] + ' et al.'} {entry.fields['year']}"
        links[key] = f"[{text}]({entry.fields['url']})"
    return links


def without_roles(text: str, links: dict[str, str]) -> str:
    """Markdown with what only the site can resolve, citations and API links, said plainly."""
    text = re.sub(r"\{cite:t\}`([^`]+)`", lambda m: cited(m[1], links, " and "), text)
    text = re.sub(r"\{cite:p\}`([^`]+)`", lambda m: f"({cited(m[1], links, '; ')})", text)
    text = re.sub(r"\{py:\w+\}`([^`<]+) <[^`]+>`", r"\1", text)
    return re.sub(r"\{py:\w+\}`~?([^`]+)`", r"`\1`", text)


def cited(keys: str, links: dict[str, str], between: str) -> str:
    return between.join(links[key.strip()] for key in keys.split(","))


def copy(path: Path) -> None:
    """The chapter in work/, without outputs: they are the reader's to make."""
    notebook = nbformat.read(path, as_version=4)
    links = citations()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        else:
            cell.source = without_roles(cell.source, links)
    WORK.mkdir(exist_ok=True)
    nbformat.write(notebook, WORK / path.name)
    print(f"work/{path.name}: a fresh copy")


def copies() -> None:
    """In work/, a copy of each chapter and page that has none; nothing there is overwritten."""
    for path in sorted(CHAPTERS.glob("*.ipynb")):
        if not (WORK / path.name).exists():
            copy(path)
    for page in CHAPTERS.glob("*.md"):
        shutil.copy(page, WORK / page.name)  # so that links between chapters and pages work


def fresh(name: str) -> None:
    """A new copy of one chapter; what was there is kept beside it under a numbered name."""
    path = find(name)
    old = WORK / path.name
    if old.exists():
        number = 1
        while (kept := old.with_name(f"{old.stem}.kept{number}.ipynb")).exists():
            number += 1
        old.rename(kept)
        print(f"your copy is kept as work/{kept.name}")
    copy(path)


def main(arguments: list[str]) -> None:
    match arguments:
        case ["outputs", *names]:
            outputs(names)
        case ["copies"]:
            copies()
        case ["fresh", *name] if len(name) <= 1:
            fresh(name[0] if name else "")
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
