"""lib/widgets: every setting has its frame, the kernel redraws, and both have a text form."""

import base64
import json
from dataclasses import replace

import ipywidgets
import numpy as np
import pytest

from lib.config import MODELS
from lib.data import TEXTS
from lib.figures import matrix, picture, tokens
from lib.tokenizer import GPT4_PATTERN, BPETokenizer, ByteTokenizer
from lib.widgets import (
    attention_explorer,
    cache_calculator,
    decode_stepper,
    explore,
    head_gallery,
    progress_bar,
    rope_dial,
    scrub,
    token_explorer,
)


def cell(n, times=1):
    return picture(matrix([[n * times]]), f"shows {n * times}")


def test_every_combination_of_settings_has_the_frame_that_was_drawn_for_it():
    piece = scrub(cell, alt="products", n=[1, 2, 3], times=[1, 2])
    assert piece.labels == [["1", "2", "3"], ["1", "2"]]
    for i, n in enumerate([1, 2, 3]):
        for j, times in enumerate([1, 2]):
            frame = piece.frames[piece.grid[i * 2 + j]]
            assert frame == {"svg": cell(n, times).svg, "alt": f"shows {n * times}"}


def test_equal_frames_are_stored_once():
    piece = scrub(cell, alt="products", n=[1, 2], times=[1, 2])  # 1·2 = 2·1
    assert len(piece.frames) == 3


def test_moving_a_slider_redraws_with_what_the_function_gives_now():
    size = {"factor": 1}
    piece = scrub(lambda n: cell(n * size["factor"]), alt="live", n=[1, 2, 3])
    size["factor"] = 10
    piece.position = [2]
    assert piece.live == {"svg": cell(30).svg, "alt": "shows 30", "position": [2]}


def test_a_scrubber_starts_where_it_is_told_to():
    assert scrub(cell, alt="a", n=[1, 2, 3]).position == [0]
    assert scrub(cell, alt="a", n=[1, 2, 3], start={"n": 3}).position == [2]


def test_a_scrubber_says_what_it_cannot_use():
    with pytest.raises(ValueError, match="at least one axis"):
        scrub(cell, alt="a")
    with pytest.raises(ValueError, match="at least one value"):
        scrub(cell, alt="a", n=[])
    with pytest.raises(ValueError, match="n=4 is not among"):
        scrub(cell, alt="a", n=[1], start={"n": 4})
    with pytest.raises(ValueError, match="alternative text"):
        scrub(cell, alt="", n=[1])


def test_explore_has_a_control_for_each_setting_and_shows_the_result():
    live = explore(lambda t, on: (t, on), t=(0, 9), on=True)
    slider, box, shown = live.children
    assert isinstance(slider, ipywidgets.IntSlider)
    assert isinstance(box, ipywidgets.Checkbox)
    assert isinstance(shown, ipywidgets.Output)


def test_explore_shows_what_the_function_prints_returns_and_raises():
    live = explore(lambda t: print("at", t) or 6 / t, t=(1, 3))
    slider, shown = live.children
    slider.value = 3
    assert [out.get("text") or out["data"]["text/plain"] for out in shown.outputs] == [
        "at 3\n",
        "2.0",
    ]
    slider.min = slider.value = 0
    assert shown.outputs[0]["text"] == "at 0\nZeroDivisionError: division by zero\n"


def test_explore_tells_a_page_without_a_kernel_what_is_missing():
    bundle = explore(lambda t: t, t=(0, 9))._repr_mimebundle_()
    assert bundle["text/plain"] == "explore: t"
    assert "make lab" in bundle["text/html"]


def test_explore_refuses_what_is_no_control():
    with pytest.raises(ValueError, match="no control for t"):
        explore(lambda t: t, t=object())


def explorer(text="low", **settings):
    return token_explorer(
        BPETokenizer.train("low low low lower lowest", 259, **settings), text=text, alt="t"
    )


def test_a_token_explorer_holds_all_that_encoding_needs():
    piece = explorer(special_tokens=["<|end|>"])
    assert repr(piece) == "TokenExplorer: t"
    assert (piece.text, piece.pattern, piece.special) == ("low", "gpt2", ["<|end|>"])
    assert [piece.byte_ids[b] for b in b"! "] == [0, 220]
    assert (piece.merges, piece.made) == ("75 78 256 86", [[256, 2]])
    assert explorer(pattern=GPT4_PATTERN).pattern == "gpt4"


def test_ids_of_merges_may_have_gaps_where_special_tokens_are():
    trained = BPETokenizer.train("low low low lower lowest", 259)
    ranks = {token: i + (i >= 257) for token, i in trained.ranks.items()}
    piece = token_explorer(BPETokenizer(ranks, special_tokens={"<|x|>": 257}), text="", alt="t")
    assert (piece.merges, piece.made) == ("75 78 256 86 220 258", [[256, 1], [258, 2]])


def test_two_thousand_merges_are_sent_in_less_than_thirty_thousand_characters():
    text = "".join(p.read_text(encoding="utf-8") for p in sorted(TEXTS.glob("*.txt")))
    piece = token_explorer(BPETokenizer.train(text, 2256), text="", alt="t")
    assert len(piece.merges.split()) == 4000
    assert len(json.dumps([piece.merges, piece.made, piece.byte_ids])) < 30_000


def test_a_token_explorer_says_what_it_cannot_show():
    with pytest.raises(TypeError, match="a BPETokenizer, not a ByteTokenizer"):
        token_explorer(ByteTokenizer(), text="a", alt="t")
    with pytest.raises(ValueError, match="GPT2_PATTERN and GPT4_PATTERN"):
        explorer(pattern=r"\S+|\s+")
    with pytest.raises(ValueError, match="surrogate"):
        explorer("a\ud83d")
    with pytest.raises(ValueError, match="alternative text"):
        token_explorer(BPETokenizer.train("low", 257), text="", alt=" ")


def test_frames_of_tokens_can_be_scrubbed():
    def draw(merges):
        ours = BPETokenizer.train("low low low lower", 256 + merges)
        return tokens([ours.decode_bytes([i]) for i in ours.encode("low low")])

    piece = scrub(draw, alt="merges", merges=[0, 1, 2, 3])
    assert piece.frames[0]["alt"] == "7 tokens: l | o | w | · | l | o | w"
    assert piece.frames[3]["alt"] == "2 tokens: low | ·low"


def attending(words=("a", "fluffy", "dog"), q=(2, 1), k=((2, -1), (3, 0), (0, 3)), v=None, **more):
    v = np.eye(3, 2) if v is None else v
    return attention_explorer(words, q, k, v, **{"alt": "a dog", **more})


def test_an_attention_explorer_holds_the_vectors_as_they_were_given():
    piece = attending(query_of="dog", chosen=1, key_axes=("describes", "names"))
    assert repr(piece) == "AttentionExplorer: a dog"
    assert (piece.words, piece.query_of) == (["a", "fluffy", "dog"], "dog")
    assert (piece.q, piece.k) == ([2, 1], [[2, -1], [3, 0], [0, 3]])
    assert piece.v == [[1, 0], [0, 1], [0, 0]]
    assert (piece.temperature, piece.chosen) == (2**0.5, 1)
    assert (piece.key_axes, piece.value_axes) == (["describes", "names"], [])
    assert attending().chosen is None


def test_the_state_of_an_attention_explorer_is_small():
    assert len(json.dumps(attending().get_state())) < 30_000


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"words": "a fluffy dog"}, r"got 'a fluffy dog': try \['a', 'fluffy', 'dog'\]"),
        ({"words": []}, "at least one word"),
        ({"q": [2, 1, 0]}, r"q must have shape \(2,\): got \(3,\)"),
        ({"k": np.eye(2)}, r"k must have shape \(3, 2\), a row for each of 3 words: got \(2, 2\)"),
        ({"v": np.eye(3)}, r"v must have shape \(3, 2\), a row for each of 3 words: got \(3, 3\)"),
        ({"q": [2, np.nan]}, r"q must hold finite numbers: got \[2.0, nan\]"),
        ({"temperature": 0}, "temperature must be a positive number, got 0"),
        ({"temperature": np.inf}, "temperature must be a positive number, got inf"),
        ({"chosen": 3}, r"chosen must be None, for the query, or in 0..2: got 3"),
        ({"value_axes": ["x"]}, r"value_axes names 2 axes, or none: got \['x'\]"),
        ({"key_axes": "up"}, "key_axes names 2 axes, or none: got 'up'"),
        ({"alt": " "}, "alternative text"),
    ],
)
def test_an_attention_explorer_says_what_does_not_fit(wrong, message):
    with pytest.raises(ValueError, match=message):
        attending(**wrong)


def dial(q=(1, 0, 0, 1), k=(1, 2, 0, 1), **more):
    return rope_dial(q, k, **{"alt": "two pairs", **more})


def test_a_rope_dial_holds_the_vectors_and_the_positions_as_they_were_given():
    piece = dial(theta=100, m=np.int64(7), n=9, last=9)
    assert repr(piece) == "RopeDial: two pairs"
    assert (piece.q, piece.k) == ([1, 0, 0, 1], [1, 2, 0, 1])
    assert (piece.dim, piece.theta, piece.m, piece.n, piece.last) == (4, 100, 7, 9, 9)
    assert (dial(dim=2).dim, dial().theta, dial().m, dial().n, dial().last) == (2, 1e4, 5, 2, 64)
    assert len(json.dumps(piece.get_state())) < 30_000


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"q": [1, 2, 3], "k": [1, 2, 3]}, "must be even and not empty, .* in pairs: got 3"),
        ({"q": [], "k": []}, "must be even and not empty, .* in pairs: got 0"),
        ({"k": [1, 2]}, r"equally wide: got \(4,\) and \(2,\)"),
        ({"q": np.eye(4), "k": np.eye(4)}, r"\(D,\), equally wide: got \(4, 4\) and \(4, 4\)"),
        ({"q": [1, 2, 3, np.nan]}, r"q must hold finite numbers: got \[1.0, 2.0, 3.0, nan\]"),
        ({"k": [1, 2, 3, np.inf]}, r"k must hold finite numbers: got \[1.0, 2.0, 3.0, inf\]"),
        ({"dim": 3}, r"dim must be even and in 2..4, the width of q: got 3"),
        ({"dim": 6}, r"dim must be even and in 2..4, the width of q: got 6"),
        ({"dim": 0}, r"dim must be even and in 2..4, the width of q: got 0"),
        ({"dim": 2.0}, r"dim must be even and in 2..4, the width of q: got 2.0"),
        ({"theta": 0}, "theta must be a finite number, 1 or more: got 0; 10000.0 is usual"),
        ({"theta": 0.5}, "theta must be a finite number, 1 or more: got 0.5"),
        ({"theta": np.nan}, "theta must be a finite number, 1 or more: got nan"),
        ({"theta": np.inf}, "theta must be a finite number, 1 or more: got inf"),
        ({"last": 0}, "last must be an integer, 1 or more: got 0"),
        ({"last": 9.5}, "last must be an integer, 1 or more: got 9.5"),
        ({"m": 65}, "m must be an integer in 0..64: got 65"),
        ({"n": -1}, "n must be an integer in 0..64: got -1"),
        ({"n": 1.5}, "n must be an integer in 0..64: got 1.5"),
        ({"m": True}, "m must be an integer in 0..64: got True"),
        ({"alt": " "}, "alternative text"),
    ],
)
def test_a_rope_dial_says_what_does_not_fit(wrong, message):
    with pytest.raises(ValueError, match=message):
        dial(**wrong)


def stepper(words=("The", "cat", "sat"), **more):
    return decode_stepper(words, **{"alt": "steps", **more})


def test_a_decode_stepper_holds_its_words_and_how_they_are_fed():
    piece = stepper(prompt=np.int64(2), chunk=2, cached=False)
    assert repr(piece) == "DecodeStepper: steps"
    assert piece.words == ["The", "cat", "sat"]
    assert (piece.prompt, piece.chunk, piece.cached, piece.step) == (2, 2, False, 0)
    assert (stepper().prompt, stepper().chunk, stepper().cached) == (1, None, True)
    assert len(json.dumps(piece.get_state())) < 40_000


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"words": "The cat"}, r"got 'The cat': try \['The', 'cat'\]"),
        ({"words": ["The"]}, "words must be 2 to 10, to be seen at once: got 1"),
        ({"words": list("abcdefghijk")}, "words must be 2 to 10, to be seen at once: got 11"),
        ({"words": ["a", 1]}, "words must be strings that can be seen: got 1"),
        ({"words": ["a", " "]}, "words must be strings that can be seen: got ' '"),
        ({"prompt": 0}, "prompt must be an integer in 1..2, for 3 words: got 0"),
        ({"prompt": 3}, "prompt must be an integer in 1..2, for 3 words: got 3"),
        ({"prompt": 1.0}, "prompt must be an integer in 1..2, for 3 words: got 1.0"),
        ({"prompt": True}, "prompt must be an integer in 1..2, for 3 words: got True"),
        ({"chunk": 3}, "chunk must be None, for all at once, 2 or 1: got 3"),
        ({"chunk": True}, "chunk must be None, for all at once, 2 or 1: got True"),
        ({"cached": 1}, "cached must be True or False: got 1"),
        ({"alt": " "}, "alternative text"),
    ],
)
def test_a_decode_stepper_says_what_does_not_fit(wrong, message):
    with pytest.raises(ValueError, match=message):
        stepper(**wrong)


def calculator(models=None, **more):
    models = {"GPT-2": MODELS["gpt2"]} if models is None else models
    return cache_calculator(models, **{"alt": "caches", **more})


def test_a_cache_calculator_holds_the_models_with_their_parameters():
    piece = calculator({name: MODELS[name] for name in ("mistral-7b", "deepseek-v3")}, batch=4)
    assert repr(piece) == "CacheCalculator: caches"
    first, second = piece.models
    assert (first["name"], first["parameters"]) == ("mistral-7b", 7_241_732_096)
    assert (first["config"]["window"], first["config"]["kv_lora_rank"]) == (4096, None)
    assert (second["parameters"], second["config"]["kv_lora_rank"]) == (None, 512)
    assert (piece.chosen, piece.context, piece.batch) == (0, 32_768, 4)
    assert (piece.cache_bytes, piece.weight_bytes, piece.card) == (2, 2, 80)
    assert calculator(context=np.int64(7)).context == 7
    assert len(json.dumps(calculator(MODELS).get_state())) < 50_000


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"models": {}}, "models must name at least one to choose: got none"),
        ({"models": ["gpt2"]}, r"a dictionary, config by name: got \['gpt2'\]"),
        ({"models": {"E": replace(MODELS["gpt2"], causal=False)}}, "E: causal=False .* no cache"),
        ({"context": 0}, "context must be an integer, 1 or more: got 0"),
        ({"context": 1e3}, "context must be an integer, 1 or more: got 1000.0"),
        ({"batch": 0}, "batch must be an integer, 1 or more: got 0"),
        ({"batch": True}, "batch must be an integer, 1 or more: got True"),
        ({"alt": " "}, "alternative text"),
    ],
)
def test_a_cache_calculator_says_what_does_not_fit(wrong, message):
    with pytest.raises(ValueError, match=message):
        calculator(**wrong)


def causal(L=2, H=2, T=3):
    """Weights (L, H, T, T) that are all different."""
    weights = np.random.default_rng(0).uniform(0.1, 1, (L, H, T, T)) * np.tri(T)
    return weights / weights.sum(-1, keepdims=True)


def gallery(tokens=("a", " dog", "."), maps=None, **more):
    maps = causal() if maps is None else maps
    return head_gallery([(tokens, maps), (["x"], causal(T=1))], **{"alt": "heads", **more})


def broken(place, value):
    maps = causal()
    maps[place] = value
    return maps


def test_a_head_gallery_holds_a_byte_for_each_weight_in_its_place():
    piece = gallery(start=(0, -1, 0, -1))
    assert repr(piece) == "HeadGallery: heads"
    assert (piece.n_layers, piece.n_heads, piece.chosen) == (2, 2, [0, 1, 0, 2])
    packed = np.frombuffer(base64.b64decode(piece.sequences[0]["maps"]), np.uint8)
    np.testing.assert_allclose(packed.reshape(2, 2, 3, 3) / 255, causal(), atol=0.5 / 255 + 1e-9)
    assert piece.sequences[0]["tokens"] == ["a", "·dog", "."]


def test_a_weight_that_is_not_0_is_never_packed_as_0_so_that_the_mask_shows():
    piece = gallery(maps=broken((0, 0, 1), [1 - 1e-9, 1e-9, 0]))
    packed = base64.b64decode(piece.sequences[0]["maps"])
    assert list(packed[3:6]) == [255, 1, 0]


def test_a_head_gallery_names_its_sequences():
    assert [s["name"] for s in gallery().sequences] == ["1: a ·dog .", "2: x"]
    assert [s["name"] for s in gallery(names=["one", "two"]).sequences] == ["one", "two"]


def test_a_head_gallery_takes_single_precision_and_a_row_that_reads_nothing():
    head_gallery([(list("abc"), causal().astype(np.float32))], alt="t")
    gallery(maps=broken((0, 0, 0), 0))


def test_four_sequences_of_four_heads_are_sent_in_less_than_sixty_thousand_characters():
    row = ["keeper"] * 32
    piece = head_gallery([(row, causal(T=32))] * 4, alt="t")
    assert len(json.dumps(piece.get_state())) < 60_000


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"maps": causal(T=4)}, r"sequence 0: maps .* \(2, 2, 3, 3\), got \(2, 2, 4, 4\)"),
        ({"maps": causal(H=3)}, r"sequence 1: maps .* \(2, 3, 1, 1\), got \(2, 2, 1, 1\)"),
        ({"maps": np.eye(3)}, r"sequence 0: maps must be \(L, H, T, T\) = .*, got \(3, 3\)"),
        ({"maps": broken((1, 0, 2), 0.5)}, "0, layer 1, head 0: row 2 must sum to 1, or to 0"),
        (
            {"maps": broken((0, 1, 1), [2, -1, 0])},
            "layer 0, head 1: row 1 has a weight that is neg",
        ),
        (
            {"maps": broken((0, 1, 2, 0), np.nan)},
            "row 2 has a weight that is negative or no number",
        ),
        ({"maps": broken((1, 1, 0), [0.5, 0.5, 0])}, "head 1: row 0 reads a later token"),
        ({"names": ["one"]}, r"a list of 2, one per sequence: got \['one'\]"),
        ({"names": "ab"}, "a list of 2, one per sequence: got 'ab'"),
        ({"start": (2, 0, 0, 0)}, r"start \(2, 0, 0, 0\) must lie in .* = \(2, 2, 2, 3\)"),
        ({"start": (-3, 0, 0, 0)}, r"start \(-3, 0, 0, 0\) must lie in"),
        ({"start": (1, 0, 0, 1)}, r"must lie in \(sequences, L, H, T\) = \(2, 2, 2, 1\)"),
        ({"start": (0, 0)}, r"start \(0, 0\) must lie in"),
        ({"alt": " "}, "alternative text"),
    ],
)
def test_a_head_gallery_says_what_does_not_fit(wrong, message):
    with pytest.raises(ValueError, match=message):
        gallery(**wrong)


def test_a_head_gallery_needs_a_sequence():
    with pytest.raises(ValueError, match="at least one sequence, got none"):
        head_gallery([], alt="t")


@pytest.fixture
def displayed(monkeypatch):
    """What is handed to display."""
    found = []
    monkeypatch.setattr("lib.widgets.live.display", found.append)
    return found


def test_a_progress_bar_follows_a_training_to_its_end(displayed):
    on_step = progress_bar(25)
    (live,) = displayed
    bar, label = live.children[0].children
    assert isinstance(bar, ipywidgets.IntProgress)
    assert (bar.value, bar.max, label.value, bar.bar_style) == (0, 25, "", "")
    for step in range(24):
        on_step(step, 5 - step / 10)
    assert (bar.value, label.value, bar.bar_style) == (21, "step 21 of 25, loss 3.000", "")
    on_step(24, 2.5)
    assert (bar.value, label.value) == (25, "step 25 of 25, loss 2.500")
    assert bar.bar_style == "success"


def test_what_a_progress_bar_leaves_on_a_page_is_the_same_after_any_training(displayed):
    on_step = progress_bar(2, what="a < b")
    before = {k: displayed[0]._repr_mimebundle_()[k] for k in ("text/plain", "text/html")}
    on_step(1, np.random.default_rng().uniform())
    after = displayed[0]._repr_mimebundle_()
    assert before == {k: after[k] for k in before}
    assert after["text/plain"] == "a < b, 2 steps"
    assert "A &lt; b, 2 steps" in after["text/html"]
    assert "loss" not in after["text/html"]


def test_a_progress_bar_needs_a_step():
    with pytest.raises(ValueError, match="at least one step: got 0"):
        progress_bar(0)
