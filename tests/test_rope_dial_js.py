"""lib/widgets/rope_dial.js in a browser: the scores of lib.positions and NumPy, and no kernel."""

import re

import numpy as np
import pytest
import torch

from lib.positions import Rope
from lib.widgets import rope_dial
from lib.widgets.piece import module
from tests.browser import axe, keys_stay_in

Q = [1.0, 0.4, 0.9, -0.3, -0.5, 0.8, 0.7, 0.6]
K = [0.8, 0.7, 1.0, 0.2, -0.3, 0.9, 0.9, 0.3]


def turned(x, position, dim=None, theta=10_000.0):
    """The pairs (D/2, 2) of x (D,) at a position, turned by complex numbers in NumPy."""
    x = np.asarray(x, dtype=float)
    dim = len(x) if dim is None else dim
    i = np.arange(len(x) // 2)
    frequencies = np.where(2 * i < dim, float(theta) ** (-2 * i / dim), 0)
    z = (x[::2] + 1j * x[1::2]) * np.exp(1j * position * frequencies)
    return np.stack([z.real, z.imag], axis=-1)


def parts_of(q, k, m, n, **rope):
    """Each pair's part of the score of q at m and k at n."""
    return (turned(q, m, **rope) * turned(k, n, **rope)).sum(-1)


def cases(n=200):
    """Random widths, speeds and positions; every third turns only in part."""
    rng = np.random.default_rng(0)
    for i in range(n):
        D = 2 * int(rng.integers(1, 9))
        dim = 2 * int(rng.integers(1, D // 2 + 1)) if i % 3 == 0 else D
        q, k = rng.normal(0, 10 ** rng.uniform(-2, 3), (2, D))
        m, at = rng.integers(0, 300, 2)
        theta = 10 ** rng.uniform(0, 6)
        yield {"q": q.tolist(), "k": k.tolist(), "m": int(m), "n": int(at), "dim": dim,
               "theta": theta}  # fmt: skip


def test_the_dial_in_the_page_is_rope_in_numpy_and_in_lib(browser):
    page, given = browser.new_page(), list(cases())
    found = page.evaluate(
        """async ([text, cases]) => {
            const url = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
            const { frequenciesOf, scoreAt } = await import(url);
            return cases.map((c) => scoreAt(
                { ...c, frequencies: frequenciesOf(c.q.length, c.dim, c.theta) }));
        }""",
        [module("plane") + module("rope_dial"), given],
    )
    page.close()
    for case, ours in zip(given, found, strict=True):
        settings = {"dim": case["dim"], "theta": case["theta"]}
        rope = Rope(**settings)
        close = {"rtol": 1e-11, "atol": 1e-11 * np.linalg.norm(case["q"])}
        both = []
        for x, position, name in (("q", "m", "queries"), ("k", "n", "keys")):
            np.testing.assert_allclose(
                ours[name], turned(case[x], case[position], **settings), **close
            )
            row = torch.tensor(case[x], dtype=torch.float64)[None, None, None]
            theirs = rope.rotate(row, torch.tensor([case[position]]))
            np.testing.assert_allclose(np.ravel(ours[name]), theirs.flatten(), **close)
            both.append(theirs.flatten())
        scale = np.linalg.norm(case["q"]) * np.linalg.norm(case["k"])
        parts = parts_of(case["q"], case["k"], case["m"], case["n"], **settings)
        np.testing.assert_allclose(ours["parts"], parts, rtol=1e-11, atol=1e-11 * scale)
        assert ours["score"] == pytest.approx(
            float(both[0] @ both[1]), rel=1e-11, abs=1e-11 * scale
        )


@pytest.fixture
def visit(draw):
    """visit(...) -> a page like the book's, with the piece drawn by the host script."""

    def go(theme="light", width=1280, q=Q, k=K, **more):
        return draw(rope_dial(q, k, **{"alt": "test", "last": 100, **more}), theme, width)

    return go


def numbers(text):
    return [float(x) for x in re.findall(r"-?\d+(?:\.\d+)?", text.replace("−", "-"))]


def degrees(radians):
    return np.rad2deg(radians)


def tips(page, role):
    """Where the moving arrows of a role end, in the plane of each circle, in units of the page."""
    found = page.locator(f".b2l-dial-circles svg > g:last-of-type path[fill='var(--b2l-{role})']")
    ends = [re.match(r"M([^L]+)L", path.get_attribute("d"))[1] for path in found.all()]
    return np.array([[float(x) - 70, 70 - float(y)] for x, y in (end.split(",") for end in ends)])


def shown(page, m, n, q=Q, k=K, last=100, **rope):
    """Whether everything in the piece says and draws what NumPy says for these positions."""
    parts, D = parts_of(q, k, m, n, **rope), len(q)
    assert page.inner_text(".b2l-reads").startswith(f"m − n = {m - n}: ".replace("-", "−"))
    assert numbers(page.inner_text(".b2l-reads"))[-1] == pytest.approx(parts.sum(), abs=0.0051)
    printed = page.locator(".b2l-dial-circles p b").all_inner_texts()
    assert [numbers(text)[0] for text in printed] == pytest.approx(list(parts), abs=0.0051)
    before, i = turned(q, 0)[..., 0] + 1j * turned(q, 0)[..., 1], np.arange(D // 2)
    apart = np.angle(before / (turned(k, 0)[..., 0] + 1j * turned(k, 0)[..., 1]))
    speed = rope.get("theta", 1e4) ** (-2 * i / D)
    for text, at_first, more in zip(
        page.locator(".b2l-dial-circles p span").all_inner_texts(), apart, (m - n) * speed
    ):
        assert text.startswith("angle ")
        first, sign, second = text.removeprefix("angle ").replace("°", "").split()
        assert numbers(first)[0] == pytest.approx(degrees(at_first), abs=0.51)
        assert numbers(second)[0] == pytest.approx(abs(degrees(more)), abs=0.51)
        assert sign == ("−" if m < n else "+")
    longest = max(np.hypot(*turned(x, 0).T).max() for x in (q, k))
    for role, x, at in (("query", q, m), ("key", k, n)):
        np.testing.assert_allclose(
            tips(page, role), turned(x, at, **rope) * 62 / longest, atol=1e-6
        )
    sizes = [np.hypot(*turned(x, 0).T) for x in (q, k)]
    spans = page.locator(".b2l-dial-circles .b2l-bar i").evaluate_all(
        "bars => bars.map((bar) => [parseFloat(bar.style.left), parseFloat(bar.style.width)])"
    )
    long = 50 * parts / (sizes[0] * sizes[1]).max()
    np.testing.assert_allclose([w for _, w in spans], np.abs(long), atol=1e-3)
    np.testing.assert_allclose([x for x, _ in spans], 50 + np.minimum(long, 0), atol=1e-3)
    sliders = page.locator("input[type=range]")
    assert [int(s.input_value()) for s in sliders.all()] == [m, n, min(m, n)]
    assert [int(s.get_attribute("max")) for s in sliders.all()] == [last, last, last - abs(m - n)]
    assert page.locator("output").all_inner_texts() == [f"m = {m}", f"n = {n}", ""]


def arcs(page):
    """The angle from key to query that each arc spans, in degrees, and its two ends' own angles."""
    found = []
    for path in page.locator(".b2l-between").all():
        x0, y0, *_, sweep, x1, y1 = map(float, re.findall(r"-?[\d.]+(?:e-?\d+)?",
                                                          path.get_attribute("d")))  # fmt: skip
        ends = [np.arctan2(70 - y, x - 70) for x, y in ((x0, y0), (x1, y1))]
        by = degrees(np.angle(np.exp(1j * (ends[1] - ends[0]))))
        assert sweep == (by <= 0)  # on the screen y points down
        found.append(by)
    return found


def test_at_the_start_all_is_as_it_was_given(visit):
    page = visit()
    shown(page, 5, 2)
    turns = [
        numbers(text)[1] for text in page.locator(".b2l-dial figcaption").all_inner_texts()[:4]
    ]
    assert turns == pytest.approx(2 * np.pi * 1e4 ** (np.arange(4) / 4), rel=0.005)
    assert page.locator("[aria-live=polite]").inner_text() == (
        "m = 5, n = 2, " + page.inner_text(".b2l-reads")
    )
    shown(visit(m=0, n=40, theta=100.0), 0, 40, theta=100.0)
    q, k = [-1, 0.1, -1, -0.2], [-1, -0.1, -1, 0.3]  # on both sides of 180°, and near each other
    shown(visit(q=q, k=k), 5, 2, q=q, k=k)


def test_moved_together_the_score_stands_still_and_the_arrows_turn(visit):
    page = visit()
    before, angles = page.inner_text(".b2l-reads"), arcs(page)
    together = page.get_by_label("Both together")
    for first in (0, 1, 17, 60, 97):
        together.fill(str(first))
        shown(page, first + 3, first)
        assert page.inner_text(".b2l-reads") == before
        np.testing.assert_allclose(arcs(page), angles, atol=1e-4)


@pytest.mark.parametrize(("m", "n"), [(5, 2), (2, 9), (100, 0), (0, 100)])
def test_both_stop_together_at_the_ends_of_the_scale(m, n, visit):
    page = visit(m=m, n=n)
    page.get_by_label("Both together").press("End")
    shown(page, min(100, 100 + m - n), min(100, 100 - m + n))
    page.get_by_label("Both together").press("Home")
    shown(page, max(0, m - n), max(0, n - m))


def test_no_last_bit_flips_the_score_that_is_printed(visit):
    page = visit(q=[1.125, 0, 0, 0], k=[1, 0, 0, 0], m=0, n=0)  # to two places: a tie
    seen = set()
    for first in range(0, 101):
        page.get_by_label("Both together").fill(str(first))
        seen.add(page.inner_text(".b2l-reads"))
    assert len(seen) == 1


def test_moved_apart_each_follows_its_own_slider(visit):
    page = visit()
    for label, value, m, n in (
        ("Query at m", 64, 64, 2),
        ("Key at n", 30, 64, 30),
        ("Query at m", 0, 0, 30),
        ("Both together", 70, 70, 100),
        ("Key at n", 70, 70, 70),
    ):
        page.get_by_label(label).fill(str(value))
        shown(page, m, n)


def test_arcs_span_the_angle_between_query_and_key(visit):
    page = visit()
    for m, n in ((5, 2), (0, 0), (31, 8), (2, 90)):
        page.get_by_label("Query at m").fill(str(m))
        page.get_by_label("Key at n").fill(str(n))
        z = [turned(x, at)[..., 0] + 1j * turned(x, at)[..., 1] for x, at in ((Q, m), (K, n))]
        np.testing.assert_allclose(arcs(page), degrees(np.angle(z[0] / z[1])), atol=1e-4)


def test_faint_arrows_stay_where_they_began(visit):
    page, faint = visit(), ".b2l-dial-circles svg > g:first-of-type"
    before = [g.inner_html() for g in page.locator(faint).all()]
    page.get_by_label("Query at m").fill("50")
    assert [g.inner_html() for g in page.locator(faint).all()] == before
    page = visit(m=0, n=0)
    heads = page.locator(f"{faint} path[fill='var(--b2l-query)']")
    ends = [re.match(r"M([^L]+)L", path.get_attribute("d"))[1].split(",") for path in heads.all()]
    np.testing.assert_allclose(
        [[float(x) - 70, 70 - float(y)] for x, y in ends], tips(page, "query"), atol=1e-9
    )


def test_fast_pairs_spin_and_slow_ones_hardly_move(visit):
    page = visit(m=0, n=0)
    before = tips(page, "query")
    page.get_by_label("Both together").fill("3")
    moved = np.hypot(*(tips(page, "query") - before).T)
    assert moved[0] > 60
    assert moved[3] < 0.5
    assert list(moved) == sorted(moved, reverse=True)


def read_curve(page):
    """The plot's line as (distance, score), read back by its ticks' places."""
    read = page.evaluate(
        """() => {
            const ticks = (kind, side) => [...document.querySelectorAll(`.b2l-tick-${kind}`)].map(
                (t) => [Number(t.textContent.replace("−", "-")), parseFloat(t.style[side])]);
            const dot = document.querySelector(".b2l-dot").style;
            return [document.querySelector(".b2l-curve").getAttribute("d"),
                ticks("x", "left"), ticks("y", "top"), parseFloat(dot.left), parseFloat(dot.top)];
        }"""
    )
    points = np.array([[float(x) for x in p.split()] for p in read[0][1:].split("L")])
    points = np.vstack([points, read[3:]])
    for axis, ticks in enumerate(read[1:3]):
        values, places = np.array(ticks).T
        assert len(values) >= 2
        slope, start = np.polyfit(places, values, 1)
        np.testing.assert_allclose(start + slope * places, values, atol=1e-6 * np.ptp(values))
        points[:, axis] = start + slope * points[:, axis]
    return points[:-1], points[-1]


def test_the_curve_is_the_score_of_each_distance_and_the_mark_lies_on_it(visit):
    for last, scale in ((100, 1), (7, 30), (1, 0.01)):
        q = np.array(Q) * scale
        page = visit(q=q, last=last, m=last, n=0)
        curve, mark = read_curve(page)
        high = scale * np.linalg.norm(Q) * np.linalg.norm(K)
        whole = curve[::4]
        np.testing.assert_allclose(whole[:, 0], np.arange(-last, last + 1), atol=1e-4 * last)
        between = [parts_of(q, K, d, 0).sum() for d in curve[:, 0]]  # and a smooth line there
        np.testing.assert_allclose(curve[:, 1], between, atol=1e-3 * high)
        wanted = [parts_of(q, K, d, 0).sum() for d in range(-last, last + 1)]
        np.testing.assert_allclose(whole[:, 1], wanted, atol=1e-4 * high)
        np.testing.assert_allclose(mark, [last, wanted[-1]], atol=1e-4 * max(last, high))
        page.get_by_label("Both together").press("End")
        page.get_by_label("Query at m").press("Home")
        page.get_by_label("Key at n").fill("1")
        assert read_curve(page)[1] == pytest.approx([-1, wanted[last - 1]], abs=1e-4 * max(1, high))


def test_what_does_not_turn_says_so_and_a_pair_without_length_has_no_angle(visit):
    page = visit(q=[1, 0, 0, 0, 1, 1], k=[1, 0, 1, 1, 1, 1], dim=4, m=9, n=0)
    captions = page.locator(".b2l-dial figcaption").all_inner_texts()
    assert [caption.split("\n")[1] for caption in captions[:3]] == [
        "6.28 tokens a turn",
        "628 tokens a turn",
        "never turns",
    ]
    lines = page.locator(".b2l-dial-circles p span").all_inner_texts()
    assert lines == ["angle 0° + 516°", "no angle", "angle 0° + 0°"]
    assert page.locator(".b2l-between").count() == 2
    page = visit(q=[0, 0], k=[0, 0])
    assert page.inner_text(".b2l-reads") == "m − n = 3: score 0.00"


def test_the_keyboard_moves_each_and_both_and_resets(visit):
    page = visit()
    page.get_by_label("Query at m").focus()
    page.keyboard.press("ArrowRight")
    shown(page, 6, 2)
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowLeft")
    shown(page, 6, 1)
    page.keyboard.press("Tab")
    page.keyboard.press("End")
    shown(page, 100, 95)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    shown(page, 5, 2)


def test_a_move_of_both_is_spoken_when_the_hand_rests_with_the_same_score(visit):
    page = visit()
    said, score = page.locator("[aria-live=polite]"), page.inner_text(".b2l-reads")
    page.get_by_label("Both together").fill("40")
    assert said.inner_text() == f"m = 5, n = 2, {score}"
    page.wait_for_timeout(800)
    assert said.inner_text() == f"m = 43, n = 40, {score}"
    assert page.get_by_label("Both together").get_attribute("aria-valuetext") == "m = 43, n = 40"


def test_keys_stay_in_the_piece_and_only_controls_take_the_focus(visit):
    page = visit()
    assert page.locator(".b2l-dial [tabindex]").count() == 0
    keys_stay_in(page, ".b2l-dial", 4)


def cramped(page):
    """Texts that lie on each other, and parts that stick out of the piece."""
    return page.evaluate(
        """() => {
            const piece = document.querySelector(".b2l-dial"), all = [];
            const walk = document.createTreeWalker(piece, NodeFilter.SHOW_TEXT);
            while (walk.nextNode()) {
                const range = document.createRange(), text = walk.currentNode;
                if (!text.textContent.trim() || text.parentElement.closest(".b2l-said")) continue;
                range.selectNodeContents(text);
                for (const box of range.getClientRects()) all.push([text.textContent, box]);
            }
            const frame = piece.getBoundingClientRect();
            const out = (b) => b.left < frame.left + 2 || b.right > frame.right - 2
                || b.bottom > frame.bottom - 2;
            const meet = (a, b) => a.left < b.right - 1 && b.left < a.right - 1
                && a.top + 3 < b.bottom - 3 && b.top + 3 < a.bottom - 3;
            const parts = [...piece.querySelectorAll("input, button, svg, .b2l-dot")];
            return [...parts.filter((e) => out(e.getBoundingClientRect())).map((e) => e.tagName),
                ...all.filter(([, box]) => out(box)).map(([text]) => text),
                ...all.flatMap(([text, a], i) => all.slice(0, i).flatMap(
                    ([other, b]) => (meet(a, b) ? [[text, other]] : [])))];
        }"""
    )


@pytest.mark.parametrize("width", [1280, 768, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_and_a_phone_needs_no_sideways_scrolling(theme, width, visit):
    large = {"q": np.array(Q) * 1000, "k": -np.array(K), "m": 0, "n": 100, "theta": 1e9}
    wide = {"q": Q * 3, "k": K * 3, "last": 2000, "m": 2000, "n": 1}
    for given in ({}, large, wide, {"q": [1, 2], "k": [2, 1]}):
        page = visit(theme, width, **given)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert cramped(page) == []
        tops = page.locator(".b2l-dial-circles figure").evaluate_all(
            """figures => figures.map((figure) => [figure, figure.querySelector("svg")].map(
                (part) => Math.round(part.getBoundingClientRect().top)))"""
        )
        assert len(dict(tops)) == len(set(map(tuple, tops)))  # circles of a row are in line
        assert axe(page) == []
