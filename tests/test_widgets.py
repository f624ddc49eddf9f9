"""lib/widgets: every setting has its frame, the kernel redraws, and both have a text form."""

import json

import ipywidgets
import numpy as np
import pytest

from lib.data import TEXTS
from lib.figures import matrix, picture, tokens
from lib.tokenizer import GPT4_PATTERN, BPETokenizer, ByteTokenizer
from lib.widgets import attention_explorer, explore, scrub, token_explorer


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
