"""The interactive pieces, each a Python file and a JavaScript module of the same name.

    piece                what all of them share: the base class and its look
    scrubber             pre-drawn frames over any number of axes; redrawn where there is a kernel
    token_explorer       any text cut into tokens as it is typed; `bpe.js` is its encoder
    attention_explorer   a query, keys and a temperature to move; `plane.js` draws the arrows
    head_gallery         the maps of every head of a model, on several sequences
    rope_dial            a query and a key turned by their positions, and their score
    parameter_explorer   parameters and FLOPs per token by part, as a model's sizes are moved
    live                 sliders around a real function, and a bar for training, with a kernel

A piece is one object in both places. JupyterLab draws it as a live widget; on the static page
`_static/widgets.js` draws the same module from the state stored in the page, without a kernel.
"""

from lib.widgets.attention_explorer import attention_explorer
from lib.widgets.head_gallery import head_gallery
from lib.widgets.live import explore, progress_bar
from lib.widgets.parameter_explorer import parameter_explorer
from lib.widgets.rope_dial import rope_dial
from lib.widgets.scrubber import scrub
from lib.widgets.token_explorer import token_explorer

__all__ = [
    "attention_explorer",
    "explore",
    "head_gallery",
    "parameter_explorer",
    "progress_bar",
    "rope_dial",
    "scrub",
    "token_explorer",
]
