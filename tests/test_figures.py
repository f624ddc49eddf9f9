"""lib/figures.py: the palette can be seen, SVG follows the theme, quotes are live."""

import re
from pathlib import Path

import numpy as np
import pytest

from lib import figures
from lib.figures import COLORS, INK, PALETTE, matrix, panel, picture, shapes, source

# the page's background, light and dark, of the theme and of JupyterLab
BACKGROUNDS = [("#ffffff", 0), ("#121212", 1), ("#111111", 1)]


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("role", PALETTE)
@pytest.mark.parametrize(("background", "theme"), BACKGROUNDS)
def test_every_role_stands_out_from_the_page_by_three_to_one(role, background, theme):
    bright, dim = sorted([luminance(PALETTE[role][theme]), luminance(background)], reverse=True)
    assert (bright + 0.05) / (dim + 0.05) >= 3


def drawn():
    ax = panel()
    ax.plot([0, 1], [0, 1], color=COLORS["query"], clip_on=True)
    ax.text(0.5, 0.5, "ink")
    return ax


def test_ink_becomes_the_pages_text_colour_and_roles_become_variables():
    svg = picture(drawn(), "a line").svg
    assert "currentColor" in svg
    assert "var(--b2l-query)" in svg
    assert INK not in svg
    assert PALETTE["query"][0] not in svg


def test_a_picture_carries_its_alternative_text_and_nothing_of_the_machine():
    made = picture(drawn(), 'a line, "rising"')
    assert repr(made) == 'Picture: a line, "rising"'
    assert 'role="img" aria-label="a line, &quot;rising&quot;"' in made.svg
    assert "<metadata" not in made.svg
    assert not re.search("matplotlib|dc:date", made.svg, re.I)


def test_a_picture_without_words_is_refused():
    with pytest.raises(ValueError, match="alternative text"):
        picture(drawn(), " ")


def test_the_same_drawing_gives_the_same_svg():
    assert picture(drawn(), "a line").svg == picture(drawn(), "a line").svg


def test_ids_are_only_those_referred_to_and_differ_between_pictures():
    ids = [set(re.findall(r' id="([^"]*)"', picture(drawn(), alt).svg)) for alt in ("a", "b")]
    for found, alt in zip(ids, ("a", "b")):
        svg = picture(drawn(), alt).svg
        assert found == set(re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", svg))
        assert found
    assert not ids[0] & ids[1]


def test_a_picture_is_found_from_one_axes_from_several_and_from_the_figure():
    pair = panel(2)
    same = {picture(thing, "two").svg for thing in (pair[0], pair[1], pair, pair[0].figure)}
    assert len(same) == 1


def test_a_matrix_shows_its_numbers_and_the_names_of_its_axes():
    svg = picture(matrix([[1.0, -0.25], [np.inf, 0]], "T", "C", row_names=["the", "cat"]), "m").svg
    for text in (">1<", ">−0.25<", ">∞<", ">0<", ">T<", ">C<", ">the<", ">cat<"):
        assert text in svg


def test_negative_numbers_do_not_hang_on_colour_alone():
    hatched = [p.get_hatch() for p in matrix([[1.0, -1.0]]).patches if not p.get_fill()]
    assert hatched == [None, "///"]


def test_bars_of_the_same_count_are_of_the_same_length():
    ax = shapes(("a", {"C": 512}), ("b", {"H": 8, "D": 64}))
    ends = {round(p.get_x() + p.get_width(), 9) for p in ax.patches if p.get_height() == 0.8}
    widths = [round(p.get_width(), 9) for p in ax.patches if not p.get_fill()]
    assert max(ends) == 1
    assert widths == [1, round(3 / 9, 9), round(6 / 9, 9)]


def test_source_is_the_code_as_it_stands():
    assert str(source(figures.number)) in Path(figures.__file__).read_text(encoding="utf-8")
    assert '"""' not in source(figures.number, doc=False)
    assert "def number(v)" in source(figures.number, doc=False)


def test_a_folded_code_does_not_give_itself_away_in_text():
    code = figures.Code("secret = 42", "The solution")
    assert "secret" not in repr(code)
    assert "<details>" in code._repr_html_()
    assert "secret" in code._repr_html_()
