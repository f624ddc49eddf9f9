"""The transformer: blocks of attention and feed-forward on a residual stream, and models of them.

    RMSNorm, LayerNorm    a token's features brought to one size
    FeedForward           what each token does by itself: expand, bend, project back
    Block                 attention and feed-forward, each added to the stream
    Transformer           embedding, blocks, head: a decoder, or with `causal=False` an encoder
    EncoderDecoder        an encoder, and a decoder whose blocks look at what it made of the source
    from_gpt2, ...        Hugging Face's weights under our names
    attention_maps        the weights of every head, for reading and for pictures
    share_heads           neighbouring key and value heads made one: a trained MHA becomes GQA

Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, in the forms that GPT-2 and Llama gave it.
Left out: dropout, mixtures of experts, windows and the extras of `lib.config`; a config that asks
for one of these, apart from dropout, is refused.
"""

import copy
import math
from dataclasses import replace
from functools import partial
from numbers import Integral

import torch
from torch import nn
from torch.nn import functional as F

from lib.attention import Attention, attention_weights
from lib.config import ModelConfig
from lib.mla import MLA
from lib.positions import Alibi, Learned, NoPosition, RelativeBias, Rope, Sinusoidal, to_interleaved


class RMSNorm(nn.Module):
    """x (..., C) divided by the root of its mean square, times a learned weight (C,).

    Zhang & Sennrich 2019, eq. 4, https://arxiv.org/abs/1910.07467
    """

    def __init__(self, d_model, eps=1e-5):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(d_model)), eps

    def forward(self, x):
        """x (..., C) -> (..., C)."""
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


class LayerNorm(nn.Module):
    """x (..., C) less its mean, divided by its standard deviation, then scaled and shifted.

    Ba et al. 2016, https://arxiv.org/abs/1607.06450. The variance is that of the C numbers
    themselves, divided by C.
    """

    def __init__(self, d_model, eps=1e-5):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(d_model)), eps
        self.bias = nn.Parameter(torch.zeros(d_model))

    def forward(self, x):
        """x (..., C) -> (..., C)."""
        x = x - x.mean(-1, keepdim=True)
        x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps)
        return x * self.weight + self.bias


NORMS = {"rms": RMSNorm, "layer": LayerNorm}
ACTIVATIONS = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),  # GPT-2's
    "silu": F.silu,
}


class FeedForward(nn.Module):
    """x (..., C) -> (..., F) -> (..., C), each token by itself; gated, a second map multiplies.

    Gated forms: Shazeer 2020, eq. 6, https://arxiv.org/abs/2002.05202
    """

    def __init__(self, d_model, d_ff, activation="silu", gated=True, bias=False):
        super().__init__()
        self.up = nn.Linear(d_model, d_ff, bias=bias)
        self.gate = nn.Linear(d_model, d_ff, bias=bias) if gated else None
        self.down = nn.Linear(d_ff, d_model, bias=bias)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x):
        """x (..., C) -> (..., C)."""
        if self.gate is None:
            return self.down(self.activation(self.up(x)))
        return self.down(self.activation(self.gate(x)) * self.up(x))


class Block(nn.Module):
    """Attention, then feed-forward: each reads the stream x (B, T, C) and adds to it.

    Pre-norm (`norm_first`) reads a normalised copy and leaves the stream itself alone; post-norm,
    the original, normalises the sum. Without `d_ff` there is no feed-forward. With `cross` there is
    cross-attention between the two, which reads keys and values from another sequence. A config
    with `kv_lora_rank` makes the attention latent.

    Pre-norm: Xiong et al. 2020, https://arxiv.org/abs/2002.04745
    """

    def __init__(self, config: ModelConfig, position: NoPosition | None = None, cross=False):
        super().__init__()
        c, norm = config, NORMS[config.norm]
        self.norm_first = c.norm_first
        heads = partial(
            Attention, c.d_model, c.n_heads, n_kv_heads=c.n_kv_heads, head_dim=c.head_dim,
            bias=c.qkv_bias, out_bias=c.bias,
        )  # fmt: skip
        if c.kv_lora_rank is None:
            self.attention = heads(position=position, causal=c.causal)
        else:
            self.attention = MLA(
                c.d_model, c.n_heads, kv_lora_rank=c.kv_lora_rank, q_lora_rank=c.q_lora_rank,
                qk_nope_head_dim=c.qk_nope_head_dim, qk_rope_head_dim=c.qk_rope_head_dim,
                v_head_dim=c.v_head_dim, theta=c.theta, scaling=c.scaling, norm_eps=c.norm_eps,
            )  # fmt: skip
        self.attention_norm = norm(c.d_model, c.norm_eps)
        self.cross_attention = self.feed_forward = None
        if cross:
            self.cross_attention = heads(causal=False)
            self.cross_attention_norm = norm(c.d_model, c.norm_eps)
        if c.d_ff is not None:
            self.feed_forward = FeedForward(c.d_model, c.d_ff, c.activation, c.gated, c.bias)
            self.feed_forward_norm = norm(c.d_model, c.norm_eps)

    def forward(self, x, *, mask=None, cache=None, context=None, context_mask=None):
        """x (B, T, C) -> (B, T, C).

        Args:
            mask, cache: go to the attention.
            context, context_mask: (B, S, C) and boolean (B, S), go to the cross-attention.
        """
        if (context is None) != (self.cross_attention is None):
            has, got = self.cross_attention is not None, context is not None
            raise ValueError(f"context is for cross-attention: block has it {has}, context {got}")
        x = self._add(x, self.attention_norm, partial(self.attention, mask=mask, cache=cache))
        if context is not None:
            look = partial(self.cross_attention, context=context, mask=context_mask)
            x = self._add(x, self.cross_attention_norm, look)
        if self.feed_forward is not None:
            x = self._add(x, self.feed_forward_norm, self.feed_forward)
        return x

    def _add(self, x, norm, part):
        return x + part(norm(x)) if self.norm_first else norm(x + part(x))


class Transformer(nn.Module):
    """ids (B, T) -> logits (B, T, V): embedding, blocks, a last norm under pre-norm, and the head.

    Weights start as N(0, 1/fan_in), so that sizes stay as they are on the way; the maps that write
    to the stream are 1/√(2L) smaller, for they add up. The embedding starts as N(0, 1), or, `tied`,
    when it is the head, too, as N(0, 1/C). `cross` gives the blocks cross-attention.

    >>> config = ModelConfig(vocab_size=100, n_layers=2, d_model=16, n_heads=4, d_ff=64)
    >>> tuple(Transformer(config)(torch.tensor([[1, 2, 3]])).shape)
    (1, 3, 100)

    Raises ValueError for configs it cannot build, ids it does not know, and a wrong number of
    caches. TypeError if ids are no integers.
    """

    def __init__(self, config: ModelConfig, cross=False):
        super().__init__()
        for name in ("window", "n_experts", "extras"):
            if value := getattr(config, name):
                raise ValueError(f"Transformer does not support {name}: got {value}, leave it out")
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        position = make_position(config)
        inside = None if isinstance(position, Learned | Sinusoidal) else position
        self.position = position if inside is None else NoPosition()  # acts on the embeddings
        self.blocks = nn.ModuleList(Block(config, inside, cross) for _ in range(config.n_layers))
        self.norm = NORMS[config.norm](config.d_model, config.norm_eps)
        self.norm = self.norm if config.norm_first else nn.Identity()
        self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        if config.tied:
            self.head.weight = self.embedding.weight
        self._init()

    def forward(self, ids, *, caches=None, mask=None, context=None, context_mask=None):
        """ids (B, T) -> logits (B, T, V).

        Positions count all tokens, hidden ones too: with padding on the left, learned vectors and
        sinusoids come out shifted; RoPE and the biases see distances, which stay as they are.

        Args:
            caches: one a layer, or None; ids are then the tokens after those they hold.
            mask: boolean (B, S), True where a token is real; S counts cached tokens, too.
            context, context_mask: (B, S, C) and boolean (B, S), for blocks with cross-attention.
        """
        self._check(ids, caches)
        caches = caches or [None] * len(self.blocks)
        start = 0 if caches[0] is None else caches[0].length
        positions = torch.arange(start, start + ids.shape[1], device=ids.device)
        x = self.position.embed(self.embedding(ids), positions)  # (B, T) -> (B, T, C)
        for block, cache in zip(self.blocks, caches):
            x = block(x, mask=mask, cache=cache, context=context, context_mask=context_mask)
        return self.head(self.norm(x))  # (B, T, C) -> (B, T, V)

    def _init(self):
        for name, p in self.named_parameters():
            if p.ndim == 2:
                nn.init.normal_(p, std=p.shape[1] ** -0.5)
            elif name.endswith("bias"):
                nn.init.zeros_(p)
            if name.endswith(("wo.weight", "down.weight")):
                p.data /= math.sqrt(2 * len(self.blocks))
        if not self.config.tied:
            nn.init.normal_(self.embedding.weight)

    def _check(self, ids, caches):
        if not isinstance(ids, torch.Tensor) or ids.dtype not in (torch.int64, torch.int32):
            got = ids.dtype if isinstance(ids, torch.Tensor) else type(ids).__name__
            raise TypeError(f"ids must be a tensor of integers, int64 or int32: got {got}")
        if ids.ndim != 2 or 0 in ids.shape:
            raise ValueError(f"ids must be (B, T), both 1 or more: got {tuple(ids.shape)}")
        V = self.config.vocab_size
        for id_ in (ids.min(), ids.max()):
            if not 0 <= id_ < V:
                raise ValueError(f"ids must be 0 to {V - 1}, the vocabulary has {V}: got {id_}")
        if caches is None:
            return
        if len(caches) != len(self.blocks):
            raise ValueError(f"there are {len(self.blocks)} layers, but {len(caches)} caches")
        if len(set(map(id, caches))) < len(caches):
            raise ValueError("each layer needs a cache of its own: got one cache several times")
        lengths = [cache.length for cache in caches]
        if len(set(lengths)) > 1:
            raise ValueError(f"caches must hold the same tokens, and hold {lengths}: take new ones")


class EncoderDecoder(nn.Module):
    """Source ids (B, S) and target ids (B, T) -> logits (B, T, V) for what follows each target.

    The encoder sees the source in both directions, the decoder its own past and, by
    cross-attention in every block, all that the encoder made of the source. Both are as deep as
    `config` says, and share one embedding. To generate, run `encoder` once, then `decoder`.

    Vaswani et al. 2017, section 3.1, https://arxiv.org/abs/1706.03762

    Raises ValueError for a config with `causal=False`: it is the decoder's.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        if not config.causal:
            raise ValueError(
                "causal must be True for an EncoderDecoder, it is the decoder's: False"
            )
        self.config = config
        self.encoder = Transformer(replace(config, causal=False, tied=False))
        self.decoder = Transformer(config, cross=True)
        self.encoder.embedding, self.encoder.head = self.decoder.embedding, nn.Identity()

    def forward(self, source_ids, target_ids, *, source_mask=None, mask=None, caches=None):
        """Source (B, S), target (B, T) -> (B, T, V); masks are True where a token is real."""
        self.decoder._check(target_ids, caches)  # before the encoder's work
        context = self.encoder(source_ids, mask=source_mask)  # (B, S) -> (B, S, C)
        return self.decoder(
            target_ids, caches=caches, mask=mask, context=context, context_mask=source_mask
        )


def make_position(config: ModelConfig) -> NoPosition:
    """The position scheme that a config names, shared by all layers."""
    c = config
    makers = {
        "none": NoPosition,
        "learned": lambda: Learned(c.max_seq_len, c.d_model),
        "sinusoidal": lambda: Sinusoidal(c.d_model),
        "t5": lambda: RelativeBias(c.n_heads, causal=c.causal),
        "alibi": lambda: Alibi(c.n_heads),
        "rope": lambda: Rope(c.rotary_dim, c.theta, c.scaling),
    }
    return makers[c.position]()


@torch.no_grad()
def attention_maps(model, ids):
    """The weights of all heads as a model reads ids (B, T) -> one (B, H, T, T) for each layer."""
    maps = []

    def look(layer, args, kwargs):
        q, k, _, bias = layer.qkv(*args, **kwargs)
        maps.append(attention_weights(q, k, bias))

    hooks = [
        block.attention.register_forward_pre_hook(look, with_kwargs=True) for block in model.blocks
    ]
    try:
        model(ids)
    finally:
        for hook in hooks:
            hook.remove()
    return maps


@torch.no_grad()
def share_heads(model, n_kv_heads, pool=None):
    """A new model in which each group of neighbouring key heads, and of value heads, became one.

    By default their mean; or `pool(w)`, with w (K, r, D, C) the rows of W_K or W_V of K groups of r
    heads, returns (K, D, C). A bias comes as (K, r, D, 1). Neighbours, because query head h reads
    key head h // G: any other grouping would hand queries to the key heads of strangers. The new
    model says something else than the old one, and has to be trained a little more.

    Ainslie et al. 2023, section 2.1, https://arxiv.org/abs/2305.13245

    >>> model = Transformer(ModelConfig(vocab_size=9, n_layers=1, d_model=8, n_heads=4))
    >>> tuple(share_heads(model, 2).blocks[0].attention.wk.weight.shape)
    (4, 8)

    Raises ValueError for an n_kv_heads that is no integer or does not divide the present number,
    for a `pool` that returns another shape, and for latent attention, which has no key heads.
    """
    now = model.config.n_kv_heads
    if not isinstance(n_kv_heads, Integral) or n_kv_heads < 1:
        raise ValueError(f"n_kv_heads must be an integer, 1 or more: got {n_kv_heads!r}")
    if now % n_kv_heads:
        raise ValueError(f"n_kv_heads must divide the present {now}: {n_kv_heads} does not")
    if model.config.kv_lora_rank is not None:
        rank = model.config.kv_lora_rank
        raise ValueError(f"heads of latent attention share already: kv_lora_rank is {rank}")
    shared = copy.deepcopy(model)
    shared.config = replace(model.config, n_kv_heads=n_kv_heads)
    for layer in (part for part in shared.modules() if isinstance(part, Attention)):
        for linear in (layer.wk, layer.wv):
            linear.out_features = n_kv_heads * layer.head_dim
            for p in linear.parameters():
                w = p.view(n_kv_heads, now // n_kv_heads, layer.head_dim, -1)  # (K, r, D, C)
                pooled = w.mean(1) if pool is None else pool(w)
                if pooled.shape != w[:, 0].shape:
                    need, got = tuple(w[:, 0].shape), tuple(pooled.shape)
                    raise ValueError(f"pool must return (K, D, C) = {need}: got {got}")
                p.data = pooled.reshape(-1, *p.shape[1:])  # (K, D, C) -> (K·D, C)
    return shared


# ---- Weights from elsewhere ---------------------------------------------------------------------

_NAMES = {  # theirs: ours
    "transformer.": "", "wte.": "embedding.", "wpe.": "position.table.", "ln_f.": "norm.",
    "lm_head.": "head.", "ln_1.": "attention_norm.", "ln_2.": "feed_forward_norm.",
    "attn.c_proj.": "attention.wo.", "mlp.c_fc.": "feed_forward.up.",
    "mlp.c_proj.": "feed_forward.down.",
    "model.embed_tokens.": "embedding.", "model.norm.": "norm.", "model.layers.": "blocks.",
    "input_layernorm.": "attention_norm.", "post_attention_layernorm.": "feed_forward_norm.",
    "self_attn.": "attention.", "q_proj.": "wq.", "k_proj.": "wk.", "v_proj.": "wv.",
    "o_proj.": "wo.", "q_a_proj.": "wq_a.", "q_a_layernorm.": "q_norm.", "q_b_proj.": "wq_b.",
    "kv_a_proj_with_mqa.": "wkv_a.", "kv_a_layernorm.": "kv_norm.", "kv_b_proj.": "wkv_b.",
    "mlp.gate_proj.": "feed_forward.gate.", "mlp.up_proj.": "feed_forward.up.",
    "mlp.down_proj.": "feed_forward.down.",
}  # fmt: skip


def _rename(name):
    for theirs, ours in _NAMES.items():
        name = name.replace(theirs, ours)
    return "blocks." + name.removeprefix("h.") if name.startswith("h.") else name


def from_gpt2(state):
    """The `state_dict()` of Hugging Face's GPT2LMHeadModel -> one for our `Transformer`.

    Two things differ besides names: matrices are stored as (in, out), and one map makes q, k and v.
    """
    ours = {}
    for name, weight in state.items():
        if name.endswith((".attn.bias", ".attn.masked_bias")):
            continue  # old files hold the causal mask
        if ".c_" in name and name.endswith("weight"):
            weight = weight.T  # (in, out) -> (out, in)
        if ".c_attn." in name:
            for part, w in zip("qkv", weight.chunk(3)):  # (3·C, C) -> three (C, C)
                ours[_rename(name.replace("attn.c_attn", f"attention.w{part}"))] = w
        else:
            ours[_rename(name)] = weight
    return ours


def from_llama(state, config: ModelConfig):
    """The `state_dict()` of Hugging Face's LlamaForCausalLM -> one for our `Transformer`.

    Besides names, RoPE's pairs differ: theirs are (i, i + D/2), ours (2i, 2i + 1), so that the rows
    of W_Q and W_K change places.
    """
    heads = {"q": config.n_heads, "k": config.n_kv_heads}
    ours = {}
    for name, weight in state.items():
        for part, n_heads in heads.items():
            if f".{part}_proj." in name:
                weight = to_interleaved(weight, n_heads, config.rotary_dim)
        ours[_rename(name)] = weight
    return ours


def from_deepseek(state):
    """The `state_dict()` of Hugging Face's Deepseek(V2|V3)ForCausalLM -> one for our `Transformer`.

    That of an attention layer alone becomes one for `MLA`. Only names differ: DeepSeek's pairs are
    (2i, 2i + 1) like ours. Its layers must be dense, without experts.
    """
    return {_rename(name): weight for name, weight in state.items()}
