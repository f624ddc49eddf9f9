"""lib/figures.py: the palette can be seen, SVG follows the theme, quotes are live."""

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from lib import figures
from lib.figures import COLORS, INK, PALETTE, heat, matrix, panel, picture, shapes, source, tokens

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


def test_a_map_is_one_colour_in_tints_and_leaves_zeros_blank():
    svg = picture(heat(np.array([[1.0, 0.0], [0.5, 0.5]]), panel()), "a map").svg
    assert svg.count("fill: var(--b2l-output)") == 3
    assert "fill-opacity" in svg


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


def box(svg):
    """Left edge, top and width of each token's box."""
    return [
        tuple(map(float, b)) for b in re.findall(r'<rect x="(.*?)" y="(.*?)" width="(.*?)"', svg)
    ]


def test_tokens_show_white_space_cut_characters_ids_and_the_note():
    made = tokens(
        [" low", "est\n", "é".encode()[:1], b"\xa9!"], ids=[7, 8, 300, 301], note="Two <b>"
    )
    for text in (">·low<", ">est⏎<", ">C3<", ">A9!<", ">300<", ">Two &lt;b&gt;<"):
        assert text in made.svg
    assert made.alt == "Two <b>: 4 tokens: ·low | est⏎ | C3 | A9!; ids 7, 8, 300, 301"
    assert 'aria-label="Two &lt;b&gt;: 4 tokens' in made.svg


def test_tokens_wrap_into_rows_inside_the_picture():
    svg = tokens(["token", "港の古い灯", "x" * 100] * 12).svg
    boxes = box(svg)
    assert all(x >= 1 and x + width <= 459 for x, _, width in boxes)
    for (x, y, width), (right, below, _) in pairwise(boxes):
        assert (below == y and right > x + width) or (below > y and right == 1)
    assert float(re.search(r'height="(\d+)" viewBox', svg)[1]) > boxes[-1][1] + 24


def test_neighbouring_tokens_differ_and_a_line_ends_its_row():
    svg = tokens(["a", "b\n", "c"]).svg
    looks = re.findall(r'<rect[^>]*stroke="(.*?)"', svg)
    assert looks[0] != looks[1]
    assert [y for _, y, _ in box(svg)] == [2, 2, 32]


def test_tokens_of_arabic_run_from_right_to_left_even_where_letters_are_cut():
    data = "ضوء قديم".encode()
    for pieces in (["ضوء", " قديم"], [data[:1], data[1:]], [" ", "שלום"]):
        (first, *_), (second, *_) = box(tokens(pieces).svg)
        assert first > second
    (first, *_), (second, *_) = box(tokens(["low", "ضوء"]).svg)
    assert first < second


def test_no_tokens_are_an_empty_line():
    assert tokens([]).alt == "0 tokens: "
