"""Chapter 0: broadcasting, memory order, einsum, bits."""

import numpy as np
import torch

from lib.checks.framework import exercise


def some_matrices():
    """Matrices (T, C), a square one among them: there, a wrong axis raises no error."""
    rng = np.random.default_rng(0)
    return [(rng.normal(2.0, 3.0, size=shape),) for shape in [(2, 3), (3, 3), (5, 2), (1, 4)]]


@exercise(
    title="Centre each row",
    difficulty="easy",
    minutes=4,
    cases=some_matrices,
    axes="T C",
    hints=(
        "The mean of each row is x.mean(axis=1). What shape is it?",
        "A (T,) array lines up with the last axis of x, which is C, not T.",
        "Keep the averaged axis with size 1: keepdims=True gives (T, 1), which fits (T, C).",
    ),
)
def center_rows(x):
    """x (T, C) -> (T, C): from each row its own mean is subtracted."""
    return x - x.mean(axis=1, keepdims=True)


@center_rows.right
def centred_by_torch(x):
    return x - torch.mean(x, dim=-1)[:, None]


@center_rows.right
def centred_row_by_row(x):
    return np.stack([row - sum(row) / len(row) for row in x])


@center_rows.wrong(
    "The means lie along the columns: shape (T,) or (1, T) lines up with C. A square matrix comes "
    "out wrong without a word, any other raises. `keepdims=True` gives (T, 1), which fits."
)
def without_keepdims(x):
    return x - x.mean(axis=1)


@center_rows.wrong(
    "Each column was centred. `axis=0` averages down the rows; one mean for each row is `axis=1`."
)
def centred_columns(x):
    return x - x.mean(axis=0)


@center_rows.wrong(
    "One mean of the whole matrix was subtracted everywhere. Each row has a mean of its own: say "
    "which axis to average over."
)
def one_mean_for_all(x):
    return x - x.mean()


@center_rows.wrong("The rows are also divided by their standard deviation. Only subtract the mean.")
def standardised(x):
    return (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True)


@center_rows.wrong("The mean was added. Subtract it, and each row will average 0.")
def mean_added(x):
    return x + x.mean(axis=1, keepdims=True)


@center_rows.wrong("Each row's sum was subtracted, not its mean: divide the sum by C.")
def sum_subtracted(x):
    return x - x.sum(axis=1, keepdims=True)


@center_rows.wrong("This gives the means themselves. Subtract them from x.")
def only_the_means(x):
    return x.mean(axis=1, keepdims=True)


@center_rows.wrong("Each row's sum was divided by the number of rows, T. A row has C numbers.")
def divided_by_the_rows(x):
    return x - x.sum(axis=1, keepdims=True) / len(x)


@center_rows.property("Every row should average 0.")
def rows_average_zero(out, x):
    return np.allclose(out.mean(axis=1), 0, atol=1e-6)


def some_indices():
    return [
        ((1, 2), (2, 3)),
        ((2, 0), (4, 3)),
        ((1, 2, 3), (2, 3, 4)),
        ((0, 4, 1), (3, 5, 2)),
        ((3,), (7,)),
        ((1, 0, 2, 1), (2, 3, 4, 5)),
        ((250, 7), (300, 400)),
    ]


@exercise(
    title="Where a number lies in memory",
    difficulty="medium",
    minutes=6,
    cases=some_indices,
    hints=(
        "One step along the last axis moves 1 place. How many places is one step along the "
        "axis before it?",
        "A step along an axis passes everything that the axes to its right hold: the product "
        "of their sizes. That is the stride.",
        "Start with offset = 0 and go through index and shape together: "
        "offset = offset * size + i.",
    ),
)
def flat_index(index, shape):
    """The place in memory, from 0, of x[index] in a row-major array of this shape."""
    offset = 0
    for i, size in zip(index, shape):
        offset = offset * size + i
    return offset


@flat_index.right
def by_strides(index, shape):
    strides = [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
    return sum(i * stride for i, stride in zip(index, strides))


@flat_index.right
def by_numpy(index, shape):
    return np.ravel_multi_index(index, shape)


@flat_index.right
def by_torch(index, shape):
    return sum(i * s for i, s in zip(index, torch.empty(shape).stride()))


@flat_index.wrong(
    "That is column-major order, in which the first axis is packed tightest (Fortran, MATLAB). In "
    "NumPy and torch neighbours along the last axis are neighbours in memory."
)
def column_major(index, shape):
    offset = 0
    for i, size in zip(reversed(index), reversed(shape)):
        offset = offset * size + i
    return offset


@flat_index.wrong(
    "Each index was multiplied by the size of its own axis. A step along an axis skips what lies "
    "to its right: multiply by the sizes of the later axes."
)
def own_size(index, shape):
    return sum(i * size for i, size in zip(index, shape))


@flat_index.wrong(
    "The stride of an axis is the product of all sizes to its right. You took only the next one, "
    "which agrees for two axes and not for three."
)
def next_size_only(index, shape):
    sizes = [*shape[1:], 1]
    return sum(i * size for i, size in zip(index, sizes))


@flat_index.wrong("The product of all sizes was used as it is; each axis has its own stride.")
def whole_size(index, shape):
    return sum(i * int(np.prod(shape)) for i in index)


@flat_index.wrong("That counts from 1. The first number, x[0, 0], lies at place 0.")
def from_one(index, shape):
    return flat_index.solve(index, shape) + 1


@flat_index.wrong("The indices were added up. A step along an early axis skips many numbers.")
def indices_added(index, shape):
    return sum(index)


@flat_index.wrong("An axis's stride does not count the axis itself: take the sizes to its right.")
def stride_with_itself(index, shape):
    return sum(i * int(np.prod(shape[axis:])) for axis, i in enumerate(index))


@flat_index.wrong("The stride in bytes was used; the question counts numbers, so x[0, 1] is at 1.")
def in_bytes(index, shape):
    return flat_index.solve(index, shape) * 8


@flat_index.wrong(
    "Right for two axes. For more, carry the place along: at each axis, multiply what you have by "
    "the size of *that* axis before adding its index, not by the last size each time."
)
def always_the_last_size(index, shape):
    place = 0
    for i in index:
        place = place * shape[-1] + i
    return place


@flat_index.wrong(
    "The strides are in reverse order: the first axis has the largest, the last has 1."
)
def strides_reversed(index, shape):
    strides = [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
    return sum(i * stride for i, stride in zip(index, reversed(strides)))


@flat_index.property("A place in memory is an integer, to be used as an index.")
def an_integer(out, index, shape):
    return np.asarray(out).dtype.kind in "iu"


def queries_and_keys():
    """Axes that differ in size, and one case where they agree and a wrong letter goes unseen."""
    rng = np.random.default_rng(1)
    sizes = [(2, 3, 4, 5), (1, 2, 5, 3), (3, 4, 4, 4), (2, 1, 3, 6)]
    return [(rng.normal(size=(B, T, D)), rng.normal(size=(B, S, D))) for B, T, S, D in sizes]


@exercise(
    title="Every query against every key",
    difficulty="medium",
    minutes=6,
    cases=queries_and_keys,
    axes="B T S",
    hints=(
        "Which letters stand in q, which in k, and which should be left in the result?",
        "q is btd, k is bsd, the result is bts. The letter that is missing from it is summed.",
        "np.einsum takes that as it stands: 'btd,bsd->bts'.",
    ),
)
def all_dot_products(q, k):
    """q (B, T, D), k (B, S, D) -> (B, T, S), the dot products of all q[b, t] with all k[b, s]."""
    return np.einsum("btd,bsd->bts", q, k)


@all_dot_products.right
def by_matmul(q, k):
    return q @ k.swapaxes(1, 2)


@all_dot_products.right
def by_torch_einsum(q, k):
    return torch.einsum("b t d, b s d -> b t s", q, k)


@all_dot_products.right
def by_loops(q, k):
    B, T, S = len(q), q.shape[1], k.shape[1]
    out = np.zeros((B, T, S))
    for b, t, s in np.ndindex(B, T, S):
        out[b, t, s] = sum(q[b, t] * k[b, s])
    return out


@all_dot_products.wrong(
    "The batch axis was summed away: `b` is missing from the result, so sentences were mixed. A "
    "letter that both inputs share and the result keeps is not summed."
)
def batch_summed(q, k):
    return np.einsum("btd,bsd->ts", q, k)


@all_dot_products.wrong(
    "Rows and columns are swapped: the result is (B, S, T). Queries belong on the rows: `bts`."
)
def transposed(q, k):
    return np.einsum("btd,bsd->bst", q, k)


@all_dot_products.wrong(
    "Query t meets key t only. Every query should meet every key: the keys' axis needs a letter of "
    "its own, `s`."
)
def only_the_diagonal(q, k):
    return np.einsum("btd,btd->bt", q, k)


@all_dot_products.wrong(
    "`k` is (B, S, D), and its S was summed against D of q. The axis that both share is the last "
    "one of each: swap the last two axes of k, or write `bsd` for it."
)
def not_transposed(q, k):
    return q @ k


@all_dot_products.wrong(
    "`k.T` reverses all three axes, the batch too. Swap only the last two: `k.swapaxes(1, 2)`."
)
def all_axes_reversed(q, k):
    return q @ k.T


@all_dot_products.wrong(
    "`k` was reshaped to (B, D, S). That has the right shape, but reshape keeps the order "
    "of the numbers and tears the vectors apart; a transpose is what swaps axes."
)
def reshaped(q, k):
    return q @ k.reshape(k.shape[0], k.shape[2], k.shape[1])


@all_dot_products.wrong(
    "The scores are divided by the square root of D. That comes in chapter 2; here they are plain."
)
def scaled(q, k):
    return np.einsum("btd,bsd->bts", q, k) / np.sqrt(q.shape[-1])


@all_dot_products.wrong(
    "The products were not added up: `d` is still in the result. Leave it out, and einsum sums it."
)
def not_summed(q, k):
    return np.einsum("btd,bsd->btsd", q, k)


@all_dot_products.wrong(
    "Every sentence meets every other: the batch axes got two letters. Both are `b`."
)
def across_the_batch(q, k):
    return np.einsum("atd,bsd->abts", q, k)


@all_dot_products.wrong(
    "Cosines, not dot products: the vectors' lengths were divided away. Lengths count here."
)
def cosines(q, k):
    lengths = np.linalg.norm(q, axis=-1)[:, :, None] * np.linalg.norm(k, axis=-1)[:, None, :]
    return np.einsum("btd,bsd->bts", q, k) / lengths


@all_dot_products.wrong(
    "Every sentence meets every other: the result is (B, T, B, S), as `np.inner`, `np.dot` and "
    "`tensordot` make it. The batch axis is shared, not crossed: `btd,bsd->bts`."
)
def all_pairs_of_sentences(q, k):
    return np.inner(q, k)


@all_dot_products.wrong(
    "The keys of all sentences were added up: their batch axis has a letter of its own that is "
    "missing from the result. Use `b` for both."
)
def keys_of_all_sentences(q, k):
    return np.einsum("btd,csd->bts", q, k)


@all_dot_products.wrong("A softmax was applied. That is the second half of attention; stop before.")
def softmax_already(q, k):
    e = np.exp(np.einsum("btd,bsd->bts", q, k))
    return e / e.sum(axis=-1, keepdims=True)


@all_dot_products.wrong("The products are divided by D: that is a mean. Only sum them.")
def averaged(q, k):
    return np.einsum("btd,bsd->bts", q, k) / q.shape[-1]


def predictions():
    rng = np.random.default_rng(2)
    cases = []
    for T, V in [(2, 3), (5, 4), (1, 6), (4, 4)]:
        p = rng.dirichlet(np.full(V, 0.7), size=T).clip(0.01)
        p /= p.sum(axis=1, keepdims=True)
        cases.append((p, rng.integers(0, V, size=T)))
    certain, impossible = np.array([[1.0, 0.0]]), np.array([[0.5, 0.0, 0.5]])
    long = rng.dirichlet(np.ones(3), size=1500).clip(1e-3)
    return [
        *cases,
        (certain, np.array([0])),
        (impossible, np.array([1])),
        (long / long.sum(axis=1, keepdims=True), rng.integers(0, 3, size=1500)),
    ]


@exercise(
    title="How many bits a guess costs",
    difficulty="hard",
    minutes=8,
    cases=predictions,
    hints=(
        "At each position only one probability matters: the one given to what really came.",
        "p[np.arange(T), targets] picks p[t, targets[t]] for every t.",
        "Surprise is -log2 of that probability. Average the surprises, not the probabilities.",
    ),
)
def mean_bits(p, targets):
    """Probabilities p (T, V) and the ids that came, targets (T,) -> the mean surprise in bits."""
    return -np.log2(p[np.arange(len(targets)), targets]).mean()


@mean_bits.right
def bits_by_torch(p, targets):
    return torch.nn.functional.nll_loss(torch.log2(p), targets)


@mean_bits.right
def bits_by_loop(p, targets):
    return sum(-np.log2(row[i]) for row, i in zip(p, targets)) / len(targets)


@mean_bits.wrong(
    "These are nats: `np.log` is the natural logarithm. A bit is a factor of 2: take `np.log2`."
)
def nats(p, targets):
    return -np.log(p[np.arange(len(targets)), targets]).mean()


@mean_bits.wrong(
    "The sign is missing: the logarithm of a probability is negative, a surprise is not."
)
def no_minus(p, targets):
    return np.log2(p[np.arange(len(targets)), targets]).mean()


@mean_bits.wrong(
    "You averaged the probabilities and took the logarithm once. One certain mistake must cost "
    "much, so take the logarithm at each position and average those."
)
def log_of_the_mean(p, targets):
    return -np.log2(p[np.arange(len(targets)), targets].mean())


@mean_bits.wrong("That is the sum over the text. Divide by T for the mean, bits per token.")
def summed(p, targets):
    return -np.log2(p[np.arange(len(targets)), targets]).sum()


@mean_bits.wrong(
    "That is the entropy of the prediction, how unsure it is. It never looks at what came: a "
    "confident wrong guess must cost more than a confident right one."
)
def entropy_of_p(p, targets):
    return -(p * np.log2(p)).sum(axis=1).mean()


@mean_bits.wrong(
    "That is the perplexity, 2 to the power of the answer. Stop one step earlier, at the bits."
)
def perplexity(p, targets):
    return 2 ** mean_bits.solve(p, targets)


@mean_bits.wrong(
    "p was taken for logits and sent through a softmax again. Its rows already sum to 1."
)
def softmax_again(p, targets):
    e = np.exp(p)
    q = e / e.sum(axis=1, keepdims=True)
    return mean_bits.solve(q, targets)


@mean_bits.wrong("That is the surprise at each position. The question asks for their mean.")
def not_averaged(p, targets):
    return -np.log2(p[np.arange(len(targets)), targets])


@mean_bits.wrong(
    "`p[:, targets]` takes every target at every position, a (T, T) table. Pair each row with its "
    "own target: `p[np.arange(T), targets]`."
)
def every_target_everywhere(p, targets):
    return -np.log2(p[:, targets]).mean()


@mean_bits.wrong(
    "The surprise at the likeliest token was taken. What counts is the token that came."
)
def at_the_likeliest(p, targets):
    return -np.log2(p.max(axis=1)).mean()


@mean_bits.wrong("Average over the T positions; the division here was by the vocabulary size V.")
def divided_by_v(p, targets):
    return -np.log2(p[np.arange(len(targets)), targets]).sum() / p.shape[1]


@mean_bits.wrong(
    "`cross_entropy` expects logits: it sent your probabilities through another softmax, and gives "
    "nats. Here p is already made of probabilities."
)
def cross_entropy_of_probabilities(p, targets):
    return torch.nn.functional.cross_entropy(p, targets)


@mean_bits.wrong("These are decimal digits: the logarithm has base 10. For bits, take base 2.")
def digits(p, targets):
    return -np.log10(p[np.arange(len(targets)), targets]).mean()


@mean_bits.wrong(
    "The mean ran over all T·V places of a table that is zero but for one place in each row. Add "
    "up, then divide by T."
)
def divided_by_everything(p, targets):
    return -np.log2(p[np.arange(len(targets)), targets]).sum() / p.size


@mean_bits.wrong("`nll_loss` takes logarithms of probabilities. Give it the base-2 logarithm of p.")
def no_logarithm(p, targets):
    return -p[np.arange(len(targets)), targets].mean()


@mean_bits.wrong("That is the sum, in nats. Average over T, and take the logarithm to base 2.")
def summed_nats(p, targets):
    return -np.log(p[np.arange(len(targets)), targets]).sum()


@mean_bits.wrong("Divided by ln 2 twice: `np.log2` already gives bits.")
def converted_twice(p, targets):
    return -np.log2(p[np.arange(len(targets)), targets]).mean() / np.log(2)


@mean_bits.wrong(
    "The targets are shifted: prediction t was held against the token after it. Here row t of p "
    "already belongs to targets[t]."
)
def shifted(p, targets):
    return -np.log2(p[np.arange(len(targets) - 1), targets[1:]]).mean()


@mean_bits.wrong(
    "0.693 is ln 2 rounded, and the error shows. Use `np.log2`, or divide by `np.log(2)`."
)
def rounded_ln_2(p, targets):
    return -np.log(p[np.arange(len(targets)), targets]).mean() / 0.693
