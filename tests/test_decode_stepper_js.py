"""lib/widgets/decode_stepper.js in a browser: the work of lib's attention and cache, no kernel."""

import numpy as np
import pytest
import torch

from lib.attention import Attention
from lib.cache import Cache
from lib.widgets import decode_stepper
from lib.widgets.piece import module
from tests.browser import axe, keys_stay_in, overlapping, spoken_at_rest

WORDS = ["The", "cat", "sat", "on", "the", "mat", "."]
CHUNKS = {None: "at once", 2: "in chunks of 2", 1: "one by one"}


@pytest.fixture
def visit(draw):
    """visit(...) -> a page like the book's, with the piece drawn by the host script."""

    def go(theme="light", width=1280, words=WORDS, **more):
        return draw(decode_stepper(words, **{"alt": "test", **more}), theme, width)

    return go


def fed(n, prompt, chunk):
    """How many tokens each step reads, when the last of n words is never read."""
    rest, size = prompt, chunk or prompt
    lengths = [size] * (rest // size) + ([rest % size] if rest % size else [])
    return lengths + [1] * (n - 1 - prompt)


def run(n, prompt, chunk, cached):
    """What a layer of lib really does at each step; `seen` (T, S) is what its mask leaves."""
    layer, x = Attention(4, 1), torch.randn(1, n, 4)
    cache, steps, read = Cache(n), [], 0
    for T in fed(n, prompt, chunk):
        held = cache.length
        new = x[:, read : read + T] if cached else x[:, : read + T]
        q, k, _, bias = layer.qkv(new, cache=cache if cached else None)
        seen = torch.isfinite(bias.expand(1, 1, q.shape[2], k.shape[2]))[0, 0]
        steps.append(
            {"first": k.shape[2] - q.shape[2], "to": k.shape[2], "scores": seen.numel(),
             "hidden": int((~seen).sum()), "rows": 2 * new.shape[1], "read": 2 * held,
             "seen": seen.numpy()}
        )  # fmt: skip
        read += T
    return steps


EVERY = [
    (n, prompt, chunk, cached)
    for n in range(2, 11)
    for prompt in range(1, n)
    for chunk in CHUNKS
    for cached in (True, False)
]


def test_the_work_in_the_page_is_what_attention_and_its_cache_do(browser):
    page = browser.new_page()
    found = page.evaluate(
        """async ([text, cases]) => {
            const url = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
            const { stepsOf, workOf } = await import(url);
            return cases.map(([n, prompt, chunk, cached]) => stepsOf(n, prompt, chunk).map(
                (step) => ({ ...workOf(step, cached), to: step.to })));
        }""",
        [module("plane") + module("controls") + module("decode_stepper"), EVERY],
    )
    page.close()
    for case, works in zip(EVERY, found, strict=True):
        expected = [{n: x for n, x in step.items() if n != "seen"} for step in run(*case)]
        assert works == expected, case


def table(page):
    """{row: [step, so far, step, so far]}, with a cache and without."""
    rows = page.locator(".b2l-decode tbody tr").all()
    cells = [row.locator("th, td").all_inner_texts() for row in rows]
    return {name: [int(n.replace(",", "")) for n in numbers] for name, *numbers in cells}


def cells(page):
    """{(row, column): (state, number)} of the grid's cells."""
    found = page.locator(".b2l-decode-grid .b2l-cell").evaluate_all(
        "cells => cells.map((c) => [c.style.gridRowStart, c.style.gridColumnStart, c.className, "
        "c.textContent, c.style.getPropertyValue('--role')])"
    )
    return {
        (int(r), int(c)): (kind.removeprefix("b2l-cell").replace("b2l-", "").strip(),
                           int(n or 0), role.split("b2l-")[1].strip(")"))
        for r, c, kind, n, role in found
    }  # fmt: skip


def drawn(n, steps, cached):
    """The same cells, from what the layer did in these steps."""
    N, now = n - 1, steps[-1]
    times = np.zeros((N, N), int)
    rows = np.zeros(N, int)
    for step in steps:
        times[step["first"] : step["to"], : step["to"]] += 1
        rows[step["first"] : step["to"]] += 1
    hidden = np.zeros((N, N), bool)
    hidden[now["first"] : now["to"], : now["to"]] = ~now["seen"]

    def state(count, working, masked=False):
        if working:
            return "hidden" if masked else "again" if count > 1 else "new"
        return "past" if count else ""

    found = {}
    for i in range(N):
        working = now["first"] <= i < now["to"]
        own = state(rows[i], working)
        kept = "kept" if i < now["first"] else own
        for column, role in ((2, "query"), (N + 5, "output")):
            found[i + 2, column] = (own, rows[i], role)
        for row, role in ((N + 3, "key"), (N + 4, "value")):
            found[row, i + 4] = (kept, rows[i], role)
        for j in range(N):
            here = state(times[i, j], working and j < now["to"], hidden[i, j])
            found[i + 2, j + 4] = (here, times[i, j], "query")
    return found


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("prompt", [1, 4, 6])
def test_every_cell_and_every_count_follows_the_steps(prompt, chunk, cached, visit):
    page, n = visit(prompt=prompt, chunk=chunk, cached=cached), len(WORDS)
    both = [run(n, prompt, chunk, way) for way in (True, False)]
    mine = both[0 if cached else 1]
    for step in range(len(mine)):
        if step:
            page.get_by_role("button", name="Next").click()
        assert page.locator("output").first.inner_text() == f"{step + 1} of {len(mine)}"
        assert cells(page) == drawn(n, mine[: step + 1], cached)
        for row, name in (("scores", "scores"), ("computed", "rows"), ("read", "read")):
            (found,) = [x for text, x in table(page).items() if text.endswith(row)]
            wanted = [(w[step][name], sum(s[name] for s in w[: step + 1])) for w in both]
            assert found == [*wanted[0], *wanted[1]], (row, step)
    assert page.get_by_role("button", name="Next").get_attribute("aria-disabled") == "true"
    bold = page.locator(".b2l-way").evaluate_all("cells => cells.map((c) => c.cellIndex)")
    assert bold == ([1, 2] if cached else [3, 4]) * 3


def test_the_sentence_says_what_the_step_does(visit):
    page, read = visit(prompt=4), ".b2l-decode .b2l-reads"
    assert page.inner_text(read) == (
        "Step 1 of 3, prefill: 4 queries read 4 keys and values, all new; the mask hides 6 of 16 "
        "scores. The last row alone says what comes next: “the”"
    )
    page.get_by_role("button", name="Next").click()
    assert page.inner_text(read) == (
        "Step 2 of 3, decode: the query of “the”, the last known token, reads 5 keys and values: "
        "4 from the cache, 1 new. Next: “mat”"
    )
    page.get_by_label("keep keys").uncheck()
    assert page.inner_text(read) == (
        "Step 2 of 3, decode: 5 queries read 5 keys and values, all computed, 4 of them again; the "
        "mask hides 10 of 25 scores. The last row alone says what comes next: “mat”"
    )
    page.get_by_label("keep keys").check()
    page.get_by_label("Prompt is read").select_option("in chunks of 2")
    page.get_by_label("Step").press("Home")
    assert page.inner_text(read) == (
        "Step 1 of 4, prefill, part 1 of 2: 2 queries read 2 keys and values, all new; the mask "
        "hides 1 of 4 scores. Nothing is said yet."
    )
    page.get_by_label("Prompt is read").select_option("one by one")
    assert page.inner_text(read) == (
        "Step 1 of 6, prefill, part 1 of 4: the query of “The” reads 1 key and its value. "
        "Nothing is said yet."
    )


def growth(page):
    return page.locator(".b2l-decode > p").last.inner_text()


def test_token_by_token_the_work_is_quadratic_or_cubic_and_the_piece_says_so(visit):
    page, said = visit(), growth
    page.get_by_label("Step").press("End")
    assert said(page) == (
        "6 tokens, one by one: 6 · 7 / 2 = 21 scores, or 6 · 7 · 13 / 6 = 91: "
        "quadratic against cubic."
    )
    page.get_by_label("Step", exact=True).press("Home")
    assert said(page) == ""
    page.get_by_label("Prompt", exact=True).press("ArrowRight")
    page.get_by_label("Step", exact=True).press("End")
    assert said(page) == ""  # two tokens were read at once
    page.get_by_label("Prompt is read").select_option("one by one")
    page.get_by_label("Step", exact=True).press("End")
    assert said(page).startswith("6 tokens")


def test_the_chapters_count_for_a_prompt_of_two_and_three_new_tokens_comes_out(visit):
    page = visit(words=list("abcde"), prompt=2)
    page.get_by_label("Step").press("End")
    assert table(page)["scores"][1::2] == [11, 29]


def test_a_shorter_plan_takes_the_step_along(visit):
    page = visit(prompt=5, chunk=1)
    page.get_by_label("Step").press("End")
    page.get_by_label("Prompt is read").select_option("at once")
    assert page.locator("output").first.inner_text() == "2 of 2"
    page.get_by_label("Prompt", exact=True).press("End")
    assert page.locator("output").all_inner_texts() == ["1 of 1", "6 words"]
    page.get_by_label("Prompt", exact=True).press("Home")
    assert page.locator("output").all_inner_texts() == ["1 of 6", "1 word"]


def test_the_buttons_go_one_step_on_and_one_step_back(visit):
    page = visit()
    seen = []
    for name in ("Next", "Next", "Next", "Previous", "Previous", "Next"):
        page.get_by_role("button", name=name).click()
        seen.append(page.locator("output").first.inner_text())
    assert seen == [f"{n} of 6" for n in (2, 3, 4, 3, 2, 3)]


def test_the_keyboard_reaches_all_and_the_buttons_keep_the_focus_at_the_ends(visit):
    page = visit(prompt=6)
    page.get_by_label("Step").focus()
    for name in ("‹ Previous", "Next ›"):
        page.keyboard.press("Tab")
        button = page.get_by_role("button", name=name)
        assert button.evaluate("b => b === document.activeElement")
        page.keyboard.press("Enter")
        assert page.locator("output").first.inner_text() == "1 of 1"
        assert button.evaluate("b => b === document.activeElement")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert not page.get_by_label("keep keys").is_checked()
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    assert page.locator("output").all_inner_texts() == ["1 of 4", "5 words"]


def test_keys_stay_in_the_piece_and_the_sentence_is_spoken_at_rest(visit):
    page = visit(prompt=2)
    keys_stay_in(page, ".b2l-decode", 6)
    assert page.inner_text("[aria-live=polite]") == page.inner_text(".b2l-reads")
    spoken_at_rest(page, "Step", "End")


def test_the_picture_has_a_name_that_says_what_is_computed(visit):
    page = visit(prompt=4)
    page.get_by_label("Step").press("End")
    picture = page.locator(".b2l-decode-grid[role=img]")
    assert picture.get_attribute("aria-label").endswith(
        "now computed are rows “mat”, columns “The” to “mat”; K and V of “The” to “the” are read"
    )
    page.get_by_label("keep keys").uncheck()
    assert picture.get_attribute("aria-label").endswith(
        "now computed are rows “The” to “mat”, columns “The” to “mat”"
    )


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_and_a_phone_needs_no_sideways_scrolling(theme, width, visit):
    long = ["Extraordinary", "antidisestablishmentarianism", *"abcdef", "mmmmmmmm", "W"]
    for words in (WORDS, long, ["a", "b"]):
        page = visit(theme, width, words=words, prompt=1)
        for cached in (True, False):
            page.get_by_label("keep keys").set_checked(cached)
            page.get_by_label("Step").press("End")
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert overlapping(page, ".b2l-decode") == []
            assert axe(page) == []
