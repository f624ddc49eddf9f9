"""lib/widgets/head_gallery.js in a browser: the maps that were given, and no kernel."""

import numpy as np
import pytest

from lib.reference import softmax
from lib.widgets import head_gallery
from lib.widgets.piece import module
from tests.browser import axe, keys_stay_in

L, H, T = 2, 2, 12
TOKENS = [["the", "keeper", "lit", "a", "lamp", "·", "the", "keeper", "lit", "a", "lamp", "."]]
TOKENS.append([f"t{i}" for i in range(9)])


def weights(T, seed=0):
    """Maps (L, H, T, T): softmax of random scores; 0.0 reads the token before, 1.1 reads T / 2 - 1
    back where it can."""
    scores = np.random.default_rng(seed).normal(0, 1.5, (L, H, T, T))
    for t in range(1, T):
        scores[0, 0, t, t - 1] += 8
        scores[1, 1, t, t - T // 2 + 1 if t >= T // 2 else 0] += 8
    return softmax(np.where(np.tri(T, dtype=bool), scores, -np.inf))


MAPS = [weights(len(tokens), i) for i, tokens in enumerate(TOKENS)]
SEQUENCES = tuple(zip(TOKENS, MAPS))


@pytest.fixture
def visit(draw):
    """visit(...) -> a page like the book's, with the piece drawn by the host script."""

    def go(theme="light", width=1280, sequences=SEQUENCES, **more):
        return draw(head_gallery(sequences, **{"alt": "test", **more}), theme, width)

    return go


def expected(sequence, layer, head, query):
    """The three keys that NumPy ranks first, as the page says them, and their weights."""
    row, tokens = MAPS[sequence][layer, head, query], TOKENS[sequence]
    best = [key for key in np.argsort(-row, kind="stable")[:3] if row[key] >= 0.01]
    return [f"{tokens[key]} at {key}" for key in best], row[best]


def shown(page, sequence, layer, head, query):
    """Whether everything on the page is of this head and this query."""
    text, tokens = page.inner_text(".b2l-reads"), TOKENS[sequence]
    start = f"layer {layer}, head {head}: {tokens[query]} at {query} reads "
    assert text.startswith(start)
    parts = [part.rstrip(")").split(" (") for part in text.removeprefix(start).split(", ")]
    names, best = expected(sequence, layer, head, query)
    assert [name for name, _ in parts] == names
    assert [float(weight) for _, weight in parts] == pytest.approx(best, abs=0.0071)
    tints = page.locator(".b2l-gallery-tokens span").evaluate_all(
        "boxes => boxes.map(box => parseFloat(box.style.getPropertyValue('--weight')))"
    )
    assert tints == pytest.approx(100 * MAPS[sequence][layer, head, query], abs=0.71)
    assert page.locator(".b2l-gallery-tokens span").all_inner_texts() == tokens
    asks = page.locator(".b2l-asks")
    assert asks.count() == 1
    assert asks.evaluate("b => [...b.parentNode.children].indexOf(b)") == query
    pressed = page.locator("button[aria-pressed=true]").all_inner_texts()
    assert pressed == [f"layer {layer}, head {head}"]
    assert page.inner_text("figcaption").startswith(f"layer {layer}, head {head}:")
    assert float(page.locator(".b2l-gallery-row").get_attribute("y")) == query + 0.05
    assert page.locator("output").inner_text() == f"{query}: {tokens[query]}"


def drawn(page, which):
    """Cells of a drawn map -> (T, T) opacities, read back from its paths."""
    paths, T = page.locator(which).evaluate(
        """svg => [[...svg.querySelectorAll("path")].map(p =>
            [p.getAttribute("d"), p.getAttribute("fill-opacity")]), svg.viewBox.baseVal.width]"""
    )
    found = np.zeros((int(T), int(T)))
    for d, opacity in paths:
        for cell in filter(None, d.replace("h1v1h-1z", "").split("M")):
            key, query = map(int, cell.split())
            found[query, key] = float(opacity)
    return found


def test_packed_weights_are_read_back_in_the_page(browser):
    piece = head_gallery(SEQUENCES, alt="t")
    page = browser.new_page()
    found = page.evaluate(
        """async ([text, packed, T, L, H]) => {
            const url = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
            const { rowOf, unpack } = await import(url), bytes = unpack(packed), all = [];
            for (let l = 0; l < L; l++) for (let h = 0; h < H; h++) for (let q = 0; q < T; q++)
                all.push(rowOf(bytes, T, H, [l, h, q]));
            return all;
        }""",
        [module("plane") + module("head_gallery"), piece.sequences[0]["maps"], T, L, H],
    )
    np.testing.assert_allclose(found, MAPS[0].reshape(-1, T), atol=1 / 255)
    page.close()


def test_every_head_and_every_query_shows_what_was_given(visit):
    page = visit()
    for layer, head in np.ndindex(L, H):
        page.get_by_role("button", name=f"layer {layer}, head {head}").click()
        for query in range(0, T, 2):
            page.get_by_label("Query token").fill(str(query))
            shown(page, 0, layer, head, query)


def test_small_and_large_maps_are_as_dark_as_their_weights(visit):
    page = visit(start=(0, 1, 1, 3))
    for i, which in enumerate(np.ndindex(L, H)):
        small = drawn(page, f".b2l-gallery-heads button:nth-child({i + 1}) svg")
        steps = np.floor((MAPS[0][which] * 255).round() / 255 * 10)
        want = np.where(MAPS[0][which] > 0, 0.08 + 0.87 * np.minimum(9, steps) / 9, 0)
        np.testing.assert_allclose(small, want, atol=0.0051)
        if which == (1, 1):
            np.testing.assert_allclose(drawn(page, ".b2l-gallery-map"), want, atol=0.0051)


def test_it_starts_where_it_is_told_to(visit):
    shown(visit(), 0, 0, 0, 0)
    shown(visit(start=(1, 1, 0, -1)), 1, 1, 0, 8)


def test_another_sequence_keeps_the_head_and_a_query_that_is_there(visit):
    page = visit(start=(0, 1, 1, 11), names=["a lamp", "numbers"])
    page.get_by_label("Sequence").select_option("numbers")
    shown(page, 1, 1, 1, 8)
    assert page.get_by_label("Query token").get_attribute("max") == "8"
    assert drawn(page, ".b2l-gallery-map").shape == (9, 9)
    assert drawn(page, ".b2l-gallery-heads button:first-child svg").shape == (9, 9)
    page.get_by_label("Sequence").select_option("a lamp")
    shown(page, 0, 1, 1, 8)


def test_one_sequence_needs_no_menu(visit):
    page = visit(sequences=[(TOKENS[0], MAPS[0])])
    assert page.locator("select").count() == 0
    page.get_by_label("Query token").press("ArrowRight")
    shown(page, 0, 0, 0, 1)


def test_the_keyboard_reaches_all_of_it(visit):
    page = visit()
    page.get_by_label("Sequence").focus()
    page.keyboard.press("ArrowRight")
    shown(page, 1, 0, 0, 0)
    page.keyboard.press("Tab")
    page.keyboard.press("End")
    shown(page, 1, 0, 0, 8)
    for _ in range(4):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    shown(page, 1, 1, 1, 8)


def test_a_click_on_a_token_or_in_a_row_of_the_map_asks_there(visit):
    page = visit()
    page.locator(".b2l-gallery-tokens span").nth(7).click()
    shown(page, 0, 0, 0, 7)
    box = page.locator(".b2l-gallery-map").bounding_box()
    for query in (0, 4, 11):
        page.locator(".b2l-gallery-map").click(
            position={"x": 20, "y": box["height"] * (query + 0.5) / T}
        )
        shown(page, 0, 0, 0, query)


def test_a_query_that_reads_nothing_says_so(visit):
    maps = np.zeros((1, 1, 2, 2))
    maps[0, 0, 1, 0] = 1
    page = visit(sequences=[(["a", "b"], maps)])
    assert page.inner_text(".b2l-reads") == "layer 0, head 0: a at 0 reads nothing"


def test_what_is_chosen_is_spoken_when_the_hand_rests(visit):
    page = visit()
    said = page.locator("[aria-live=polite]")
    assert said.inner_text() == page.inner_text(".b2l-reads")
    page.get_by_label("Query token").fill("5")
    assert said.inner_text() != page.inner_text(".b2l-reads")
    page.wait_for_timeout(800)
    assert said.inner_text() == page.inner_text(".b2l-reads")


def test_keys_stay_in_the_piece_and_only_controls_take_the_focus(visit):
    page = visit()
    assert page.locator(".b2l-gallery [tabindex]").count() == 0
    keys_stay_in(page, ".b2l-gallery", 2 + L * H)


LONG = ["incomprehensibilities" * 3, "the", *["lighthouse"] * 7]


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_and_a_phone_needs_no_sideways_scrolling(theme, width, visit):
    for sequences, query in ((SEQUENCES, 1), ([(LONG, MAPS[1]), (TOKENS[0], MAPS[0])], 0)):
        page = visit(theme, width, sequences, start=(0, 0, 0, query))
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        slider = page.get_by_label("Query token").bounding_box()
        assert slider["width"] > 60, "no room to move"
        edge = page.locator(".b2l-gallery").bounding_box()
        for part in page.locator(".b2l-gallery :is(*:not(svg *, option, .b2l-said))").all():
            box = part.bounding_box()
            assert box["x"] + box["width"] <= edge["x"] + edge["width"] + 1
        assert axe(page) == []
