"""The interactive pieces, each a Python file and a JavaScript module of the same name.

    piece                what all of them share: the base class and its look
    scrubber             pre-drawn frames over any number of axes; redrawn where there is a kernel
    token_explorer       any text cut into tokens as it is typed; `bpe.js` is its encoder
    attention_explorer   a query, keys and a temperature to move; `plane.js` draws the arrows
    head_gallery         the maps of every head of a model, on several sequences
    rope_dial            a query and a key turned by their positions, and their score
    parameter_explorer   parameters and FLOPs per token by part, as a model's sizes are moved
    decode_stepper       prefill and decode, step by step; `controls.js` has the sliders and menus
    cache_calculator     the cache of published models beside their weights, on one card
    kv_heads_dial        one dial from MHA to MQA: wiring, cache, parameters, measured speed
    budget_explorer      bytes and FLOPs of MHA, GQA, MQA and MLA, as heads and ranks are moved
    live                 sliders around a real function, and a bar for training, with a kernel

A piece is one object in both places. JupyterLab draws it as a live widget; on the static page
`_static/widgets.js` draws the same module from the state stored in the page, without a kernel.
"""

from lib.widgets.attention_explorer import attention_explorer
from lib.widgets.budget_explorer import budget_explorer
from lib.widgets.cache_calculator import cache_calculator
from lib.widgets.decode_stepper import decode_stepper
from lib.widgets.head_gallery import head_gallery
from lib.widgets.kv_heads_dial import kv_heads_dial
from lib.widgets.live import explore, progress_bar
from lib.widgets.parameter_explorer import parameter_explorer
from lib.widgets.rope_dial import rope_dial
from lib.widgets.scrubber import scrub
from lib.widgets.token_explorer import token_explorer

__all__ = [
    "attention_explorer",
    "budget_explorer",
    "cache_calculator",
    "decode_stepper",
    "explore",
    "head_gallery",
    "kv_heads_dial",
    "parameter_explorer",
    "progress_bar",
    "rope_dial",
    "scrub",
    "token_explorer",
]
