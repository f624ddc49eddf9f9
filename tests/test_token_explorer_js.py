"""lib/widgets/bpe.js and token_explorer.js in a browser: the same ids as lib, and no kernel."""

import json
import random
import sys
import unicodedata

import pytest
import regex

from lib.tokenizer import GPT2_PATTERN, GPT4_PATTERN, BPETokenizer
from lib.widgets import token_explorer
from lib.widgets.piece import module
from tests.browser import ROOT, axe

TEXTS = {p.stem: p.read_text(encoding="utf-8") for p in sorted((ROOT / "lib/texts").glob("*.txt"))}
PATTERNS = {"gpt2": GPT2_PATTERN, "gpt4": GPT4_PATTERN}
EACH = pytest.mark.parametrize("name", PATTERNS)
# every character of Python's Unicode (14 or later) that can be in a text
UNICODE = [c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(c) not in "Cs Cn"]
AWKWARD = [
    *" \t\n\r\v\f\x1c\x1f\x85\xa0\u2028\u3000\ufeff\u200d\u0301'",
    "'S",
    "'ſ",
    "'Ll",
    "12345",
]
TOKENIZERS = {}


def tokenizer(name):
    if name not in TOKENIZERS:
        text = "".join(text[:40_000] for text in TEXTS.values())
        TOKENIZERS[name] = BPETokenizer.train(text, 1256, PATTERNS[name], ["<|end|>"])
    return TOKENIZERS[name]


def shuffled(seed=0):
    """A tokenizer with bytes in another order, and a special token between the others."""
    trained, rng = tokenizer("gpt2"), random.Random(seed)
    order = rng.sample(range(256), 256)
    ranks = {bytes([byte]): i for i, byte in enumerate(order)}
    ranks |= {left + right: 256 + i + (i >= 100) for i, (left, right) in enumerate(trained.merges)}
    return BPETokenizer(ranks, GPT2_PATTERN, {"<|mid|>": 356})


def fuzz(seed, n=500):
    """Random texts: all of Unicode, what patterns are about, words of few letters, long words."""
    rng, words = random.Random(seed), " ".join(TEXTS.values()).split()
    for i in range(n):
        size, kind = int(2 ** rng.uniform(0, 9)), i % 5
        if kind == 0:
            yield "".join(rng.choices(UNICODE, k=size))
        elif kind == 1:
            yield "".join(rng.choices(AWKWARD + list("aZé9港."), k=size))
        elif kind == 2:
            yield "".join(rng.choices(rng.choice(["the", "ab", "ا ل", "e"]), k=size))
        elif kind == 3:
            yield rng.choice(["", " "]).join(rng.choices(words, k=size // 4 + 1))
        else:
            pieces = [UNICODE, AWKWARD, words, words]
            yield "".join(rng.choice(rng.choice(pieces)) for _ in range(size // 4 + 1))


@pytest.fixture(scope="module")
def blank(browser):
    """An empty page that has the encoder's module as `bpe`."""
    page = browser.new_page()
    page.evaluate(
        """async (text) => {
            const url = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
            globalThis.bpe = await import(url);
        }""",
        module("bpe"),
    )
    return page


def encode(page, tokenizer, texts):
    """The ids of the texts, as the page computes them from the piece's state."""
    state = token_explorer(tokenizer, text="", alt="for a test").get_state()
    state = {name: state[name] for name in ("pattern", "byte_ids", "made", "merges")}
    return page.evaluate(
        "([state, texts]) => { const e = bpe.makeEncoder(state); return texts.map(e.encode); }",
        [state, texts],
    )


@EACH
def test_fuzzed_texts_get_the_same_ids_as_from_lib(name, blank):
    ours, texts = tokenizer(name), list(fuzz(name))
    for text, ids in zip(texts, encode(blank, ours, texts), strict=True):
        assert ids == ours.encode_ordinary(text), repr(text)


@EACH
def test_the_courses_texts_get_the_same_ids_as_from_lib(name, blank):
    ours = tokenizer(name)
    for text, ids in zip(TEXTS.values(), encode(blank, ours, list(TEXTS.values())), strict=True):
        assert ids == ours.encode_ordinary(text)


def test_ids_in_any_order_and_with_gaps_are_the_same(blank):
    ours, texts = shuffled(), list(fuzz(1, 100))
    assert encode(blank, ours, texts) == [ours.encode_ordinary(text) for text in texts]


def test_long_words_take_the_other_road_to_the_same_ids(blank):
    ours, rng = tokenizer("gpt2"), random.Random(2)
    texts = ["".join(rng.choices("etaoinshr", k=n)) for n in (64, 65, 66, 1000, 20_000)]
    texts += ["a" * 1001, "ab" * 500 + "a", "港" * 100, " " * 1000, "=" * 999]
    assert encode(blank, ours, texts) == [ours.encode_ordinary(text) for text in texts]


@EACH
def test_every_character_of_unicode_is_split_alike(name, blank):
    text = "".join(f" {c}a{c}{c}1{c} x'{c}b" for c in UNICODE)
    state = {"pattern": name, "byte_ids": [], "made": [], "merges": ""}
    split = "([s, t]) => JSON.stringify(bpe.makeEncoder(s).split(t))"
    assert json.loads(blank.evaluate(split, [state, text])) == regex.findall(PATTERNS[name], text)


def test_labels_show_white_space_cut_characters_and_what_is_unseen(blank):
    def label(data):
        parts = blank.evaluate("(bytes) => bpe.visible(bytes)", list(data))
        return [(part["text"], part["cut"]) for part in parts]

    assert label(b" low\n\t") == [("·low⏎⇥", False)]
    assert label(" 😀".encode()[:3]) == [("·", False), ("F0 9F", True)]
    assert label("é".encode()[1:] + b"a") == [("A9", True), ("a", False)]
    assert label("\u200d".encode()) == [("U+200D", False)]
    assert label("\ufeff".encode()) == [("U+FEFF", False)]
    assert label("\u0301a".encode()) == [("◌\u0301a", False)]
    assert label("👩\u200d🚀".encode()) == [("👩\u200d🚀", False)]
    assert label(b"\x00\xc2\x85") == [("U+0000U+0085", False)]


TEXT = "The lowest light.\nالضوء القديم\n<|end|>"


@pytest.fixture
def visit(draw):
    """visit(theme, width) -> a page like the book's, with the piece drawn by the host script."""

    def go(theme="light", width=1280):
        piece = token_explorer(tokenizer("gpt2"), text=TEXT, alt="A text in tokens")
        return draw(piece, theme, width)

    return go


def counts(page):
    """The four numbers under the text: characters, bytes, tokens, bytes per token."""
    return [float(n.replace(",", "")) for n in page.locator(".b2l-counts dd").all_inner_texts()]


@pytest.mark.parametrize(
    "text",
    [
        "hello",
        "👩🏽‍🚀 and 👋",
        "السلام عليكم",
        "naïve\n  x = 1\n",
        TEXTS["world"][:4000],
        TEXTS["essays"][:10_000],
    ],
    ids=["word", "emoji", "arabic", "lines", "world", "10kB"],
)
def test_typed_text_is_counted_as_lib_counts_it(text, visit):
    page, ours = visit(), tokenizer("gpt2")
    page.fill("textarea", text)
    n, size = len(ours.encode(text)), len(text.encode())
    assert counts(page) == [len(text), size, n, pytest.approx(size / n, abs=0.005)]
    assert page.locator("[role=option]").count() == min(n, 400)


def test_no_text_is_no_error(visit):
    page = visit()
    page.fill("textarea", "")
    assert page.locator(".b2l-counts dd").all_inner_texts() == ["0", "0", "0", "–"]
    assert page.inner_text(".b2l-detail") == "No text, no tokens."
    assert not page.locator("[role=listbox]").is_visible()


def test_the_keyboard_and_the_pointer_reach_every_tokens_id_and_bytes(visit):
    page, ours = visit(), tokenizer("gpt2")
    ids = ours.encode_ordinary(TEXT)
    page.focus("textarea")
    page.keyboard.press("Tab")
    for i, token in enumerate(ids[:8]):
        said = page.inner_text(".b2l-detail")
        data = ours.decode_bytes([token]).hex(" ").upper()
        assert said.startswith(f"Token {i + 1} of {len(ids)}: ")
        assert f"id {token}, byte" in said
        assert f" {data}, " in said
        page.keyboard.press("ArrowRight")
    page.keyboard.press("End")
    assert page.inner_text(".b2l-detail").startswith(f"Token {len(ids)} of {len(ids)}")
    page.locator("[role=option]").nth(2).hover()
    assert page.inner_text(".b2l-detail").startswith("Token 3 of")
    page.locator("[role=option]").nth(1).click()
    active = page.get_attribute("[role=listbox]", "aria-activedescendant")
    assert page.locator(f"#{active}").get_attribute("aria-selected") == "true"


def test_the_merges_of_the_word_at_the_cursor_are_replayed_in_order(visit):
    page, ours = visit(), tokenizer("gpt2")
    page.fill("textarea", "a harbour light")
    page.focus("textarea")
    for _ in range(9):
        page.keyboard.press("ArrowLeft")
    rows = page.locator(".b2l-merges li")
    words = [row.locator(".b2l-token").all_inner_texts() for row in rows.all()]
    assert words[0] == list("·harbour")
    final = [ours.decode_bytes([i]).decode().replace(" ", "·") for i in ours.encode(" harbour")]
    assert words[-1] == final
    numbers = [int(row.inner_text().split()[1]) for row in rows.all()[1:]]
    assert numbers == sorted(set(numbers))
    for number, word in zip(numbers, words[1:], strict=True):
        made = b"".join(ours.merges[number - 1]).decode().replace(" ", "·")
        assert made in word


def test_arabic_runs_from_right_to_left_and_special_tokens_are_plain_text(visit):
    page = visit()
    assert [row.get_attribute("dir") for row in page.locator(".b2l-tokens .b2l-line").all()] == [
        "ltr", "rtl", "ltr",
    ]  # fmt: skip
    first, second = (page.locator("[dir=rtl] > [role=option]").nth(i) for i in range(2))
    assert first.bounding_box()["x"] > second.bounding_box()["x"]
    assert "<|end|> is ordinary text here" in page.inner_text(".b2l-note")
    page.fill("textarea", "plain")
    assert page.inner_text(".b2l-note") == ""


def test_half_a_surrogate_pair_is_replaced_and_said(visit):
    page = visit()
    page.evaluate(
        """() => { const area = document.querySelector("textarea");
        area.value = "a\\ud83d"; area.dispatchEvent(new Event("input")); }"""
    )
    assert "surrogate" in page.inner_text(".b2l-note")
    assert counts(page)[:2] == [2, 4]


def test_far_into_a_long_text_the_tokens_around_the_cursor_are_drawn(visit):
    page, text = visit(), TEXTS["essays"][:10_000]
    page.fill("textarea", text)
    page.focus("textarea")
    page.keyboard.press("Control+End")
    page.keyboard.type(" lighthouse")
    drawn = page.locator("[role=option]").all_inner_texts()
    assert "".join(drawn).endswith("·lighthouse")
    assert "around the cursor" in page.inner_text(".b2l-detail")


def test_keys_stay_in_the_piece(visit):
    page = visit()
    page.evaluate("addEventListener('keydown', () => { document.title = 'taken' })")
    for selector in ("textarea", "[role=listbox]"):
        assert page.get_attribute(selector, "data-lm-suppress-shortcuts") == "true"
        page.focus(selector)
        page.keyboard.press("a")
    assert page.title() == "t"


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_and_a_phone_needs_no_sideways_scrolling(theme, width, visit):
    page = visit(theme, width)
    page.fill("textarea", TEXT + "W" * 200)
    page.locator("[role=option]").nth(2).click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert axe(page) == []
