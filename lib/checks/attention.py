"""Chapter 2: softmax, one head of attention, masks, cross-attention, blocks, cost.

Inputs are drawn so that no softmax saturates: where one weight is nearly 1, an answer without
the scale, with the wrong scale, and one that takes the best key alone all give the same.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from lib import reference
from lib.checks.framework import exercise


def scaled(q, k):
    """The scores, for answers below: q (T, D), k (S, D) -> (T, S)."""
    return q @ k.T / np.sqrt(q.shape[1])


def share(e):
    """Rows divided by their sums, also where that is 0/0."""
    return e / e.sum(axis=-1, keepdims=True)


def mix(scores, v, axis=-1):
    """What follows the scores: (T, S), v (S, Dv) -> (T, Dv); zeros where all scores are -inf."""
    return reference.softmax(scores, axis=axis) @ v


def mistakes(ex, *rows):
    """Registers known mistakes of one expression each: a name, the answer, what to say."""
    for name, answer, what in rows:
        answer.__name__ = name
        ex.wrong(what)(answer)


# 1


def some_scores():
    """Matrices (square too), a vector, a batch; large, far apart, negative."""
    rng = np.random.default_rng(0)
    plain = [(rng.normal(0, 2, size=shape),) for shape in [(2, 3), (3, 3), (4,), (2, 3, 4)]]
    return [
        *plain,
        (rng.normal(1000, 2, size=(3, 2)),),
        (rng.normal(0, 2, size=(3, 4)) + np.array([[-1000.0], [0.0], [1000.0]]),),
        (np.array([[-900.0, 0.0, 900.0], [0.0, 1.0, 2.0]]),),
    ]


@exercise(
    title="A softmax that does not overflow",
    difficulty="easy",
    minutes=5,
    cases=some_scores,
    hints=(
        "exp(1000) is inf. Subtracting the same number from all scores of a row changes nothing: "
        "exp(z - c) / sum(exp(z - c)) has exp(-c) above and below.",
        "Take each row's own maximum as that number: then the largest exponent is exp(0) = 1.",
        "z.max(axis=-1, keepdims=True) keeps the last axis with size 1, so that it fits z again. "
        "The sum needs the same.",
    ),
)
def softmax(z):
    """z (..., n) -> probabilities (..., n), which sum to 1 along the last axis."""
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@softmax.right
def softmax_of_torch(z):
    return torch.softmax(z, dim=-1)


@softmax.right
def softmax_by_hand_in_torch(z):
    e = (z - z.max(-1, keepdim=True).values).exp()
    return e / e.sum(-1, keepdim=True)


@softmax.right
def softmax_by_logarithms(z):
    return np.exp(z - np.logaddexp.reduce(z, axis=-1, keepdims=True))


@softmax.right
def softmax_row_by_row(z):
    rows = [[np.exp(s - max(row)) for s in row] for row in z.reshape(-1, z.shape[-1])]
    return np.array([[e / sum(row) for e in row] for row in rows]).reshape(z.shape)


@softmax.wrong(
    "Without `keepdims=True` (in torch `keepdim=True`) the rows' maxima and sums, shape (T,), line "
    "up with the columns. A square matrix comes out wrong without a word, others raise."
)
def softmax_without_keepdims(z):
    e = np.exp(z - z.max(axis=-1))
    return e / e.sum(axis=-1)


@softmax.wrong(
    "The maxima keep their axis, the sums do not: they line up with the columns. `e.sum(...)` "
    "needs `keepdims=True` as well."
)
def sum_without_keepdims(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1)


mistakes(
    softmax,
    ("one_maximum", lambda z: share(np.exp(z - z.max())),
     "One maximum of the whole array was subtracted. Where rows lie far apart, all of a low row "
     "underflows to exp(-1000) = 0, and 0/0 is NaN: give each row its own, `z.max(axis=-1, ...)`."),
    ("unstable", lambda z: share(np.exp(z)),
     "No maximum is subtracted: exp(1000) is inf, and inf/inf is NaN. Subtract each row's largest "
     "score first, which cancels in the fraction."),
    ("one_sum", lambda z: softmax.solve(z.ravel()).reshape(z.shape),
     "Everything together sums to 1. Each row should sum to 1 by itself: say `axis=-1` in the "
     "sum."),
    ("maxima_of_columns", lambda z: share(np.exp(z - z.max(axis=0))),
     "The maxima are those of the columns: `axis=0`. Each row needs one number of its own to "
     "subtract: `z.max(axis=-1, keepdims=True)`."),
    ("minus_the_mean", lambda z: share(np.exp(z - z.mean(axis=-1, keepdims=True))),
     "The row's mean was subtracted. Scores far above it still overflow: only the maximum makes "
     "every exponent 0 or less."),
    ("minus_the_minimum", lambda z: share(np.exp(z - z.min(axis=-1, keepdims=True))),
     "The row's minimum was subtracted, so all exponents are 0 or more and large ones overflow. "
     "Subtract the maximum."),
    ("clipped", lambda z: share(np.exp(np.clip(z, -500, 500))),
     "Large scores were cut off and became equal. Subtracting the row's maximum keeps "
     "differences."),
    ("down_the_columns", lambda z: reference.softmax(z, axis=0),
     "The columns sum to 1: `axis=0` runs down. The scores of one query lie along the last axis, "
     "`axis=-1`."),
    ("second_axis", lambda z: reference.softmax(z, axis=1),
     "`axis=1` is the last axis of a matrix only. For a vector it does not exist and in a batch it "
     "is another one: `axis=-1` is always the last."),
    ("only_above",
     lambda z: np.exp(z - z.max(axis=-1, keepdims=True)) / np.exp(z).sum(axis=-1, keepdims=True),
     "The maximum was subtracted above the fraction line and not below. Both need the same: "
     "compute `e` once and divide it by its own sum."),
    ("divided_by_the_maximum", lambda z: reference.softmax(z / z.max(axis=-1, keepdims=True)),
     "The scores were divided by the maximum. That is a temperature and changes the weights; "
     "subtract it, which cancels."),
    ("only_exponentials", lambda z: np.exp(z - z.max(axis=-1, keepdims=True)),
     "The exponentials are not divided by their sum yet, so a row does not sum to 1."),
    ("no_exponential", lambda z: z / z.sum(axis=-1, keepdims=True),
     "The scores were divided by their sum, without exp: a negative score makes a negative "
     "weight."),
    ("log_softmax", lambda z: torch.log_softmax(z, dim=-1),
     "These are the logarithms of the probabilities: take `exp`, and the rows sum to 1."),
)  # fmt: skip


@softmax.property("Every row should sum to 1, along the last axis.")
def rows_sum_to_one(out, z):
    return np.allclose(out.sum(axis=-1), 1)


# 2


def queries_keys_values(seed, sizes):
    rng = np.random.default_rng(seed)
    return [
        (rng.normal(size=(T, D)), rng.normal(size=(S, D)), rng.normal(size=(S, Dv)))
        for T, S, D, Dv in sizes
    ]


def one_head():
    """All axes differ; in one case all agree, where a wrong axis raises no error."""
    sizes = [(2, 3, 4, 1), (4, 4, 4, 4), (3, 5, 2, 4), (5, 2, 3, 6), (1, 6, 5, 2), (3, 4, 6, 3)]
    return queries_keys_values(1, sizes)


@exercise(
    title="One head of attention",
    difficulty="medium",
    minutes=8,
    cases=one_head,
    axes="T Dv",
    hints=(
        "Three steps: scores (T, S), weights (T, S), output (T, Dv). Which product gives (T, S)?",
        "scores = q @ k.T / np.sqrt(D), with D the width of a query: q.shape[-1].",
        "Each query's weights sum to 1 over the keys, axis -1; the output is weights @ v.",
    ),
)
def attention(q, k, v):
    """q (T, D), k (S, D), v (S, Dv) -> (T, Dv): softmax(q kᵀ / √D) v."""
    scores = q @ k.T / np.sqrt(q.shape[-1])  # (T, D) @ (D, S) -> (T, S)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights @ v  # (T, S) @ (S, Dv) -> (T, Dv)


@attention.right
def attention_of_torch(q, k, v):
    return F.scaled_dot_product_attention(q[None], k[None], v[None])[0]


@attention.right
def attention_by_einsum(q, k, v):
    weights = torch.softmax(torch.einsum("td,sd->ts", q * k.size(1) ** -0.5, k), dim=1)
    return torch.einsum("ts,se->te", weights, v)


@attention.right
def attention_by_loops(q, k, v):
    out = np.zeros((len(q), v.shape[1]))
    for t, query in enumerate(q):
        e = [np.exp(query @ key / len(query) ** 0.5) for key in k]
        out[t] = sum(w / sum(e) * value for w, value in zip(e, v))
    return out


mistakes(
    attention,
    ("no_scale", lambda q, k, v: mix(q @ k.T, v),
     "The scores are not divided by √D. Dot products grow with the width, and the softmax grows "
     "too sure: look at the line before it."),
    ("divided_by_d", lambda q, k, v: mix(q @ k.T / q.shape[1], v),
     "The scores are divided by D, not by its square root. Their standard deviation grows as √D, "
     "so D makes all weights nearly equal."),
    ("over_the_queries", lambda q, k, v: mix(scaled(q, k), v, axis=0),
     "The softmax runs over the queries: each column of the weights sums to 1. Each *query* shares "
     "out its attention over the keys: the last axis of (T, S), `axis=-1`."),
    ("best_key_only", lambda q, k, v: v[(q @ k.T).argmax(axis=1)],
     "Each query takes the value of its best key alone. That is the exact dictionary; the soft one "
     "mixes all values by softmax weights."),
    ("no_softmax", lambda q, k, v: scaled(q, k) @ v,
     "The values are mixed by the scores themselves. A softmax between the two makes each query's "
     "weights positive, with sum 1."),
    ("scaled_by_values", lambda q, k, v: mix(q @ k.T / np.sqrt(v.shape[1]), v),
     "The scale is √Dv, from the width of the values. The scores are dot products of D numbers: "
     "the width of q and k counts."),
    ("scaled_by_queries", lambda q, k, v: mix(q @ k.T / np.sqrt(len(q)), v),
     "The scale is √T: `q.shape[0]` and `len(q)` count the queries. The width of a query is "
     "`q.shape[-1]`."),
    ("scaled_by_keys", lambda q, k, v: mix(q @ k.T / np.sqrt(len(k)), v),
     "The scale is √S: `k.shape[0]` and `scores.shape[-1]` count the keys. What was summed in a "
     "score is D numbers: `k.shape[-1]`."),
    ("scaled_up", lambda q, k, v: mix(q @ k.T * np.sqrt(q.shape[1]), v),
     "The scores are multiplied by √D. Divide by it, so that their variance stays at 1."),
    ("scaled_after_the_softmax", lambda q, k, v: mix(q @ k.T, v) / np.sqrt(q.shape[1]),
     "√D divides the weights, not the scores. It belongs before the softmax; after it, each row "
     "sums to 1/√D."),
    ("transposed_weights", lambda q, k, v: reference.softmax(scaled(q, k)).T @ v,
     "The values are mixed by the transposed weights, so key and query have changed places. Each "
     "*row* of `weights` mixes the values: `weights @ v`."),
    ("reshaped_keys",
     lambda q, k, v: mix(q @ k.reshape(k.shape[1], k.shape[0]) / np.sqrt(q.shape[1]), v),
     "The keys were reshaped to (D, S). Reshape keeps the order of the numbers and tears the "
     "vectors apart; `k.T` is what swaps the axes."),
    ("keys_not_transposed", lambda q, k, v: mix(q @ k / np.sqrt(q.shape[1]), v),
     "`q @ k` sums D of q against S of k. The axis they share is D, the last of both: `q @ k.T`."),
    ("only_weights", lambda q, k, v: reference.softmax(scaled(q, k)),
     "These are the weights, (T, S). One step is missing: they mix the values, `weights @ v`."),
    ("keys_mixed", lambda q, k, v: mix(scaled(q, k), k),
     "The keys are mixed, not the values. Keys only say where to look."),
    ("one_softmax", lambda q, k, v: softmax.solve(scaled(q, k).ravel()).reshape(len(q), -1) @ v,
     "One softmax runs over all scores together. Each query has 1 to give: normalise every row by "
     "itself, `axis=-1`."),
    ("queries_and_keys_swapped", lambda q, k, v: mix(scaled(k, q), v),
     "The keys ask and the queries answer: `k @ q.T` is (S, T). Each row of scores belongs to one "
     "query: `q @ k.T`."),
    ("sums_without_keepdims",
     lambda q, k, v: np.exp(scaled(q, k)) / np.exp(scaled(q, k)).sum(axis=-1) @ v,
     "The sums of the softmax, shape (T,), line up with the keys. `keepdims=True` makes them "
     "(T, 1), one for each row."),
    ("two_softmaxes", lambda q, k, v: mix(reference.softmax(scaled(q, k)), v),
     "There are two softmaxes, one upon the other, and the weights are nearly uniform. One is "
     "enough."),
    ("not_normalised", lambda q, k, v: np.exp(scaled(q, k)) @ v,
     "The weights are exponentials that are not divided by their sum over the keys."),
)  # fmt: skip


@attention.property(
    "An output is an average of values: never above the largest or below the least."
)
def within_the_values(out, q, k, v):
    return (out <= v.max(axis=0) + 1e-6).all() and (out >= v.min(axis=0) - 1e-6).all()


# 3


def lengths():
    return [(2, 3), (3, 3), (1, 4), (2, 5), (4, 6), (5, 5)]


def seen(mask):
    """A mask in any common form, as 1 and 0: booleans, 1 and 0, or 0 and a large negative.

    All 0 hides everything as booleans; as numbers to be added it hides nothing.
    """
    try:
        m = np.asarray(mask)
        if m.dtype.kind in "iuf" and ((m == 0) | (m <= -1e4)).all():
            return (m == 0).astype(int)
        return m.astype(int) if np.isin(m, (0, 1)).all() else mask
    except Exception:
        return mask


@exercise(
    title="The causal mask",
    difficulty="medium",
    minutes=5,
    cases=lengths,
    axes="T S",
    canonical=seen,
    hints=(
        "Begin with T = S. Which keys may the first query see, and which the last?",
        "With T < S the queries are the *last* T of S positions: query t stands at S - T + t.",
        "Compare positions: np.arange(S) <= np.arange(S - T, S)[:, None]. Or np.tri with k=S - T.",
    ),
)
def causal_mask(T, S):
    """T queries, the last of S positions -> (T, S) booleans, True where the key may be seen."""
    return np.arange(S) <= np.arange(S - T, S)[:, None]


@causal_mask.right
def mask_by_tril(T, S):
    return torch.ones(T, S, dtype=torch.bool).tril(diagonal=S - T)


@causal_mask.right
def mask_in_ones(T, S):
    return np.tri(T, S, k=S - T)


@causal_mask.right
def mask_to_add(T, S):
    return torch.full((T, S), float("-inf")).triu(1 + S - T)


@causal_mask.right
def mask_of_large_negatives(T, S):
    return [[0 if s <= S - T + t else -(10**9) for s in range(S)] for t in range(T)]


mistakes(
    causal_mask,
    ("diagonal_hidden", lambda T, S: np.tri(T, S, k=S - T - 1, dtype=bool),
     "The diagonal is hidden too: a query does not see its own position, and the first one sees "
     "nothing. Own and earlier: `<=`, not `<`."),
    ("top_left", lambda T, S: np.tri(T, S, dtype=bool),
     "The mask is aligned at the top left, right for T = S only. The queries are the *last* T of S "
     "positions, so query t sees S - T more keys: `tril(diagonal=S - T)`."),
    ("inverted", lambda T, S: ~causal_mask.solve(T, S),
     "Inverted: True stands where a key is hidden. Here True means *may be seen*; put `~` before "
     "it."),
    ("inverted_ones", lambda T, S: 1.0 - causal_mask.solve(T, S),
     "Inverted: 1 stands where a key is hidden. Here 1, or True, means *may be seen*: take the "
     "lower triangle."),
    ("as_in_many_posts", lambda T, S: np.triu(np.ones((T, S), dtype=bool), 1),
     "That is `triu(1)` as many posts have it: True where hidden, and aligned at the top left. "
     "Here True means *may be seen*, and the queries are the last T of S: `tril(diagonal=S - T)`."),
    ("future_visible", lambda T, S: np.triu(np.ones((T, S), dtype=bool), S - T),
     "The upper triangle is visible: each query sees itself and the future. The past is to the "
     "left of the diagonal: `tril`, not `triu`."),
    ("future_from_the_top_left", lambda T, S: np.triu(np.ones((T, S), dtype=bool)),
     "The upper triangle is visible, and it begins at the top left. The past is `tril`, and with T "
     "queries at the end of S positions its diagonal is S - T."),
    ("square_of_keys", lambda T, S: np.tri(S, dtype=bool),
     "Square: (S, S) has a row for every position, and only the last T of them are queries. Keep "
     "the last T rows."),
    ("square_of_queries", lambda T, S: np.tri(T, dtype=bool),
     "Square: (T, T) has no room for the S - T keys before the first query. All of those are "
     "visible: the mask is (T, S)."),
    ("one_key_ahead", lambda T, S: np.tri(T, S, k=S - T + 1, dtype=bool),
     "Each query sees one key of its future: the diagonal is one too far. Query t stands at "
     "position S - T + t, and that is the last it sees."),
    ("wrong_sign", lambda T, S: np.tri(T, S, k=T - S, dtype=bool),
     "The offset has the wrong sign: T - S takes keys away. Each query has S - T *more* before "
     "it."),
    ("transposed_mask", lambda T, S: causal_mask.solve(T, S).T,
     "Transposed: (S, T) has keys on the rows. Queries belong on the rows: (T, S)."),
    ("all_visible", lambda T, S: np.ones((T, S), dtype=bool),
     "All keys are visible, the future among them. Hide key s > S - T + t."),
    ("minus_infinity_times_zero", lambda T, S: (1.0 - causal_mask.solve(T, S)) * -np.inf,
     "0 · -inf is NaN, so multiplying by -inf spoils the visible places. Choose with `np.where`, "
     "or give the booleans."),
)  # fmt: skip


@causal_mask.property(
    "A mask should hold True and False (or 1 and 0, or 0 and -inf) and nothing else."
)
def yes_or_no(out, T, S):
    return np.isin(out, (0, 1)).all()


@causal_mask.property("Every query should see its own position: key S - T + t for query t.")
def sees_itself(out, T, S):
    return all(out[t, S - T + t] for t in range(T))


@causal_mask.property("No query should see a key after its own position, S - T + t.")
def sees_no_future(out, T, S):
    return not any(out[t, S - T + t + 1 :].any() for t in range(T))


# 4


def padded():
    """Padding right, left and amid; one key visible; none; and a case with T = S = D = Dv."""
    sizes = [(2, 3, 4, 1), (3, 3, 3, 3), (2, 4, 3, 5), (3, 5, 2, 4), (4, 2, 3, 5), (3, 4, 2, 5)]
    masks = ["110", "011", "1010", "11101", "01", "0000"]
    return [
        (*qkv, np.array([c == "1" for c in mask]))
        for qkv, mask in zip(queries_keys_values(2, sizes), masks)
    ]


def hide(q, k, v, hidden, instead=-np.inf):
    """Attention with some scores replaced, for answers below."""
    return mix(np.where(hidden, instead, scaled(q, k)), v)


def bare(scores, v):
    """Mixing with a softmax that gives NaN where all scores are -inf."""
    return share(np.exp(scores - scores.max(axis=-1, keepdims=True))) @ v


@exercise(
    title="Attention past the padding",
    difficulty="hard",
    minutes=10,
    cases=padded,
    axes="T Dv",
    hints=(
        "Hiding must come before the softmax, so that the weights of the others still sum to 1. "
        "Which score gives weight exp(score) = 0?",
        "scores has shape (T, S) and `visible` (S,): it lines up with the keys. "
        "np.where(visible, scores, -np.inf) does all rows.",
        "With nothing visible, -inf minus the maximum -inf is NaN. Ask `visible.any()` first and "
        "return zeros of shape (T, Dv).",
    ),
)
def masked_attention(q, k, v, visible):
    """q (T, D), k (S, D), v (S, Dv), visible (S,) booleans -> (T, Dv); zeros if none is visible."""
    if not visible.any():
        return np.zeros((len(q), v.shape[1]))
    scores = q @ k.T / np.sqrt(q.shape[-1])  # (T, S)
    scores = np.where(visible, scores, -np.inf)  # (S,) lines up with the keys
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights @ v


@masked_attention.right
def padding_of_torch(q, k, v, visible):
    mask = visible.expand(len(q), len(k))
    return F.scaled_dot_product_attention(q[None], k[None], v[None], attn_mask=mask)[0]


@masked_attention.right
def nan_to_zero(q, k, v, visible):
    scores = (q @ k.T / q.shape[1] ** 0.5).masked_fill(~visible, float("-inf"))
    return torch.softmax(scores, dim=-1).nan_to_num() @ v


@masked_attention.right
def visible_keys_only(q, k, v, visible):
    return torch.softmax(q @ k[visible].T / q.shape[1] ** 0.5, dim=-1) @ v[visible]


@masked_attention.right
def normalised_again(q, k, v, visible):
    weights = np.exp(q @ k.T / np.sqrt(q.shape[1])) * visible
    return weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-30) @ v


mistakes(
    masked_attention,
    ("rows_hidden", lambda q, k, v, visible: hide(q, k, v, ~visible[:, None]),
     "Rows of queries are hidden, not columns of keys: `visible[:, None]` runs down the queries. "
     "`visible` belongs to the S keys, the last axis of the scores: no `[:, None]`."),
    ("rows_of_nan",
     lambda q, k, v, visible: bare(np.where(visible[:, None], scaled(q, k), -np.inf), v),
     "Rows of queries are hidden, which leaves them with nothing to read, NaN. `visible` belongs "
     "to the S keys, the last axis of the scores: no `[:, None]`."),
    ("nan_where_nothing_is_visible",
     lambda q, k, v, visible: bare(np.where(visible, scaled(q, k), -np.inf), v),
     "Right, until nothing is visible: -inf minus the maximum -inf is NaN, and so is 0/0. Such a "
     "query gets zeros: look before the softmax, or mend after it."),
    ("nothing_left", lambda q, k, v, visible: bare(scaled(q, k[visible]), v[visible]),
     "Right, until nothing is visible: no key is left, and NumPy takes no maximum of nothing. Ask "
     "`visible.any()` first and return zeros."),
    ("uniform_where_nothing_is_visible", lambda q, k, v, visible: hide(q, k, v, ~visible, -1e9),
     "Right, until nothing is visible: with one large negative number everywhere the softmax is "
     "uniform, and hidden values are averaged. Such a query gets zeros: look before the softmax."),
    ("zeros_after_the_softmax",
     lambda q, k, v, visible: reference.softmax(scaled(q, k)) * visible @ v,
     "Hidden weights (or values) are set to 0 *after* the softmax, so the rest sums to less than "
     "1. Hide before it, with -inf among the scores."),
    ("zeros_before_the_softmax", lambda q, k, v, visible: hide(q, k, v, ~visible, 0.0),
     "Hidden scores (or keys) become 0, and exp(0) = 1 is a weight like any other. The score that "
     "gives weight 0 is -inf."),
    ("zeros_before_the_softmax_but_guarded",
     lambda q, k, v, visible: hide(q, k, v, ~visible, 0.0) * visible.any(),
     "Hidden scores become 0, and exp(0) = 1 is a weight like any other; only where nothing is "
     "visible the output is right. The score that gives weight 0 is -inf."),
    ("inverted_padding", lambda q, k, v, visible: hide(q, k, v, visible),
     "Inverted: the padding is read and the text is hidden. True means *may be seen*; -inf goes "
     "where `visible` is False."),
    ("inverted_but_guarded", lambda q, k, v, visible: hide(q, k, v, visible) * visible.any(),
     "Inverted: the hidden keys are the ones that are read, apart from the case with nothing "
     "visible. True means *may be seen*: -inf goes where `visible` is False."),
    ("booleans_added", lambda q, k, v, visible: mix(scaled(q, k) + visible, v),
     "The booleans were added to the scores, and True counts as 1: a hidden key is only a little "
     "less likely. Turn False into -inf first."),
    ("mask_ignored", lambda q, k, v, visible: mix(scaled(q, k), v),
     "Every key is read: `visible` changes nothing. Give hidden scores -inf."),
    ("only_all_or_nothing", lambda q, k, v, visible: mix(scaled(q, k), v) * visible.any(),
     "Every key is read, except that nothing visible gives zeros. Some keys hidden and others not "
     "is the usual case: give hidden scores -inf."),
    ("padding_without_scale",
     lambda q, k, v, visible: hide(q * np.sqrt(q.shape[1]), k, v, ~visible),
     "The mask is right; the scores are not divided by √D."),
    ("infinity_times_zero",
     lambda q, k, v, visible: bare(scaled(q, k) + (1 - visible) * -np.inf, v),
     "0 · -inf is NaN, so `(1 - visible) * -np.inf` spoils the visible keys too. Choose with "
     "`np.where`; and where nothing is visible, return zeros."),
    ("infinity_times_zero_but_guarded",
     lambda q, k, v, visible: mix(scaled(q, k) + (1 - visible) * -np.inf, v),
     "0 · -inf is NaN, so `(1 - visible) * -np.inf` spoils the visible keys too. Choose with "
     "`np.where` in place of the product."),
    ("infinity_after_the_softmax",
     lambda q, k, v, visible: np.where(visible, reference.softmax(scaled(q, k)), -np.inf) @ v,
     "-inf was put among the weights, after the softmax. It belongs among the scores, where exp "
     "turns it into 0."),
)  # fmt: skip


@masked_attention.property("Where nothing is visible the output should be zeros.")
def nothing_visible_gives_zeros(out, q, k, v, visible):
    return visible.any() or not out.any()


# 5


def two_sequences():
    """T below, above and equal to S; one square case in which every axis agrees."""
    rng = np.random.default_rng(3)
    sizes = [(1, 2, 3, 2, 1), (4, 4, 4, 4, 4), (2, 5, 4, 3, 6), (5, 3, 2, 4, 3), (3, 6, 5, 2, 4)]
    return [
        (
            rng.normal(size=(T, C)),
            rng.normal(size=(S, C)),
            *(rng.normal(0, C**-0.5, size=(C, width)) for width in (D, D, Dv)),
        )
        for T, S, C, D, Dv in sizes
    ]


@exercise(
    title="Cross-attention",
    difficulty="medium",
    minutes=8,
    cases=two_sequences,
    axes="T Dv",
    hints=(
        "The output has one row for each token of x: so x asks. What is offered and handed over "
        "comes from the other sequence.",
        "q = x @ wq, k = context @ wk, v = context @ wv. Which shapes do they have?",
        "From there on it is attention(q, k, v) as before: scores (T, S), divided by √D.",
    ),
)
def cross_attention(x, context, wq, wk, wv):
    """x (T, C), context (S, C), wq and wk (C, D), wv (C, Dv) -> (T, Dv): x reads the context."""
    q, k, v = x @ wq, context @ wk, context @ wv
    scores = q @ k.T / np.sqrt(q.shape[-1])  # (T, S)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights @ v


@cross_attention.right
def cross_of_torch(x, context, wq, wk, wv):
    q, k, v = x @ wq, context @ wk, context @ wv
    return F.scaled_dot_product_attention(q[None], k[None], v[None])[0]


@cross_attention.right
def values_mapped_last(x, context, wq, wk, wv):
    scores = np.einsum("tc,cd,ed,se->ts", x, wq, wk, context) / wq.shape[1] ** 0.5
    return mix(scores, context) @ wv


mistakes(
    cross_attention,
    ("from_x_alone", lambda x, c, wq, wk, wv: attention.solve(x @ wq, x @ wk, x @ wv),
     "Keys and values come from x: that is self-attention, and the context is never read. Only the "
     "queries come from x: `context @ wk`, `context @ wv`."),
    ("from_the_context_alone", lambda x, c, wq, wk, wv: attention.solve(c @ wq, c @ wk, c @ wv),
     "Everything comes from the context, so x is never asked. The output has a row for each token "
     "of x: its queries are `x @ wq`."),
    ("sides_swapped", lambda x, c, wq, wk, wv: attention.solve(c @ wq, x @ wk, x @ wv),
     "The two sides are swapped: the context asks and x answers. The output has T rows, one for "
     "each token of x, so the queries come from x."),
    ("values_from_x", lambda x, c, wq, wk, wv: attention.solve(x @ wq, c @ wk, x @ wv),
     "The values come from x, the keys from the context. What a key is found for is handed over by "
     "the same token: `context @ wv`."),
    ("keys_from_x", lambda x, c, wq, wk, wv: attention.solve(x @ wq, x @ wk, c @ wv),
     "The keys come from x, the values from the context. Scores compare x with the *context*: "
     "`context @ wk`."),
    ("context_cut_to_x", lambda x, c, wq, wk, wv: cross_attention.solve(x, c[: len(x)], wq, wk, wv),
     "Only as many context tokens are read as x has: this assumes T = S. All S keys count, also "
     "where S is larger."),
    ("loop_to_the_wrong_end",
     lambda x, c, *w: cross_attention.solve(x, np.array([c[s] for s in range(len(x))]), *w),
     "A loop over the keys runs to T, the length of x: this assumes T = S. Let it run over the "
     "context, `range(len(context))`."),
    ("joined", lambda x, c, *w: cross_attention.solve(x, np.concatenate([x, c]), *w),
     "x and context were joined, so x reads itself as well. In cross-attention keys and values "
     "come from the context alone."),
    ("maps_transposed", lambda x, c, wq, wk, wv: cross_attention.solve(x, c, wq.T, wk.T, wv.T),
     "A map is transposed. Here wq, wk and wv are (C, D), so `x @ wq` as it stands; `x @ w.T` fits "
     "the (out, in) layout of `torch.nn.Linear`."),
    ("query_and_key_maps_swapped", lambda x, c, wq, wk, wv: cross_attention.solve(x, c, wk, wq, wv),
     "wk and wq have changed places: queries are x @ wq, keys context @ wk."),
    ("key_and_value_maps_swapped", lambda x, c, wq, wk, wv: cross_attention.solve(x, c, wq, wv, wk),
     "wk and wv have changed places: keys are context @ wk, values context @ wv."),
    ("one_map_for_both", lambda x, c, wq, wk, wv: attention.solve(x @ wq, c @ wq, c @ wv),
     "The keys were made with wq. They have a map of their own: `context @ wk`."),
    ("context_not_mapped", lambda x, c, wq, wk, wv: attention.solve(x @ wq, c @ wk, c),
     "The context itself is mixed. What is handed over are the values: `weights @ (context @ "
     "wv)`."),
    ("causal_across",
     lambda x, c, wq, wk, wv: mix(
         np.where(np.tri(len(x), len(c)), scaled(x @ wq, c @ wk), -np.inf), c @ wv
     ),
     "A causal mask hides part of the context. The whole source is known before the first word is "
     "written: every query may see all of it."),
    ("cross_without_scale", lambda x, c, wq, wk, wv: mix(x @ wq @ (c @ wk).T, c @ wv),
     "The scores are not divided by √D, D the width of q and k."),
    ("cross_divided_by_d",
     lambda x, c, wq, wk, wv: mix(x @ wq @ (c @ wk).T / wq.shape[1], c @ wv),
     "The scores are divided by D, not by its square root."),
    ("scaled_by_the_model",
     lambda x, c, wq, wk, wv: mix(x @ wq @ (c @ wk).T / np.sqrt(x.shape[1]), c @ wv),
     "The scale is √C, the width of the model. Only the width of q and k counts, which the scores "
     "are summed over: √D."),
    ("cross_over_the_queries", lambda x, c, wq, wk, wv: mix(scaled(x @ wq, c @ wk), c @ wv, axis=0),
     "The softmax runs over the tokens of x. Each of them shares out its attention over the "
     "context: `axis=-1`."),
)  # fmt: skip


# 6


@dataclass(frozen=True)
class Layer:
    """A map of sequences (T, C) with a name to show; it takes NumPy arrays and torch tensors."""

    name: str
    compute: Callable

    def __call__(self, x):
        out = np.array(self.compute(np.asarray(x)))
        return torch.from_numpy(out) if isinstance(x, torch.Tensor) else out

    def __repr__(self) -> str:
        return f"<{self.name}>"


def self_attention(x, causal=False):
    scores = x @ x.T / np.sqrt(x.shape[1])
    return mix(np.where(np.tri(len(x)), scores, -np.inf) if causal else scores, x)


def running_mean(x):
    """The mean by adding row after row: another order of rows rounds differently."""
    return list(itertools.accumulate(x))[-1] / len(x)


DOUBLE = Layer("each row doubled", lambda x: 2 * x)
ATTEND = Layer("self-attention", self_attention)
CAUSAL = Layer("causal self-attention", lambda x: self_attention(x, causal=True))
PLACED = Layer("a little of its position added to each row", lambda x: x + 1e-3 * place(x))
SORTED = Layer("rows sorted by their first number", lambda x: x[x[:, 0].argsort()])
REVERSE = Layer("rows in reverse order", lambda x: x[::-1])
NEIGHBOUR = Layer("each row plus the one before it, in a ring", lambda x: x + np.roll(x, 1, 0))
POOL = Layer("the mean of all rows, in every row", lambda x: np.tile(x.mean(axis=0), (len(x), 1)))
CENTRE = Layer("the mean of all rows subtracted", lambda x: x - running_mean(x))
KEEP = Layer("the first row kept, the others doubled", lambda x: x * (1 + (place(x) > 0)))
FIRST = Layer("the first row, in every row", lambda x: np.tile(x[0], (len(x), 1)))
RISING = Layer("the largest number of each column so far", np.maximum.accumulate)


def place(x):
    return np.arange(len(x))[:, None]


def maps_and_permutations():
    """Both answers for most maps; permutations that are their own inverse, and others."""
    rng = np.random.default_rng(4)
    cases = [
        (DOUBLE, 1, [1, 2, 0]),
        (SORTED, 2, [1, 2, 0]),
        (ATTEND, 3, [2, 0, 3, 4, 1]),
        (CAUSAL, 3, [2, 0, 3, 4, 1]),
        (CAUSAL, 2, [0, 1, 2]),
        (PLACED, 1, [1, 3, 0, 2]),
        (REVERSE, 2, [1, 2, 0]),
        (REVERSE, 3, [3, 2, 1, 0]),
        (NEIGHBOUR, 2, [1, 2, 3, 0]),
        (NEIGHBOUR, 2, [0, 2, 1, 3]),
        (POOL, 2, [2, 0, 1]),
        (FIRST, 2, [2, 0, 1]),
        (KEEP, 2, [0, 2, 3, 1]),
        (KEEP, 3, [3, 0, 1, 2]),
        (ATTEND, 4, [1, 0, 2, 3]),
        (CENTRE, 5, [6, 2, 0, 1, 5, 4, 3]),
    ]
    falling = (RISING, np.array([[3.0], [2.0], [1.0]]), np.array([2, 0, 1]))
    return [*((f, rng.normal(size=(len(p), C)), np.array(p)) for f, C, p in cases), falling]


@exercise(
    title="Is it equivariant?",
    difficulty="hard",
    minutes=8,
    cases=maps_and_permutations,
    hints=(
        "Two roads: shuffle the rows and apply f, or apply f and shuffle its rows. Equivariant "
        "means that both end at the same place.",
        "x[permutation] shuffles the rows of x; f(x)[permutation] shuffles those of the output in "
        "the same way.",
        "The roads add up in different orders, so the last digits differ: np.allclose, not ==.",
    ),
)
def is_equivariant(f, x, permutation):
    """f maps (T, C) to T rows, x (T, C), permutation (T,) -> whether the two commute."""
    return np.allclose(f(x[permutation]), f(x)[permutation])


@is_equivariant.right
def equivariant_in_torch(f, x, permutation):
    return torch.allclose(f(x[permutation]), f(x)[permutation])


@is_equivariant.right
def shuffled_and_back(f, x, permutation):
    back = np.argsort(permutation)
    return bool(np.abs(f(x[permutation])[back] - f(x)).max() < 1e-8)


@is_equivariant.right
def row_against_row(f, x, permutation):
    after, before = f(x[permutation]), f(x)
    return all(np.allclose(after[i], before[p]) for i, p in enumerate(permutation))


mistakes(
    is_equivariant,
    ("invariance", lambda f, x, p: np.allclose(f(x[p]), f(x)),
     "The input was permuted and the output was not: that asks for *invariance*, the same output "
     "in whatever order. Equivariant means that the output moves along: `f(x)[permutation]`."),
    ("output_alone", lambda f, x, p: np.allclose(f(x)[p], f(x)),
     "The output was permuted and the input was not. Compare with `f(x[permutation])`."),
    ("inverse_permutation", lambda f, x, p: np.allclose(f(x[p]), f(x)[np.argsort(p)]),
     "The inverse permutation was applied to the output. That agrees for a swap and not for a "
     "cycle of three: use `permutation` on both sides, or undo it with `np.argsort(permutation)`."),
    ("compared_exactly", lambda f, x, p: np.array_equal(f(x[p]), f(x)[p]),
     "The two were compared exactly. In another order sums round differently, and equal results "
     "differ in the last digit: use `np.allclose`."),
    ("shapes_alone", lambda f, x, p: f(x[p]).shape == f(x)[p].shape,
     "This says True of every map. Comparing shapes does that, or one thing with itself: compare "
     "all numbers of `f(x[permutation])` and `f(x)[permutation]`."),
    ("turned_round", lambda f, x, p: not np.allclose(f(x[p]), f(x)[p]),
     "The answer is turned round: True stands where the two differ."),
    ("signed_differences", lambda f, x, p: (f(x[p]) - f(x)[p]).max() < 1e-8,
     "Negative differences count as small here, whatever their size. Take `np.abs` first, or "
     "`np.allclose`."),
    ("invariant_and_equivariant",
     lambda f, x, p: all(np.allclose(f(x[p]), out) for out in (f(x), f(x)[p])),
     "Invariance was asked for on top. An equivariant map may move its rows, along with those of "
     "the input: compare with `f(x)[permutation]` alone."),
    ("sums_alone", lambda f, x, p: np.allclose(f(x[p]).sum(axis=0), f(x)[p].sum(axis=0)),
     "Only sums were compared, and a sum does not notice the order. Compare row by row."),
    ("somewhere_equal", lambda f, x, p: np.isclose(f(x[p]), f(x)[p]).any(),
     "It is enough here that *some* numbers agree. All must: `all`, not `any`."),
    ("too_loose", lambda f, x, p: np.allclose(f(x[p]), f(x)[p], atol=0.1),
     "The tolerance is so wide that a map which adds a little of the position passes. Rounding is "
     "about 1e-15 here; the defaults of `np.allclose` will do."),
    ("against_the_input", lambda f, x, p: np.allclose(f(x[p]), x[p]),
     "The shuffled output was compared with the shuffled *input*: that asks whether f does "
     "nothing. Its partner is `f(x)[permutation]`."),
    ("columns_permuted", lambda f, x, p: np.allclose(f(x[:, p]), f(x)[:, p]),
     "Columns were permuted, the features. The sequence runs along the rows: `x[permutation]`."),
    ("own_permutation", lambda f, x, p: np.allclose(f(x[::-1]), f(x)[::-1]),
     "The order was reversed, whatever `permutation` says. A map may commute with one permutation "
     "and not with another: use the one that is given."),
    ("either_will_do", lambda f, x, p: any(np.allclose(f(x[p]), out) for out in (f(x), f(x)[p])),
     "Invariant maps were let through as well. If the output stays where it was, it has not moved "
     "along: `f(x[permutation])` must equal `f(x)[permutation]`, nothing else."),
    ("many_booleans", lambda f, x, p: np.isclose(f(x[p]), f(x)[p]),
     "This gives one True or False for each number. One answer for all: `np.allclose`, or `.all()` "
     "at the end."),
)  # fmt: skip


# 7


def some_blocks():
    """Maxima that grow, fall, lie far apart and below zero; blocks of different sizes."""
    rng = np.random.default_rng(5)

    def blocks(Dv, sizes, tops, spread=1.0):
        return [
            (rng.normal(m, spread, size=b), rng.normal(size=(b, Dv))) for b, m in zip(sizes, tops)
        ]

    return [
        (blocks(1, [2, 2], [0, 2]),),
        (blocks(2, [3], [0]),),
        (blocks(3, [2, 4, 1], [0, 1, 3]),),
        (blocks(4, [3, 1, 2, 5], [2, 0, 1, -1]),),
        (blocks(2, [2, 2, 2], [1, 2, 0]),),
        (blocks(3, [2, 3], [1000, 1002]),),
        (blocks(2, [3, 2, 2], [-1000, -1002, -1001]),),
        (blocks(3, [2, 1], [-800, 800]),),
        (blocks(2, [1, 3], [800, -800]),),
    ]


@exercise(
    title="Softmax, one block at a time",
    difficulty="hard",
    minutes=15,
    cases=some_blocks,
    axes="Dv",
    hints=(
        "Three things are kept between blocks: the largest score m so far, the sum of exp(s - m), "
        "and the sum of exp(s - m) times the value.",
        "When a block raises the maximum, both sums were formed with the old one. "
        "Multiplying them by exp(m_old - m_new) brings them to the new one.",
        "Begin with m = -inf and both sums 0: exp(-inf) = 0 makes the first block need no case of "
        "its own. Divide once, at the end.",
    ),
)
def online_softmax(blocks):
    """[(scores (b,), values (b, Dv)), ...] -> (Dv,): softmax(all scores) @ all values."""
    m, total, out = -np.inf, 0.0, 0.0
    for scores, values in blocks:
        m_new = max(m, scores.max())
        e = np.exp(scores - m_new)
        rescale = np.exp(m - m_new)  # brings the sums so far to the new maximum
        total = total * rescale + e.sum()
        out = out * rescale + e @ values
        m = m_new
    return out / total


@online_softmax.right
def all_at_once(blocks):
    scores, values = (np.concatenate(parts) for parts in zip(*blocks))
    return mix(scores, values)


@online_softmax.right
def online_in_torch(blocks):
    log_total = torch.tensor(float("-inf"))
    out = 0.0
    for scores, values in blocks:
        new = torch.logaddexp(log_total, scores.logsumexp(0))
        out = out * (log_total - new).exp() + (scores - new).exp() @ values
        log_total = new
    return out


@online_softmax.right
def two_passes(blocks):
    m = max(scores.max() for scores, _ in blocks)
    total = sum(np.exp(scores - m).sum() for scores, _ in blocks)
    return sum((np.exp(scores - m) / total) @ values for scores, values in blocks)


def stream(blocks, total_too=True, out_too=True, upside_down=False, start=-np.inf, larger=max):
    """The solution's two sums with something missing, for answers below."""
    m, total, out = start, 0.0, 0.0
    for scores, values in blocks:
        m_new = larger(m, scores.max())
        rescale = np.exp(m_new - m if upside_down and m > -np.inf else m - m_new)
        e = np.exp(scores - m_new)
        total = total * (rescale if total_too else 1.0) + e.sum()
        out = out * (rescale if out_too else 1.0) + e @ values
        m = m_new
    return out, total


def against(blocks, tops):
    """Each block's exponentials relative to a number of its own, added up as they are."""
    e = [np.exp(scores - top) for (scores, _), top in zip(blocks, tops)]
    return sum(w @ values for w, (_, values) in zip(e, blocks)) / sum(w.sum() for w in e)


@online_softmax.wrong(
    "The output is divided by the sum at each block, and what was already divided is added to what "
    "is not. Divide once, after the last block (or multiply by the old sum first)."
)
def divided_at_each_block(blocks):
    m, total, out = -np.inf, 0.0, 0.0
    for scores, values in blocks:
        m_new = max(m, scores.max())
        e, rescale = np.exp(scores - m_new), np.exp(m - m_new)
        total = total * rescale + e.sum()
        m, out = m_new, (out * rescale + e @ values) / total
    return out


mistakes(
    online_softmax,
    ("never_rescaled", lambda blocks: np.divide(*stream(blocks, total_too=False, out_too=False)),
     "What was summed before the maximum grew is never rescaled: those terms are still relative to "
     "the old one. Multiply both sums by exp(m_old - m_new) before adding the new block."),
    ("total_not_rescaled", lambda blocks: np.divide(*stream(blocks, total_too=False)),
     "The weighted sum of values is rescaled when the maximum grows, the sum of exponentials is "
     "not. Both were formed with the old maximum: multiply both by exp(m_old - m_new)."),
    ("out_not_rescaled", lambda blocks: np.divide(*stream(blocks, out_too=False)),
     "The sum of exponentials is rescaled when the maximum grows, the weighted sum of values is "
     "not. Both were formed with the old maximum: multiply both by exp(m_old - m_new)."),
    ("rescaled_upside_down", lambda blocks: np.divide(*stream(blocks, upside_down=True)),
     "The factor is upside down: exp(m_new - m_old) makes old terms larger. A larger maximum makes "
     "them smaller: exp(m_old - m_new), which is at most 1."),
    ("no_maximum", lambda blocks: against(blocks, [0.0] * len(blocks)),
     "No maximum is subtracted: exp(1000) is inf, and inf/inf is NaN. Keep the largest score so "
     "far and sum exp(score - m)."),
    ("own_maximum_each", lambda blocks: against(blocks, [scores.max() for scores, _ in blocks]),
     "Each block subtracts its own maximum, and the sums of different blocks are added without "
     "bringing them to a common one. Keep m between blocks and rescale when it grows."),
    ("first_maximum", lambda blocks: against(blocks, [blocks[0][0].max()] * len(blocks)),
     "The first block's maximum is used to the end. A later block far above it overflows: take the "
     "larger of the two at each block, and rescale."),
    ("last_maximum", lambda blocks: np.divide(*stream(blocks, larger=lambda m, new: new)),
     "m follows the last block, down as well as up. After a fall exp(m_old - m_new) overflows: the "
     "new maximum is the larger of the two, max(m, scores.max())."),
    ("maximum_from_zero", lambda blocks: np.divide(*stream(blocks, start=0.0)),
     "The maximum begins at 0 or so: all scores near -1000 lie far below it, and their "
     "exponentials underflow to 0/0. Begin with -inf, which any score exceeds."),
    ("mean_of_blocks",
     lambda blocks: sum(mix(scores, values) for scores, values in blocks) / len(blocks),
     "The blocks' own softmax averages were averaged, as if every block weighed the same. A block "
     "counts by its share of all exponentials."),
    ("sum_of_blocks", lambda blocks: sum(mix(scores, values) for scores, values in blocks),
     "Each block's softmax average was added to the sum: with three blocks the weights sum to 3. "
     "Add exponentials relative to a common maximum and divide once, at the end."),
    ("never_divided", lambda blocks: stream(blocks)[0],
     "The division is missing: the weights do not sum to 1 yet. Divide by the sum of exponentials "
     "at the end."),
    ("last_block_alone", lambda blocks: mix(*blocks[-1]),
     "Only the last block counts here. Do the sums begin anew with each block, or is `m = m_new` "
     "missing, so that the factor exp(m - m_new) stays 0?"),
    ("first_block_alone", lambda blocks: mix(*blocks[0]),
     "Only the first block counts here. Is the `return` inside the loop?"),
)  # fmt: skip


# 8


def model_sizes():
    return [(2, 3), (3, 3), (1, 4), (5, 2), (128, 64), (1024, 768), (4096, 512)]


@exercise(
    title="The cost of one layer",
    difficulty="medium",
    minutes=6,
    cases=model_sizes,
    hints=(
        "A product (a, b) @ (b, c) has a·c results, each the sum of b products: 2·a·b·c FLOPs.",
        "Four projections map (T, d) by a (d, d) matrix: q, k, v, and o for the output.",
        "Two products do not have d twice: q @ k.T, (T, d) @ (d, T), and weights @ v.",
    ),
)
def attention_flops(T, d_model):
    """The FLOPs of self-attention, one head as wide as the model: a multiply-add counts as 2."""
    projections = 4 * 2 * T * d_model * d_model  # q, k, v, o: (T, d) @ (d, d)
    scores = 2 * T * d_model * T  # (T, d) @ (d, T)
    weighted_sum = 2 * T * T * d_model  # (T, T) @ (T, d)
    return projections + scores + weighted_sum


@attention_flops.right
def factored(T, d_model):
    return 4 * T * d_model * (2 * d_model + T)


@attention_flops.right
def product_by_product(T, d_model):
    d = d_model
    products = [(T, d, d)] * 4 + [(T, d, T), (T, T, d)]
    return sum(2 * a * b * c for a, b, c in products)


FLOPS_SAID = {  # of a·T·d² + b·T²·d, by a and b
    (0, 4): "The projections are missing: q, k, v and o each map (T, d) by a (d, d) matrix. In "
            "short texts they are most of the cost.",
    (8, 0): "Only the projections are counted. Every query also meets every key, q @ k.T, and "
            "mixes every value, weights @ v.",
    (4, 2): "A multiply-add was counted as one. It is a product and a sum, 2 FLOPs: double it all.",
    (16, 8): "That is twice as much. A multiply-add is 2 FLOPs, and the 2 came in twice.",
    (8, 2): "T²·d was counted once. There are two such products: the scores, q @ k.T, and the "
            "weighted sum, weights @ v.",
    (6, 4): "Three projections were counted. After q, k and v comes the fourth, the output's, on "
            "the mixed values.",
    (6, 2): "The output's projection is missing, after q, k and v; and so is weights @ v, after "
            "the scores.",
    (3, 2): "A multiply-add was counted as one, and the output's projection is missing.",
    (2, 4): "One projection was counted. There are four: q, k, v and the output's.",
    (24, 4): "This holds the feed-forward layer too. Only attention is asked for: four "
             "projections, the scores, the weighted sum.",
    (24, 12): "That is a training step, three times the work. Only the forward pass is asked for.",
}  # fmt: skip


def said_of(a, b):
    """What to say about a·T·d² + b·T²·d: which of the two is off."""
    parts = [f"That is {a}·T·d² + {b}·T²·d."]
    if a != 8:
        parts.append("T·d² comes from four projections, products (T, d) @ (d, d).")
    if b != 4:
        parts.append("T²·d comes from two products, q @ k.T and weights @ v.")
    return FLOPS_SAID.get((a, b), " ".join(parts))


mistakes(
    attention_flops,
    *((f"{a}_and_{b}", lambda T, d, a=a, b=b: a * T * d**2 + b * T**2 * d, said_of(a, b))
      for a in (0, 1, 2, 3, 4, 6, 8, 12, 16, 24) for b in (0, 1, 2, 3, 4, 8, 12)
      if (a, b) != (8, 4)),
    ("projections_of_one_token", lambda T, d_model: 8 * d_model**2 + 4 * T**2 * d_model,
     "The projections are counted for one token: 8·d² are the FLOPs of a single row. Every one of "
     "the T tokens is projected."),
    ("cubed", lambda T, d_model: 8 * d_model**3 + 4 * T**2 * d_model,
     "The projections have d³ where T·d² belongs: what is mapped is (T, d), not (d, d). A product "
     "(T, d) @ (d, d) has T·d results of d terms each."),
    ("scores_of_width_one", lambda T, d_model: 8 * T * d_model**2 + 4 * T**2,
     "T² stands there without d: each of the T² scores is a sum of d products, and each weight "
     "multiplies d numbers."),
    ("parameters", lambda T, d_model: 4 * d_model**2,
     "That counts weights, 4·d². Each is used once for every token, in 2 FLOPs."),
)  # fmt: skip


# 9


@exercise(
    title="Why divide by √head_dim?",
    difficulty="easy",
    minutes=3,
    options={
        "a": "The softmax makes the rows sum to 1 whatever the scores are. The scale changes how "
        "the 1 is shared out: think of scores ten times as large.",
        "b": "A softmax that subtracts the maximum never overflows, at any width. The scale is "
        "needed there too: what happens to its gradient when one score is far above the others?",
        "c": "Yes. A sum of head_dim products of unit variance has variance head_dim. Unscaled, "
        "one weight is soon nearly 1 and almost no gradient reaches the scores; √ because the "
        "spread is the root of the variance.",
        "d": "That is cosine similarity, which divides by the lengths of q and k. √head_dim is one "
        "constant for all pairs, and a longer key still scores higher.",
        "e": "A mean divides by head_dim, not by its root. Such scores have a spread of "
        "1/√head_dim: every key gets nearly the same weight, and the wider the head the more so.",
        "f": "The scale depends on the width, not on how many keys there are. Look at what one "
        "single score is a sum of.",
        "g": "One division for each score is extra work, not less. What it serves is training: see "
        "how the spread of a dot product grows with its width.",
    },
    hints=(
        "Draw q and k with unit variance. How large is the variance of their dot product?",
        "Each of the head_dim products adds a variance of 1. Standard deviation is its root.",
        "Feed a softmax scores of spread 1, then of spread 10. Which one can still learn?",
    ),
)
def why_scale():
    """Why scores are divided by the root of head_dim: a letter from a to g."""
    return "c"
