"""lib/widgets: every setting has its frame, the kernel redraws, and both have a text form."""

import ipywidgets
import pytest

from lib.figures import matrix, picture
from lib.widgets import explore, scrub


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
