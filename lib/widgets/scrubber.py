"""A scrubber: one slider per axis over pre-drawn frames, redrawn live where there is a kernel."""

import itertools

import traitlets

from lib.figures import Picture
from lib.widgets.piece import Piece, module


class Scrubber(Piece):
    """Frames over a grid of settings; `scrub(...)` makes one.

    `names` and `labels` describe the axes, `frames` holds the distinct pictures, `grid` says which
    frame belongs to each setting (last axis fastest), `position` is where the sliders stand.
    """

    _esm = module("scrubber")
    names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    labels = traitlets.List(traitlets.List(traitlets.Unicode())).tag(sync=True)
    frames = traitlets.List(traitlets.Dict()).tag(sync=True)
    grid = traitlets.List(traitlets.Int()).tag(sync=True)
    position = traitlets.List(traitlets.Int()).tag(sync=True)
    live = traitlets.Dict().tag(sync=True)  # the frame as the kernel draws it now


def scrub(draw, *, alt: str, start: dict | None = None, **axes) -> Scrubber:
    """A `Scrubber` over draw(**settings) -> Picture, for every combination of the `axes`.

    All frames are drawn now, so the piece works on the static page. With a kernel, moving a slider
    also calls `draw` again: what a reader has redefined since is what they see. `start` gives
    the first setting of each axis, the first value where it says nothing.

    >>> from lib.figures import matrix, picture
    >>> s = scrub(lambda n: picture(matrix([[n]]), f"the number {n}"), alt="one cell", n=[1, 2, 3])
    >>> s, len(s.frames), s.grid
    (Scrubber: one cell, 3, [0, 1, 2])

    Raises:
        ValueError: an axis without values, or a `start` that is not among them.
    """
    if not axes or not all(len(values) for values in axes.values()):
        raise ValueError("scrub needs at least one axis, each with at least one value")
    start = {name: values[0] for name, values in axes.items()} | (start or {})
    for name, value in start.items():
        if name not in axes or value not in list(axes[name]):
            raise ValueError(f"start: {name}={value!r} is not among the axes' values")

    frames, grid, seen = [], [], {}
    for setting in itertools.product(*axes.values()):
        frame = as_frame(draw(**dict(zip(axes, setting))))
        if frame["svg"] not in seen:
            seen[frame["svg"]] = len(frames)
            frames.append(frame)
        grid.append(seen[frame["svg"]])

    piece = Scrubber(
        alt,
        names=[name.replace("_", " ") for name in axes],
        labels=[[str(v) for v in values] for values in axes.values()],
        frames=frames,
        grid=grid,
        position=[list(values).index(start[name]) for name, values in axes.items()],
    )

    def redraw(change):
        setting = (list(values)[i] for values, i in zip(axes.values(), change["new"]))
        frame = as_frame(draw(**dict(zip(axes, setting))))
        piece.live = frame | {"position": change["new"]}

    piece.observe(redraw, "position")
    return piece


def as_frame(drawn: Picture) -> dict:
    """What the page needs of a picture: its SVG, and the words for readers who do not see it."""
    return {"svg": drawn.svg, "alt": drawn.alt}
