"""What every interactive piece shares: a base class, a look, and a steady text form."""

from pathlib import Path

import anywidget
import traitlets

from lib.figures import THEME

HERE = Path(__file__).parent


def module(name: str) -> str:
    """The text of `lib/widgets/<name>.js`, the piece's `_esm`."""
    return (HERE / f"{name}.js").read_text(encoding="utf-8")


class Piece(anywidget.AnyWidget):
    """An anywidget whose text form is its alternative text; subclasses set `_esm = module(...)`.

    Its traits tagged `sync=True` are all that its JavaScript sees, with a kernel or without one.
    The JavaScript exports `default { render({ model, el }) }` and may use `model.get`, `set`,
    `on`, `off` and `save_changes`: on the static page there is nothing else.
    """

    _css = THEME + (HERE / "piece.css").read_text(encoding="utf-8")
    alt = traitlets.Unicode().tag(sync=True)

    def __init__(self, alt: str, **traits):
        if not alt.strip():
            raise ValueError("an interactive piece needs alternative text: say what it shows")
        super().__init__(alt=alt, **traits)

    def __repr__(self) -> str:
        return f"{type(self).__name__}: {self.alt}"
