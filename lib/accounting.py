"""What a model costs, from its config alone: parameters, bytes of cache, arithmetic.

    param_count      parameters, part by part
    kv_cache_bytes   memory for the tokens already read
    flops_by_part    arithmetic for one more token; flops_per_token adds it up
    mla_flops        that of latent attention alone, in either order of its products

All are exact integers. What cannot be derived from a config is refused: the parameters and FLOPs of
mixtures of experts. Left out: training, which needs about three times the FLOPs, and memory for
anything but cache.
"""

import math
from numbers import Integral, Real

from lib.config import ModelConfig


def param_count(config: ModelConfig) -> dict[str, int]:
    """Parameters by part, each counted once: a tied head has none of its own, but for its bias.

    `norms` are all of them, those of queries, keys and latents too; `positions` are those that are
    learned.

    >>> from lib.config import MODELS
    >>> counts = param_count(MODELS["llama-3-8b"])
    >>> sum(counts.values()), counts["attention"], counts["norms"]
    (8030261248, 1342177280, 266240)

    Raises ValueError for mixtures of experts: which experts there are is not in a config.
    """
    c = config
    _refuse("parameters", c, ("n_experts",))
    matrix = 3 if c.gated else 2
    feed_forward = 0 if c.d_ff is None else matrix * c.d_model * c.d_ff
    if c.bias and c.d_ff is not None:
        feed_forward += (matrix - 1) * c.d_ff + c.d_model
    attention, inner_norms = _latent(c) if c.kv_lora_rank else _attention(c)
    positions = {"learned": c.max_seq_len * c.d_model, "t5": 32 * c.n_heads}  # 32 buckets
    head = 0 if c.tied else c.vocab_size * c.d_model
    return {
        "embedding": c.vocab_size * c.d_model,
        "positions": positions.get(c.position, 0),
        "attention": c.n_layers * attention,
        "feed_forward": c.n_layers * feed_forward,
        "norms": c.n_layers * inner_norms + _norms(c),
        "head": head + (c.vocab_size if "head_bias" in c.extras else 0),
    }


def kv_cache_bytes(config: ModelConfig, seq_len, batch=1, bytes_per_number=2) -> int:
    """Bytes that the keys and values of `batch` sequences of `seq_len` tokens take in all layers.

    A layer keeps 2 · n_kv_heads · head_dim numbers a token, with latent attention kv_lora_rank +
    qk_rope_head_dim (DeepSeek-V2, Table 1, https://arxiv.org/abs/2405.04434); a windowed layer
    keeps no more tokens than its window. Two bytes a number is bfloat16. A context longer than the
    model's own is counted, too.

    >>> from lib.config import MODELS
    >>> kv_cache_bytes(MODELS["llama-2-7b"], 1), kv_cache_bytes(MODELS["deepseek-v3"], 1)
    (524288, 70272)

    Raises ValueError for encoders, which keep nothing, and for lengths that are no whole numbers.
    """
    c = config
    _check_whole("seq_len", seq_len, 0)
    _check_whole("batch", batch, 1)
    if not isinstance(bytes_per_number, Real) or not 0 < bytes_per_number < math.inf:
        raise ValueError(f"bytes_per_number must be a number above 0: got {bytes_per_number!r}")
    if not c.causal:
        raise ValueError("there is no cache with causal=False: an encoder reads everything at once")
    width = 2 * c.n_kv_heads * c.head_dim
    if c.kv_lora_rank:
        width = c.kv_lora_rank + c.qk_rope_head_dim
    return math.ceil(batch * width * sum(_visible(c, seq_len)) * bytes_per_number)


def flops_by_part(config: ModelConfig, seq_len) -> dict[str, int]:
    """FLOPs to read one token that sees `seq_len`, itself included; a multiply-add counts as 2.

    `maps` are the four maps of attention, whatever the context; `scores` are q·k and the weighted
    sum of values, which grow with it. Only matrix products are counted. Of a row of `seq_len`
    tokens read at once under a causal mask, the mean token sees (seq_len + 1) / 2. Latent attention
    is counted absorbed, its two absorbed maps among the `maps`.

    >>> from lib.config import MODELS
    >>> flops = flops_by_part(MODELS["gpt2"], 1024)
    >>> flops["maps"], flops["scores"], flops["feed_forward"]
    (56623104, 37748736, 113246208)

    Raises ValueError for mixtures of experts.
    """
    c = config
    _check_whole("seq_len", seq_len, 1)
    _refuse("FLOPs", c, ("n_experts",))
    ffn = 0 if c.d_ff is None else (3 if c.gated else 2) * c.d_model * c.d_ff
    maps = 2 * c.n_layers * c.d_model * 2 * (c.n_heads + c.n_kv_heads) * c.head_dim
    scores = 2 * 2 * c.n_heads * c.head_dim * sum(_visible(c, seq_len))
    if c.kv_lora_rank:
        latent = mla_flops(c, seq_len)
        maps, scores = latent["maps"] + latent["up"], latent["scores"] + latent["values"]
    return {
        "maps": maps,
        "scores": scores,
        "feed_forward": 2 * c.n_layers * ffn,
        "head": 2 * c.vocab_size * c.d_model,
    }


def flops_per_token(config: ModelConfig, seq_len) -> int:
    """The sum of `flops_by_part`: about two for each parameter, and the scores on top."""
    return sum(flops_by_part(config, seq_len).values())


def mla_flops(config: ModelConfig, seq_len, absorb=True, new_tokens=1) -> dict[str, int]:
    """FLOPs of all latent attention to read `new_tokens`, of which the last one sees `seq_len`.

    `up` is the work of W_UK and W_UV: naive, they rebuild keys and values of all `seq_len` rows,
    absorbed, they meet only what is new. The price is in `scores` and `values`, q·k and the
    weighted sum, which are as wide as the rows. `maps` are the other maps, the same in both orders.

    >>> from lib.config import MODELS
    >>> for absorb in (False, True):
    ...     flops = mla_flops(MODELS["deepseek-v3"], 4096, absorb)
    ...     print(flops["up"] // 10**6, (flops["scores"] + flops["values"]) // 10**6)
    8383776 20468
    2046 69591

    Raises ValueError for a config without latents or with a window, and more new tokens than
    `seq_len`.
    """
    c = config
    if not c.kv_lora_rank:
        raise ValueError(f"mla_flops is for latent attention: got kv_lora_rank {c.kv_lora_rank}")
    _refuse("FLOPs of latent attention", c, ("window",))
    _check_whole("new_tokens", new_tokens, 1)
    _check_whole("seq_len", seq_len, new_tokens)
    T, S, R, P = new_tokens, seq_len, c.kv_lora_rank, c.qk_rope_head_dim
    up = R * c.n_heads * (c.qk_nope_head_dim + c.v_head_dim)  # one row through W_UK and W_UV
    k, v = (R + P, R) if absorb else (c.qk_nope_head_dim + P, c.v_head_dim)
    pairs = T * S - T * (T - 1) // 2  # (query, key): the last query sees S, the one before S - 1
    return {
        "maps": 2 * c.n_layers * T * (_latent(c)[0] - up),
        "up": 2 * c.n_layers * (T if absorb else S) * up,
        "scores": 2 * c.n_layers * c.n_heads * k * pairs,
        "values": 2 * c.n_layers * c.n_heads * v * pairs,
    }


def _attention(c):
    """Parameters of one layer's four maps, and of its norms on queries and keys."""
    q, kv = c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim
    biases = (q + 2 * kv if c.qkv_bias else 0) + (c.d_model if c.bias else 0)
    norm = 2 * c.head_dim if "qk_norm" in c.extras else 0
    return 2 * c.d_model * (q + kv) + biases, norm


def _latent(c):
    """The same of latent attention, whose latents are normalised."""
    if "qk_norm" in c.extras:
        raise ValueError(f"latent attention is counted without qk_norm: got extras {c.extras}")
    H, qk = c.n_heads, c.qk_nope_head_dim + c.qk_rope_head_dim
    queries = c.d_model * H * qk
    if c.q_lora_rank:
        queries = c.q_lora_rank * (c.d_model + H * qk)
    latent = c.d_model * (c.kv_lora_rank + c.qk_rope_head_dim)
    keys_values = c.kv_lora_rank * H * (c.qk_nope_head_dim + c.v_head_dim)
    norms = c.kv_lora_rank + (c.q_lora_rank or 0)
    return queries + latent + keys_values + H * c.v_head_dim * c.d_model, norms


def _norms(c):
    """Parameters of the norms on the stream: before or after each part, and at the end."""
    parts = 1 if c.d_ff is None or "shared_norm" in c.extras else 2
    each = c.d_model * (2 if c.norm == "layer" else 1)
    return each * (c.n_layers * parts * (2 if "post_norm" in c.extras else 1) + c.norm_first)


def _visible(c, seq_len):
    """How many of `seq_len` tokens each layer sees, (L,)."""
    windowed = 0 if c.window is None else c.n_layers - c.n_global_layers
    return [min(seq_len, c.window or seq_len)] * windowed + [seq_len] * (c.n_layers - windowed)


def _refuse(what, c, names):
    for name in names:
        if value := getattr(c, name):
            raise ValueError(f"{what} cannot be derived from a config with {name}: got {value}")


def _check_whole(name, n, least):
    if not isinstance(n, Integral) or isinstance(n, bool) or n < least:
        raise ValueError(f"{name} must be an integer, {least} or more: got {n!r}")
