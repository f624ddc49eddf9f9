"""What the cache holds and what a new token costs: MHA, GQA, MQA and MLA in both orders.

For one layer and one new token, which sees S tokens, itself included; a multiply-add counts as 2.
H query heads of width D, K key heads; latents of R and rotary keys of P numbers, heads of N = nope
and V = value width.

    variant        numbers cached a token    FLOPs of the new token
    MHA            2 H D                     4 H D S      scores 2 H D S, weighted values 2 H D S
    GQA            2 K D                     4 H D S
    MQA            2 D                       4 H D S
    MLA naive      R + P                     2 H S (R (N + V) + N + P + V)
    MLA absorbed   R + P                     2 H (R (N + V) + S (2 R + P))

Naive, R (N + V) rebuilds keys and values of all S rows at each step; absorbed, it is W_UK into the
one query and W_UV after its average. So absorbed needs fewer FLOPs from the S on at which
S ((R + 1) (N + V) - 2 R) > R (N + V), and naive fewer again for many new tokens read at once.

The numbers cached are those of DeepSeek-V2, Table 1, https://arxiv.org/abs/2405.04434; the FLOPs
are `up`, `scores` and `values` of `lib.accounting.mla_flops`. Left out: the other maps, softmax,
the rest of the model, and whatever a naive program writes to memory and reads again.
"""

from numbers import Integral

import traitlets

from lib.config import ModelConfig
from lib.widgets.piece import HERE, Piece, module

_LATENT = ("kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim")
USUAL_KV_HEADS = 8  # of published models with GQA


class BudgetExplorer(Piece):
    """Sliders for heads, widths and ranks, bars and a table; `budget_explorer(...)` makes one.

    `chosen` is the model that the reader started from, `sizes` what it has become, with the
    `context`.
    """

    _esm = module("plane") + module("controls") + module("budget_explorer")
    _css = Piece._css + (HERE / "budget_explorer.css").read_text(encoding="utf-8")
    models = traitlets.List(traitlets.Dict()).tag(sync=True)
    chosen = traitlets.Int().tag(sync=True)
    sizes = traitlets.Dict().tag(sync=True)


def budget_explorer(models: dict[str, ModelConfig], *, alt: str, context=4096) -> BudgetExplorer:
    """Models with latent attention to start from, by name; the first is shown.

    MHA, GQA and MQA beside them get as many heads, of the width of its keys before the rotary part;
    GQA gets 8 key heads, or as many as divide the heads and are fewer than they.

    >>> from lib.config import MODELS
    >>> piece = budget_explorer({"DeepSeek-V3": MODELS["deepseek-v3"]}, alt="V3's budget")
    >>> piece, piece.sizes["head_dim"], piece.sizes["n_kv_heads"]
    (BudgetExplorer: V3's budget, 128, 8)

    Raises:
        ValueError: no models, one without latent attention or with a window, a context below 1.
    """
    if not isinstance(models, dict) or not models:
        raise ValueError(
            f"models must be a dictionary, config by name, of one or more: got {models!r}"
        )
    if not isinstance(context, Integral) or isinstance(context, bool) or context < 1:
        raise ValueError(f"context must be an integer, 1 or more: got {context!r}")
    rows = [{"name": name, "config": _sizes(name, config)} for name, config in models.items()]
    first = rows[0]["config"] | {"context": int(context)}
    return BudgetExplorer(alt, models=rows, chosen=0, sizes=first)


def _sizes(name, config):
    """What the sliders start from."""
    if not config.kv_lora_rank:
        got = config.kv_lora_rank
        raise ValueError(f"{name}: there is no latent to show, give kv_lora_rank: got {got}")
    if config.window:
        raise ValueError(f"{name}: window cannot be shown: got {config.window}, leave it out")
    H, most = config.n_heads, min(USUAL_KV_HEADS, max(1, config.n_heads - 1))
    kv_heads = next(n for n in range(most, 0, -1) if H % n == 0)
    own = {"n_layers": config.n_layers, "n_heads": H, "head_dim": config.qk_nope_head_dim}
    return own | {"n_kv_heads": kv_heads} | {field: getattr(config, field) for field in _LATENT}
