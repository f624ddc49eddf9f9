"""The cache of published models, as model, context, batch and precision are chosen.

Counted in the page as `lib.accounting` counts, and set beside the weights on one card. A GB is 10^9
bytes. Left out: memory for anything else, scales of int8 and int4, and the experts' weights.
"""

from numbers import Integral

import traitlets

from lib.accounting import param_count
from lib.config import ModelConfig
from lib.widgets.piece import HERE, Piece, module

_SENT = ("n_layers", "n_kv_heads", "head_dim", "kv_lora_rank", "qk_rope_head_dim", "window",
         "n_global_layers", "max_seq_len")  # fmt: skip


class CacheCalculator(Piece):
    """Menus, sliders, a bar and a table; `cache_calculator(...)` makes one.

    `chosen` is the model's number; `cache_bytes` and `weight_bytes` are bytes a number, `card` is
    in GB. With a kernel, all are what the reader chose.
    """

    _esm = module("plane") + module("controls") + module("cache_calculator")
    _css = Piece._css + (HERE / "cache_calculator.css").read_text(encoding="utf-8")
    models = traitlets.List(traitlets.Dict()).tag(sync=True)
    chosen = traitlets.Int().tag(sync=True)
    context = traitlets.Int().tag(sync=True)
    batch = traitlets.Int().tag(sync=True)
    cache_bytes = traitlets.Float(2).tag(sync=True)
    weight_bytes = traitlets.Float(2).tag(sync=True)
    card = traitlets.Int(80).tag(sync=True)


def cache_calculator(
    models: dict[str, ModelConfig], *, alt: str, context=None, batch=1
) -> CacheCalculator:
    """Models to choose from, by name; the first is shown, at its own context unless told otherwise.

    A mixture of experts is shown without its weights, which are not derived from a config.

    >>> config = ModelConfig(vocab_size=50257, n_layers=12, d_model=768, n_heads=12, d_ff=3072)
    >>> cache_calculator({"GPT-2": config}, alt="GPT-2's cache")
    CacheCalculator: GPT-2's cache

    Raises:
        ValueError: models that are no dictionary or none, an encoder, which has no cache, or a
            context or batch that is no integer of 1 or more.
    """
    if not isinstance(models, dict):
        raise ValueError(f"models must be a dictionary, config by name: got {models!r}")
    if not models:
        raise ValueError("models must name at least one to choose: got none")
    for name, config in models.items():
        if not config.causal:
            raise ValueError(f"{name}: causal=False reads everything at once and has no cache")
    rows = [
        {
            "name": name,
            "config": {field: getattr(c, field) for field in _SENT},
            "parameters": None if c.n_experts else sum(param_count(c).values()),
        }
        for name, c in models.items()
    ]
    context = rows[0]["config"]["max_seq_len"] if context is None else context
    for what, n in (("context", context), ("batch", batch)):
        if not isinstance(n, Integral) or isinstance(n, bool) or n < 1:
            raise ValueError(f"{what} must be an integer, 1 or more: got {n!r}")
    return CacheCalculator(alt, models=rows, chosen=0, context=int(context), batch=int(batch))
