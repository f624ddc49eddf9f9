"""lib/widgets/cache_calculator.js in a browser: the bytes of lib.accounting, and no kernel."""

import math
from dataclasses import replace

import numpy as np
import pytest

from lib.accounting import kv_cache_bytes, param_count
from lib.config import MODELS
from lib.widgets import cache_calculator
from lib.widgets.piece import module
from tests.browser import axe, keys_stay_in, overlapping, spoken_at_rest

SHOWN = ("llama-3-8b", "gpt2", "mistral-7b", "gemma-3-27b", "deepseek-v3")


@pytest.fixture
def visit(draw):
    """visit(...) -> a page like the book's, with the piece drawn by the host script."""

    def go(theme="light", width=1280, names=SHOWN, **more):
        piece = cache_calculator({n: MODELS[n] for n in names}, **{"alt": "test", **more})
        return draw(piece, theme, width)

    return go


def weights_of(config, bytes_per_number):
    if config.n_experts:
        return None
    return math.ceil(sum(param_count(config).values()) * bytes_per_number)


def most(fits, limit=10**13):
    """The largest n with fits(n), found by halving; infinite when there is no end to it."""
    if fits(limit):
        return None  # as JSON has it
    low, high = 0, limit
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def expected(config, context, batch, cache_bytes, weight_bytes, card):
    """What the page should find, by lib.accounting and by trying."""
    weights = weights_of(config, weight_bytes)
    cache, room = kv_cache_bytes(config, context, batch, cache_bytes), card * 10**9 - (weights or 0)

    def fits(S, room=room):
        return kv_cache_bytes(config, S, batch, cache_bytes) <= room

    outgrown = None if weights is None else most(lambda S: fits(S, weights))
    return {
        "weights": weights, "cache": cache, "free": room - cache,
        "token": kv_cache_bytes(config, 1, 1, cache_bytes),
        "layer": kv_cache_bytes(replace(config, n_layers=1, n_global_layers=0), 1, 1, cache_bytes),
        "tokens": most(fits),
        "batches": most(lambda b: b < 1 or kv_cache_bytes(config, context, b, cache_bytes) <= room),
        "outgrows": None if outgrown is None else outgrown + 1,
    }  # fmt: skip


def settings():
    """Every model at random settings, four times, and then with windows that just fit or do not.

    And with an odd width, which leaves half a byte in int4.
    """
    rng = np.random.default_rng(0)

    def pick(*options):
        return options[rng.integers(len(options))]

    def chosen():
        return (int(2 ** rng.uniform(0, 20)), int(2 ** rng.uniform(0, 10)),
                pick(4, 2, 1, 0.5), pick(4, 2, 1, 0.5), pick(24, 40, 80, 141, 192))  # fmt: skip

    for config in MODELS.values():
        for _ in range(4):
            yield config, *chosen()
        if config.kv_lora_rank:
            yield replace(config, kv_lora_rank=511), 1001, 3, 0.5, 2, 80
            continue
        full = replace(config, window=None, n_global_layers=0)
        for _ in range(2):
            made = chosen()
            fits = expected(full, *made)["tokens"]
            for window in (fits - 1, fits, fits + 1, int(rng.integers(1, 20_000))):
                some = replace(full, window=max(1, window))
                layers = int(rng.integers(0, config.n_layers + 1))
                yield replace(some, n_global_layers=layers), *made
                yield some, *made


def test_the_page_counts_as_lib_accounting_counts(browser):
    page, cases = browser.new_page(), list(settings())
    names = ("context", "batch", "cache_bytes", "weight_bytes", "card")
    sent = [
        {**cache_calculator({"m": config}, alt="t").models[0], **dict(zip(names, chosen))}
        for config, *chosen in cases
    ]
    found = page.evaluate(
        """async ([text, cases]) => {
            const url = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
            const { account } = await import(url);
            return JSON.parse(JSON.stringify(cases.map(account)));  // without end: null
        }""",
        [module("plane") + module("controls") + module("cache_calculator"), sent],
    )
    page.close()
    for case, ours in zip(cases, found, strict=True):
        assert ours == expected(*case), case


def rows(page):
    """{row: bytes} of the table, None for a dash."""
    cells = [r.locator("th, td").all_text_contents() for r in page.locator("tbody tr").all()]
    return {
        name.split(":")[0]: None if exact == "–" else float(exact.replace(",", ""))
        for name, exact, _ in cells
    }


def test_all_models_are_shown_with_their_bytes(visit):
    page = visit(names=MODELS)
    for name, c in MODELS.items():
        page.get_by_label("Model").select_option(name)
        context = MODELS["gpt2"].max_seq_len  # stays as it was
        found = rows(page)
        assert found["A token in a layer"] * c.n_layers == kv_cache_bytes(c, 1)
        assert found[f"A token in {c.n_layers} layers"] == kv_cache_bytes(c, 1)
        assert found["Cache"] == kv_cache_bytes(c, context)
        assert found["Weights"] == weights_of(c, 2)


def facts(page):
    return page.locator(".b2l-calculator li").all_inner_texts()


def test_every_control_moves_what_it_should_and_nothing_else(visit):
    page = visit(batch=2)

    def look():
        return page.locator(".b2l-calculator :is(.b2l-reads, tbody tr, li)").all_inner_texts()

    start = look()
    for label, option, back, changed in (
        ("Model", "gpt2", "llama-3-8b", {0, 1, 2, 3, 4, 5, 6, 7}),
        ("Card", "141 GB", "80 GB", {0, 6, 7}),
        ("Cache in", "int8: 1 byte", "bf16: 2 bytes", {0, 1, 2, 3, 5, 6, 7}),
        ("Weights in", "int4: ½ byte", "bf16: 2 bytes", {0, 4, 5, 6, 7}),
    ):
        page.get_by_label(label).select_option(option)
        now = look()
        assert {i for i in range(8) if now[i] != start[i]} == changed, label
        page.get_by_label(label).select_option(back)
        assert look() == start
    for label, changed in (("Context", {0, 3, 6}), ("Sequences", {0, 3, 5, 7})):
        page.get_by_label(label).press("ArrowRight")
        now = look()
        assert {i for i in range(8) if now[i] != start[i]} == changed, label
        page.get_by_label(label).press("ArrowLeft")
        assert look() == start


def test_what_is_said_of_a_known_model(visit):
    page = visit(context=8192)
    assert page.inner_text(".b2l-calculator .b2l-reads") == (
        "llama-3-8b, 8,192 tokens × 1 sequence: the cache takes 1.07 GB, the weights 16.1 GB; "
        "62.9 GB of 80 GB stay free."
    )
    assert facts(page) == [
        "The cache outgrows the weights at 122,533 tokens a sequence (the model's own: 8,192).",
        "Beside the weights on this card, at 8,192 tokens: at most 59 sequences.",
        "Beside the weights on this card, with 1 sequence: at most 487,819 tokens "
        "(the model's own: 8,192).",
    ]
    assert (
        page.locator("tbody th").first.inner_text()
        == "A token in a layer: 2 · 8 KV heads · 128 · 2"
    )
    page.get_by_label("Card").select_option("24 GB")
    page.get_by_label("Weights in").select_option("fp32: 4 bytes")
    assert "; 9.19 GB more than 24 GB." in page.inner_text(".b2l-calculator .b2l-reads")
    assert [fact.split(": ")[1] for fact in facts(page)[1:]] == [
        "not one sequence.",
        "not one token.",
    ]


def test_a_window_ends_the_growth(visit):
    page = visit()
    page.get_by_label("Model").select_option("mistral-7b")
    page.get_by_label("Context").press("End")
    assert rows(page)["Cache"] == kv_cache_bytes(MODELS["mistral-7b"], 4096)
    assert facts(page)[:2] == [
        "A window: every layer keeps the last 4,096 tokens only.",
        "The cache never outgrows the weights: the window ends its growth.",
    ]
    assert "any context, the window ends the growth." in facts(page)[3]
    page.get_by_label("Model").select_option("gemma-3-27b")
    assert facts(page)[0] == "A window: 52 of 62 layers keep the last 1,024 tokens only."


def test_a_mixture_of_experts_has_its_cache_counted_and_its_weights_not(visit):
    page = visit(names=("deepseek-v3",))
    assert rows(page) == {
        "A token in a layer": 1152, "A token in 61 layers": 70_272,
        "Cache": 163_840 * 70_272, "Weights": None,
    }  # fmt: skip
    assert "the weights are not counted; 68.5 GB of 80 GB are left" in page.inner_text(".b2l-reads")
    assert "(latent 512 + rope 64)" in page.inner_text("tbody")
    assert [fact.split(",")[0] for fact in facts(page)] == ["The cache alone on this card"] * 2
    assert page.locator(".b2l-memory > div").all_inner_texts() == ["cache", "free"]
    assert "--b2l-latent" in page.locator(".b2l-memory .b2l-cache").get_attribute("style")


def test_a_context_beyond_the_models_own_is_marked(visit):
    page = visit(names=("gpt2", "llama-3-8b"))
    slider, read = page.get_by_label("Context"), ".b2l-calculator .b2l-reads"
    assert "Longer" not in page.inner_text(read)
    slider.press("ArrowRight")
    assert page.inner_text(read).endswith(
        "Longer than the model's own 1,024 tokens, and counted all the same."
    )
    page.get_by_label("Model").select_option("llama-3-8b")
    assert "Longer" not in page.inner_text(read)


def test_sliders_stop_at_round_numbers_the_models_own_and_where_they_stand(visit):
    page = visit(names=("deepseek-v3", "gpt2"), context=1000, batch=3)
    context, shown = page.get_by_label("Context"), page.locator("output")
    assert shown.all_inner_texts() == ["1,000", "3"]
    context.press("ArrowRight")
    context.press("ArrowLeft")
    assert shown.first.inner_text() == "512"  # 1,000 was no place of its own
    seen = []
    for _ in range(20):
        seen.append(shown.first.inner_text())
        context.press("ArrowRight")
    assert seen[:9] == [f"{2**n:,}" for n in range(9, 18)]
    assert seen[9:12] == ["163,840", "262,144", "524,288"]
    assert seen[-1] == "1,048,576"
    page.get_by_label("Sequences").press("End")
    assert shown.last.inner_text() == "1,024"
    page.get_by_label("Model").select_option("gpt2")  # without 163,840
    for name in ("gpt2", "deepseek-v3"):  # the handle stays at the end
        page.get_by_label("Model").select_option(name)
        assert context.input_value() == context.get_attribute("max")


def test_the_bar_is_as_long_as_the_bytes_and_the_line_is_the_cards_end(visit):
    page = visit(context=262_144)

    def look():
        return page.locator(".b2l-memory").evaluate(
            """bar => [[...bar.querySelectorAll(":scope > div")].map((p) =>
                p.getBoundingClientRect().width / bar.getBoundingClientRect().width),
                parseFloat(bar.querySelector("i")?.style.left), bar.getAttribute("aria-label")]"""
        )

    widths, end, label = look()
    weights, cache = 16.060522496, kv_cache_bytes(MODELS["llama-3-8b"], 262_144) / 1e9
    assert widths == pytest.approx(np.array([weights, cache, 80 - weights - cache]) / 80, abs=0.004)
    assert end is None or np.isnan(end)
    assert label == "80 GB of memory: weights 16.1 GB, cache 34.4 GB, free 29.6 GB"
    page.get_by_label("Card").select_option("24 GB")
    widths, end, label = look()
    assert widths == pytest.approx(np.array([weights, cache]) / (weights + cache), abs=0.004)
    assert end == pytest.approx(100 * 24 / (weights + cache))
    assert "26.4 GB too much" in page.inner_text("figcaption")


def test_sizes_have_three_digits_and_units_of_a_thousand(browser):
    page = browser.new_page()
    given = [0.5, 999, 999.6, 1000, 4096, 999_499, 999_500, 1_073_741_824, 2e12, 1.274e15]
    found = page.evaluate(
        """async ([text, sizes]) => {
            const url = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
            return sizes.map((await import(url)).size);
        }""",
        [module("plane") + module("controls") + module("cache_calculator"), given],
    )
    page.close()
    assert found == ["0.5 bytes", "999 bytes", "1 kB", "1 kB", "4.1 kB", "999 kB", "1 MB",
                     "1.07 GB", "2 TB", "1,274 TB"]  # fmt: skip


def test_the_keyboard_reaches_every_control_in_turn(visit):
    page = visit()
    page.get_by_label("Model").focus()
    for label in ("Card", "Context", "Sequences", "Cache in", "Weights in"):
        before = page.inner_text(".b2l-calculator")
        page.keyboard.press("Tab")
        assert page.get_by_label(label).evaluate("c => c === document.activeElement"), label
        page.keyboard.press("ArrowDown" if label in ("Card", "Cache in", "Weights in") else "End")
        assert page.inner_text(".b2l-calculator") != before, label


def test_keys_stay_in_the_piece_and_the_sentence_is_spoken_at_rest(visit):
    page = visit()
    keys_stay_in(page, ".b2l-calculator", 6)
    assert page.inner_text("[aria-live=polite]") == page.inner_text(".b2l-reads")
    spoken_at_rest(page, "Context", "Home")


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_and_a_phone_needs_no_sideways_scrolling(theme, width, visit):
    page = visit(theme, width)
    for name in SHOWN:
        page.get_by_label("Model").select_option(name)
        for end in ("Home", "End"):
            for label in ("Context", "Sequences"):
                page.get_by_label(label).press(end)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert overlapping(page, ".b2l-calculator") == []
        assert axe(page) == []
