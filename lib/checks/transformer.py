"""Chapter 5: norms, a gated layer, a block, the loss, sampling, parameters, the entropy floor.

An epsilon is large enough to be seen, weights and biases differ from feature to feature, and some
cases let all axes agree, where a wrong axis or a transposed weight raises no error.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F

from lib.checks.attention import mistakes
from lib.checks.framework import exercise


def mean(x):
    """Means along the last axis, which stays with size 1."""
    return x.mean(axis=-1, keepdims=True)


# 1

NORM_SHAPES = [(3,), (2, 3), (3, 3), (2, 3, 4), (4, 4, 4), (1, 5), (4, 2)]


def to_normalise():
    """Far from mean 0, of several sizes; an epsilon from 0 to 2; a row of zeros."""
    rng = np.random.default_rng(0)
    eps = [0.5, 0.1, 2.0, 1e-5, 0.3, 0.0, 1.0]
    cases = [
        (rng.normal(0.7, 1.5, size=shape), rng.uniform(0.5, 2, size=shape[-1]), e)
        for shape, e in zip(NORM_SHAPES, eps)
    ]
    small = rng.normal(0, 1e-3, size=(2, 4)), rng.normal(size=4), 1e-6
    zeros = np.array([[0.0, 0.0, 0.0], [1.0, -2.0, 4.0]]), np.array([2.0, -1.0, 0.5]), 1e-5
    return [*cases, small, zeros]


@exercise(
    title="RMSNorm",
    difficulty="easy",
    minutes=4,
    cases=to_normalise,
    hints=(
        "From the inside out: square, mean over the last axis, add eps, root. Divide x by it.",
        "`keepdims=True` keeps the last axis of the mean with size 1, so that it fits x again.",
        "x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps) * weight",
    ),
)
def rms_norm(x, weight, eps):
    """x (..., C), weight (C,) -> (..., C): x over the root of its mean square, times weight."""
    mean_square = (x**2).mean(axis=-1, keepdims=True)  # (..., C) -> (..., 1)
    return x / np.sqrt(mean_square + eps) * weight


@rms_norm.right
def rms_norm_of_torch(x, weight, eps):
    return F.rms_norm(x, x.shape[-1:], weight, eps)


@rms_norm.right
def rms_norm_as_in_llama(x, weight, eps):
    return weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps))


@rms_norm.right
def rms_norm_by_rows(x, weight, eps):
    rows = []
    for row in x.reshape(-1, x.shape[-1]):
        root = (sum(number * number for number in row) / len(row) + eps) ** 0.5
        rows.append([number / root * w for number, w in zip(row, weight)])
    return np.array(rows).reshape(x.shape)


@rms_norm.right
def rms_norm_by_einsum(x, weight, eps):
    square = np.einsum("...c,...c->...", x, x)[..., None]
    return np.sqrt(x.shape[-1] / (square + x.shape[-1] * eps)) * x * weight


def rms(x, eps):
    return np.sqrt(mean(x**2) + eps)


mistakes(
    rms_norm,
    ("eps_outside", lambda x, w, e: x / (np.sqrt(mean(x**2)) + e) * w,
     "eps is added after the root. It belongs inside, to the mean square: √(mean + eps). Where the "
     "numbers are small, that is another size altogether: √1e-6 is 1e-3."),
    ("no_eps", lambda x, w, e: x / np.sqrt(mean(x**2)) * w,
     "eps is not used: a row of zeros gives 0/0, and small rows come out too large. Add it to the "
     "mean square, inside the root."),
    ("own_eps", lambda x, w, e: x / rms(x, 1e-5) * w,
     "A fixed eps was used. Models differ in it (1e-5, 1e-6): take the argument."),
    ("sum_of_squares", lambda x, w, e: x / np.sqrt((x**2).sum(axis=-1, keepdims=True) + e) * w,
     "The *sum* of squares is under the root: every row gets length 1, and the wider the model the "
     "smaller the numbers. The mean keeps their size near 1."),
    ("divided_by_the_sum", lambda x, w, e: x / (x.sum(axis=-1, keepdims=True) + e) * w,
     "The rows are divided by their sum, which may be 0 or negative. Square first, take the mean, "
     "then the root."),
    ("no_root", lambda x, w, e: x / (mean(x**2) + e) * w,
     "The root is missing: twice as large an x comes out half as large. With it, the size of x "
     "does not matter."),
    ("mean_subtracted", lambda x, w, e: (x - mean(x)) / rms(x - mean(x), e) * w,
     "The mean was subtracted: that is LayerNorm. RMSNorm leaves the mean where it is."),
    ("mean_subtracted_above", lambda x, w, e: (x - mean(x)) / rms(x, e) * w,
     "The mean was subtracted above the fraction line. RMSNorm only divides."),
    ("no_weight", lambda x, w, e: x / rms(x, e),
     "The weight is missing. After the division every feature has its own factor: `* weight`."),
    ("gemma", lambda x, w, e: x / rms(x, e) * (1 + w),
     "The factor is 1 + weight, as Gemma stores it. Here the weight is the factor itself."),
    ("divided_by_the_weight", lambda x, w, e: x / rms(x, e) / w,
     "The weight divides. It multiplies."),
    ("weighted_first", lambda x, w, e: x * w / rms(x * w, e),
     "The weight came before the norm, and the root was taken of the weighted numbers. Normalise "
     "first, then multiply."),
    ("over_everything", lambda x, w, e: x / np.sqrt((x**2).mean() + e) * w,
     "One root serves for all tokens. Each token is normalised by itself, along the last axis."),
    ("first_axis", lambda x, w, e: x / np.sqrt((x**2).mean(axis=0) + e) * w,
     "The mean runs down the first axis, over tokens or texts, which have nothing to do with each "
     "other here. Features lie along the last axis: `axis=-1`."),
    ("without_keepdims", lambda x, w, e: x / np.sqrt((x**2).mean(axis=-1) + e) * w,
     "Without `keepdims=True` (in torch `keepdim=True`) the roots, one for each token, line up "
     "with the features. A square matrix comes out wrong without a word, others raise."),
    ("axis_one", lambda x, w, e: x / np.sqrt((x**2).mean(axis=1, keepdims=True) + e) * w,
     "`axis=1` is the last axis of a matrix only: `axis=-1` always is."),
    ("unbiased",
     lambda x, w, e: x / np.sqrt((x**2).sum(-1, keepdims=True) / (x.shape[-1] - 1) + e) * w,
     "The squares are divided by C - 1. A mean divides by C."),
)  # fmt: skip


# 2


def to_normalise_with_bias():
    """As for RMSNorm, with biases; and far from 0, where E[x²] - E[x]² still has digits enough."""
    rng = np.random.default_rng(1)
    far = rng.normal(20, 1, size=(3, 5)), rng.normal(size=5), 0.2
    return [(x, w, rng.normal(size=w.shape), e) for x, w, e in [*to_normalise(), far]]


@exercise(
    title="LayerNorm",
    difficulty="easy",
    minutes=4,
    cases=to_normalise_with_bias,
    hints=(
        "Subtract the mean of each row; divide by the root of variance + eps; weight and bias.",
        "The variance is the mean of squared deviations, over C: `var(axis=-1)` in NumPy. "
        "In torch `var` divides by C - 1 unless told `unbiased=False`.",
        "(x - mean) / np.sqrt(variance + eps) * weight + bias, the two with `keepdims=True`.",
    ),
)
def layer_norm(x, weight, bias, eps):
    """x (..., C), weight and bias (C,) -> (..., C): mean 0 and variance 1, then weight and bias."""
    mean = x.mean(axis=-1, keepdims=True)  # (..., C) -> (..., 1)
    variance = ((x - mean) ** 2).mean(axis=-1, keepdims=True)  # over C, not C - 1
    return (x - mean) / np.sqrt(variance + eps) * weight + bias


@layer_norm.right
def layer_norm_of_torch(x, weight, bias, eps):
    return F.layer_norm(x, x.shape[-1:], weight, bias, eps)


@layer_norm.right
def layer_norm_by_hand_in_torch(x, weight, bias, eps):
    variance, mean = torch.var_mean(x, dim=-1, unbiased=False, keepdim=True)
    return torch.addcmul(bias, weight, (x - mean) * (variance + eps).rsqrt())


@layer_norm.right
def layer_norm_by_moments(x, weight, bias, eps):
    variance = mean(x**2) - mean(x) ** 2
    return weight * (x - mean(x)) * (variance + eps) ** -0.5 + bias


@layer_norm.right
def layer_norm_by_rows(x, weight, bias, eps):
    def one(row):
        return (row - np.mean(row)) / np.sqrt(np.var(row) + eps) * weight + bias

    return np.apply_along_axis(one, -1, x)


def layer(x, e, axis=-1, keepdims=True, ddof=0):
    """The solution without weight and bias, over any axes, for answers below."""
    spread = np.sqrt(x.var(axis=axis, keepdims=keepdims, ddof=ddof) + e)
    return (x - x.mean(axis=axis, keepdims=keepdims)) / spread


mistakes(
    layer_norm,
    ("unbiased", lambda x, w, b, e: layer(x, e, ddof=1) * w + b,
     "The variance is divided by C - 1, torch's default. LayerNorm divides by C: `unbiased=False`, "
     "in NumPy `ddof=0`."),
    ("eps_outside", lambda x, w, b, e: (x - mean(x)) / (x.std(-1, keepdims=True) + e) * w + b,
     "eps is added to the standard deviation. It belongs inside the root: √(variance + eps)."),
    ("no_eps", lambda x, w, b, e: layer(x, 0) * w + b,
     "eps is not used: equal features give 0/0. Add it to the variance, inside the root."),
    ("own_eps", lambda x, w, b, e: layer(x, 1e-5) * w + b,
     "A fixed eps was used. Take the argument."),
    ("first_axis", lambda x, w, b, e: layer(x, e, axis=0) * w + b,
     "Mean and variance run down the first axis: that is nearer to BatchNorm. Features lie along "
     "the last axis, `axis=-1`."),
    ("over_everything", lambda x, w, b, e: layer(x, e, axis=None) * w + b,
     "One mean and one variance serve for all tokens. Each token has its own, `axis=-1`."),
    ("axis_one", lambda x, w, b, e: layer(x, e, axis=1) * w + b,
     "`axis=1` is the last axis of a matrix only: `axis=-1` always is."),
    ("without_keepdims", lambda x, w, b, e: layer(x, e, keepdims=False) * w + b,
     "Without `keepdims=True` (in torch `keepdim=True`) the means, one for each token, line up "
     "with the features. A square matrix comes out wrong without a word, others raise."),
    ("mean_kept", lambda x, w, b, e: x / np.sqrt(x.var(-1, keepdims=True) + e) * w + b,
     "The mean is not subtracted. LayerNorm brings it to 0 first."),
    ("rms", lambda x, w, b, e: x / rms(x, e) * w + b,
     "That is RMSNorm: nothing was subtracted, and the squares are measured from 0. Subtract the "
     "mean, and measure from there."),
    ("no_root", lambda x, w, b, e: (x - mean(x)) / (x.var(-1, keepdims=True) + e) * w + b,
     "The deviations are divided by the variance. Divide by its root."),
    ("sum_of_squares",
     lambda x, w, b, e: (x - mean(x)) / np.sqrt(x.shape[-1] * x.var(-1, keepdims=True) + e) * w + b,
     "The *sum* of squared deviations is under the root. The variance is their mean."),
    ("no_bias", lambda x, w, b, e: layer(x, e) * w,
     "The bias is missing: add it at the end."),
    ("no_weight", lambda x, w, b, e: layer(x, e) + b,
     "The weight is missing. Every feature has its own factor, before the bias is added."),
    ("neither", lambda x, w, b, e: layer(x, e),
     "Mean 0 and variance 1 are reached. What is learned is missing: `* weight + bias`."),
    ("bias_first", lambda x, w, b, e: (layer(x, e) + b) * w,
     "The bias was added before the weight multiplied. It comes last."),
    ("weight_and_bias_swapped", lambda x, w, b, e: layer(x, e) * b + w,
     "Weight and bias changed places: the weight multiplies, the bias is added."),
)  # fmt: skip


# 3


def gated_layers():
    """All axes differ; in two cases all agree, where a transposed weight raises no error."""
    rng = np.random.default_rng(2)
    sizes = [(1, 2, 3), (2, 3, 4), (3, 3, 3), (4, 2, 5), (3, 5, 2), (4, 4, 4), (2, 4, 1)]
    return [
        (rng.normal(size=(T, C)), *(rng.normal(size=s) for s in ((C, f), (C, f), (f, C))))
        for T, C, f in sizes
    ]


@exercise(
    title="A gated layer: SwiGLU",
    difficulty="medium",
    minutes=6,
    cases=gated_layers,
    axes="T C",
    hints=(
        "Two maps lead up, from C to F. One goes through silu and multiplies the other.",
        "silu(z) = z · sigmoid(z) = z / (1 + exp(-z)). It acts on x @ w_gate alone.",
        "hidden = silu(x @ w_gate) * (x @ w_up), number by number; then hidden @ w_down.",
    ),
)
def swiglu(x, w_gate, w_up, w_down):
    """x (T, C), w_gate and w_up (C, F), w_down (F, C) -> (T, C)."""
    gate = x @ w_gate  # (T, C) @ (C, F) -> (T, F)
    gate = gate / (1 + np.exp(-gate))  # silu
    return (gate * (x @ w_up)) @ w_down  # (T, F) @ (F, C) -> (T, C)


@swiglu.right
def swiglu_of_torch(x, w_gate, w_up, w_down):
    return (F.silu(x @ w_gate) * (x @ w_up)) @ w_down


@swiglu.right
def swiglu_by_linear_maps(x, w_gate, w_up, w_down):
    both = F.linear(x, torch.cat([w_gate, w_up], dim=1).T)
    gate, up = both.chunk(2, dim=-1)
    return F.linear(gate * torch.sigmoid(gate) * up, w_down.T)


@swiglu.right
def swiglu_by_loops(x, w_gate, w_up, w_down):
    out = np.zeros_like(x)
    for t, token in enumerate(x):
        for f in range(w_up.shape[1]):
            gate = token @ w_gate[:, f]
            out[t] += gate * (0.5 + 0.5 * np.tanh(gate / 2)) * (token @ w_up[:, f]) * w_down[f]
    return out


@swiglu.right
def swiglu_by_einsum(x, w_gate, w_up, w_down):
    gate = np.einsum("tc,cf->tf", x, w_gate)
    return np.einsum("tf,tf,tc,cf,fd->td", gate, 1 / (1 + np.exp(-gate)), x, w_up, w_down)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def silu(z):
    return z * sigmoid(z)


def gelu(z):
    return F.gelu(torch.from_numpy(z)).numpy()


def gelu_tanh(z):
    return F.gelu(torch.from_numpy(z), approximate="tanh").numpy()


mistakes(
    swiglu,
    ("gate_and_up_swapped", lambda x, g, u, d: (x @ g * silu(x @ u)) @ d,
     "Gate and up changed places: silu acts on x @ w_up. The model would train as well this way, "
     "but with someone else's weights it computes something else. The *gate* goes through silu."),
    ("sigmoid", lambda x, g, u, d: (sigmoid(x @ g) * (x @ u)) @ d,
     "The gate is a plain sigmoid: that is the GLU of 2016. silu(z) = z · sigmoid(z) keeps the "
     "factor z."),
    ("gelu", lambda x, g, u, d: (gelu(x @ g) * (x @ u)) @ d,
     "The gate goes through GELU: that is GEGLU, which Gemma uses. The S of SwiGLU is swish, or "
     "silu: z · sigmoid(z)."),
    ("gelu_tanh", lambda x, g, u, d: (gelu_tanh(x @ g) * (x @ u)) @ d,
     "The gate goes through GELU in its tanh form. silu(z) = z · sigmoid(z)."),
    ("relu", lambda x, g, u, d: (np.maximum(x @ g, 0) * (x @ u)) @ d,
     "The gate goes through ReLU: that is ReGLU. silu(z) = z · sigmoid(z), smooth and a little "
     "below 0 for negative z."),
    ("added", lambda x, g, u, d: (silu(x @ g) + x @ u) @ d,
     "The two are added. A gate *multiplies*: it lets a feature through or not."),
    ("no_activation", lambda x, g, u, d: (x @ g * (x @ u)) @ d,
     "There is no silu: the gate multiplies as it is. Put x @ w_gate through z · sigmoid(z)."),
    ("no_gate", lambda x, g, u, d: silu(x @ u) @ d,
     "w_gate is not used. silu(x @ w_gate) multiplies x @ w_up."),
    ("no_up", lambda x, g, u, d: silu(x @ g) @ d,
     "w_up is not used: that is a plain feed-forward layer with silu. The gate multiplies "
     "x @ w_up."),
    ("gated_by_itself", lambda x, g, u, d: (silu(x @ g) * (x @ g)) @ d,
     "w_gate was used twice and w_up not at all: what silu(x @ w_gate) multiplies is x @ w_up."),
    ("both_activated", lambda x, g, u, d: (silu(x @ g) * silu(x @ u)) @ d,
     "Both went through silu. Only the gate does; x @ w_up stays linear."),
    ("activated_product", lambda x, g, u, d: silu(x @ g * (x @ u)) @ d,
     "silu came after the product. It acts on the gate alone, before."),
    ("wrong_sign", lambda x, g, u, d: (x @ g * sigmoid(-(x @ g)) * (x @ u)) @ d,
     "The sign in the exponent is the other way round: sigmoid(z) = 1 / (1 + exp(-z)), which goes "
     "to 1 for large z."),
    ("not_down", lambda x, g, u, d: silu(x @ g) * (x @ u),
     "The way down is missing: the result has F features. `@ w_down` brings them back to C."),
    ("all_transposed", lambda x, g, u, d: (silu(x @ g.T) * (x @ u.T)) @ d.T,
     "The weights were transposed. torch's `nn.Linear` stores (out, in); here they are (in, out) "
     "and `x @ w` is all."),
)  # fmt: skip


# 4


@dataclass(frozen=True)
class Part:
    """A part of a block as a function, with a name for messages; NumPy and torch alike."""

    formula: str
    f: Callable = field(repr=False)

    def __call__(self, x):
        return self.f(x)

    def __repr__(self):
        return f"({self.formula})"


RUNNING = Part("x -> running sums over the tokens", lambda x: x.cumsum(0))
BACKWARDS = Part("x -> tokens in reverse order, halved", lambda x: x[list(range(len(x)))[::-1]] / 2)
SQUARES = Part("x -> x * |x|", lambda x: x * abs(x))
CLIPPED = Part("x -> 3 * max(x, 0) + 1", lambda x: 3 * x.clip(0) + 1)
BY_SUM = Part(
    "x -> x / (1 + sum of |x| of each token)", lambda x: x / (1 + abs(x).sum(-1)[:, None])
)
CENTRED = Part("x -> x minus each token's mean", lambda x: x - x.mean(-1)[:, None])
DOUBLED = Part("x -> 2 x", lambda x: 2 * x)
SHIFTED = Part("x -> x + 1", lambda x: x + 1)


def blocks():
    rng = np.random.default_rng(3)
    parts = [
        (SQUARES, CLIPPED, DOUBLED, SHIFTED),
        (RUNNING, SQUARES, BY_SUM, CENTRED),
        (BACKWARDS, CLIPPED, CENTRED, BY_SUM),
        (RUNNING, CLIPPED, SHIFTED, DOUBLED),
        (CLIPPED, RUNNING, BY_SUM, SHIFTED),
        (SQUARES, BACKWARDS, SHIFTED, CENTRED),
    ]
    sizes = [(1, 2), (2, 3), (3, 2), (3, 3), (4, 2), (2, 4)]
    return [(rng.normal(size=s), *p) for s, p in zip(sizes, parts)]


@exercise(
    title="A block",
    difficulty="medium",
    minutes=6,
    cases=blocks,
    axes="T C",
    hints=(
        "The stream x is only ever added to. Each part reads a normalised copy of it.",
        "First half: x = x + attend(norm1(x)). The second half has the same form.",
        "The second half reads the *new* x, after attention has been added.",
    ),
)
def block(x, attend, feed, norm1, norm2):
    """x (T, C), and four functions (T, C) -> (T, C) -> (T, C): a pre-norm block."""
    x = x + attend(norm1(x))
    return x + feed(norm2(x))


@block.right
def block_with_names(x, attend, feed, norm1, norm2):
    after_attention = attend(norm1(x)) + x
    return after_attention + feed(norm2(after_attention))


@block.right
def block_by_loop(x, attend, feed, norm1, norm2):
    stream = x.copy()
    for part, norm in ((attend, norm1), (feed, norm2)):
        stream += part(norm(stream))
    return stream


@block.right
def block_in_torch(x, attend, feed, norm1, norm2):
    first = attend(norm1(x))
    return torch.stack([x, first, feed(norm2(torch.add(x, first)))]).sum(0)


def half(x, part, norm):
    return x + part(norm(x))


mistakes(
    block,
    ("no_residuals", lambda x, a, f, n, m: f(m(a(n(x)))),
     "Both residuals are lost: each part's output *replaces* the stream. Add it to x instead."),
    ("first_residual_lost", lambda x, a, f, n, m: half(a(n(x)), f, m),
     "The residual around attention is lost: what x held is gone unless attention copied it. "
     "x + attend(...)."),
    ("second_residual_lost", lambda x, a, f, n, m: f(m(half(x, a, n))),
     "The residual around the feed-forward part is lost: add its output to what went in."),
    ("one_long_residual", lambda x, a, f, n, m: x + f(m(a(n(x)))),
     "One residual goes round both parts. Each part has its own: the second reads x plus what "
     "attention added."),
    ("post_norm", lambda x, a, f, n, m: m(n(x + a(x)) + f(n(x + a(x)))),
     "That is post-norm, the form of 2017: the norm comes after each sum. Here it comes before "
     "each part, and the stream itself is never normalised."),
    ("norm_of_output", lambda x, a, f, n, m: x + n(a(x)) + m(f(x + n(a(x)))),
     "The norms act on what the parts put *out*. They act on what the parts read: "
     "attend(norm1(x))."),
    ("normed_stream", lambda x, a, f, n, m: m(n(x) + a(n(x))) + f(m(n(x) + a(n(x)))),
     "The normalised x went on as the stream: x = norm1(x), then x + attend(x). Only the part "
     "reads the normalised copy; the sum takes x as it was."),
    ("second_normed_stream",
     lambda x, a, f, n, m: m(half(x, a, n)) + f(m(half(x, a, n))),
     "In the second half the normalised x is added in place of x: the sum takes the stream as "
     "it was."),
    ("parallel", lambda x, a, f, n, m: x + a(n(x)) + f(m(x)),
     "The parts run side by side, both on the old x, as in GPT-J and PaLM. Here the second reads "
     "what the first has added."),
    ("added_to_the_old", lambda x, a, f, n, m: x + f(m(half(x, a, n))),
     "The last sum takes the old x, so attention's own output is lost: add to the stream after "
     "attention."),
    ("norm1_twice", lambda x, a, f, n, m: half(half(x, a, n), f, n),
     "norm1 serves both parts. The second has its own weights: norm2."),
    ("norm2_twice", lambda x, a, f, n, m: half(half(x, a, m), f, m),
     "norm2 serves both parts. Attention reads norm1(x)."),
    ("norms_swapped", lambda x, a, f, n, m: half(half(x, a, m), f, n),
     "The norms changed places: norm1 belongs to attention, norm2 to the feed-forward part."),
    ("feed_first", lambda x, a, f, n, m: half(half(x, f, m), a, n),
     "The feed-forward part came first. Attention, then feed-forward."),
    ("no_norms", lambda x, a, f, n, m: x + a(x) + f(x + a(x)),
     "The norms are not used: each part reads a normalised copy of x."),
    ("no_first_norm", lambda x, a, f, n, m: half(x + a(x), f, m),
     "norm1 is not used: attention reads norm1(x)."),
    ("no_second_norm", lambda x, a, f, n, m: half(x, a, n) + f(half(x, a, n)),
     "norm2 is not used: the feed-forward part reads norm2 of the stream."),
    ("attention_alone", lambda x, a, f, n, m: half(x, a, n),
     "The second half is missing: feed, behind norm2."),
    ("feed_alone", lambda x, a, f, n, m: half(x, f, m),
     "The first half is missing: attend, behind norm1."),
)  # fmt: skip


# 5


def predictions():
    """All axes differ, in one case all agree; large logits; a target of probability e^-1000."""
    rng = np.random.default_rng(4)
    sizes = [(1, 2, 3), (1, 3, 2), (2, 3, 4), (3, 3, 3), (2, 5, 3), (4, 2, 5), (3, 4, 6)]
    cases = [(rng.normal(0, 1.5, size=s), rng.integers(s[2], size=s[:2])) for s in sizes]
    large = rng.normal(1000, 2, size=(2, 3, 4)), rng.integers(4, size=(2, 3))
    unlikely = np.array([[[0.0, 1000.0], [1.0, 2.0], [3.0, 0.0]]]), np.array([[1, 0, 1]])
    return [*cases, large, unlikely]


@exercise(
    title="The loss of a language model",
    difficulty="medium",
    minutes=7,
    cases=predictions,
    hints=(
        "The logits at position t predict the token at t + 1. Which position predicts nothing that "
        "we know, and which token is predicted by none?",
        "Line up logits[:, :-1] with ids[:, 1:]: T - 1 predictions for each text.",
        "-log p = log(sum(exp(logits))) - the target's logit. Subtract the maximum inside the exp "
        "and add it outside the log.",
    ),
)
def next_token_loss(logits, ids):
    """logits (B, T, V), ids (B, T) -> one number: mean of -log p(ids[:, t + 1]), in nats."""
    logits, targets = logits[:, :-1], ids[:, 1:]  # (B, T - 1, V), (B, T - 1)
    top = logits.max(axis=-1, keepdims=True)
    log_total = np.log(np.exp(logits - top).sum(axis=-1)) + top[..., 0]  # (B, T - 1)
    chosen = np.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return (log_total - chosen).mean()


@next_token_loss.right
def loss_of_torch(logits, ids):
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


@next_token_loss.right
def loss_of_torch_classes_second(logits, ids):
    return F.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:])


@next_token_loss.right
def loss_by_gather(logits, ids):
    log_p = torch.log_softmax(logits, dim=-1)[:, :-1]
    return -log_p.gather(-1, ids[:, 1:, None]).mean()


@next_token_loss.right
def loss_by_loops(logits, ids):
    losses = []
    for rows, text in zip(logits, ids):
        for row, target in zip(rows[:-1], text[1:]):
            losses.append(np.logaddexp.reduce(row) - row[target])
    return sum(losses) / len(losses)


def surprise(logits, targets, axis=-1):
    """-log p of each target, (B, T, V) and (B, T) -> (B, T), for answers below."""
    log_p = logits - np.logaddexp.reduce(logits, axis=axis, keepdims=True)
    return -np.take_along_axis(log_p, targets[..., None], axis=-1)[..., 0]


def naive(z):
    return np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True)


def stable(z):
    return naive(z - z.max(axis=-1, keepdims=True))


def of_targets(p, ids):
    return np.take_along_axis(p[:, :-1], ids[:, 1:, None], axis=-1)[..., 0]


mistakes(
    next_token_loss,
    ("not_shifted", lambda z, ids: surprise(z, ids).mean(),
     "The targets are not shifted: each position is asked for the token it has just read. A model "
     "that copies its input would reach 0. Line up logits[:, :-1] with ids[:, 1:]."),
    ("shifted_back", lambda z, ids: surprise(z[:, 1:], ids[:, :-1]).mean(),
     "Shifted the wrong way: each position is asked for the token *before* it. logits[:, :-1] "
     "goes with ids[:, 1:]."),
    ("rolled", lambda z, ids: surprise(z, np.roll(ids, -1, axis=1)).mean(),
     "The last position is counted, with the first token of the text for a target: `roll` goes "
     "round. What follows the last token is unknown: leave it out, `[:, :-1]`."),
    ("padded_with_zero",
     lambda z, ids: surprise(z, np.pad(ids[:, 1:], ((0, 0), (0, 1)))).mean(),
     "The last position is counted, with token 0 for a target. What follows the last token is "
     "unknown: leave that position out."),
    ("divided_by_all", lambda z, ids: surprise(z[:, :-1], ids[:, 1:]).sum() / ids.size,
     "The sum is divided by B·T, but only T - 1 tokens of each text are predicted."),
    ("summed", lambda z, ids: surprise(z[:, :-1], ids[:, 1:]).sum(),
     "The losses were added up. The *mean* over all predictions does not depend on how long the "
     "texts are."),
    ("in_bits", lambda z, ids: surprise(z[:, :-1], ids[:, 1:]).mean() / np.log(2),
     "That is in bits. Nats are asked for: the natural logarithm, `np.log`."),
    ("sign", lambda z, ids: -surprise(z[:, :-1], ids[:, 1:]).mean(),
     "The sign is missing: log p is negative, and the loss is -log p."),
    ("perplexity", lambda z, ids: np.exp(surprise(z[:, :-1], ids[:, 1:]).mean()),
     "That is the perplexity, exp of the loss. The loss itself is asked for."),
    ("overflow", lambda z, ids: -np.log(of_targets(naive(z), ids)).mean(),
     "Right for small logits, but exp(1000) is inf, and inf/inf is NaN. Subtract the largest logit "
     "first."),
    ("overflowing_sum",
     lambda z, ids: (np.log(np.exp(z).sum(-1))[:, :-1] - of_targets(z, ids)).mean(),
     "log(sum(exp(logits))) overflows: exp(1000) is inf. Subtract the largest logit inside and "
     "add it again outside, or use `logsumexp`."),
    ("underflow", lambda z, ids: -np.log(of_targets(stable(z), ids)).mean(),
     "Almost right: the probability of an unlikely token underflows to 0, and log 0 is -inf. Do "
     "not go by the probability: the logit minus the log of the sum stays exact."),
    ("floored", lambda z, ids: -np.log(of_targets(stable(z), ids) + 1e-9).mean(),
     "A small number was added inside the logarithm: it keeps log 0 away, but the loss of an "
     "unlikely token stops growing. Use the logit minus the log of the sum (log_softmax)."),
    ("logits_alone", lambda z, ids: -of_targets(z, ids).mean(),
     "The logits of the targets were averaged. They are no log-probabilities yet: subtract the "
     "log of the sum of exponentials over V."),
    ("softmax_twice", lambda z, ids: surprise(stable(z)[:, :-1], ids[:, 1:]).mean(),
     "There are two softmaxes: `F.cross_entropy` takes logits and does its own."),
    ("log_softmax_over_tokens", lambda z, ids: surprise(z[:, :-1], ids[:, 1:], axis=1).mean(),
     "The softmax runs over the positions. The probabilities of the V next tokens sum to 1: the "
     "last axis."),
    ("last_prediction_alone", lambda z, ids: surprise(z[:, -2:-1], ids[:, -1:]).mean(),
     "Only the last token was predicted. Every position predicts its next one: T - 1 losses for "
     "each text."),
    ("mean_entropy",
     lambda z, ids: (stable(z) * np.log(1 / stable(z)))[:, :-1].sum(axis=-1).mean(),
     "That is the entropy of the predictions, whatever came next. The loss looks at one "
     "probability only: that of the token in `ids`."),
)  # fmt: skip


# 6


def to_cut():
    """Probabilities in 64ths and cuts that a sum can meet exactly: no rounding anywhere."""
    counts = [
        ([16, 40, 8], 0.75), ([8, 16, 32, 8], 0.75), ([4, 24, 12, 20, 4], 0.5),
        ([32, 16, 8, 8], 0.875), ([10, 30, 24], 0.1), ([40, 2, 6, 16], 1.0),
        ([16, 16, 16, 16], 0.5), ([12, 12, 20, 12, 8], 0.625), ([5, 9, 31, 19], 0.8),
        ([0, 34, 0, 30], 0.9), ([2, 8, 3, 21, 11, 13, 6], 0.7), ([64], 0.5), ([13, 51], 0.9),
        ([7, 1, 33, 10, 13], 0.515625), ([0, 64, 0], 1.0), ([26, 1, 14, 23], 0.406),
        ([6, 3, 1, 12, 20, 9, 5, 8], 0.95), ([7, 33, 1, 10, 13], 0.516),
    ]  # fmt: skip
    return [(np.array(c) / 64, p) for c, p in counts]


@exercise(
    title="Top-p",
    difficulty="hard",
    minutes=12,
    cases=to_cut,
    axes="V",
    hints=(
        "Sort from the largest down and take running sums. Which token crosses p?",
        "A token is kept if the sum *before* it, cumsum - itself, is still below p: so the "
        "one that crosses stays, and nothing after it.",
        "`order = np.argsort(-probabilities, kind='stable')` gives ids from the likeliest down, "
        "equals by id. Writing kept[order[:n]] puts each one back in its place.",
    ),
)
def top_p(probabilities, p):
    """probabilities (V,), p in (0, 1] -> (V,): the smallest set of mass p or more, renormalised."""
    order = np.argsort(-probabilities, kind="stable")  # the likeliest first, equals by id
    ranked = probabilities[order]
    before = ranked.cumsum() - ranked  # the mass of all that are likelier
    kept = np.zeros_like(probabilities)
    kept[order] = np.where(before < p, ranked, 0.0)  # the one that crosses p had less before it
    return kept / kept.sum()


@top_p.right
def top_p_in_torch(probabilities, p):
    ranked, order = torch.sort(probabilities, descending=True, stable=True)
    ranked = ranked.masked_fill(ranked.cumsum(0) - ranked >= p, 0)
    return torch.zeros_like(probabilities).scatter(0, order, ranked / ranked.sum())


@top_p.right
def top_p_by_search(probabilities, p):
    order = np.argsort(-probabilities, kind="stable")
    n = np.searchsorted(np.cumsum(probabilities[order]), p) + 1
    kept = np.where(np.isin(np.arange(len(probabilities)), order[:n]), probabilities, 0)
    return kept / kept.sum()


@top_p.right
def top_p_by_loop(probabilities, p):
    mass, kept = 0.0, [0.0] * len(probabilities)
    for i in sorted(range(len(kept)), key=lambda i: (-probabilities[i], i)):
        if mass >= p:
            break
        kept[i] = probabilities[i]
        mass += probabilities[i]
    return [k / mass for k in kept]


@top_p.right
def top_p_as_in_transformers(probabilities, p):
    ascending, order = torch.sort(probabilities.flip(0), stable=True)
    removed = ascending.cumsum(0) <= 1 - p
    removed[-1] = False
    removed = torch.zeros_like(removed).scatter(0, order, removed).flip(0)
    kept = probabilities.masked_fill(removed, 0)
    return kept / kept.sum()


@top_p.right
def top_p_by_comparing_all(probabilities, p):
    i = torch.arange(len(probabilities))
    greater = probabilities[None, :] > probabilities[:, None]
    level = (probabilities[None, :] == probabilities[:, None]) & (i[None, :] < i[:, None])
    kept = probabilities * ((greater | level).to(probabilities) @ probabilities < p)
    return kept / kept.sum()


def order_of(q):
    return np.argsort(-q, kind="stable")


def kept_as(q, keep):
    """The ranked tokens for which keep holds, renormalised: q (V,), keep (V,) by rank."""
    out = np.zeros_like(q)
    out[order_of(q)[keep]] = q[order_of(q)[keep]]
    return share_out(out)


def share_out(kept):
    return kept / kept.sum()


def sums(q):
    return q[order_of(q)].cumsum()


def at_least_one(keep):
    return keep | (np.arange(len(keep)) == 0)


def before(q):
    return sums(q) - q[order_of(q)]


mistakes(
    top_p,
    ("crossing_dropped", lambda q, p: kept_as(q, at_least_one(sums(q) < p)),
     "The token that crosses p is dropped, so the set's mass stays below p. It belongs to the set: "
     "ask whether the sum *before* a token is below p."),
    ("crossing_dropped_even_alone", lambda q, p: kept_as(q, sums(q) < p),
     "The token that crosses p is dropped, and where the first one crosses, nothing is left: 0/0. "
     "Ask whether the sum *before* a token is below p."),
    ("crossing_dropped_unless_exact", lambda q, p: kept_as(q, sums(q) <= p),
     "The token that crosses p is dropped unless the sum meets p exactly. With a first token above "
     "p nothing is left. Ask whether the sum *before* a token is below p."),
    ("one_too_many", lambda q, p: kept_as(q, before(q) <= p),
     "One token too many where the sum meets p exactly: the set has reached p, and the next is not "
     "needed. `<`, not `<=`, on the sum before a token."),
    ("always_one_more", lambda q, p: kept_as(q, at_least_one(np.roll(before(q) < p, 1))),
     "One token too many: the one after the crossing token is kept as well. The smallest set that "
     "reaches p is asked for."),
    ("each_above_p", lambda q, p: share_out(np.where(q >= p, q, 0)),
     "Each probability was compared with p. Compare *running sums*, from the likeliest down: p is "
     "the mass of the set."),
    ("min_p", lambda q, p: share_out(np.where(q >= p * q.max(), q, 0)),
     "That is min-p: tokens with at least p times the largest probability. Top-p compares running "
     "sums with p."),
    ("not_renormalised", lambda q, p: np.where(kept_as(q, before(q) < p) > 0, q, 0),
     "The kept probabilities do not sum to 1: divide them by their sum."),
    ("left_sorted", lambda q, p: share_out(np.where(before(q) < p, q[order_of(q)], 0)),
     "The result is in sorted order. Position i belongs to token i: put each one back, "
     "`kept[order] = ...`."),
    ("mask_left_sorted", lambda q, p: share_out(np.where(before(q) < p, q, 0)),
     "The mask is in sorted order and the probabilities are not: token 0 got the mask of the "
     "likeliest. Put the mask back first, `mask[order] = ...`."),
    ("sorted_the_wrong_way_back",
     lambda q, p: share_out(np.where(before(q) < p, q[order_of(q)], 0)[order_of(q)]),
     "`[order]` sorts; a second time it does not unsort. Write instead of reading, "
     "`kept[order] = ...`, or use argsort(order)."),
    ("not_sorted", lambda q, p: share_out(np.where(q.cumsum() - q < p, q, 0)),
     "The running sums go by id. Sort first: the likeliest tokens make the smallest set."),
    ("least_first", lambda q, p: share_out(np.where((s := np.argsort(q, kind="stable")) is None, 0,
     np.where((np.cumsum(q[s]) - q[s] < p)[np.argsort(s)], q, 0))),
     "The least likely tokens were collected first. Sort from the largest down."),
    ("higher_ids_first",
     lambda q, p: kept_as(q[::-1], before(q[::-1]) < p)[::-1],
     "Almost: of equal probabilities the *higher* id was kept. Reversing an ascending sort turns "
     "ties round as well: sort -probabilities, `kind='stable'`."),
    ("all_ties", lambda q, p: share_out(np.where(q >= q[order_of(q)][before(q) < p].min(), q, 0)),
     "All tokens as likely as the one that crosses were kept. The set is the *smallest* one: of "
     "equals, the lower ids, and no more than needed."),
    ("top_k", lambda q, p: kept_as(q, np.arange(len(q)) < np.ceil(p * len(q))),
     "A share p of the *tokens* was kept, a top-k. p is a mass: it takes few tokens where the "
     "model is sure and many where it is not."),
    ("mask", lambda q, p: kept_as(q, before(q) < p) > 0,
     "That is a mask. The probabilities of the kept tokens, renormalised, are asked for."),
)  # fmt: skip


@top_p.property("The probabilities should sum to 1.")
def sums_to_one(out, probabilities, p):
    return np.isclose(np.sum(out), 1)


# 7


def architectures():
    """vocab_size, n_layers, d_model, d_ff, max_seq_len, tied."""
    return [
        (5, 1, 2, 3, 4, True), (5, 1, 2, 3, 4, False), (7, 2, 3, 5, 4, True),
        (11, 3, 4, 16, 6, False), (4, 4, 4, 4, 4, True), (6, 5, 3, 2, 9, False),
        (50257, 12, 768, 3072, 1024, True), (50257, 24, 1024, 4096, 1024, True),
        (1000, 2, 64, 170, 128, False),
    ]  # fmt: skip


@exercise(
    title="Every parameter of GPT-2",
    difficulty="hard",
    minutes=12,
    cases=architectures,
    hints=(
        "Begin outside the blocks: a vector for each token, one for each position, a norm at the "
        "end, and a head, which is a matrix of its own only if it is not tied.",
        "A block holds two norms of 2·d_model, four maps of attention and two of the feed-forward "
        "layer. Each map has a matrix and a bias as long as its output.",
        "Attention: 4·(d·d + d). Feed-forward: (d·F + F) + (F·d + d).",
    ),
)
def count_parameters(vocab_size, n_layers, d_model, d_ff, max_seq_len, tied):
    """Sizes of a GPT-2, and whether the head is the token table -> the exact number of weights."""
    norm = 2 * d_model  # weight and bias
    attention = 4 * (d_model * d_model + d_model)  # q, k, v, o
    feed_forward = (d_model * d_ff + d_ff) + (d_ff * d_model + d_model)
    blocks = n_layers * (norm + attention + norm + feed_forward)
    tables = (vocab_size + max_seq_len) * d_model  # tokens and positions
    head = 0 if tied else vocab_size * d_model  # without a bias
    return tables + blocks + norm + head


@count_parameters.right
def counted_in_one_line(V, L, d, f, S, tied):
    return d * (V * (2 - tied) + S + 2 + L * (4 * d + 2 * f + 9)) + L * f


@count_parameters.right
def counted_by_shapes(V, L, d, f, S, tied):
    one = [(d,), (d,), (d, 3 * d), (3 * d,), (d, d), (d,), (d,), (d,), (d, f), (f,), (f, d), (d,)]
    shapes = [(V, d), (S, d), *(one * L), (d,), (d,)] + [(d, V)] * (not tied)
    return sum(int(np.prod(shape)) for shape in shapes)


@count_parameters.right
def counted_part_by_part(V, L, d, f, S, tied):
    total = V * d + S * d + 2 * d + (0 if tied else V * d)
    for _ in range(L):
        for rows, columns in [(d, d)] * 4 + [(d, f), (f, d)]:
            total += (rows + 1) * columns  # the bias is one row more
        total += 2 * 2 * d
    return total


def off(by):
    """The solution off by some amount, for answers below."""
    return lambda *sizes: count_parameters.solve(*sizes) + by(*sizes)


mistakes(
    count_parameters,
    ("tied_twice", off(lambda V, L, d, f, S, tied: tied * V * d),
     "A tied head was counted though it is the token table itself: the same weights twice."),
    ("head_forgotten", off(lambda V, L, d, f, S, tied: -(not tied) * V * d),
     "An untied head is missing: a matrix of vocab_size · d_model of its own."),
    ("tied_inverted", off(lambda V, L, d, f, S, tied: (1 if tied else -1) * V * d),
     "Tied and untied changed places: `tied` means that the head needs no matrix of its own."),
    ("head_bias", off(lambda V, L, d, f, S, tied: V),
     "The head got a bias. GPT-2's head has none, the one map without."),
    ("no_positions", off(lambda V, L, d, f, S, tied: -S * d),
     "The positions are missing: GPT-2 learns a vector for each of max_seq_len places."),
    ("no_final_norm", off(lambda V, L, d, f, S, tied: -2 * d),
     "The last norm is missing, after all blocks: 2 · d_model."),
    ("norms_per_block_one", off(lambda V, L, d, f, S, tied: -2 * d * L),
     "A block has two norms, before attention and before the feed-forward layer; one was counted."),
    ("no_block_norms", off(lambda V, L, d, f, S, tied: -4 * d * L),
     "In each block 4·d_model are missing: its two norms, or the biases of attention's four maps."),
    ("no_norms", off(lambda V, L, d, f, S, tied: -4 * d * L - 2 * d),
     "No norm was counted: there are two in each block and one after the last."),
    ("norms_without_bias", off(lambda V, L, d, f, S, tied: -2 * d * L - d),
     "The norms have d_model each here, as RMSNorm has. LayerNorm has a weight *and* a bias."),
    ("final_norm_in_each_block", off(lambda V, L, d, f, S, tied: 2 * d * (L - 1)),
     "The last norm was counted in each block. There is one, after them all."),
    ("no_output_bias", off(lambda V, L, d, f, S, tied: -d * L),
     "In each block a bias of d_model is missing: of attention's output map, or of the way down "
     "in the feed-forward layer."),
    ("no_qkv_bias", off(lambda V, L, d, f, S, tied: -3 * d * L),
     "In each block 3·d_model are missing: the biases of q, k and v."),
    ("no_up_bias", off(lambda V, L, d, f, S, tied: -f * L),
     "The bias of the way up is missing in each block. It is as long as that map's output: d_ff."),
    ("no_feed_forward_biases", off(lambda V, L, d, f, S, tied: -(f + d) * L),
     "The biases of the feed-forward layer are missing: d_ff on the way up, d_model down."),
    ("no_map_biases", off(lambda V, L, d, f, S, tied: -(f + 5 * d) * L),
     "The maps have no biases here. GPT-2 has one in each map of a block, as long as the map's "
     "output."),
    ("no_biases_at_all", off(lambda V, L, d, f, S, tied: -(f + 7 * d) * L - d),
     "No bias was counted, in maps or norms. GPT-2 has them everywhere but in the head."),
    ("three_maps", off(lambda V, L, d, f, S, tied: -(d * d + d) * L),
     "Attention has four maps: q, k, v and the output's. Three were counted."),
    ("one_feed_forward_map", off(lambda V, L, d, f, S, tied: -(f * d + d) * L),
     "The feed-forward layer has two maps, up to d_ff and down again. One was counted."),
    ("gated", off(lambda V, L, d, f, S, tied: (d * f + f) * L),
     "Three maps were counted in the feed-forward layer, as in a gated one. GPT-2's has no gate: "
     "up and down."),
    ("four_times", off(lambda V, L, d, f, S, tied: L * (2 * d + 1) * (4 * d - f)),
     "The feed-forward layer was taken to be 4·d_model wide. Often it is; `d_ff` says."),
    ("one_block", off(lambda V, L, d, f, S, tied: (1 - L) * (d * (4 * d + 2 * f + 9) + f)),
     "One block was counted, not n_layers of them."),
    ("blocks_alone", off(lambda V, L, d, f, S, tied: -(V * (2 - tied) + S + 2) * d),
     "Only the blocks were counted. There are two tables as well, a last norm, and a head if it "
     "is untied."),
    ("always_small", lambda *sizes: 124_439_808,
     "That is the published number of one model, whatever the sizes are. Other sizes are tried, "
     "too."),
)  # fmt: skip


# 8


def chains():
    """Irreducible chains; zeros among them, a ring, two with a period (2, 3)."""
    rng = np.random.default_rng(6)

    def full(n):
        return rng.dirichlet(np.full(n, 0.7), size=n)

    ring = np.roll(np.eye(4), 1, axis=1) * 0.6 + np.eye(4) * 0.4
    ring[0] = [0.1, 0.2, 0.3, 0.4]
    two = np.zeros((5, 5))  # from {0, 1} to {2, 3, 4} and back
    two[:2, 2:], two[2:, :2] = full(3)[:2], full(2)[[0, 1, 0]]
    three = np.zeros((4, 4))  # {0} to {1, 2} to {3} to {0}
    three[0, 1:3], three[1:3, 3], three[3, 0] = [0.2, 0.8], 1.0, 1.0
    weather = np.array([[0.9, 0.1], [0.5, 0.5]])
    sticky = np.array([[0.97, 0.02, 0.01], [0.1, 0.8, 0.1], [0.2, 0.3, 0.5]])
    half = np.array([[0.0, 1.0], [0.5, 0.5]])
    return [(t,) for t in (weather, half, full(3), three, two, ring, sticky, full(6))]


def rounded(out):
    """To nine digits: solvers may give another last digit at every call."""
    return np.round(out, 9) if isinstance(out, float | np.ndarray | np.floating) else out


@exercise(
    title="The floor of the loss",
    difficulty="medium",
    minutes=10,
    cases=chains,
    tol=1e-4,
    canonical=rounded,
    hints=(
        "In state i the next token has the probabilities transition[i]. Its entropy is the best "
        "loss reachable there. How often is the chain in state i?",
        "The stationary distribution does not change by a step: pi @ transition = pi, and it sums "
        "to 1. Solve these equations, or take the eigenvector of transition.T with eigenvalue 1. "
        "Multiplying again and again need not settle: some chains go round in turns.",
        "floor = sum over i of pi[i] times the entropy of row i, where 0 · log 0 counts as 0.",
    ),
)
def entropy_floor(transition):
    """transition (n, n), rows sum to 1 -> entropy per token, in nats, of the endless chain."""
    n = len(transition)
    equations = np.vstack([transition.T - np.eye(n), np.ones(n)])  # pi P = pi, and pi sums to 1
    pi = np.linalg.lstsq(equations, np.eye(n + 1)[n], rcond=None)[0]
    logs = np.log(np.where(transition > 0, transition, 1.0))  # 0 log 0 = 0
    return -pi @ (transition * logs).sum(axis=1)


@entropy_floor.right
def floor_by_eigenvector(transition):
    values, vectors = np.linalg.eig(transition.T)
    pi = vectors[:, np.argmin(abs(values - 1))].real
    return (pi / pi.sum()) @ [-sum(p * np.log(p) for p in row if p > 0) for row in transition]


@entropy_floor.right
def floor_in_torch(transition):
    n = len(transition)
    ones = torch.ones(n, n, dtype=transition.dtype)
    eye = torch.eye(n, dtype=transition.dtype)
    pi = torch.linalg.solve((eye - transition + ones).T, ones[0])
    return (pi * torch.special.entr(transition).sum(1)).sum()


@entropy_floor.right
def floor_by_a_lazy_walk(transition):
    pi = np.zeros(len(transition))
    pi[0] = 1
    for _ in range(3000):
        pi = (pi + pi @ transition) / 2
    return -np.sum(pi[:, None] * transition * np.log(transition + 1e-300))


@entropy_floor.right
def floor_by_averaging(transition):
    pi = np.linalg.matrix_power(transition, 1000)[0]
    later = [pi := pi @ transition for _ in range(12)]  # whole periods of 2 and of 3
    terms = np.array([[p * np.log(p) if p else 0 for p in row] for row in transition])
    return -np.mean(later, axis=0) @ terms.sum(axis=1)


@entropy_floor.right
def floor_by_joint_entropy(transition):
    pi = np.linalg.solve(np.eye(len(transition)) - transition.T + 1, np.ones(len(transition)))
    joint = pi[:, None] * transition
    return entropy(joint.ravel()) - entropy(pi)


def entropy(p, axis=-1):
    """In nats, along an axis, with 0 log 0 = 0."""
    return -(p * np.log(np.where(p > 0, p, 1))).sum(axis=axis)


def stationary(t):
    n = len(t)
    return np.linalg.solve(np.eye(n) - t.T + 1, np.ones(n))


def walked(t, start, steps=1000):
    return start @ np.linalg.matrix_power(t, steps)


def uniform(t):
    return np.full(len(t), 1 / len(t))


mistakes(
    entropy_floor,
    ("uniform_average", lambda t: entropy(t).mean(),
     "All states count the same here. The chain is in some more often than in others: weigh each "
     "row's entropy by the stationary distribution."),
    ("stationary_entropy", lambda t: entropy(stationary(t)),
     "That is the entropy of the stationary distribution: the floor of a model that sees *no* "
     "context (the unigram floor). Knowing the last state, the next token has its row's entropy."),
    ("joint_entropy", lambda t: entropy((stationary(t)[:, None] * t).ravel()),
     "That is the entropy of a pair of tokens. What is asked for is that of the second, the first "
     "being known: subtract the entropy of one token."),
    ("bits", lambda t: stationary(t) @ entropy(t) / np.log(2),
     "That is in bits. Nats: the natural logarithm."),
    ("negative", lambda t: -stationary(t) @ entropy(t),
     "The sign: logarithms of probabilities are negative, and entropy is -Σ p log p."),
    ("zero_log", lambda t: -stationary(t) @ (t * np.log(t)).sum(axis=1),
     "Where a probability is 0, 0 · log 0 gives NaN. What never happens adds nothing: leave the "
     "zeros out, for instance with np.where inside the logarithm."),
    ("walk_from_state_0", lambda t: walked(t, np.eye(len(t))[0]) @ entropy(t),
     "The chain was run from state 0 for some even number of steps. Some of the chains go round in "
     "turns (of period 2 or 3) and never settle: solve pi @ transition = pi instead."),
    ("walk_from_uniform", lambda t: walked(t, uniform(t)) @ entropy(t),
     "A uniform start was multiplied by the matrix again and again. In a periodic chain that "
     "never settles: solve pi @ transition = pi, or average over the steps."),
    ("one_step", lambda t: walked(t, uniform(t), 1) @ entropy(t),
     "One step from a uniform start was taken. The stationary distribution is what stays the same "
     "by a step: pi @ transition = pi."),
    ("columns_entropy", lambda t: stationary(t) @ entropy(t, axis=0),
     "The entropies are those of the columns. Row i holds what follows state i: sum along "
     "axis 1."),
    ("no_context_of_vocabulary", lambda t: np.log(len(t)),
     "That is log n, the loss of a model that guesses: the chain's rows are not used."),
    ("largest_eigenvalue_right",
     lambda t: uniform(t) * len(t) / np.sqrt(len(t)) @ entropy(t),
     "The eigenvector is that of `transition`, whose entries are all equal. Take it of "
     "`transition.T`, and divide it by its sum."),
)  # fmt: skip


# 9


@exercise(
    title="What mixes what?",
    difficulty="easy",
    minutes=3,
    options={
        "a": "Turn it round. What a feed-forward layer makes of a token does not depend on any "
        "other: that is why a block needs attention.",
        "b": "The feed-forward layer is applied to each token by itself, with the same weights. "
        "Change one token: which rows of its output change?",
        "c": "Yes. Attention carries numbers from token to token, by weights that it finds from "
        "the text; the feed-forward layer takes each token by itself and combines its features. "
        "(The value and output maps of attention combine features as well, but linearly, and the "
        "same way for all tokens.)",
        "d": "A norm divides each token's features by a number made from that same token. It moves "
        "nothing from one token to another.",
        "e": "The residual adds number to number: feature c of token t stays where it is. It mixes "
        "nothing; it carries.",
    },
    hints=(
        "Change the numbers of one token. Which rows of a part's output change?",
        "The feed-forward layer is x @ w_up, a nonlinearity, and @ w_down: row t from row t.",
        "In attention row t is an average over rows: weights (T, S) times values (S, D).",
    ),
)
def what_mixes_what():
    """Which part of a block moves numbers between tokens: a letter from a to e."""
    return "c"
