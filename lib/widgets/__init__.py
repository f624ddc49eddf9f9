"""The interactive pieces, each a Python file and a JavaScript module of the same name.

    piece                what all of them share: the base class and its look
    scrubber             pre-drawn frames over any number of axes; redrawn where there is a kernel
    token_explorer       any text cut into tokens as it is typed; `bpe.js` is its encoder
    attention_explorer   a query, keys and a temperature to move; `plane.js` draws the arrows
    live                 sliders around a real function of `lib`, for where there is a kernel

A piece is one object in both places. JupyterLab draws it as a live widget; on the static page
`_static/widgets.js` draws the same module from the state stored in the page, without a kernel.
"""

from lib.widgets.attention_explorer import attention_explorer
from lib.widgets.live import explore
from lib.widgets.scrubber import scrub
from lib.widgets.token_explorer import token_explorer

__all__ = ["attention_explorer", "explore", "scrub", "token_explorer"]
