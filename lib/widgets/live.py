"""Core ipywidgets, for where there is a kernel; elsewhere a sentence says so.

explore         sliders around a real function
progress_bar    follows a training
"""

import contextlib
import html
import io

import ipywidgets
from IPython.core.formatters import format_display_data
from IPython.display import display

from lib.figures import styled


class Live(ipywidgets.VBox):
    """A box of core ipywidgets with a text form, and with HTML for pages without a kernel."""

    def __init__(self, children, text: str, page: str):
        super().__init__(children)
        self.text, self.page = text, page

    def __repr__(self) -> str:
        return self.text

    def _repr_mimebundle_(self, **kwargs):
        bundle = super()._repr_mimebundle_(**kwargs) or {}
        return {**bundle, "text/plain": self.text, "text/html": self.page}


def explore(f, **controls) -> Live:
    """Sliders and menus for f(**settings), whose result is shown and follows them.

    A control is what `ipywidgets.interact` takes: (low, high) or (low, high, step) for a slider, a
    list or dict for a menu, True or False for a box, or any ipywidget. A kernel computes each
    result anew, so the range is free; put a `scrub` of the same beside it for the static page.

    >>> squares = explore(lambda t: t * t, t=(0, 9))  # displayed as the last line of a cell

    Raises:
        ValueError: a control that ipywidgets cannot turn into a widget.
    """
    widgets = {}
    for name, control in controls.items():
        widget = ipywidgets.interactive.widget_from_abbrev(control)
        if not isinstance(widget, ipywidgets.ValueWidget):
            raise ValueError(f"no control for {name}={control!r}: try (low, high) or a list")
        if not getattr(widget, "description", ""):
            widget.description = name.replace("_", " ")
        widgets[name] = widget
    shown = ipywidgets.Output()

    def follow(_=None):
        shown.outputs = run(f, {name: widget.value for name, widget in widgets.items()})

    for widget in widgets.values():
        widget.observe(follow, "value")
    follow()
    text = "explore: " + ", ".join(controls)
    page = (
        f"<p><em>With a kernel there are controls here for {html.escape(', '.join(controls))}: "
        "<code>make lab</code> opens this chapter in JupyterLab. On this page, the drawn "
        "frames beside this cell stand in for them.</em></p>"
    )
    return Live([*widgets.values(), shown], text, styled(page))


def progress_bar(steps: int, what: str = "training"):
    """Show a bar now, and return what moves it: a function of (step, loss), for `train`.

    >>> on_step = progress_bar(300)
    training, 300 steps
    >>> on_step(0, 3.5)

    Raises:
        ValueError: fewer steps than 1.
    """
    if steps < 1:
        raise ValueError(f"a bar needs at least one step: got {steps}")
    bar, label = ipywidgets.IntProgress(max=steps, description=what), ipywidgets.Label()
    page = f"<p><em>{html.escape(what.capitalize())}, {steps} steps, as the page was made.</em></p>"
    display(Live([ipywidgets.HBox([bar, label])], f"{what}, {steps} steps", styled(page)))

    def on_step(step: int, loss: float) -> None:
        if step % 10 == 0 or step == steps - 1:  # a message each step would slow the training
            bar.value, label.value = step + 1, f"step {step + 1} of {steps}, loss {loss:.3f}"
            bar.bar_style = "success" if step == steps - 1 else ""

    return on_step


def run(f, settings: dict) -> tuple[dict, ...]:
    """What f(**settings) prints and returns, or the error it raises, as a cell's outputs.

    Written into an Output widget, these need no messages from the kernel in between, so a
    notebook runs the same in JupyterLab and where nobody draws widgets.
    """
    printed, result = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        try:
            result = f(**settings)
        except Exception as error:
            print(f"{type(error).__name__}: {error}")
    text = {"output_type": "stream", "name": "stdout", "text": printed.getvalue()}
    outputs = [text] if printed.getvalue() else []
    if result is not None:
        data, metadata = format_display_data(result)
        outputs.append({"output_type": "display_data", "data": data, "metadata": metadata})
    return tuple(outputs)
