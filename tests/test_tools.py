"""tools/notebooks.py: what is stored of a run, and what a reader gets to work on."""

import nbformat
import pytest

from tools import notebooks


def notebook():
    code = nbformat.v4.new_code_cell("1")
    code.outputs = [
        nbformat.v4.new_output("stream", name="stdout", text="a"),
        nbformat.v4.new_output("stream", name="stdout", text="b\n"),
        nbformat.v4.new_output(
            "execute_result", {"text/plain": "1", "text/html": "<b>", "image/png": "x"},
            execution_count=1, metadata={"x": 1},
        ),
    ]  # fmt: skip
    code.execution_count = 1
    text = "See {cite:t}`shannon1948`, {py:func}`the page <lib.x>` {py:func}`lib.reference.softmax`"
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text), code])
    made.metadata["widgets"] = {"big": "state"}
    return made


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(notebooks, "CHAPTERS", tmp_path / "chapters")
    monkeypatch.setattr(notebooks, "WORK", tmp_path / "work")
    (tmp_path / "chapters").mkdir()
    for name in ("00_first", "01_second"):
        nbformat.write(notebook(), tmp_path / "chapters" / f"{name}.ipynb")
    (tmp_path / "chapters" / "notation.md").write_text("# Notation")
    return tmp_path


def test_only_text_is_stored_and_pieces_of_a_stream_are_joined():
    made = notebook()
    notebooks.text_only(made)
    stream, result = made.cells[1].outputs
    assert stream.text == "ab\n"
    assert result.data == {"text/plain": "1"}
    assert result.metadata == {}
    assert "widgets" not in made.metadata


def test_a_readers_copy_has_no_outputs_and_no_roles_that_only_the_site_resolves(folder):
    notebooks.main(["copies"])
    copy = nbformat.read(folder / "work/00_first.ipynb", as_version=4)
    assert copy.cells[1].outputs == []
    assert copy.cells[0].source == (
        "See [Shannon 1948](https://doi.org/10.1002/j.1538-7305.1948.tb01338.x), the page "
        "`lib.reference.softmax`"
    )
    assert (folder / "work/notation.md").exists()


def test_a_readers_work_is_never_overwritten(folder):
    notebooks.main(["copies"])
    mine = folder / "work/00_first.ipynb"
    mine.write_text(mine.read_text() + "\n")
    before = mine.read_text()
    notebooks.main(["copies"])
    assert mine.read_text() == before
    notebooks.main(["fresh", "00"])
    notebooks.main(["fresh", "00_f"])
    assert (folder / "work/00_first.kept1.ipynb").read_text() == before
    assert (folder / "work/00_first.kept2.ipynb").exists()


@pytest.mark.parametrize("name", [["fresh"], ["fresh", ""], ["fresh", "0"], ["fresh", "07"]])
def test_a_chapter_that_is_not_one_is_asked_for_again(folder, name):
    with pytest.raises(SystemExit, match="There are: 00_first, 01_second"):
        notebooks.main(name)


def test_running_a_chapter_stores_its_outputs(folder):
    notebooks.main(["outputs", "01"])
    run = nbformat.read(folder / "chapters/01_second.ipynb", as_version=4)
    assert run.cells[1].outputs[0].data == {"text/plain": "1"}
