"""lib/widgets/budget_explorer.js in a browser: counted as lib.accounting counts, and no kernel."""

import itertools
import math
import re

import numpy as np
import pytest

from lib.accounting import flops_by_part, kv_cache_bytes, mla_flops
from lib.config import MODELS, ModelConfig
from lib.widgets import budget_explorer
from tests.browser import axe, in_the_page, keys_stay_in

SMALL = ModelConfig(
    vocab_size=256, n_layers=4, d_model=64, n_heads=8, kv_lora_rank=14, qk_nope_head_dim=8,
    qk_rope_head_dim=2, v_head_dim=8,
)  # fmt: skip
SHOWN = {"DeepSeek-V3": MODELS["deepseek-v3"], "DeepSeek-V2": MODELS["deepseek-v2"], "small": SMALL}
LATENT = ("kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim")
WAYS = ["MHA", "GQA", "MQA", "MLA naive", "MLA absorbed"]


@pytest.fixture
def visit(draw):
    """visit(...) -> a page like the book's, with the piece drawn by the host script."""

    def go(theme="light", width=1280, models=SHOWN, **more):
        return draw(budget_explorer(models, **{"alt": "test", **more}), theme, width)

    return go


def random_sizes(rng):
    H = int(rng.integers(1, 65))
    return {
        "n_layers": int(rng.integers(1, 100)), "n_heads": H,
        "head_dim": 2 * int(rng.integers(1, 99)),
        "n_kv_heads": int(rng.choice([k for k in range(1, H + 1) if H % k == 0])),
        "kv_lora_rank": int(rng.integers(1, 600)), "qk_rope_head_dim": 2 * int(rng.integers(1, 64)),
        "qk_nope_head_dim": int(rng.integers(1, 200)), "v_head_dim": int(rng.integers(1, 200)),
        "context": int(2 ** rng.uniform(0, 17)),
    }  # fmt: skip


def some_sizes():
    """200 random ones, and every model's own at several contexts."""
    rng = np.random.default_rng(0)
    own = [budget_explorer({"x": c}, alt="t", context=s).sizes
           for c in SHOWN.values() for s in (1, 2, 4096, 2**20)]  # fmt: skip
    return own + [random_sizes(rng) for _ in range(200)]


def plain(sizes, K):
    """A model whose attention has K key heads of the sizes' width."""
    H, D, L = (sizes[name] for name in ("n_heads", "head_dim", "n_layers"))
    return ModelConfig(
        vocab_size=1, n_layers=L, d_model=8, n_heads=H, n_kv_heads=K, head_dim=D, position="none"
    )


def latent(sizes):
    widths = {name: sizes[name] for name in LATENT}
    return ModelConfig(
        vocab_size=1, n_layers=sizes["n_layers"], d_model=8, n_heads=sizes["n_heads"], **widths
    )


def expected(sizes):
    """(numbers a token and layer, bytes a token, bytes, FLOPs a layer) by lib.accounting."""
    S, L = sizes["context"], sizes["n_layers"]
    for K in (sizes["n_heads"], sizes["n_kv_heads"], 1):
        config = plain(sizes, K)
        cache = [kv_cache_bytes(config, s) for s in (1, S)]
        yield [cache[0] // (2 * L), *cache, flops_by_part(config, S)["scores"] // L]
    for absorb in (False, True):
        config = latent(sizes)
        cache = [kv_cache_bytes(config, s) for s in (1, S)]
        flops = mla_flops(config, S, absorb)
        core = flops["up"] + flops["scores"] + flops["values"]
        yield [cache[0] // (2 * L), *cache, core // L]


def test_bytes_and_flops_are_those_of_lib_accounting(browser):
    cases = some_sizes()
    found = in_the_page(browser, "budget_explorer", "x.map((c) => budget(c))", cases)
    for sizes, theirs in zip(cases, found, strict=True):
        table = list(expected(sizes))
        assert [[k["numbers"], k["token"], k["cache"], k["flops"]] for k in theirs] == table, sizes
        assert [k["intensity"] for k in theirs] == [
            flops / (cache / sizes["n_layers"]) for _, _, cache, flops in table
        ]


def test_each_part_of_the_flops_is_that_of_mla_flops(browser):
    cases = some_sizes()
    found = in_the_page(
        browser, "budget_explorer", "x.map((c) => budget(c).map(({ parts }) => parts))", cases
    )
    for sizes, kinds in zip(cases, found, strict=True):
        for absorb, parts in zip((False, True), kinds[3:], strict=True):
            flops = mla_flops(latent(sizes), sizes["context"], absorb)
            assert parts == {name: flops[name] // sizes["n_layers"] for name in parts}
            assert len(parts) == 3


def core(sizes, S, absorb, new_tokens=1):
    flops = mla_flops(latent(sizes), S, absorb, new_tokens)
    return flops["up"] + flops["scores"] + flops["values"]


def test_the_break_even_context_is_the_first_at_which_absorbed_needs_fewer(browser):
    cases = some_sizes()
    # a latent that is wider than what it stands for: late, or never
    cases += [{**cases[0], "kv_lora_rank": R, "qk_nope_head_dim": 1, "v_head_dim": 1}
              for R in (1, 2, 3, 100)]  # fmt: skip
    seen = in_the_page(browser, "budget_explorer", "x.map((c) => breakEven(c))", cases)
    for sizes, first in zip(cases, seen, strict=True):
        assert core(sizes, first, True) < core(sizes, first, False), sizes
        before = first - 1  # at the first token there is none before
        assert not before or core(sizes, before, True) >= core(sizes, before, False), sizes


def test_naive_needs_fewer_from_just_so_many_new_tokens_on(browser):
    cases = some_sizes()
    found = in_the_page(browser, "budget_explorer", "x.map((c) => newTokens(c))", cases)
    kinds = set()
    for sizes, first in zip(cases, found, strict=True):
        S = sizes["context"]

        def naive_wins(T, sizes=sizes, S=S):
            return core(sizes, S, False, T) < core(sizes, S, True, T)

        if first is None or math.isinf(first):
            kinds.add("never")
            assert not any(naive_wins(T) for T in {1, max(1, S // 2), S}), sizes
        else:
            kinds.add("from")
            assert naive_wins(first), sizes
            assert first == 1 or not naive_wins(first - 1), sizes
    assert kinds == {"never", "from"}


def test_the_published_numbers_come_out(visit):
    page = visit()
    rows = shown(page)
    assert rows["MLA absorbed"][:3] == ["576", "70,272", "287,834,112"]
    assert rows["MHA"][0] == "32,768"  # 2 · 128 · 128
    assert "GQA with 2.25 key heads" in page.inner_text(".b2l-budget ul")
    page.get_by_label("Start from").select_option("DeepSeek-V2")
    assert shown(page)["MLA naive"][:2] == ["576", "69,120"]
    assert "GQA with 2.25 key heads" in page.inner_text(".b2l-budget ul")


def shown(page):
    """{variant: [cells]} of the table."""
    rows = page.locator("tbody tr").all()
    cells = [row.locator("th, td").all_text_contents() for row in rows]
    return {name.partition(" (")[0]: rest for name, *rest in cells}


def values(page):
    names = page.locator(".b2l-budget-sizes label").all_inner_texts()
    return dict(zip(names, page.locator("output").all_inner_texts(), strict=True))


def move(page, label, *keys):
    for key in keys:
        page.get_by_label(label, exact=True).press(key)


def test_the_table_says_what_lib_accounting_says(visit):
    page = visit()
    for name in SHOWN:
        page.get_by_label("Start from").select_option(name)
        sizes = budget_explorer({name: SHOWN[name]}, alt="t").sizes
        for way, numbers in zip(WAYS, expected(sizes), strict=True):
            assert shown(page)[way][:4] == [f"{n:,}" for n in numbers]
    assert [shown(page)[way][4] for way in WAYS[:3]] == ["1", "2", "8"]  # H / K


def test_every_slider_moves_what_it_should_and_nothing_else(visit):
    page = visit()
    start, own = shown(page), values(page)
    every, mla = set(range(5)), {(way, i) for way in WAYS[3:] for i in range(5)}
    for label, changed in (
        ("Query heads H", {("MHA", 0), ("MHA", 1), ("MHA", 2), ("GQA", 4), ("MQA", 4)}
         | {(way, 3) for way in WAYS}),
        ("Context S", {(way, i) for way in WAYS for i in (2, 3)}
         | {("MLA absorbed", 4)}),
        ("Layers L", {(way, i) for way in WAYS for i in (1, 2)}),
        ("Head width D", {(way, i) for way in WAYS[:3] for i in range(4)}),
        ("Key heads K, GQA", {("GQA", i) for i in every - {3}}),
        ("Latent R", mla), ("Rotary key P", mla),
        ("Plain key N", {(way, i) for way in WAYS[3:] for i in (3, 4)}),
        ("Value V", {(way, i) for way in WAYS[3:] for i in (3, 4)}),
    ):  # fmt: skip
        move(page, label, "ArrowLeft")
        now = shown(page)
        moved = {(way, i) for way in WAYS for i in range(5) if now[way][i] != start[way][i]}
        if label == "Query heads H":
            moved -= {(way, 4) for way in WAYS[3:]}  # within the rounding or not
            changed -= {(way, 4) for way in WAYS[3:]}
        assert moved == changed, label
        assert [name for name, value in values(page).items() if value != own[name]] == [label]
        page.get_by_role("button").click(force=True)  # nothing to do where the context moved
        move(page, "Context S", "Home", *["ArrowRight"] * 12)
        assert (shown(page), values(page)) == (start, own)


def test_every_slider_moves_the_bars_and_the_sentences(visit):
    page = visit()
    drawn = ".b2l-budget figure, .b2l-budget ul, .b2l-reads"
    for label in values(page):
        before = page.locator(drawn).evaluate_all("all => all.map((e) => e.outerHTML)")
        move(page, label, "ArrowLeft")
        after = page.locator(drawn).evaluate_all("all => all.map((e) => e.outerHTML)")
        assert before != after, label


def test_the_button_has_nothing_to_do_until_a_size_is_moved(visit):
    page = visit()
    button = page.get_by_role("button")
    assert button.get_attribute("aria-disabled") == "true"
    move(page, "Context S", "End")  # no size of the model
    assert button.get_attribute("aria-disabled") == "true"
    move(page, "Key heads K, GQA", "End")
    assert button.get_attribute("aria-disabled") == "false"
    button.press("Enter")
    assert values(page)["Key heads K, GQA"] == "8"
    assert values(page)["Context S"] == "1,048,576"
    assert button.get_attribute("aria-disabled") == "true"


def test_key_heads_always_divide_the_query_heads(visit):
    page = visit()
    kv, heads = "Key heads K, GQA", "Query heads H"
    move(page, kv, "Home")
    seen = [values(page)[kv]]
    for _ in range(8):
        move(page, kv, "ArrowRight")
        seen.append(values(page)[kv])
    assert seen == ["1", "2", "4", "8", "16", "32", "64", "128", "128"]
    move(page, kv, "ArrowLeft")  # 64
    move(page, heads, "ArrowLeft")
    assert (values(page)[heads], values(page)[kv]) == ("96", "48")
    move(page, heads, "Home")
    assert (values(page)[heads], values(page)[kv]) == ("1", "1")
    assert shown(page)["GQA"] == shown(page)["MHA"] == shown(page)["MQA"]


def bars(page, figure):
    """[(name, width in per cent, text)] and the ticks [(place, text)] of a figure."""
    found = page.locator(f".b2l-budget figure >> nth={figure}").evaluate(
        """(figure) => {
            const all = (kind) => [...figure.querySelectorAll(kind)];
            const texts = (kind) => all(kind).map((e) => e.textContent);
            return [texts(".b2l-budget-bars > span"),
                all("i").map((i) => parseFloat(i.style.width)),
                texts(".b2l-budget-bars > b"), all(".b2l-budget-ticks span").map(
                    (e) => [parseFloat(e.style.left), e.textContent]),
                all("i").map((i) => i.className)];
        }"""
    )
    return found


def read(text):
    number, _, unit = text.partition(" ")
    return float(number) * 1000 ** " kMGTP".index(unit.removesuffix("B") or " ")


@pytest.mark.parametrize("keys", [[], ["Home"], ["End"]])
@pytest.mark.parametrize("figure", [0, 1])
def test_a_bar_ends_where_the_ticks_say(visit, figure, keys):
    page = visit()
    move(page, "Context S", *keys)
    names, widths, texts, ticks, kinds = bars(page, figure)
    (x0, low), (x1, high) = ticks[0], ticks[1]
    decade = (x1 - x0) / math.log10(read(high) / read(low))
    column = [2, 3][figure]
    exact = [int(shown(page)[w][column].replace(",", "")) for w in WAYS]
    exact = exact[:4] if figure == 0 else exact
    for width, text, n in zip(widths, texts, exact, strict=True):
        assert width == pytest.approx(x0 + decade * math.log10(n / read(low)), abs=0.01)
        assert 0 < width <= 100.001
        assert read(text) == pytest.approx(n, rel=0.006)
    step = round(read(high) / read(low))
    caption = page.locator("figcaption").nth(figure).inner_text()
    assert f"each line is {step:,} times the one before" in caption
    for (a, tick), (b, after) in itertools.pairwise(ticks):
        assert read(after) / read(tick) == pytest.approx(step)
        assert b - a == pytest.approx(x1 - x0, abs=0.01)
    mla = ["MLA"] if figure == 0 else ["MLA naive", "MLA absorbed"]
    assert names == ["MHA", "GQA (K = 8)", "MQA", *mla]
    assert kinds == ["b2l-key-bar"] * 3 + ["b2l-latent-bar"] * len(mla)
    told = page.locator(".b2l-budget-bars").nth(figure).get_attribute("aria-label")
    assert all(f"{name} {text}" in told for name, text in zip(names, texts))


def test_the_sentences_say_the_break_evens(visit):
    page = visit()
    text = page.inner_text(".b2l-budget ul")
    assert "from 2 tokens of context; at 4,096 it needs 1/117 of naive's" in text
    assert "naive needs fewer from 168 on" in text
    assert "Absorbed MLA takes 4.38 times the FLOPs of MHA, for 1/56.9 of the bytes." in text
    move(page, "Latent R", "Home")  # 2: less than what it rebuilds
    assert "naive needs fewer never" in page.inner_text(".b2l-budget ul")
    move(page, "Latent R", "End")
    move(page, "Context S", "Home")
    assert re.search(r"at 1 it needs [\d.]+ times naive's", page.inner_text(".b2l-budget ul"))


def test_short_numbers_keep_three_digits(browser):
    cases = [0, 1, 999, 999.4, 999.6, 1000, 70272, 999_499, 999_500, 1.5e9, 2e15]
    found = in_the_page(
        browser, "budget_explorer", "x.map((n) => [short(n), short(n, 'B')])", cases
    )
    assert [a for a, _ in found] == ["0", "1", "999", "999", "1 k", "1 k", "70.3 k", "999 k",
                                     "1 M", "1.5 G", "2 P"]  # fmt: skip
    assert [b for _, b in found[:7]] == ["0 B", "1 B", "999 B", "999 B", "1 kB", "1 kB", "70.3 kB"]


def test_keys_stay_in_the_piece_and_the_sentence_is_spoken_at_rest(visit):
    page = visit()
    keys_stay_in(page, ".b2l-budget")
    said = page.locator("[aria-live=polite]")
    before = said.inner_text()
    for label in ("Latent R", "Context S"):
        move(page, label, "Home")
        assert said.inner_text() == before
    page.wait_for_timeout(800)
    assert said.inner_text() != before
    assert said.inner_text().startswith(page.inner_text(".b2l-reads"))
    assert "At context 1 MLA keeps" in said.inner_text()


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_and_a_phone_needs_no_sideways_scrolling(theme, width, visit):
    page = visit(theme, width)
    for end in ("End", "Home"):
        for label in values(page):
            move(page, label, end)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        beyond = page.locator(".b2l-budget *:not(.b2l-said, .b2l-scroll *)").evaluate_all(
            "(all, width) => all.filter((e) => e.getBoundingClientRect().right > width).length",
            width,
        )
        assert not beyond
    assert axe(page) == []
