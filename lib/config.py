"""What a model is, as one frozen record: sizes, and the choice made at every fork.

    ModelConfig    everything needed to build a model or to count its bytes; refuses what cannot be
    EXTRAS         what real models have that ours has not
    MODELS         real models, each with the place where its sizes were seen

Models and accounting take a `ModelConfig`; the modules inside take integers. Left out: how it was
trained, and anything about a tokenizer but the size of its vocabulary.
"""

from dataclasses import dataclass
from numbers import Integral, Real

from lib.positions import rope_frequencies

POSITIONS = ("none", "learned", "sinusoidal", "t5", "alibi", "rope")
NORMS = ("rms", "layer")
ACTIVATIONS = ("silu", "gelu", "gelu_tanh", "relu")
EXTRAS = {
    "parallel": "attention and feed-forward read the same stream, side by side",
    "shared_norm": "they also read it through the same norm",
    "post_norm": "what a part writes is normalised, too",
    "qk_norm": "queries and keys are normalised, head by head",
    "head_bias": "the head has a bias",
    "scaled_embedding": "embeddings are multiplied by the root of d_model",
    "soft_cap": "scores and logits are bent towards a largest value",
    "two_thetas": "windowed layers turn with a theta of 10,000",
    "sparse": "every other layer sees a sparse pattern of tokens",
}
_SIZES = ("vocab_size", "n_layers", "d_model", "n_heads", "n_kv_heads", "head_dim", "max_seq_len")
_SIZES_OR_NONE = ("d_ff", "window", "n_experts")
_LATENT = ("kv_lora_rank", "q_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
_SWITCHES = ("norm_first", "gated", "bias", "qkv_bias", "tied", "causal")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A decoder, or with `causal=False` an encoder; by default in the manner of Llama.

    `d_ff=None` leaves the feed-forward layers out. `gated` gives them three matrices in place of
    two. `head_dim` is d_model / n_heads and `n_kv_heads` is n_heads unless given; `qkv_bias`
    follows `bias`. `norm_first` is pre-norm. RoPE turns `rotary_fraction` of each head. The sizes
    from `kv_lora_rank` on are those of latent attention, and count in place of `head_dim`,
    `n_kv_heads` and `rotary_fraction`. Under a `window`, `n_global_layers` layers see everything
    all the same. `extras` are names in `EXTRAS`, of what `Transformer` cannot build and accounting
    must know. `source` says where the sizes were seen.

    >>> ModelConfig(vocab_size=50257, n_layers=12, d_model=768, n_heads=12).head_dim
    64

    Raises ValueError, with the field's name, for sizes that do not fit and names there are not.
    """

    vocab_size: int
    n_layers: int
    d_model: int
    n_heads: int
    n_kv_heads: int | None = None
    head_dim: int | None = None
    d_ff: int | None = None
    max_seq_len: int = 1024
    position: str = "rope"
    theta: float = 10_000.0
    scaling: dict | None = None
    rotary_fraction: float = 1.0
    norm: str = "rms"
    norm_first: bool = True
    norm_eps: float = 1e-5
    activation: str = "silu"
    gated: bool = True
    bias: bool = False
    qkv_bias: bool | None = None
    tied: bool = False
    causal: bool = True
    window: int | None = None
    n_global_layers: int = 0
    n_experts: int | None = None
    kv_lora_rank: int | None = None
    q_lora_rank: int | None = None
    qk_nope_head_dim: int | None = None
    qk_rope_head_dim: int | None = None
    v_head_dim: int | None = None
    extras: tuple[str, ...] = ()
    source: str = ""

    @property
    def rotary_dim(self):
        """How many features of a head RoPE turns."""
        return self.qk_rope_head_dim or round(self.rotary_fraction * self.head_dim)

    def __post_init__(self):
        self._check_latent()
        self._fill_in()
        for name in (*_SIZES, *(n for n in _SIZES_OR_NONE if getattr(self, n) is not None)):
            _whole(name, getattr(self, name))
        for name in _SWITCHES:
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False: got {getattr(self, name)!r}")
        for name, known in (("position", POSITIONS), ("norm", NORMS), ("activation", ACTIVATIONS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {known}: got {getattr(self, name)!r}")
        if not isinstance(self.norm_eps, Real) or not 0 < self.norm_eps < 1:
            raise ValueError(f"norm_eps must lie between 0 and 1: got {self.norm_eps!r}")
        _divides("n_kv_heads", self.n_kv_heads, "n_heads", self.n_heads)
        if self.window is not None and not self.causal:
            raise ValueError(f"window looks back only: {self.window} needs causal=True")
        self._check_layers()
        self._check_position()

    def _fill_in(self):
        for name in ("d_model", "n_heads"):
            _whole(name, getattr(self, name))
        if self.head_dim is None and self.kv_lora_rank is not None:
            width = self.qk_nope_head_dim + self.qk_rope_head_dim
            object.__setattr__(self, "head_dim", width)  # frozen otherwise
        if self.head_dim is None:
            unless = ", unless head_dim is given"
            _divides("n_heads", self.n_heads, "d_model", self.d_model, unless)
            object.__setattr__(self, "head_dim", self.d_model // self.n_heads)
        if self.n_kv_heads is None:
            object.__setattr__(self, "n_kv_heads", self.n_heads)
        if self.qkv_bias is None:
            object.__setattr__(self, "qkv_bias", self.bias)

    def _check_layers(self):
        n, most = self.n_global_layers, 0 if self.window is None else self.n_layers
        if not isinstance(n, Integral) or isinstance(n, bool) or not 0 <= n <= most:
            why = f"0 to {most}, with window {self.window} and n_layers {self.n_layers}"
            raise ValueError(f"n_global_layers must be {why}: got {n!r}")
        if not isinstance(self.extras, tuple) or not set(self.extras) <= set(EXTRAS):
            raise ValueError(f"extras must be a tuple of {tuple(EXTRAS)}: got {self.extras!r}")

    def _check_position(self):
        if self.position == "sinusoidal" and self.d_model % 2:
            got = self.d_model
            raise ValueError(f"d_model must be even, sines and cosines take turns: got {got}")
        if self.position != "rope":
            if self.scaling is not None:
                raise ValueError(f'scaling is for position "rope": got position {self.position!r}')
            return
        if not isinstance(self.rotary_fraction, Real) or not 0 < self.rotary_fraction <= 1:
            got = f"{self.rotary_fraction!r}"
            raise ValueError(f"rotary_fraction must be above 0 and at most 1: got {got}")
        width = self.qk_rope_head_dim or self.rotary_fraction * self.head_dim
        if self.rotary_dim % 2 or abs(width - self.rotary_dim) > 1e-6:
            got = f"{self.rotary_fraction} · {self.head_dim} = {width:g}"
            raise ValueError(f"rotary_fraction · head_dim must be even, for pairs turn: {got}")
        rope_frequencies(self.rotary_dim, self.theta, self.scaling)  # raises for theta and scaling

    def _check_latent(self):
        given = [name for name in _LATENT if getattr(self, name) is not None]
        for name in given:
            _whole(name, getattr(self, name))
        if self.kv_lora_rank is None:
            if given:
                raise ValueError(f"{given[0]} belongs to latent attention: give kv_lora_rank, too")
            return
        missing = [name for name in _LATENT if name not in (*given, "q_lora_rank")]
        if missing:
            raise ValueError(f"latent attention, kv_lora_rank {self.kv_lora_rank}, needs {missing}")
        if self.qk_rope_head_dim % 2:
            raise ValueError(f"qk_rope_head_dim must be even: got {self.qk_rope_head_dim}")
        needs = {"position": "rope", "causal": True, "bias": False, "qkv_bias": False}
        for name, need in needs.items():
            if getattr(self, name) not in (need, None):
                got = f"{name}={getattr(self, name)!r}"
                raise ValueError(f"latent attention needs {name}={need!r}: got {got}")


def _whole(name, size):
    if not isinstance(size, Integral) or isinstance(size, bool) or size < 1:
        raise ValueError(f"{name} must be an integer, 1 or more: got {size!r}")


def _divides(small, n, large, m, unless=""):
    _whole(small, n)
    if m % n:
        raise ValueError(f"{small} must divide {large}{unless}: {n} does not divide {m}")


# ---- Real models --------------------------------------------------------------------------------

_SOURCES = {
    "L": "LitGPT, litgpt/config.py, https://github.com/Lightning-AI/litgpt",
    "T": "torchtune, model builders, https://github.com/pytorch/torchtune",
    "N": "nanoGPT, model.py, https://github.com/karpathy/nanoGPT",
    "D": "DeepSeek, inference/configs, https://github.com/deepseek-ai/DeepSeek-V3",
    "GPT3": "Brown et al. 2020, Table 2.1, https://arxiv.org/abs/2005.14165; the rest as in GPT-2",
    "Llama": "Touvron et al. 2023, Table 2, https://arxiv.org/abs/2302.13971; d_ff: Hugging Face",
    "Llama3": "Grattafiori et al. 2024, Table 3, https://arxiv.org/abs/2407.21783",
}
_GPT2 = {"position": "learned", "norm": "layer", "activation": "gelu_tanh", "gated": False,
         "bias": True, "tied": True}  # fmt: skip
_LLAMA1 = {"norm_eps": 1e-6}
_LLAMA3 = {"theta": 5e5}
_LLAMA31 = {"theta": 5e5, "scaling": {"kind": "llama3", "factor": 8.0,
                                      "original_max_seq_len": 8192}}  # fmt: skip
_FALCON = {"norm": "layer", "activation": "gelu", "gated": False, "tied": True,
           "extras": ("parallel",)}  # fmt: skip
_PHI = {"norm": "layer", "activation": "gelu_tanh", "gated": False, "bias": True,
        "extras": ("parallel", "shared_norm", "head_bias")}  # fmt: skip
_GEMMA = {"activation": "gelu_tanh", "tied": True, "norm_eps": 1e-6,
          "extras": ("scaled_embedding",)}  # fmt: skip
_GEMMA2 = _GEMMA | {"window": 4096, "extras": ("scaled_embedding", "post_norm", "soft_cap")}
_GEMMA3 = _GEMMA | {"theta": 1e6, "window": 1024, "extras": (
    "scaled_embedding", "post_norm", "qk_norm", "two_thetas")}  # fmt: skip
_QWEN25 = {"theta": 1e6, "norm_eps": 1e-6, "qkv_bias": True}
_QWEN3 = {"theta": 1e6, "norm_eps": 1e-6, "extras": ("qk_norm",)}
_DEEPSEEK = {"norm_eps": 1e-6, "kv_lora_rank": 512, "q_lora_rank": 1536, "qk_nope_head_dim": 128,
             "qk_rope_head_dim": 64, "v_head_dim": 128}  # fmt: skip
_YARN = {"kind": "yarn", "factor": 40.0, "original_max_seq_len": 4096}

# d_ff of the mixtures of experts is that of their first, dense layers.
_TABLE = """
name            vocab  layers     C heads  kv    D   d_ff context source
gpt2            50257      12   768    12  12   64   3072    1024 N
gpt2-medium     50257      24  1024    16  16   64   4096    1024 N
gpt2-large      50257      36  1280    20  20   64   5120    1024 N
gpt2-xl         50257      48  1600    25  25   64   6400    1024 N
gpt-3           50257      96 12288    96  96  128  49152    2048 GPT3
llama-1-7b      32000      32  4096    32  32  128  11008    2048 Llama
llama-1-65b     32000      80  8192    64  64  128  22016    2048 Llama
llama-2-7b      32000      32  4096    32  32  128  11008    4096 L,T
llama-2-70b     32000      80  8192    64   8  128  28672    4096 L,T
llama-3-8b     128256      32  4096    32   8  128  14336    8192 L,Llama3
llama-3-70b    128256      80  8192    64   8  128  28672    8192 L,Llama3
llama-3.1-8b   128256      32  4096    32   8  128  14336  131072 L,Llama3
llama-3.1-70b  128256      80  8192    64   8  128  28672  131072 L,Llama3
llama-3.1-405b 128256     126 16384   128   8  128  53248  131072 L,T,Llama3
mistral-7b      32000      32  4096    32   8  128  14336   32768 L,T
falcon-7b       65024      32  4544    71   1   64  18176    2048 L
falcon-40b      65024      60  8192   128   8   64  32768    2048 L
falcon-180b     65024      80 14848   232   8   64  59392    2048 L
phi-1.5         51200      24  2048    32  32   64   8192    2048 L
phi-2           51200      32  2560    32  32   80  10240    2048 L
phi-3-mini      32064      32  3072    32  32   96   8192    4096 L
gemma-2b       256000      18  2048     8   1  256  16384    8192 L,T
gemma-7b       256000      28  3072    16  16  256  24576    8192 L,T
gemma-2-9b     256000      42  3584    16   8  256  14336    8192 L,T
gemma-2-27b    256000      46  4608    32  16  128  36864    8192 L,T
gemma-3-4b     262144      34  2560     8   4  256  10240  131072 L
gemma-3-27b    262144      62  5376    32  16  128  21504  131072 L
qwen2.5-7b     152064      28  3584    28   4  128  18944  131072 L
qwen2.5-72b    152064      80  8192    64   8  128  29568  131072 L
qwen3-0.6b     151936      28  1024    16   8  128   3072   40960 L,T
qwen3-8b       151936      36  4096    32   8  128  12288   40960 L,T
qwen3-32b      151936      64  5120    64   8  128  25600   40960 L,T
deepseek-v2    102400      60  5120   128 128  192  12288  131072 D
deepseek-v3    129280      61  7168   128 128  192  18432  163840 D
"""
_CHOICES = {
    **dict.fromkeys(("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"), _GPT2),
    "gpt-3": _GPT2 | {"extras": ("sparse",)},
    **dict.fromkeys(("llama-1-7b", "llama-1-65b"), _LLAMA1),
    **dict.fromkeys(("llama-3-8b", "llama-3-70b"), _LLAMA3),
    **dict.fromkeys(("llama-3.1-8b", "llama-3.1-70b", "llama-3.1-405b"), _LLAMA31),
    "mistral-7b": {"window": 4096},
    "falcon-7b": _FALCON | {"extras": ("parallel", "shared_norm")},
    **dict.fromkeys(("falcon-40b", "falcon-180b"), _FALCON),
    "phi-1.5": _PHI | {"rotary_fraction": 0.5},
    "phi-2": _PHI | {"rotary_fraction": 0.4},
    **dict.fromkeys(("gemma-2b", "gemma-7b"), _GEMMA),
    "gemma-2-9b": _GEMMA2 | {"n_global_layers": 21},
    "gemma-2-27b": _GEMMA2 | {"n_global_layers": 23},
    "gemma-3-4b": _GEMMA3 | {"n_global_layers": 5},
    "gemma-3-27b": _GEMMA3 | {"n_global_layers": 10},
    **dict.fromkeys(("qwen2.5-7b", "qwen2.5-72b"), _QWEN25),
    "qwen3-0.6b": _QWEN3 | {"tied": True},
    **dict.fromkeys(("qwen3-8b", "qwen3-32b"), _QWEN3),
    "deepseek-v2": _DEEPSEEK
    | {"n_experts": 160, "scaling": _YARN | {"mscale": 0.707, "mscale_all_dim": 0.707}},
    "deepseek-v3": _DEEPSEEK
    | {"n_experts": 256, "scaling": _YARN | {"mscale": 1.0, "mscale_all_dim": 1.0}},
}


def _read_table():
    _, *rows = _TABLE.strip().splitlines()
    names = ("vocab_size", "n_layers", "d_model", "n_heads", "n_kv_heads", "head_dim", "d_ff",
             "max_seq_len")  # fmt: skip
    models = {}
    for row in rows:
        name, *sizes, marks = row.split()
        source = "; ".join(_SOURCES[mark] for mark in marks.split(","))
        sizes = dict(zip(names, map(int, sizes)))
        models[name] = ModelConfig(**sizes, **_CHOICES.get(name, {}), source=source)
    return models


MODELS: dict[str, ModelConfig] = _read_table()
