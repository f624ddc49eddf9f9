"""A model's parameters and FLOPs per token, part by part, as its sizes are moved.

Counted in the page as `lib.accounting` counts: a multiply-add is 2 FLOPs; looking up an embedding,
norms, activations and softmax are none. Left out: mixtures of experts, latent attention.
"""

import traitlets

from lib.config import ModelConfig
from lib.widgets.piece import HERE, Piece, module

_SENT = ("n_layers", "d_model", "n_heads", "n_kv_heads", "head_dim", "d_ff", "vocab_size",
         "max_seq_len", "position", "norm", "norm_first", "gated", "bias", "qkv_bias", "tied",
         "window")  # fmt: skip
_UNSHOWN = {"shared_norm", "post_norm", "qk_norm", "head_bias"}  # they would change the counts


class ParameterExplorer(Piece):
    """Sliders for the sizes, two bars and a table; `parameter_explorer(...)` makes one.

    `chosen` is the model that the reader started from, `sizes` what it has become, with the
    `context` of the attention scores.
    """

    _esm = module("plane") + module("parameter_explorer")
    _css = Piece._css + (HERE / "parameter_explorer.css").read_text(encoding="utf-8")
    models = traitlets.List(traitlets.Dict()).tag(sync=True)
    chosen = traitlets.Int().tag(sync=True)
    sizes = traitlets.Dict().tag(sync=True)


def parameter_explorer(models: dict[str, ModelConfig], *, alt: str) -> ParameterExplorer:
    """Models to start from, by name; the first is shown, at its own context length.

    >>> config = ModelConfig(vocab_size=50257, n_layers=12, d_model=768, n_heads=12, d_ff=3072)
    >>> parameter_explorer({"GPT-2": config}, alt="GPT-2 by part")
    ParameterExplorer: GPT-2 by part

    Raises:
        ValueError: no models; one without `d_ff`; one with experts, latent attention, layers of two
            kinds, or more norms or biases than in a plain block.
    """
    if not models:
        raise ValueError("models must name at least one to start from: got none")
    for name, config in models.items():
        for field in ("n_experts", "kv_lora_rank", "n_global_layers"):
            if value := getattr(config, field):
                raise ValueError(f"{name}: {field} cannot be shown: got {value}, leave it out")
        if beyond := sorted(_UNSHOWN & set(config.extras)):
            raise ValueError(f"{name}: extras {beyond} cannot be counted here, leave them out")
        if config.d_ff is None:
            raise ValueError(f"{name}: d_ff must be a size, there is a slider for it: got None")
    rows = [
        {"name": name, "config": {field: getattr(config, field) for field in _SENT}}
        for name, config in models.items()
    ]
    first = rows[0]["config"]
    return ParameterExplorer(
        alt, models=rows, chosen=0, sizes={**first, "context": first["max_seq_len"]}
    )
