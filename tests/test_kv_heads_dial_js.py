"""lib/widgets/kv_heads_dial.js in a browser: counted as lib.accounting counts, and no kernel."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lib.accounting import kv_cache_bytes, param_count
from lib.attention import Attention
from lib.config import MODELS, ModelConfig
from lib.widgets import kv_heads_dial
from tests.browser import axe, in_the_page, keys_stay_in

SHOWN = ("llama-3-8b", "llama-2-7b", "falcon-40b", "falcon-7b", "gemma-2-9b")
PLAIN = [name for name, c in MODELS.items() if not c.n_experts]
TIMES = {(12, 128): 0.06, (4, 128): 0.045, (1, 128): 0.08, (12, 4096): 2.0, (4, 4096): 0.9,
         (1, 4096): 0.25}  # fmt: skip
SPEEDS = [{"n_kv_heads": k, "context": s, "milliseconds": t} for (k, s), t in TIMES.items()]
MEASURED = "one new token, 12 query heads of 64, one thread"


@pytest.fixture
def visit(draw):
    """visit(...) -> a page like the book's, with the piece drawn by the host script."""

    def go(theme="light", width=1280, names=SHOWN, **more):
        more = {"alt": "test", "speeds": SPEEDS, "measured": MEASURED, **more}
        return draw(kv_heads_dial({n: MODELS[n] for n in names}, **more), theme, width)

    return go


def divisors(n):
    return [k for k in range(1, n + 1) if n % k == 0]


def row(config):
    """What the piece sends of a config."""
    return kv_heads_dial({"x": config}, alt="test").models[0]


def counted(config, context):
    parts = param_count(config)
    return {
        "token": kv_cache_bytes(config, 1), "cache": kv_cache_bytes(config, context),
        "attention": parts["attention"], "whole": sum(parts.values()),
    }  # fmt: skip


def test_every_model_at_every_number_of_key_heads_is_counted_as_lib_accounting_counts(browser):
    rng = np.random.default_rng(0)
    cases = [(MODELS[n], k) for n in PLAIN for k in divisors(MODELS[n].n_heads)]
    contexts = [int(2 ** rng.uniform(0, 20)) for _ in cases]
    sent = [[row(c), k, s] for (c, k), s in zip(cases, contexts)]
    found = in_the_page(browser, "kv_heads_dial", "x.map(([c, K, S]) => account(c, K, S))", sent)
    for (config, k), context, theirs in zip(cases, contexts, found, strict=True):
        assert theirs == counted(replace(config, n_kv_heads=k), context), (config, k, context)


def test_random_configs_are_counted_as_the_layer_holds_them(browser):
    rng = np.random.default_rng(1)
    cases = []
    for _ in range(100):
        H, flags = int(rng.integers(1, 25)), [bool(b) for b in rng.integers(0, 2, 3)]
        config = ModelConfig(
            vocab_size=int(rng.integers(1, 999)), n_layers=int(rng.integers(1, 9)), n_heads=H,
            d_model=int(rng.integers(1, 99)), head_dim=2 * int(rng.integers(1, 40)), bias=flags[0],
            qkv_bias=flags[1], d_ff=int(rng.integers(1, 99)), position="none",
            window=int(rng.integers(1, 99)) if flags[2] else None,
        )  # fmt: skip
        cases.append((config, int(rng.choice(divisors(H))), int(rng.integers(1, 200))))
    sent = [[row(c), k, s] for c, k, s in cases]
    found = in_the_page(browser, "kv_heads_dial", "x.map(([c, K, S]) => account(c, K, S))", sent)
    for (c, k, s), theirs in zip(cases, found, strict=True):
        with torch.device("meta"):
            layer = Attention(c.d_model, c.n_heads, k, c.head_dim, bias=c.qkv_bias, out_bias=c.bias)
        held = sum(p.numel() for p in layer.parameters())
        assert theirs["attention"] == c.n_layers * held, c
        assert theirs == counted(replace(c, n_kv_heads=k), s), c


def test_speeds_are_ratios_to_the_one_with_most_key_heads(browser):
    shuffled = [SPEEDS[i] for i in (4, 0, 5, 2, 1, 3)]
    expression = (
        "(({ contexts, heads, faster }) => [contexts, heads, heads.map((K) => contexts"
        ".map((S) => faster(K, S)))])(compare(x))"
    )
    contexts, heads, ratios = in_the_page(browser, "kv_heads_dial", expression, shuffled)
    assert (contexts, heads) == ([128, 4096], [12, 4, 1])
    expected = [[TIMES[12, s] / TIMES[k, s] for s in contexts] for k in heads]
    np.testing.assert_allclose(ratios, expected)


def test_the_marked_speed_has_groups_nearest_in_size(browser):
    cases = [(32, 32), (32, 16), (32, 8), (32, 4), (32, 2), (32, 1), (71, 1), (12, 4), (12, 6)]
    found = in_the_page(
        browser, "kv_heads_dial", "x.map(([H, K]) => nearest([12, 4, 2, 1], H, K))", cases
    )
    # G = 1, 2, 4, 8, 16, 32, 71, 3, 2 against the measured 1, 3, 6, 12
    assert found == [12, 4, 4, 2, 1, 1, 1, 4, 4]


def shown(page):
    """{row: [cells]} of the table."""
    rows = page.locator("tbody tr").all()
    cells = [row.locator("th, td").all_text_contents() for row in rows]
    return {name: rest for name, *rest in cells}


def values(page):
    return page.locator("output").all_inner_texts()


def move(page, label, *keys):
    for key in keys:
        page.get_by_label(label, exact=True).press(key)


def test_the_page_opens_with_the_first_model_as_it_is(visit):
    page = visit()
    assert values(page) == ["8 of 32: GQA, G = 4", "4,096", "10 reads 2"]
    assert shown(page) == {
        "Cache bytes a token": ["524,288", "131,072", "1/4"],
        "Cache bytes at 4,096 tokens": ["2,147,483,648", "536,870,912", "1/4"],
        "Parameters of attention": ["2,147,483,648", "1,342,177,280", "−37.5 %"],
        "Parameters of the model": ["8,835,567,616", "8,030,261,248", "−9.1 %"],
    }
    assert page.inner_text(".b2l-reads") == (
        "GQA, as in llama-3-8b: 4 query heads share a key and value head; "
        "the cache is 1/4 of MHA's."
    )


def test_the_dial_stops_at_each_divisor_and_names_the_variant(visit):
    page = visit()
    move(page, "Key/value heads", "Home")
    seen = [values(page)[0]]
    for _ in range(6):
        move(page, "Key/value heads", "ArrowRight")
        seen.append(values(page)[0])
    assert seen == [
        "1 of 32: MQA", "2 of 32: GQA, G = 16", "4 of 32: GQA, G = 8", "8 of 32: GQA, G = 4",
        "16 of 32: GQA, G = 2", "32 of 32: MHA", "32 of 32: MHA",
    ]  # fmt: skip
    assert [cells[2] for cells in shown(page).values()] == ["1", "1", "0 %", "0 %"]
    assert page.inner_text(".b2l-reads").startswith("MHA: each query head has its own")
    move(page, "Key/value heads", "Home")
    assert [cells[2] for cells in shown(page).values()] == ["1/32", "1/32", "−48.4 %", "−11.8 %"]
    assert "MQA: all 32 query heads share one" in page.inner_text(".b2l-reads")


def wires(page, kind):
    """[(from, to)] across the drawing, in per cent."""
    d = page.locator(f".b2l-wiring .b2l-{kind}").get_attribute("d")
    pairs = [piece.split(" 0L") for piece in d.split("M")[1:]]
    return [(float(a), float(b.removesuffix(" 100"))) for a, b in pairs]


@pytest.mark.parametrize("K", [1, 2, 8, 32])
def test_a_query_head_is_wired_to_the_key_head_of_its_group(visit, K):
    page = visit()
    move(page, "Key/value heads", "Home", *["ArrowRight"] * divisors(32).index(K))
    move(page, "Query head", "End", "ArrowLeft", "ArrowLeft")  # head 29
    G, own = 32 // K, 29 // (32 // K)
    found = {kind: wires(page, kind) for kind in ("others", "group", "own")}
    place = [(100 * (h + 0.5) / 32, 100 * (h // G + 0.5) / K) for h in range(32)]
    assert found["own"] == [pytest.approx(place[29])]
    assert found["group"] == [pytest.approx(place[h]) for h in range(32) if h // G == own]
    assert found["others"] == [pytest.approx(place[h]) for h in range(32) if h // G != own]
    assert page.locator(".b2l-wiring .b2l-q").count() == 32
    assert page.locator(".b2l-wiring .b2l-kv").count() == K
    bright = page.locator(".b2l-wiring i").evaluate_all(
        "all => all.map((i) => !i.classList.contains('b2l-dim'))"
    )
    assert bright == [h // G == own for h in range(32)] + [k == own for k in range(K)]
    on = page.locator(".b2l-wiring .b2l-on").evaluate_all("all => all.map((i) => i.style.left)")
    assert [float(left[:-1]) for left in on] == pytest.approx(place[29], abs=0.01)
    assert page.inner_text(".b2l-above") == "query head 29"
    assert page.inner_text(".b2l-below") == f"key/value head {own}"
    assert values(page)[2] == f"29 reads {own}"
    told = page.locator(".b2l-wiring").get_attribute("aria-label")
    assert f"query head 29 reads key and value head {own}" in told
    assert ("alone" in told) == (K == 32)


def test_a_click_on_the_wiring_chooses_the_head_above_it(visit):
    page = visit(width=390)
    box = page.locator(".b2l-wiring").bounding_box()
    for head in (0, 17, 31):
        x = box["width"] * (head + 0.5) / 32
        page.locator(".b2l-wiring").click(position={"x": x, "y": 40})
        assert values(page)[2] == f"{head} reads {head // 4}"


def test_another_model_brings_its_heads_and_a_head_that_is_not_there_moves(visit):
    page = visit()
    move(page, "Query head", "End")
    move(page, "Context", "End")
    page.get_by_label("Start from").select_option("gemma-2-9b")
    assert values(page) == ["8 of 16: GQA, G = 2", "131,072", "15 reads 7"]
    cache = kv_cache_bytes(MODELS["gemma-2-9b"], 131072)
    assert shown(page)["Cache bytes at 131,072 tokens"][1] == f"{cache:,}"
    assert "21 layers keep only the last 4,096 tokens" in page.inner_text(".b2l-kvdial")
    page.get_by_label("Start from").select_option("falcon-7b")
    assert values(page)[0] == "1 of 71: MQA"
    assert shown(page)["Cache bytes a token"][2] == "1/71"


def test_context_moves_the_cache_at_the_context_and_nothing_else(visit):
    page = visit()
    before = shown(page)
    del before["Cache bytes at 4,096 tokens"]
    move(page, "Context", "ArrowRight")
    after = shown(page)
    assert after.pop("Cache bytes at 8,192 tokens")[1] == "1,073,741,824"
    assert after == before


def test_a_context_between_the_round_ones_has_its_place(visit):
    page = visit(context=1000)
    assert values(page)[1] == "1,000"
    move(page, "Context", "ArrowLeft")
    assert values(page)[1] == "512"


def test_the_bars_are_the_ratios_and_say_that_they_belong_to_another_shape(visit):
    page = visit()
    heights = page.locator(".b2l-speeds i").evaluate_all("all => all.map((i) => i.offsetHeight)")
    ratios = [TIMES[12, s] / TIMES[k, s] for s in (128, 4096) for k in (12, 4, 1)]
    np.testing.assert_allclose(np.array(heights) / max(heights), np.array(ratios) / 8, atol=0.01)
    line = page.locator(".b2l-speeds").evaluate("e => e.style.getPropertyValue('--one')")
    assert line == "12.5%"  # MHA's height
    text = page.inner_text(".b2l-kvdial figure")
    assert "another, small shape" in text
    assert MEASURED in text
    assert "12 (MHA), 4 (GQA, G = 3), 1 (MQA) key/value heads" in text
    assert "Marked: 4 of 12, its groups (G = 3) nearest to those here, G = 4." in text
    assert "At 4,096 tokens it took 0.9 ms, MHA 2 ms." in text


def test_the_dial_moves_the_mark(visit):
    page = visit()
    marked = (
        "all => all.map((i, n) => i.classList.contains('b2l-on') ? n : -1).filter((n) => n >= 0)"
    )
    for key, place, times in (
        ("Home", 2, ["0.75×", "8×"]), ("End", 0, ["1×", "1×"]), ("ArrowLeft", 1, ["1.3×", "2.2×"]),
    ):  # fmt: skip
        move(page, "Key/value heads", key)
        assert page.locator(".b2l-speeds i").evaluate_all(marked) == [place, place + 3]
        assert page.locator(".b2l-speeds b").all_inner_texts() == times
        told = page.locator(".b2l-speeds").get_attribute("aria-label")
        assert f"{times[0]} at 128 tokens, {times[1]} at 4,096 tokens" in told


def test_without_speeds_that_part_is_absent(visit):
    page = visit(speeds=(), measured="")
    assert page.locator("figure, .b2l-speeds").count() == 0
    assert "measured" not in page.inner_text(".b2l-kvdial").lower()
    move(page, "Key/value heads", "Home")
    assert values(page)[0] == "1 of 32: MQA"


def test_keys_stay_in_the_piece_and_the_sentence_is_spoken_at_rest(visit):
    page = visit()
    keys_stay_in(page, ".b2l-kvdial")
    said = page.locator("[aria-live=polite]")
    before = said.inner_text()
    for label in ("Key/value heads", "Query head", "Context"):
        move(page, label, "End")
        assert said.inner_text() == before
    page.wait_for_timeout(800)
    reads = page.inner_text(".b2l-reads")
    assert said.inner_text() != before
    assert said.inner_text() == (
        f"{reads} Query head 31 reads key and value head 31. 524,288 bytes a token, "
        "68,719,476,736 at 131,072 tokens."
    )


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_and_a_phone_needs_no_sideways_scrolling(theme, width, visit):
    page = visit(theme, width)
    for name in SHOWN:
        page.get_by_label("Start from").select_option(name)
        move(page, "Context", "End")
        move(page, "Query head", "End")
        move(page, "Key/value heads", "End" if name == "falcon-40b" else "Home")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        beyond = page.locator(".b2l-kvdial *:not(.b2l-said)").evaluate_all(
            "(all, width) => all.filter((e) => e.getBoundingClientRect().right > width).length",
            width,
        )
        assert not beyond
    assert axe(page) == []
