"""lib/widgets/parameter_explorer.js in a browser: counted as the model has it, and no kernel."""

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from lib.accounting import flops_by_part, flops_per_token, param_count
from lib.config import MODELS, ModelConfig
from lib.transformer import Transformer
from lib.widgets import parameter_explorer
from lib.widgets.piece import module
from tests.browser import axe, keys_stay_in, spoken_at_rest

GPT2, LLAMA3 = MODELS["gpt2"], MODELS["llama-3-8b"]
SHOWN = {"GPT-2 small": GPT2, "Llama-3 8B": LLAMA3}


@pytest.fixture
def visit(draw):
    """visit(...) -> a page like the book's, with the piece drawn by the host script."""
    return lambda theme="light", width=1280: draw(
        parameter_explorer(SHOWN, alt="test"), theme, width
    )


def in_the_page(browser, configs, contexts):
    """(parameters by part, FLOPs by part) of each config, by the page's functions."""
    page = browser.new_page()
    cases = [{**asdict(c), "context": t} for c, t in zip(configs, contexts, strict=True)]
    found = page.evaluate(
        """async ([text, cases]) => {
            const url = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
            const { flops, parameters } = await import(url);
            return cases.map((c) => [parameters(c), flops(c)]);
        }""",
        [module("plane") + module("parameter_explorer"), cases],
    )
    page.close()
    return found


def any_config(rng):
    def pick(*options):
        return options[rng.integers(len(options))]

    def flag():
        return bool(rng.integers(2))

    K = int(rng.integers(1, 9))
    return ModelConfig(
        vocab_size=int(rng.integers(1, 3000)), n_layers=int(rng.integers(1, 5)),
        d_model=2 * int(rng.integers(1, 200)), n_heads=K * int(rng.integers(1, 5)), n_kv_heads=K,
        head_dim=2 * int(rng.integers(1, 64)), d_ff=int(rng.integers(1, 900)),
        max_seq_len=int(rng.integers(1, 3000)), norm=pick("rms", "layer"), norm_first=flag(),
        position=pick("rope", "none", "learned", "sinusoidal", "alibi", "t5"), gated=flag(),
        bias=flag(), qkv_bias=flag(), tied=flag(), activation="gelu",
    )  # fmt: skip


def held(config):
    """Parameters by part, counted in the model itself, which is built without memory."""
    with torch.device("meta"):
        model = Transformer(config)
    parts = dict.fromkeys(
        ("embedding", "positions", "attention", "scores", "feed_forward", "norms", "head"), 0
    )
    for name, p in model.named_parameters():  # a tied head is the embedding's own
        if "norm" in name:
            part = "norms"
        elif "position" in name:
            part = "positions"
        else:
            part = next(x for x in ("attention", "feed_forward", "embedding", "head") if x in name)
        parts[part] += p.numel()
    return parts


def spent(config, context):
    """2 for every weight of a matrix that a token meets; 4·H·D for each token seen, a layer."""
    with torch.device("meta"):
        model = Transformer(replace(config, tied=False))
    met = [m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear)]
    return 2 * sum(met) + 4 * config.n_layers * config.n_heads * config.head_dim * context


def test_the_page_counts_what_the_model_holds(browser):
    rng = np.random.default_rng(0)
    configs = [any_config(rng) for _ in range(200)]
    contexts = [int(rng.integers(1, 5000)) for _ in configs]
    found = in_the_page(browser, configs, contexts)
    for config, context, (parameters, flops) in zip(configs, contexts, found, strict=True):
        assert parameters == held(config), config
        assert sum(flops.values()) == spent(config, context), config


def test_the_page_counts_as_lib_accounting_counts(browser):
    rng = np.random.default_rng(1)
    configs = [any_config(rng) for _ in range(200)]
    configs = [
        replace(c, window=int(rng.integers(1, 3000))) if rng.integers(2) else c for c in configs
    ]
    configs += [MODELS[name] for name in ("gpt2-xl", "mistral-7b", "gemma-7b", "qwen2.5-7b")]
    contexts = [int(rng.integers(1, 5000)) for _ in configs]
    found = in_the_page(browser, configs, contexts)
    for config, context, (parameters, flops) in zip(configs, contexts, found, strict=True):
        assert {**param_count(config), "scores": 0} == parameters, config
        theirs = flops_by_part(config, context)
        assert {n: flops[{"maps": "attention"}.get(n, n)] for n in theirs} == theirs, config
        assert sum(flops.values()) == flops_per_token(config, context), config


def test_the_published_totals_come_out_exactly(browser):
    found = in_the_page(browser, [GPT2, LLAMA3], [1024, 8192])
    assert sum(found[0][0].values()) == 124_439_808
    assert sum(found[1][0].values()) == 8_030_261_248


def test_a_window_bounds_the_scores_and_nothing_else(browser):
    windowed = [replace(LLAMA3, window=w) for w in (4096, 4096, 9000)]
    found = in_the_page(browser, [*windowed, LLAMA3, LLAMA3], [8000, 4095, 8000, 4096, 4095])
    assert found[0][1] == found[3][1]
    assert found[1] == found[4]
    assert found[2][1]["scores"] == 4 * 32 * 4096 * 8000
    assert found[0][0] == found[3][0]


def shown(page):
    """{part: (parameters, FLOPs)} of the table."""
    rows = page.locator("tbody tr").all()
    cells = [row.locator("th, td").all_text_contents() for row in rows]
    return {name: (parameters, flops) for name, parameters, _, flops, _ in cells}


def values(page):
    return page.locator("output").all_inner_texts()


def test_another_model_brings_its_own_sizes_and_a_button_brings_them_back(visit):
    page = visit()
    assert shown(page)["Total"] == ("124,439,808", "285 million")
    assert values(page) == ["12", "768", "12", "64", "12", "3,072", "50,257", "1,024"]
    page.get_by_label("Start from").select_option("Llama-3 8B")
    assert shown(page)["Total"][0] == "8,030,261,248"
    assert values(page) == ["32", "4,096", "32", "128", "8", "14,336", "128,256", "1,024"]
    assert "no biases" in page.inner_text(".b2l-parameters")
    page.get_by_label("d_ff").press("End")
    assert shown(page)["Total"][0] != "8,030,261,248"
    page.get_by_role("button").press("Enter")
    assert shown(page)["Total"][0] == "8,030,261,248"


def test_every_control_moves_what_it_should_and_nothing_else(visit):
    page = visit()
    start = shown(page)
    for label, changed in (
        ("Layers", {"Attention", "Attention scores", "Feed-forward", "Norms"}),
        ("head_dim", {"Attention", "Attention scores"}),
        ("KV heads", {"Attention"}),
        ("d_ff", {"Feed-forward"}),
        ("Vocabulary", {"Embedding", "Head"}),
        ("Context", {"Attention scores"}),
        ("Query heads", {"Attention", "Attention scores"}),
        ("d_model", {"Embedding", "Positions", "Attention", "Feed-forward", "Norms", "Head"}),
    ):
        page.get_by_label(label, exact=True).press("ArrowLeft")
        now = shown(page)
        assert {name for name in now if now[name] != start[name]} == changed | {"Total"}, label
        page.get_by_role("button").click()
        page.get_by_label("Context").press("End")
        assert shown(page) == start
    page.get_by_label("Head tied").uncheck()
    assert shown(page)["Head"][0] == "38,597,376"
    page.get_by_label("Gated").check()
    assert shown(page)["Feed-forward"][0] == "85,017,600"  # + 12 (768 · 3072 + 3072)


def test_key_value_heads_always_divide_the_query_heads(visit):
    page = visit()
    kv, query = page.get_by_label("KV heads"), page.get_by_label("Query heads")
    seen = [values(page)[4]]
    for _ in range(5):
        kv.press("ArrowLeft")
        seen.append(values(page)[4])
    assert seen == ["12", "6", "4", "3", "2", "1"]
    kv.press("ArrowRight")
    kv.press("ArrowRight")  # 3 of 12
    query.press("ArrowRight")
    assert [values(page)[i] for i in (2, 4)] == ["16", "2"]
    kv.press("End")
    query.press("ArrowRight")
    assert [values(page)[i] for i in (2, 4)] == ["20", "20"]


def test_the_bars_are_as_long_as_the_shares_and_carry_names(visit):
    page = visit()
    widths = page.locator(".b2l-bar").first.locator("> div").evaluate_all(
        "parts => parts.map((p) => p.getBoundingClientRect().width)"
    )  # fmt: skip
    parts = [n for n in held(GPT2).values() if n]
    np.testing.assert_allclose(
        np.array(widths) / sum(widths), np.array(parts) / sum(parts), atol=0.002
    )
    told = page.locator(".b2l-bar").first.get_attribute("aria-label")
    assert told.startswith("Parameters: Embedding 31.0 %, Positions 0.6 %, Attention 22.8 %")
    assert page.locator(".b2l-bar").nth(1).inner_text().split() == [
        "attention", "scores", "feed-forward", "head"
    ]  # fmt: skip


def test_what_the_piece_cannot_show_is_refused():
    for models, what in (
        ({}, "at least one"),
        ({"E": replace(LLAMA3, n_experts=8)}, "E: n_experts cannot be shown: got 8"),
        ({"Q": replace(LLAMA3, extras=("qk_norm",))}, r"Q: extras \['qk_norm'\]"),
        ({"G": MODELS["gemma-2-9b"]}, "G: n_global_layers cannot be shown: got 21"),
        ({"A": replace(LLAMA3, d_ff=None)}, "A: d_ff must be a size"),
    ):
        with pytest.raises(ValueError, match=what):
            parameter_explorer(models, alt="test")


def test_keys_stay_in_the_piece_and_the_sentence_is_spoken_at_rest(visit):
    page = visit()
    keys_stay_in(page, ".b2l-parameters")
    spoken_at_rest(page, "Layers", "Home")


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_and_a_phone_needs_no_sideways_scrolling(theme, width, visit):
    page = visit(theme, width)
    page.get_by_label("Start from").select_option("Llama-3 8B")
    for label in ("Layers", "d_model", "d_ff", "Vocabulary"):
        page.get_by_label(label, exact=True).press("End")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert axe(page) == []
