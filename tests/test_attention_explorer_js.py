"""lib/widgets/attention_explorer.js in a browser: the numbers of NumPy, and no kernel."""

import numpy as np
import pytest

from lib.reference import softmax
from lib.widgets import attention_explorer
from lib.widgets.piece import module
from tests.browser import axe, keys_stay_in

WORDS = ["Is", "this", "a", "fluffy", "dog", "?"]
Q = [2, 1]
K = [[-2, 1], [-1, 2], [2, -1], [3, 0], [0, 3], [-2, -2]]
V = [[-1, -1], [-1, 1], [1, 1], [3, 0], [0, 3], [0, -2]]


def attend(q, k, v, temperature):
    """The scores, weights and output, from NumPy."""
    scores = (np.asarray(k, dtype=float) * q).sum(-1)  # no fused multiply-add, as in the browser
    weights = softmax(scores, temperature)
    return scores, weights, weights @ np.asarray(v, dtype=float)


def cases(n=200):
    """Random sizes and numbers; every fourth with scores up to 1e6, every fifth nearly no heat."""
    rng = np.random.default_rng(0)
    for i in range(n):
        S, size = rng.integers(1, 12), 1000.0 if i % 4 == 0 else 2.0
        temperature = 1e-3 if i % 5 == 0 else 2 ** rng.uniform(-3, 4)
        q, k, v = rng.normal(0, size, 2), rng.normal(0, size, (S, 2)), rng.normal(0, 1, (S, 2))
        if i % 7 == 0:
            k[:] = k[0]
        yield q.tolist(), k.tolist(), v.tolist(), temperature


def test_attention_in_the_page_is_attention_in_numpy(browser):
    page, given = browser.new_page(), list(cases())
    found = page.evaluate(
        """async ([text, cases]) => {
            const url = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
            const { attend } = await import(url);
            return cases.map((given) => attend(...given));
        }""",
        [module("plane") + module("attention_explorer"), given],
    )
    extremes = 0
    for case, ours in zip(given, found, strict=True):
        for name, theirs in zip(("scores", "weights", "output"), attend(*case)):
            assert len(ours[name]) == len(theirs)
            np.testing.assert_allclose(ours[name], theirs, rtol=1e-12, atol=1e-12)
        assert abs(sum(ours["weights"]) - 1) < 1e-12
        extremes += max(map(abs, ours["scaled"])) > 709  # exp of which overflows
    assert extremes > 20


@pytest.fixture
def visit(draw):
    """visit(...) -> a page like the book's, with the piece drawn by the host script."""

    def go(theme="light", width=1280, words=WORDS, q=Q, k=K, v=V, **more):
        given = {"alt": "test", "query_of": "dog", **more}
        return draw(attention_explorer(words, q, k, v, **given), theme, width)

    return go


def cells(page, name):
    """A column of the table, as numbers."""
    texts = page.locator(f"td.b2l-{name}-cell").all_inner_texts()
    return [float(text.replace("−", "-")) for text in texts]


def shown(page, q, k, temperature):
    """Whether the table and the sentence under it say what NumPy says."""
    scores, weights, output = attend(q, k, V, temperature)
    assert cells(page, "score") == pytest.approx(scores, abs=0.0051)
    assert cells(page, "scaled") == pytest.approx(scores / temperature, abs=0.0051)
    assert cells(page, "weight") == pytest.approx(weights, abs=0.0051)
    said = ", ".join(f"{x:.2f}".replace("-", "−") for x in output)
    assert page.locator(f"text=is ({said}).").count() == 1


def tip(page, i):
    """Where on the screen the arrow of key `i`, or with -1 of the query, ends."""
    box = page.locator(".b2l-handle").nth(i + 1).bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_at_the_start_dog_reads_fluffy(visit):
    page = visit()
    shown(page, Q, K, 2**0.5)
    assert page.inner_text(".b2l-reads") == "dog reads fluffy most: weight 0.80."
    assert cells(page, "score") == [-3, 0, 3, 6, 3, -6]
    assert "= √d" in page.locator("output").nth(2).inner_text()


def test_the_keyboard_turns_and_stretches_the_query(visit):
    page = visit()
    page.get_by_label("Angle").focus()
    for _ in range(33):
        page.keyboard.press("ArrowRight")
    length = page.get_by_label("Length")
    length.focus()
    page.keyboard.press("End")
    assert float(length.input_value()) == 4
    at = np.deg2rad(27 + 33)  # the slider stands on whole degrees
    shown(page, [4 * np.cos(at), 4 * np.sin(at)], K, 2**0.5)
    assert page.inner_text(".b2l-reads").startswith("dog reads dog most")


def test_a_chosen_key_moves_and_the_others_stay(visit):
    page = visit()
    page.get_by_label("Move").select_option("key of dog")
    assert page.get_by_label("Angle").input_value() == "90"
    page.get_by_label("Angle").fill("0")
    page.get_by_label("Length").fill("4")
    shown(page, Q, [*K[:4], [4, 0], K[5]], 2**0.5)
    page.get_by_role("button", name="Reset").click()
    shown(page, Q, K, 2**0.5)


def test_a_vector_of_no_length_keeps_its_direction(visit):
    page = visit(chosen=4)
    page.get_by_label("Length").fill("0")
    assert page.get_by_label("Angle").input_value() == "90"
    page.get_by_label("Length").fill("2")
    shown(page, Q, [*K[:4], [0, 2], K[5]], 2**0.5)
    page = visit(q=[0, 0])
    assert page.inner_text(".b2l-reads") == "dog reads every word alike."
    page.get_by_label("Length").fill("1")
    shown(page, [1, 0], K, 2**0.5)


def test_heat_evens_the_weights_and_cold_sharpens_them(visit):
    page, weights = visit(), []
    for step in (-12, 0, 2, 16):
        page.get_by_label("Temperature").fill(str(step))
        shown(page, Q, K, 2 ** (step / 4))
        weights.append(cells(page, "weight")[3])
    assert weights == sorted(weights, reverse=True)
    assert weights[0] == 1


def test_a_temperature_between_the_steps_stays_until_it_is_moved(visit):
    page = visit(temperature=0.9)
    shown(page, Q, K, 0.9)
    page.get_by_label("Length").fill("2")
    assert page.locator("output").nth(2).inner_text() == "0.9"


def test_the_pointer_drags_the_query_and_a_key(visit):
    page = visit()
    unit = (tip(page, 3)[0] - tip(page, 4)[0]) / 3
    for i, (x, y) in ((-1, (-1, 3)), (3, (1, 2))):
        start, old = tip(page, i), Q if i < 0 else K[i]
        page.mouse.move(*start)
        page.mouse.down()
        page.mouse.move(start[0] + (x - old[0]) * unit, start[1] - (y - old[1]) * unit, steps=5)
        page.mouse.up()
        chosen = page.get_by_label("Move").evaluate("(menu) => menu.selectedOptions[0].text")
        assert chosen == ("query of dog" if i < 0 else "key of fluffy")
    shown(page, [-1, 3], [*K[:3], [1, 2], *K[4:]], 2**0.5)
    page.mouse.move(5, 5)
    shown(page, [-1, 3], [*K[:3], [1, 2], *K[4:]], 2**0.5)


def test_a_vector_dragged_out_of_the_plane_stays_in_it(visit):
    page = visit()
    page.mouse.move(*tip(page, -1))
    page.mouse.down()
    page.mouse.move(1270, tip(page, 4)[1])
    page.mouse.up()
    assert float(page.locator("output").nth(1).inner_text()) == pytest.approx(4, abs=0.1)


def overlaps(page):
    """Pairs of texts in the planes that lie on each other, and texts that stick out."""
    return page.evaluate(
        """() => [...document.querySelectorAll(".b2l-attention svg")].flatMap((plane) => {
            const all = [...plane.querySelectorAll("text")];
            const boxes = all.map((text) => text.getBoundingClientRect());
            const frame = plane.getBoundingClientRect();
            const cut = all.filter((_, i) => boxes[i].left < frame.left - 1
                || boxes[i].right > frame.right + 1 || boxes[i].bottom > frame.bottom + 1);
            const meet = (a, b) => a.left < b.right && b.left < a.right
                && a.top + 2 < b.bottom - 2 && b.top + 2 < a.bottom - 2;
            const met = boxes.flatMap((a, i) => boxes.slice(0, i).flatMap(
                (b, j) => (meet(a, b) ? [[all[i].textContent, all[j].textContent]] : [])));
            return [...cut.map((text) => text.textContent), ...met];
        })"""
    )


@pytest.mark.parametrize("seed", range(6))
def test_no_label_lies_on_another_wherever_the_vectors_are(seed, visit):
    rng = np.random.default_rng(seed)
    spread = (3.0, 1.0, 0.2, 0.0)[seed % 4]  # of the keys around one place
    k = np.clip(rng.uniform(-2, 2, 2) + rng.uniform(-spread, spread, (6, 2)), -2.8, 2.8)
    page = visit(q=k[0], k=k, v=k[::-1])
    assert overlaps(page) == []
    for angle in range(-180, 181, 15):
        page.get_by_label("Angle").fill(str(angle))
        assert overlaps(page) == [], angle


def test_the_summary_is_spoken_when_the_hand_rests(visit):
    page = visit()
    said = page.locator("[aria-live=polite]")
    assert said.inner_text() == "dog reads fluffy most: weight 0.80."
    page.get_by_label("Angle").fill("100")
    assert page.inner_text(".b2l-reads").startswith("dog reads dog most")
    assert said.inner_text() == "dog reads fluffy most: weight 0.80."
    page.wait_for_timeout(800)
    assert said.inner_text() == page.inner_text(".b2l-reads")


def test_keys_stay_in_the_piece_and_only_controls_take_the_focus(visit):
    page = visit()
    assert page.locator(".b2l-attention [tabindex]").count() == 0
    keys_stay_in(page, ".b2l-attention", 5)


LONG = ["The", "incomprehensibilities", "the", "harbour", "the", "lighthouse", "keeper"]


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_and_a_phone_needs_no_sideways_scrolling(theme, width, visit):
    rng = np.random.default_rng(1)
    page = visit(theme, width, LONG, [20, 10], rng.normal(0, 15, (7, 2)), rng.normal(0, 1, (7, 2)))
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(
        """() => [...document.querySelectorAll("td, th")].every(
            (cell) => cell.scrollWidth <= cell.clientWidth + 1)"""
    )
    usual = visit(theme, width)
    heights = [row.bounding_box()["height"] for row in usual.locator("tbody tr").all()]
    assert max(heights) < 42, "a number is broken in two"
    for drawn in (page, usual):
        assert axe(drawn) == []
