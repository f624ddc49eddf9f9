"""Chapter 7: who reads which key head, attention in groups, what sharing saves, converting weights.

Axes differ in size, and some cases have K = H, some K = 1, most something between: only there do
tiling (0 1 0 1) and repeating (0 0 1 1) differ. Weights are as `nn.Linear` stores them, (out, in).
"""

import numpy as np
import torch
import torch.nn.functional as F

from lib import reference
from lib.checks.attention import mistakes
from lib.checks.framework import exercise

# 1


def heads_to_place():
    """h, n_heads, n_kv_heads."""
    small = [(0, 2, 1), (1, 2, 1), (1, 4, 2), (2, 4, 2), (3, 4, 2), (0, 4, 2), (1, 4, 4)]
    more = [(5, 8, 2), (3, 8, 2), (3, 8, 4), (6, 8, 4), (5, 6, 3), (2, 6, 3), (3, 6, 2), (5, 6, 6)]
    return [*small, *more, (10, 12, 4), (70, 71, 1), (127, 128, 8), (15, 128, 8), (30, 32, 8)]


@exercise(
    title="Which key head?",
    difficulty="easy",
    minutes=3,
    cases=heads_to_place,
    hints=(
        "G = n_heads // n_kv_heads query heads share one key head, and they are neighbours.",
        "With 4 query heads on 2 key heads, heads 0 and 1 read key head 0, heads 2 and 3 read 1.",
        "Whole groups that lie before head h: h // G.",
    ),
)
def kv_head_of(h, n_heads, n_kv_heads):
    """Query head h of n_heads -> the key and value head it reads, 0 to n_kv_heads - 1."""
    group = n_heads // n_kv_heads  # G, how many query heads share one
    return h // group


@kv_head_of.right
def head_without_a_group(h, n_heads, n_kv_heads):
    return h * n_kv_heads // n_heads


@kv_head_of.right
def head_by_repeating(h, n_heads, n_kv_heads):
    return np.repeat(np.arange(n_kv_heads), n_heads // n_kv_heads)[h]


@kv_head_of.right
def head_by_interleaving(h, n_heads, n_kv_heads):
    return torch.arange(n_kv_heads).repeat_interleave(n_heads // n_kv_heads)[h]


@kv_head_of.right
def head_by_counting(h, n_heads, n_kv_heads):
    owner = [k for k in range(n_kv_heads) for _ in range(n_heads // n_kv_heads)]
    return owner[h]


mistakes(
    kv_head_of,
    ("modulo_of_heads", lambda h, H, K: h % K,
     "That is h % K, which deals the key heads out in turn: 0 1 0 1. Query heads that share are "
     "*neighbours*, 0 0 1 1: divide by the size of a group, h // (n_heads // n_kv_heads)."),
    ("modulo_of_group", lambda h, H, K: h % (H // K),
     "h % G is the place *inside* the group. Which group it is: h // G."),
    ("divided_by_the_number_of_key_heads", lambda h, H, K: h // K,
     "h was divided by the *number* of key heads. Divide by the size of a group, G = n_heads // "
     "n_kv_heads."),
    ("itself", lambda h, H, K: h,
     "That is the query head itself, as if each had a key head of its own (MHA). There are only "
     "n_kv_heads of them."),
    ("always_the_first", lambda h, H, K: 0,
     "All read key head 0: that is MQA. It holds when n_kv_heads is 1, and only then."),
    ("cut_off", lambda h, H, K: min(h, K - 1),
     "The heads beyond the last key head all got the last one. Share evenly: G neighbours each."),
    ("key_heads_cut_off", lambda h, H, K: min(h // K, K - 1),
     "h was divided by the *number* of key heads, and what went too far was cut off. Divide by the "
     "size of a group, G = n_heads // n_kv_heads: then nothing goes too far."),
    ("from_the_end", lambda h, H, K: K - 1 - h // (H // K),
     "The groups are numbered from the end. Query head 0 reads key head 0."),
    ("counted_from_one", lambda h, H, K: h // (H // K) + 1,
     "One too many: heads are counted from 0."),
    ("first_of_its_group", lambda h, H, K: h - h % (H // K),
     "That is the first *query* head of the group. Divide it by G to get the key head."),
    ("size_of_a_group", lambda h, H, K: H // K,
     "That is G, the size of a group. How many whole groups lie before head h?"),
    ("not_whole", lambda h, H, K: h * K / H,
     "The quotient was not rounded down. A head has a whole number: `//` in place of `/`."),
    ("rounded", lambda h, H, K: round(h * K / H),
     "The quotient was rounded to the nearest. Round down: a group begins at a multiple of G."),
    ("rounded_up", lambda h, H, K: -(-h * K // H),
     "The quotient was rounded *up*. Round down: head 1 of a group of two still reads key head 0."),
    ("shifted", lambda h, H, K: (h + 1) // (H // K),
     "1 was added before dividing. Heads are counted from 0: h // G."),
    ("counted_from_one_below", lambda h, H, K: (h - 1) // (H // K),
     "1 was subtracted before dividing. Heads are counted from 0: h // G."),
    ("multiplied", lambda h, H, K: h * (H // K),
     "h was multiplied by G. That is the way back, from key head k to its first query head k · G."),
)  # fmt: skip


# 2


def groups(seed, sizes):
    """q (B, H, T, D), k and v (B, K, S, D) for each (B, H, K, T, S, D)."""
    rng = np.random.default_rng(seed)
    shapes = (((B, H, T, D), (B, K, S, D), (B, K, S, D)) for B, H, K, T, S, D in sizes)
    return [tuple(rng.normal(size=shape) for shape in three) for three in shapes]


def to_group():
    return groups(0, [(1, 4, 2, 1, 3, 2), (1, 2, 1, 1, 2, 3), (1, 3, 3, 2, 4, 2),
                      (2, 6, 3, 4, 5, 7), (3, 8, 2, 5, 6, 4), (1, 6, 2, 3, 3, 3),
                      (2, 4, 2, 4, 4, 4), (2, 6, 1, 3, 5, 4)])  # fmt: skip


@exercise(
    title="Attention in groups",
    difficulty="medium",
    minutes=10,
    cases=to_group,
    axes="B H T D",
    hints=(
        "Query head h reads key head h // G, with G = H // K. Scores / √D, softmax over the keys.",
        "Either each key head is repeated G times in place (0 0 1 1), or the queries are viewed in "
        "groups: (B, H, T, D) as (B, K, G, T, D), or with the G heads as rows, (B, K, G·T, D).",
        "rows = q.reshape(B, K, G * T, D); then `@` with k.swapaxes(-1, -2), softmax, `@` v, and "
        "reshape to (B, H, T, D).",
    ),
)
def grouped_attention(q, k, v):
    """q (B, H, T, D), k and v (B, K, S, D) -> (B, H, T, D); head h reads key head h // (H // K)."""
    (B, H, T, D), K = q.shape, k.shape[1]
    rows = q.reshape(B, K, H // K * T, D)  # the heads of a group under each other, (B, K, G·T, D)
    scores = rows @ np.swapaxes(k, -1, -2) / np.sqrt(D)  # (B, K, G·T, S)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return (weights @ v).reshape(B, H, T, D)


@grouped_attention.right
def grouped_by_torch(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)


@grouped_attention.right
def grouped_by_repeating(q, k, v):
    G = q.shape[1] // k.shape[1]
    k, v = torch.repeat_interleave(k, G, dim=1), v.repeat_interleave(G, dim=1)
    return F.scaled_dot_product_attention(q, k, v)


@grouped_attention.right
def grouped_by_einsum(q, k, v):
    q = q.unflatten(1, (k.shape[1], -1))
    weights = torch.einsum("bkgtd,bksd->bkgts", q, k).mul(q.shape[-1] ** -0.5).softmax(-1)
    return torch.einsum("bkgts,bksd->bkgtd", weights, v).flatten(1, 2)


@grouped_attention.right
def grouped_head_by_head(q, k, v):
    G = q.shape[1] // k.shape[1]
    out = np.zeros(q.shape)
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            out[b, h] = reference.attention(q[b, h], k[b, h // G], v[b, h // G])
    return out


@grouped_attention.right
def grouped_by_broadcasting(q, k, v):
    B, H, T, D = q.shape
    q = q.reshape(B, k.shape[1], -1, T, D)
    scores = q @ k[:, :, None].swapaxes(-1, -2) / D**0.5
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return (e / e.sum(-1, keepdims=True) @ v[:, :, None]).reshape(B, H, T, D)


def each_score(q, k, scale=None):
    """q (..., T, D), k (..., S, D) -> (..., T, S)."""
    return q @ k.swapaxes(-1, -2) / (np.sqrt(q.shape[-1]) if scale is None else scale)


def with_heads(q, k, v, choose, scale=None, axis=-1, choose_v=None):
    """Attention in which `choose(H, K)` says which key head each query head reads, for mistakes."""
    H, K = q.shape[1], k.shape[1]
    k, v = k[:, choose(H, K)], v[:, (choose_v or choose)(H, K)]
    return reference.softmax(each_score(q, k, scale), axis=axis) @ v


def repeated(H, K):
    return np.repeat(np.arange(K), H // K)


def tiled(H, K):
    return np.tile(np.arange(K), H // K)


mistakes(
    grouped_attention,
    ("tiled_and_read_back", lambda q, k, v: _tiled_and_read_back(q, k, v),
     "The queries were viewed as (B, G, K, T, D): that is tiling, 0 1 0 1. And the result was read "
     "back as (K, G). View as (B, K, G, T, D): the heads of a group are neighbours."),
    ("tiled", lambda q, k, v: with_heads(q, k, v, tiled),
     "The key heads were tiled, 0 1 0 1 (`np.tile`, torch's `repeat`, or queries viewed as (B, G, "
     "K, T, D)). The shapes fit and no error is raised, but query heads meet the wrong keys. "
     "Neighbours share: 0 0 1 1 (`np.repeat`, `repeat_interleave`, a view as (B, K, G, T, D))."),
    ("keys_tiled", lambda q, k, v: with_heads(q, k, v, tiled, choose_v=repeated),
     "The keys are tiled (0 1 0 1), the values repeated in place (0 0 1 1). Keys, too: neighbours "
     "share."),
    ("values_tiled", lambda q, k, v: with_heads(q, k, v, repeated, choose_v=tiled),
     "The values are tiled (0 1 0 1), the keys repeated in place (0 0 1 1). Values, too: "
     "neighbours share."),
    ("first_head_for_all", lambda q, k, v: with_heads(q, k, v, lambda H, K: np.zeros(H, int)),
     "Every query head reads key head 0, as in MQA. Head h reads key head h // (H // K)."),
    ("first_values_for_all", lambda q, k, v:
     with_heads(q, k, v, repeated, choose_v=lambda H, K: np.zeros(H, int)),
     "Keys are shared in groups, but every head reads the values of head 0."),
    ("heads_in_reverse", lambda q, k, v: with_heads(q, k, v, lambda H, K: repeated(H, K)[::-1]),
     "The groups are in reverse order: query head 0 reads key head 0."),
    ("averaged_keys", lambda q, k, v: with_heads(q, k.mean(1, keepdims=True),
     v.mean(1, keepdims=True), lambda H, K: np.zeros(H, int)),
     "All key heads were averaged into one. Each group keeps its own; only within a group are they "
     "shared."),
    ("averaged_queries", lambda q, k, v: np.repeat(with_heads(
        q.reshape(len(q), k.shape[1], -1, *q.shape[2:]).mean(2), k, v, lambda H, K: np.arange(H)),
        q.shape[1] // k.shape[1], axis=1),
     "The queries of a group were averaged, so its heads all give the same. Only keys and values "
     "are shared: each query head looks for something else."),
    ("summed_queries", lambda q, k, v: np.repeat(with_heads(
        q.reshape(len(q), k.shape[1], -1, *q.shape[2:]).sum(2), k, v, lambda H, K: np.arange(H)),
        q.shape[1] // k.shape[1], axis=1),
     "The scores of a group were summed over its heads. Every query head keeps scores, softmax and "
     "output of its own."),
    ("summed_scores", lambda q, k, v: with_heads(
        q.reshape(len(q), k.shape[1], -1, *q.shape[2:]).sum(2), k, v, lambda H, K: np.arange(H)),
     "The scores of a group were summed over its heads, and K outputs are left (in an einsum: the "
     "letter of the group is missing after the arrow). Every query head keeps its own."),
    ("softmax_over_the_group", lambda q, k, v: _softmax_over(q, k, v, (2, 4)),
     "The softmax runs over the keys *and* the heads of a group together. In each head, each "
     "query's weights must sum to 1 over the keys."),
    ("softmax_over_heads_of_a_group", lambda q, k, v: _softmax_over(q, k, v, 2),
     "The softmax runs over the heads of a group, axis 2 of (B, K, G, T, S). Each query's weights "
     "must sum to 1 over the keys, the last axis."),
    ("softmax_over_key_heads", lambda q, k, v: _softmax_over(q, k, v, 1),
     "The softmax runs over the key heads (in five axes, axis 1 is K). Each query's weights must "
     "sum to 1 over the keys, the last axis."),
    ("softmax_over_rows", lambda q, k, v: _softmax_over(q, k, v, (2, 3)),
     "The softmax runs down the rows of a group: over the queries of all its heads. Each query's "
     "weights must sum to 1 over the keys, the last axis."),
    ("softmax_over_the_batch", lambda q, k, v: _softmax_over(q, k, v, 0),
     "The softmax runs over the batch. Each query's weights must sum to 1 over the keys, the last "
     "axis."),
    ("softmax_over_queries_and_keys", lambda q, k, v: _softmax_over(q, k, v, (3, 4)),
     "The softmax runs over queries *and* keys: one 1 for the whole map. Each query's weights must "
     "sum to 1 over the keys: axis=-1, keepdims=True."),
    ("softmax_over_rows_and_keys", lambda q, k, v: _softmax_over(q, k, v, (2, 3, 4)),
     "The softmax runs over all rows *and* keys of a group: one 1 for all. Each query's weights "
     "must sum to 1 over the keys: axis=-1, keepdims=True."),
    ("softmax_over_everything", lambda q, k, v: _softmax_over(q, k, v, (0, 1, 2, 3, 4)),
     "All weights together sum to 1. Each query's weights must sum to 1 over the keys: axis=-1, "
     "keepdims=True."),
    ("softmax_over_heads_and_queries", lambda q, k, v: _softmax_over(q, k, v, (1, 2, 3)),
     "The softmax runs over heads and queries, all but the keys. Each query's weights must sum to "
     "1 over the keys, and over nothing else."),
    ("not_divided_by_the_sum", lambda q, k, v: _softmax_over(q, k, v, ()),
     "The exponentials were not divided by their sum. Each query's weights must sum to 1 over the "
     "keys."),
    ("keys_repeated_as_tokens", lambda q, k, v: _repeated_as_tokens(q, k, v),
     "The keys were repeated along the tokens' axis (axis 2), then reshaped: a head now holds "
     "pieces of several. Heads are axis 1."),
    ("causal_at_the_top_left", lambda q, k, v: _causal(q, k, v, 0),
     "A causal mask, as `is_causal=True` makes it, hides keys: its first query sees the first key "
     "only. No mask is asked for: every query sees every key."),
    ("causal", lambda q, k, v: _causal(q, k, v, k.shape[2] - q.shape[2]),
     "A causal mask hides keys. None is asked for: every query sees every key."),
    ("keys_as_values", lambda q, k, v: with_heads(q, k, k, repeated),
     "The average was taken over the keys. Keys decide the weights; values are what is averaged."),
    ("keys_and_values_swapped", lambda q, k, v: with_heads(q, v, k, repeated),
     "Keys and values changed places."),
    ("times_the_group", lambda q, k, v:
     with_heads(q, k, v, repeated) * (q.shape[1] // k.shape[1]),
     "The output is G times too large. Sharing values does not add them up."),
    ("over_the_group", lambda q, k, v:
     with_heads(q, k, v, repeated) / (q.shape[1] // k.shape[1]),
     "The output is G times too small. A shared value is read whole by each head of the group."),
    ("cut_off", lambda q, k, v:
     with_heads(q, k, v, lambda H, K: np.minimum(np.arange(H), K - 1)),
     "The heads beyond the last key head all read the last one. Share evenly: G neighbours each."),
    ("summed_outputs", lambda q, k, v:
     grouped_attention.solve(q, k, v).reshape(len(q), k.shape[1], -1, *q.shape[2:]).sum(2),
     "The heads of a group were summed: K outputs are left. There are as many outputs as *query* "
     "heads, H."),
    ("averaged_outputs", lambda q, k, v:
     grouped_attention.solve(q, k, v).reshape(len(q), k.shape[1], -1, *q.shape[2:]).mean(2),
     "The heads of a group were averaged: K outputs are left. There are as many outputs as "
     "*query* heads, H."),
    ("five_axes", lambda q, k, v:
     grouped_attention.solve(q, k, v).reshape(len(q), k.shape[1], -1, *q.shape[2:]),
     "The numbers are right, but still in groups, (B, K, G, T, D). Join K and G: (B, H, T, D)."),
    ("rows_left", lambda q, k, v:
     grouped_attention.solve(q, k, v).reshape(len(q), k.shape[1], -1, q.shape[3]),
     "The numbers are right, but the heads of a group are still rows, (B, K, G·T, D). Reshape to "
     "(B, H, T, D)."),
    ("tokens_before_heads", lambda q, k, v: grouped_attention.solve(q, k, v).swapaxes(1, 2),
     "Tokens came before heads, (B, T, H, D). Asked for is (B, H, T, D)."),
    ("rows_of_tokens", lambda q, k, v: _rows_token_first(q, k, v),
     "The rows of a group were laid out token by token, and read back head by head. As rows, "
     "(G, T) goes in and (G, T) comes out."),
    ("tokens_first_in_q", lambda q, k, v: _tokens_first(q, k, v),
     "q was reshaped with T before H, so a group holds pieces of all heads. Reshape (B, H, T, D) "
     "as it stands."),
    ("tokens_first_in_q_and_back", lambda q, k, v: _tokens_first(q, k, v, back=True),
     "q was reshaped with T before H, and so was the result: a group holds the first tokens of "
     "all heads, not all tokens of its own. Reshape (B, H, T, D) as it stands."),
    ("not_scaled", lambda q, k, v: with_heads(q, k, v, repeated, scale=1.0),
     "The scores are not divided by √D."),
    ("divided_by_width", lambda q, k, v: with_heads(q, k, v, repeated, scale=q.shape[-1]),
     "The scores are divided by D, not by its root."),
    ("times_root", lambda q, k, v: with_heads(q, k, v, repeated, scale=q.shape[-1] ** -0.5),
     "The scores are multiplied by √D. Divide by it."),
    ("scaled_by_all_heads", lambda q, k, v:
     with_heads(q, k, v, repeated, scale=np.sqrt(q.shape[1] * q.shape[-1])),
     "The scores are divided by √(H·D). A score sums over one head's D features, with sharing or "
     "without: √D."),
    ("scaled_by_shared_width", lambda q, k, v:
     with_heads(q, k, v, repeated, scale=np.sqrt(k.shape[1] * q.shape[-1])),
     "The scores are divided by √(K·D). A score sums over one head's D features: √D."),
    ("scaled_by_group_width", lambda q, k, v:
     with_heads(q, k, v, repeated, scale=np.sqrt(q.shape[1] // k.shape[1] * q.shape[-1])),
     "The scores are divided by √(G·D). Queries of a group are not joined: a score sums over D "
     "features, √D."),
    ("softmax_over_queries", lambda q, k, v: with_heads(q, k, v, repeated, axis=-2),
     "The softmax runs over the queries. Each query's weights must sum to 1 over the *keys*, the "
     "last axis."),
    ("softmax_over_heads", lambda q, k, v: with_heads(q, k, v, repeated, axis=1),
     "The softmax runs over the heads. Each query's weights must sum to 1 over the *keys*, the "
     "last axis."),
    ("scaled_by_key_heads", lambda q, k, v: with_heads(q, k, v, repeated, scale=k.shape[1] ** 0.5),
     "The scores are divided by √K. It is the width of a head, D, not the number of key heads."),
    ("scaled_by_keys", lambda q, k, v: with_heads(q, k, v, repeated, scale=k.shape[2] ** 0.5),
     "The scores are divided by √S. A score sums over D features, not over the S keys: √D."),
    ("as_they_are", lambda q, k, v: reference.softmax(each_score(q, k)) @ v,
     "H heads stand on one side and K on the other, which fits only where K is 1 or H. View the "
     "queries in groups, or repeat keys *and* values in place (torch: `enable_gqa=True`)."),
    ("joined_in_turns", lambda q, k, v:
     grouped_attention.solve(q, k, v).reshape(len(q), k.shape[1], -1, *q.shape[2:]).swapaxes(1, 2)
     .reshape(q.shape),
     "The groups are right, but they were joined as (G, K), head by head in turns. (K, G) becomes "
     "H as it stands."),
    ("no_softmax", lambda q, k, v: each_score(q, k[:, repeated(q.shape[1], k.shape[1])])
     @ v[:, repeated(q.shape[1], k.shape[1])],
     "There is no softmax: the scores themselves weigh the values."),
    ("first_queries_only", lambda q, k, v: with_heads(
        q[:, :: q.shape[1] // k.shape[1]], k, v, lambda H, K: np.arange(H)),
     "Only one query head of each group is left. All H stay; it is keys and values that are "
     "fewer."),
    ("scaled_by_heads", lambda q, k, v: with_heads(q, k, v, repeated, scale=q.shape[1] ** 0.5),
     "The scores are divided by √H. It is the width of a head, D, not their number."),
)  # fmt: skip


def _tiled_and_read_back(q, k, v):
    (B, H, T, D), K = q.shape, k.shape[1]
    queries = q.reshape(B, H // K, K, T, D).swapaxes(1, 2).reshape(B, H, T, D)
    return with_heads(queries, k, v, repeated)


def _softmax_over(q, k, v, axis):
    """Attention whose exponentials are divided by their sums over `axis` of (B, K, G, T, S)."""
    (B, H, T), (K, S) = q.shape[:3], k.shape[1:3]
    e = np.exp(each_score(q, k[:, repeated(H, K)])).reshape(B, K, H // K, T, S)
    weights = e / e.sum(axis=axis, keepdims=True) if axis != () else e
    return weights.reshape(B, H, T, S) @ v[:, repeated(H, K)]


def _repeated_as_tokens(q, k, v):
    B, H, _, D = q.shape
    G = H // k.shape[1]
    k, v = (np.repeat(x, G, axis=2).reshape(B, H, -1, D) for x in (k, v))
    return reference.softmax(each_score(q, k)) @ v


def _causal(q, k, v, more):
    H, K, seen = q.shape[1], k.shape[1], np.tri(q.shape[2], k.shape[2], more)
    scores = np.where(seen, each_score(q, k[:, repeated(H, K)]), -np.inf)
    return reference.softmax(scores) @ v[:, repeated(H, K)]


def _rows_token_first(q, k, v):
    (B, H, T, D), K = q.shape, k.shape[1]
    rows = q.reshape(B, K, H // K, T, D).swapaxes(2, 3).reshape(B, K, -1, D)
    return (reference.softmax(each_score(rows, k)) @ v).reshape(B, H, T, D)


def _tokens_first(q, k, v, back=False):
    (B, H, T, D), K = q.shape, k.shape[1]
    rows = q.swapaxes(1, 2).reshape(B, K, -1, D)
    out = reference.softmax(each_score(rows, k)) @ v
    return out.reshape(B, T, H, D).swapaxes(1, 2) if back else out.reshape(B, H, T, D)


@grouped_attention.property(
    "A head's output is a weighted mean of the values of *its* key head, h // (H // K), each "
    "query's weights summing to 1 over the keys: so every feature lies between the smallest and "
    "the largest of them."
)
def within_its_own_values(out, q, k, v):
    own = v[:, repeated(q.shape[1], k.shape[1])]
    low, high = own.min(axis=2, keepdims=True), own.max(axis=2, keepdims=True)
    return ((out >= low - 1e-6) & (out <= high + 1e-6)).all()


# 3

SIZES = {"b": 2, "k": 3, "g": 4, "t": 5, "s": 6, "d": 7}
STEPS = {"scores": ("bkgtd", "bksd", "bkgts"), "output": ("bkgts", "bksd", "bkgtd")}


def both_steps():
    return [("scores",), ("output",)]


def in_order(equation):
    """An equation without spaces, its letters renamed in the order they come: then equal is equal.

    Without "->" the result's axes are the letters that occur once, in alphabetical order.
    """
    if not isinstance(equation, str):
        return equation
    text = "".join(equation.split())
    if "->" not in text and "." not in text:
        once = sorted(c for c in set(text) - {","} if text.count(c) == 1)
        text += "->" + "".join(once)
    names = {}
    return "".join(
        names.setdefault(c, "abcdefghijklmnopqrstuvwxyz"[len(names) % 26]) if c.isalpha() else c
        for c in text
    )


MHA = (
    "That is MHA, one key head a query head: q has four axes there. Here it has five, "
    "(B, K, G, T, D), and so have the weights."
)
KEYS_FIRST = (
    "Keys and values come first there. The inputs are given in the order queries, keys and "
    "weights, values."
)


def wrong_letters(equation, step):
    """What is wrong with the letters of an equation, or ""; with dots they are not looked at."""
    inputs, _, result = equation.partition("->")
    inputs = inputs.split(",")
    if len(inputs) != 2:
        return "Two inputs have one comma, between them, and the result comes after `->`."
    if "." in equation:
        return ""
    lengths = [len(letters) for letters in inputs]
    if lengths in ([4, 4], [4, 5]):
        return MHA if lengths == [4, 4] else KEYS_FIRST
    names = {}  # letter -> the axis that it stands for
    for thing, letters, axes in zip(("qk", "wv")[step == "output"], inputs, STEPS[step]):
        what = f"{'the weights' if thing == 'w' else thing} ({', '.join(axes.upper())})"
        if len(letters) != len(axes):
            return f"{what} has {len(axes)} axes; letters given: {len(letters)}."
        for letter, axis in zip(letters, axes):
            before = names.setdefault(letter, axis)
            if (before, axis) == ("t", "s"):
                first = "q ends in t, d" if thing == "k" else "the weights end in t, s"
                return f"{thing} runs over s: `bksd`. There it has the letter of t ({first})."
            if before != axis:
                return f"{what}: {axis.upper()} has the letter of {before.upper()}, another axis."
    if set(result) - set(names):
        return "After the arrow is a letter that no input has."
    return "" if len(set(result)) == len(result) else "After the arrow is a letter twice."


def wrong_equation(equation, step):
    """What is wrong with an equation for a step, or ""."""
    if not isinstance(equation, str):
        return "Expected a text, an equation as `np.einsum` takes it."
    if flaw := wrong_letters(equation, step):
        return flaw
    rng = np.random.default_rng(0)
    left, right, result = STEPS[step]
    x, y = (rng.normal(size=[SIZES[c] for c in axes]) for axes in (left, right))
    try:
        got = np.einsum(equation, x, y)
    except Exception as error:
        given = f"{tuple(left.upper())} and {tuple(right.upper())}".replace("'", "")
        text = str(error).split("\n")[0]
        return f"`np.einsum` cannot use it on shapes {given}, in this order: {text}"
    expected = np.einsum(f"{left},{right}->{result}", x, y)
    if got.shape != expected.shape:
        named = ", ".join(result.upper())
        return f"Expected a result ({named}) = {expected.shape}, got shape {got.shape}."
    if np.allclose(got, expected):
        return ""
    return (
        "The shape is right, the numbers are not. Has an axis of both inputs the same letter in "
        "both? Under two letters each is summed, or kept, by itself."
    )


@exercise(
    title="Two equations, nothing repeated",
    difficulty="medium",
    minutes=6,
    cases=both_steps,
    canonical=in_order,
    judge=wrong_equation,
    hints=(
        "Name the axes of the two inputs with one letter each; the same letter is the same axis.",
        "A letter that is missing after the arrow is summed over. A letter that only one input "
        "has, as g, meets every entry of the other: nothing need be repeated for that.",
        "Scores sum over d alone. The output sums over s alone.",
    ),
)
def grouped_einsum(step):
    """ "scores" or "output" -> the einsum equation of that step, for q (B, K, G, T, D)."""
    if step == "scores":
        return "bkgtd,bksd->bkgts"  # q (B, K, G, T, D), k (B, K, S, D): summed over d
    return "bkgts,bksd->bkgtd"  # weights (B, K, G, T, S), v (B, K, S, D): summed over s


@grouped_einsum.right
def equations_in_other_letters(step):
    return {"scores": "b h r q c, b h k c -> b h r q k", "output": "bhrqk,bhkc->bhrqc"}[step]


@grouped_einsum.right
def equations_with_dots(step):
    return "...gtd,...sd->...gts" if step == "scores" else "...gts,...sd->...gtd"


@grouped_einsum.right
def equations_by_number(step):
    return ("abcdf,abfe->abcde", "abcde,abfe->abcdf")[step == "scores"]


def equations(scores, output):
    return lambda step: scores if step == "scores" else output


mistakes(
    grouped_einsum,
    ("group_summed", equations("bkgtd,bksd->bkts", "bkgts,bksd->bktd"),
     "The letter g is missing after both arrows, so the heads of a group are *summed*. Each query "
     "head keeps scores and output of its own: g stays."),
    ("group_summed_in_scores", equations("bkgtd,bksd->bkts", "bkgts,bksd->bkgtd"),
     "In the scores the letter g is missing after the arrow: they are summed over the heads of a "
     "group. g stays."),
    ("group_summed_in_output", equations("bkgtd,bksd->bkgts", "bkgts,bksd->bktd"),
     "In the output the letter g is missing after the arrow: the heads of a group are summed. g "
     "stays."),
    ("key_heads_summed", equations("bkgtd,bksd->bgts", "bkgts,bksd->bgtd"),
     "The letter k is missing after the arrow: what belongs to different groups is summed. k "
     "stays."),
    ("heads_crossed", equations("bkgtd,bhsd->bkgts", "bkgts,bhsd->bkgtd"),
     "The key heads have two letters, one in each input: every query then meets the sum over "
     "*all* key heads. The same axis has the same letter in both."),
    ("batches_crossed", equations("bkgtd,aksd->bkgts", "bkgts,aksd->bkgtd"),
     "The batch has two letters: every sequence then meets all the others. The same axis has the "
     "same letter in both."),
    ("group_on_keys", equations("bkgtd,bkgsd->bkgts", "bkgts,bkgsd->bkgtd"),
     "Keys and values got an axis g. They have none, (B, K, S, D), and need none: that is what "
     "sharing means."),
    ("heads_as_in_mha", equations("bhtd,bhsd->bhts", "bhts,bhsd->bhtd"),
     MHA),
    ("features_kept", equations("bkgtd,bksd->bkgtsd", "bkgts,bksd->bkgtsd"),
     "Nothing is summed. Scores sum over d, the output over s: leave those letters out after the "
     "arrow."),
    ("tokens_swapped", equations("bkgtd,bksd->bkgst", "bkgts,bksd->bkgdt"),
     "The last two axes of the results are swapped. Scores end in t, s; the output in t, d."),
    ("scores_transposed", equations("bkgtd,bksd->bkgst", "bkgts,bksd->bkgtd"),
     "The scores came out as (…, S, T): keys before queries. They end in t, s."),
    ("values_by_queries", equations("bkgtd,bksd->bkgts", "bkgts,bktd->bkgsd"),
     "In the output the values are numbered by t, the queries (the weights end in t, s). They "
     "belong to the keys: s, which is then summed over."),
    ("tokens_paired", equations("bkgtd,bktd->bkgt", "bkgts,bksd->bkgtd"),
     "Keys are numbered by t as the queries are, so each query meets only the key of its own "
     "place. Keys have a letter of their own: s."),
    ("group_first", equations("bgktd,bksd->bgkts", "bgkts,bksd->bgktd"),
     "The queries were read as (B, G, K, T, D): that is tiling, 0 1 0 1. They are (B, K, G, T, D): "
     "the heads of a group are neighbours."),
    ("one_for_both", equations("bkgtd,bksd->bkgts", "bkgtd,bksd->bkgts"),
     "But for the names of its letters the second equation is the first: both sum over the last "
     "axis of both inputs. The output sums over s, which is the third axis of v, (B, K, S, D)."),
    ("changed_places", equations("bkgts,bksd->bkgtd", "bkgtd,bksd->bkgts"),
     "The two equations changed places: scores sum over d, the output over s."),
    ("keys_first", equations("bksd,bkgtd->bkgts", "bksd,bkgts->bkgtd"),
     KEYS_FIRST),
    ("transposed_keys", equations("bkgtd,bkds->bkgts", "bkgts,bksd->bkgtd"),
     "The keys were read as transposed, (B, K, D, S). einsum needs no transpose: k is (B, K, S, "
     "D)."),
    ("dots_for_the_group", equations("...td,...sd->...ts", "...ts,...sd->...td"),
     "The dots are (B, K, G) in one input and (B, K) in the other, and are lined up from the "
     "right: g would meet k. Give g a letter: `...gtd,...sd`."),
    ("no_arrow", equations("bkgtd,bksd", "bkgts,bksd"),
     "Without an arrow einsum sorts the letters that are left by the alphabet, and sums over all "
     "that occur twice. Say where each axis goes."),
)  # fmt: skip


# 4


def real_and_small_shapes():
    """d_model, n_heads, n_kv_heads, head_dim; n_heads · head_dim is not always d_model."""
    return [
        (10, 4, 2, 3), (8, 4, 2, 2), (8, 4, 1, 2), (6, 2, 2, 3), (5, 6, 3, 4), (12, 6, 2, 8),
        (4096, 32, 8, 128), (8192, 64, 8, 128), (4544, 71, 1, 64), (3072, 16, 16, 256),
        (1024, 16, 8, 128), (3584, 28, 4, 128), (2048, 8, 1, 256),
    ]  # fmt: skip


@exercise(
    title="How much smaller is the cache?",
    difficulty="easy",
    minutes=3,
    cases=real_and_small_shapes,
    tol=1e-9,
    hints=(
        "Count the numbers that one layer keeps of one token: keys and values, every key head.",
        "With K heads that is 2 · K · D. With a key head for every query head it is 2 · H · D.",
        "Divide the larger by the smaller; what they have in common goes away.",
    ),
)
def cache_ratio(d_model, n_heads, n_kv_heads, head_dim):
    """Sizes of a layer -> how many times larger its cache would be with n_heads key heads."""
    full = 2 * n_heads * head_dim  # numbers a token, keys and values
    shared = 2 * n_kv_heads * head_dim
    return full / shared


@cache_ratio.right
def ratio_in_short(d_model, n_heads, n_kv_heads, head_dim):
    return n_heads // n_kv_heads


@cache_ratio.right
def ratio_of_shapes(d_model, n_heads, n_kv_heads, head_dim):
    return np.zeros((2, n_heads, head_dim)).nbytes / np.zeros((2, n_kv_heads, head_dim)).nbytes


@cache_ratio.right
def ratio_in_torch(d_model, n_heads, n_kv_heads, head_dim):
    return torch.tensor(n_heads) / torch.tensor(n_kv_heads)


mistakes(
    cache_ratio,
    ("inverted", lambda C, H, K, D: K / H,
     "That is what is *left*, K / H. How many times larger the full cache is: H / K."),
    ("from_d_model", lambda C, H, K, D: C / (K * D),
     "The full cache was taken to be d_model wide. It is n_heads · head_dim wide, which need not "
     "be d_model (Gemma 7B: 16 · 256 = 4096, d_model 3072)."),
    ("heads_from_d_model", lambda C, H, K, D: C // D / K,
     "The number of heads was taken to be d_model // head_dim. It is given, n_heads, and n_heads · "
     "head_dim need not be d_model."),
    ("shared_from_d_model", lambda C, H, K, D: H * D / C,
     "The shared cache was taken to be d_model wide. It is n_kv_heads · head_dim wide."),
    ("from_d_model_with_both", lambda C, H, K, D: 2 * C / (K * D),
     "Keys *and* values are shared, both: the 2 stands above and below. And the full cache is "
     "n_heads · head_dim wide, not d_model."),
    ("keys_alone", lambda C, H, K, D: 2 * H / (H + K),
     "Only one of keys and values was shared. Both are: 2 · K · D against 2 · H · D."),
    ("two_over", lambda C, H, K, D: 2 * H / K,
     "A factor 2 stands on one side only. Keys and values: 2 · H · D against 2 · K · D."),
    ("half", lambda C, H, K, D: H / (2 * K),
     "A factor 2 stands below only. Keys and values: 2 · H · D against 2 · K · D."),
    ("saved", lambda C, H, K, D: 1 - K / H,
     "That is the share that is *saved*. Asked for is the ratio, full to shared."),
    ("difference", lambda C, H, K, D: 2 * (H - K) * D,
     "That is a difference, in numbers a token. Asked for is a ratio."),
    ("heads_saved", lambda C, H, K, D: H - K,
     "That is how many key heads fewer there are, a difference. How many *times* larger the full "
     "cache is: divide."),
    ("number_of_key_heads", lambda C, H, K, D: K,
     "That is the number of key heads. The fewer there are, the larger the ratio."),
    ("number_of_heads", lambda C, H, K, D: H,
     "That is the ratio for MQA, where n_kv_heads is 1. Divide by n_kv_heads."),
    ("width_of_a_token", lambda C, H, K, D: 2 * K * D,
     "That is what a layer keeps of a token with sharing. Divide what it would keep without "
     "sharing by this."),
    ("head_dim_left_over", lambda C, H, K, D: H * D / K,
     "head_dim stands above only. It is as wide with sharing as without: it goes away."),
    ("squared", lambda C, H, K, D: (H / K) ** 2,
     "The ratio was squared. Keys and values are two tensors, and each is H / K times smaller: so "
     "is their sum."),
    ("one_more", lambda C, H, K, D: H / K - 1,
     "One was subtracted: that is how much *more* the full cache takes, as a share of the shared "
     "one. Asked for is how many times as large it is."),
)  # fmt: skip


# 5


def one_new_token():
    """q (B, H, D), k and v (B, K, D), and what is cached: two (B, K, S, D)."""
    rng = np.random.default_rng(2)
    sizes = [(1, 4, 2, 1, 3), (1, 2, 1, 2, 2), (2, 3, 3, 4, 2), (2, 6, 3, 4, 5), (3, 8, 2, 5, 4),
             (1, 6, 2, 3, 6), (2, 4, 2, 4, 4), (2, 6, 1, 3, 4)]  # fmt: skip
    return [
        (rng.normal(size=(B, H, D)), *(rng.normal(size=(B, K, D)) for _ in "kv"),
         *(rng.normal(size=(B, K, S, D)) for _ in "kv"))
        for B, H, K, S, D in sizes
    ]  # fmt: skip


@exercise(
    title="One decoding step with shared heads",
    difficulty="medium",
    minutes=10,
    cases=one_new_token,
    axes={"y": "B H D", "keys": "B K S D", "values": "B K S D"},
    hints=(
        "First append: the new token sees itself. np.concatenate([k_cache, k[:, :, None]], axis=2) "
        "(torch: torch.cat(..., dim=2)) is (B, K, S + 1, D).",
        "What is returned as cache keeps K heads. Grouping is done for the computation only.",
        "q.reshape(B, K, G, D) are G rows for each key head: scores (B, K, G, S + 1).",
    ),
)
def grouped_step(q, k, v, k_cache, v_cache):
    """q (B, H, D), k, v (B, K, D), caches (B, K, S, D) -> y (B, H, D), caches (B, K, S + 1, D)."""
    keys = np.concatenate([k_cache, k[:, :, None]], axis=2)  # (B, K, S + 1, D)
    values = np.concatenate([v_cache, v[:, :, None]], axis=2)
    (B, H, D), K = q.shape, k.shape[1]
    rows = q.reshape(B, K, H // K, D)  # G queries for each key head
    scores = rows @ keys.swapaxes(-1, -2) / np.sqrt(D)  # (B, K, G, S + 1)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return (weights @ values).reshape(B, H, D), keys, values


@grouped_step.right
def step_by_torch(q, k, v, k_cache, v_cache):
    keys = torch.cat([k_cache, k.unsqueeze(2)], dim=2)
    values = torch.cat([v_cache, v.unsqueeze(2)], dim=2)
    y = F.scaled_dot_product_attention(q.unsqueeze(2), keys, values, enable_gqa=True)
    return y.squeeze(2), keys, values


@grouped_step.right
def step_that_repeats_after_caching(q, k, v, k_cache, v_cache):
    keys, values = (np.append(c, x[:, :, None], axis=2) for c, x in ((k_cache, k), (v_cache, v)))
    many = [np.repeat(x, q.shape[1] // k.shape[1], axis=1) for x in (keys, values)]
    weights = reference.softmax(each_score(q[:, :, None], many[0]))
    return [(weights @ many[1])[:, :, 0], keys, values]


@grouped_step.right
def step_by_einsum(q, k, v, k_cache, v_cache):
    keys, values = torch.cat([k_cache, k[:, :, None]], 2), torch.cat([v_cache, v[:, :, None]], 2)
    q = q.unflatten(1, (k.shape[1], -1)) * q.shape[-1] ** -0.5
    weights = torch.einsum("bkgd,bksd->bkgs", q, keys).softmax(-1)
    return torch.einsum("bkgs,bksd->bkgd", weights, values).flatten(1, 2), keys, values


def stepped(q, keys, values, kept=None, **how):
    """(y, *kept) for one query a head, for mistakes; kept are the keys and values unless given."""
    y = with_heads(q[:, :, None], keys, values, how.pop("choose", repeated), **how)[:, :, 0]
    return y, *((keys, values) if kept is None else kept)


def appended(c, x, axis=2, first=False):
    pair = [x[:, :, None], c] if first else [c, x[:, :, None]]
    return np.concatenate(pair, axis=axis)


def many(q, x):
    """x (B, K, ...) repeated in place to as many heads as q has."""
    return np.repeat(x, q.shape[1] // x.shape[1], axis=1)


mistakes(
    grouped_step,
    ("expanded_before_caching", lambda q, k, v, kc, vc:
     stepped(q, many(q, appended(kc, k)), many(q, appended(vc, v))),
     "Keys and values were repeated to H heads *before* they were cached: the output is right, and "
     "the memory is that of MHA. Cache K heads; sharing saves nothing otherwise."),
    ("new_token_expanded", lambda q, k, v, kc, vc:
     np.concatenate([kc, many(q, k)[:, :, None]], axis=2),
     "The new keys were repeated to H heads, and then they do not fit the cache, which has K. "
     "Append them as they are."),
    ("tiled", lambda q, k, v, kc, vc: stepped(q, appended(kc, k), appended(vc, v), choose=tiled),
     "The caches are right, but the key heads were tiled, 0 1 0 1. Neighbours share: 0 0 1 1."),
    ("keys_tiled", lambda q, k, v, kc, vc:
     stepped(q, appended(kc, k), appended(vc, v), choose=tiled, choose_v=repeated),
     "The caches are right, but the keys were tiled, 0 1 0 1. Neighbours share: 0 0 1 1."),
    ("values_tiled", lambda q, k, v, kc, vc:
     stepped(q, appended(kc, k), appended(vc, v), choose_v=tiled),
     "The caches are right, but the values were tiled, 0 1 0 1. Neighbours share: 0 0 1 1."),
    ("averaged_queries", lambda q, k, v, kc, vc: (
        many(q, stepped(q.reshape(len(q), k.shape[1], -1, q.shape[2]).mean(2),
                        appended(kc, k), appended(vc, v))[0]), appended(kc, k), appended(vc, v)),
     "The queries of a group were averaged, so its heads all give the same. Only keys and values "
     "are shared."),
    ("no_token_axis", lambda q, k, v, kc, vc: np.concatenate([kc, k], axis=2),
     "The new keys have no axis for their one token, (B, K, D). Give them one: `k[:, :, None]` is "
     "(B, K, 1, D) and fits the cache."),
    ("no_token_axis_in_torch", lambda q, k, v, kc, vc: torch.cat([kc, k], dim=2),
     "The new keys have no axis for their one token, (B, K, D). Give them one: `k.unsqueeze(2)` is "
     "(B, K, 1, D) and fits the cache."),
    ("itself_not_seen", lambda q, k, v, kc, vc:
     stepped(q, kc, vc, (appended(kc, k), appended(vc, v))),
     "The new token does not see itself: attention ran over the old cache. Append first."),
    ("nothing_appended", lambda q, k, v, kc, vc: stepped(q, kc, vc),
     "The new key and value were not used at all. Append them, then attend."),
    ("not_returned", lambda q, k, v, kc, vc:
     stepped(q, appended(kc, k), appended(vc, v), (kc, vc)),
     "The output is right, but the caches that came back are the old ones: the next step would "
     "not know this token."),
    ("new_alone_returned", lambda q, k, v, kc, vc:
     stepped(q, appended(kc, k), appended(vc, v), (k[:, :, None], v[:, :, None])),
     "Only the new keys and values came back. The cache is everything so far."),
    ("new_alone_seen", lambda q, k, v, kc, vc:
     stepped(q, k[:, :, None], v[:, :, None], (appended(kc, k), appended(vc, v))),
     "The new token sees only itself: one key, weight 1. It reads everything in the cache."),
    ("at_the_front", lambda q, k, v, kc, vc:
     stepped(q, appended(kc, k, first=True), appended(vc, v, first=True)),
     "The new token was put in front. It comes after the others: the order is the order of the "
     "text."),
    ("last_overwritten", lambda q, k, v, kc, vc:
     stepped(q, appended(kc[:, :, :-1], k), appended(vc[:, :, :-1], v)),
     "The last token of the cache was overwritten. The cache grows by one."),
    ("first_dropped", lambda q, k, v, kc, vc:
     stepped(q, appended(kc[:, :, 1:], k), appended(vc[:, :, 1:], v)),
     "The oldest token was dropped, as by a sliding window. Here all are kept: S + 1."),
    ("values_forgotten", lambda q, k, v, kc, vc:
     stepped(q, appended(kc, k), appended(vc, v), (appended(kc, k), vc)),
     "The new key was kept, the new value was not. Both are needed for the next token."),
    ("keys_and_values_swapped", lambda q, k, v, kc, vc:
     stepped(q, appended(kc, k), appended(vc, v), (appended(vc, v), appended(kc, k))),
     "Keys and values came back in the wrong order: first the keys."),
    ("keys_as_values", lambda q, k, v, kc, vc:
     stepped(q, appended(kc, k), appended(kc, k), (appended(kc, k), appended(vc, v))),
     "The average was taken over the keys. Keys decide the weights; values are what is averaged."),
    ("one_token_too_few", lambda q, k, v, kc, vc:
     stepped(q, appended(kc, k)[:, :, 1:], appended(vc, v)[:, :, 1:],
             (appended(kc, k), appended(vc, v))),
     "The first token of the cache is not looked at. The new token sees them all."),
    ("heads_of_mqa", lambda q, k, v, kc, vc:
     stepped(q, appended(kc, k), appended(vc, v), choose=lambda H, K: np.zeros(H, int)),
     "Every query head reads key head 0, as in MQA. Head h reads key head h // (H // K)."),
    ("not_scaled", lambda q, k, v, kc, vc:
     stepped(q, appended(kc, k), appended(vc, v), scale=1.0),
     "The scores are not divided by √D."),
    ("scaled_by_all_heads", lambda q, k, v, kc, vc:
     stepped(q, appended(kc, k), appended(vc, v), scale=np.sqrt(q.shape[1] * q.shape[2])),
     "The scores are divided by √(H·D). A score sums over one head's D features: √D."),
    ("scaled_by_keys", lambda q, k, v, kc, vc:
     stepped(q, appended(kc, k), appended(vc, v), scale=np.sqrt(kc.shape[2] + 1)),
     "The scores are divided by √(S + 1). A score sums over D features, not over the keys: √D."),
    ("no_softmax", lambda q, k, v, kc, vc: (
        (each_score(q[:, :, None], many(q, appended(kc, k))) @ many(q, appended(vc, v)))[:, :, 0],
        appended(kc, k), appended(vc, v)),
     "There is no softmax: the scores themselves weigh the values."),
    ("divided_by_width", lambda q, k, v, kc, vc:
     stepped(q, appended(kc, k), appended(vc, v), scale=q.shape[2]),
     "The scores are divided by D, not by its root."),
    ("softmax_over_heads", lambda q, k, v, kc, vc:
     stepped(q, appended(kc, k), appended(vc, v), axis=1),
     "The softmax runs over the heads. Each query shares out 1 over the keys, the last axis."),
    ("first_key_alone", lambda q, k, v, kc, vc:
     stepped(q, kc[:, :, :1], vc[:, :, :1], (appended(kc, k), appended(vc, v))),
     "The new token sees only the first key: that is what `is_causal=True` does with one query, "
     "for it aligns the mask at the top left. One new token needs no mask."),
    ("keys_into_values", lambda q, k, v, kc, vc: stepped(q, appended(kc, v), appended(vc, k)),
     "The new key went to the values and the new value to the keys."),
    ("output_last", lambda q, k, v, kc, vc: (
        appended(kc, k), appended(vc, v), stepped(q, appended(kc, k), appended(vc, v))[0]),
     "The output came last. First the output, then keys and values."),
    ("heads_joined", lambda q, k, v, kc, vc: (
        stepped(q, appended(kc, k), appended(vc, v))[0].reshape(len(q), -1),
        appended(kc, k), appended(vc, v)),
     "The heads of the output are joined, (B, H·D). Asked for is (B, H, D)."),
    ("output_alone", lambda q, k, v, kc, vc: stepped(q, appended(kc, k), appended(vc, v))[0],
     "Only the output came back. The caches are needed too: `return y, keys, values`."),
    ("token_axis_left", lambda q, k, v, kc, vc: (
        stepped(q, appended(kc, k), appended(vc, v))[0][:, :, None],
        appended(kc, k), appended(vc, v)),
     "The output still has an axis for its one token, (B, H, 1, D). Asked for is (B, H, D)."),
    ("in_groups", lambda q, k, v, kc, vc: (
        stepped(q, appended(kc, k), appended(vc, v))[0].reshape(
            len(q), k.shape[1], -1, q.shape[2]), appended(kc, k), appended(vc, v)),
     "The output is still in groups, (B, K, G, D). Join them: (B, H, D)."),
    ("query_cached", lambda q, k, v, kc, vc:
     np.concatenate([kc, q[:, :, None]], axis=2),
     "The query was appended to the cache. It is used once and not kept: only keys and values "
     "are."),
)  # fmt: skip


# 6


def layer_sizes():
    """d_model, n_heads, n_kv_heads, head_dim, n_layers."""
    return [
        (4, 4, 2, 1, 1), (4, 2, 1, 3, 1), (6, 3, 3, 2, 4), (10, 6, 2, 3, 2), (5, 8, 4, 2, 3),
        (4096, 32, 8, 128, 32), (8192, 64, 8, 128, 80), (4544, 71, 1, 64, 32),
        (3072, 16, 16, 256, 28), (1024, 16, 8, 128, 28), (2048, 8, 1, 256, 18),
    ]  # fmt: skip


def as_a_float(n):
    """A whole number as a float, so that an answer may be off by rounding, 480.00000000000006."""
    return float(n) if isinstance(n, int) else n


@exercise(
    title="Parameters saved",
    difficulty="medium",
    minutes=5,
    cases=layer_sizes,
    canonical=as_a_float,
    tol=1e-6,
    hints=(
        "Which of the four maps get smaller? A map from C to K · D has C · K · D weights.",
        "Queries and output keep all H heads. Keys and values, two maps, go from H to K.",
        "Each loses C · (H - K) · D weights, in every layer.",
    ),
)
def parameters_saved(d_model, n_heads, n_kv_heads, head_dim, n_layers):
    """Sizes -> how many weights fewer than with n_heads key heads, in all layers, no biases."""
    fewer_features = (n_heads - n_kv_heads) * head_dim  # of the keys, and of the values
    return n_layers * 2 * d_model * fewer_features


@parameters_saved.right
def saved_as_a_difference(C, H, K, D, L):
    return L * (4 * C * H * D) - L * (2 * C * H * D + 2 * C * K * D)


@parameters_saved.right
def saved_as_a_share(C, H, K, D, L):
    return 2 * C * D * H * (1 - K / H) * L  # not whole: off by rounding


@parameters_saved.right
def saved_by_shapes(C, H, K, D, L):
    before = [(H * D, C), (H * D, C), (H * D, C), (C, H * D)]
    after = [(H * D, C), (K * D, C), (K * D, C), (C, H * D)]
    return sum(L * (np.prod(b) - np.prod(a)) for b, a in zip(before, after))


@parameters_saved.right
def saved_by_counting_modules(C, H, K, D, L):
    def count(heads):
        with torch.device("meta"):
            return sum(torch.nn.Linear(C, heads * D, bias=False).weight.numel() for _ in "kv")

    return L * (count(H) - count(K))


mistakes(
    parameters_saved,
    ("output_too", lambda C, H, K, D, L: L * 3 * C * (H - K) * D,
     "Three maps shrink there. The output map takes what the H *query* heads bring: it keeps its "
     "size, and so do the queries. Two maps shrink, keys and values."),
    ("all_four", lambda C, H, K, D, L: L * 4 * C * (H - K) * D,
     "All four maps shrink there. Queries and output keep H heads; only keys and values have K."),
    ("one_map", lambda C, H, K, D, L: L * C * (H - K) * D,
     "One map shrinks there. Keys *and* values are shared: two maps."),
    ("one_layer", lambda C, H, K, D, L: 2 * C * (H - K) * D,
     "That is one layer. There are n_layers of them."),
    ("what_is_left", lambda C, H, K, D, L: L * 2 * C * K * D,
     "That is what keys and values still have. Asked for is what they lost: H - K heads."),
    ("what_attention_has", lambda C, H, K, D, L: L * 2 * C * (H + K) * D,
     "Those are the weights of the four maps with sharing. Asked for is how many fewer they are "
     "than without."),
    ("all_of_the_full", lambda C, H, K, D, L: L * 2 * C * H * D,
     "That is all that keys and values had. K heads of them are still there."),
    ("square_model", lambda C, H, K, D, L: L * 2 * C * C * (H - K) // H,
     "The full maps were taken to be d_model · d_model. They are d_model · (n_heads · head_dim), "
     "and H·D need not be d_model."),
    ("width_from_the_model", lambda C, H, K, D, L: L * 2 * C * (C - K * D),
     "The full width was taken to be d_model. It is n_heads · head_dim."),
    ("head_dim_forgotten", lambda C, H, K, D, L: L * 2 * C * (H - K),
     "A head was counted as one feature. It is head_dim wide."),
    ("model_forgotten", lambda C, H, K, D, L: L * 2 * (H - K) * D,
     "That is the cache that is saved for each token, in numbers. A *map* to these features also "
     "has d_model inputs."),
    ("group_in_place_of_heads", lambda C, H, K, D, L: L * 2 * C * (H // K) * D,
     "G = H // K heads were taken off. It is H - K that go."),
    ("group_less_one", lambda C, H, K, D, L: L * 2 * C * (H // K - 1) * D,
     "That is what *one* group saves, G - 1 heads. There are K groups: K · (G - 1) = H - K."),
    ("share_cut_off", lambda C, H, K, D, L: L * 2 * C * D * H * (1 - K // H),
     "`//` cut K / H off to 0: then all of the keys and values would go. Divide with `/`."),
    ("one_map_lost", lambda C, H, K, D, L: L * (3 * H - 2 * K) * C * D,
     "The count with sharing has one map too few. All four are still there: queries and output "
     "with H heads, keys and values with K."),
    ("share", lambda C, H, K, D, L: (H - K) / (2 * H),
     "That is the share of the attention's weights. Asked for is their number."),
    ("share_of_two_maps", lambda C, H, K, D, L: 1 - K / H,
     "That is the share of keys and values that is gone. Asked for is the number of weights."),
    ("layers_forgotten_once", lambda C, H, K, D, L: L * 2 * C * H * D - 2 * C * K * D,
     "What is left was counted for one layer, what there was for all of them."),
    ("head_dim_from_the_model", lambda C, H, K, D, L: L * 2 * C * (H - K) * (C // H),
     "The width of a head was taken to be d_model // n_heads. It is given: head_dim."),
    ("input_forgotten", lambda C, H, K, D, L: L * 2 * D * (H - K) * D,
     "The maps were taken to go from D features of a head. They read the whole stream: d_model."),
    ("always_mqa", lambda C, H, K, D, L: L * 2 * C * (H - 1) * D,
     "That is the saving of MQA, one key head. n_kv_heads of them are left."),
    ("all_maps_of_mha", lambda C, H, K, D, L: L * 4 * C * H * D,
     "Those are the weights of all four maps without sharing. Asked for is how many go."),
    ("inverted_sign", lambda C, H, K, D, L: -L * 2 * C * (H - K) * D,
     "The sign: with sharing there are fewer weights, so what is saved is positive, H - K heads "
     "(or `n_heads` and `n_kv_heads` changed places)."),
    ("with_biases", lambda C, H, K, D, L: L * 2 * (C + 1) * (H - K) * D,
     "Biases were counted. The maps here have none."),
)  # fmt: skip


# 7


@exercise(
    title="What is MQA for?",
    difficulty="easy",
    minutes=3,
    options={
        "a": "It does save parameters, but few: the cache of a 7B model falls to a thirty-second "
        "while its weights fall by less than a sixth. Count both with the exercises before.",
        "b": "Every query head still meets every key of its group: as many multiplications as "
        "before, in scores and averages. (The maps for keys and values get cheaper, a little.)",
        "c": "Yes. A decoded token reads all cached keys and values once. H / K times fewer bytes "
        "are H / K times less time, where reading them is what takes the time; and as many more "
        "sequences or tokens fit into memory.",
        "d": "There is less to choose from, not more. Quality is what sharing may cost; it is "
        "measured below.",
        "e": "In training and in prefill, keys and values are made once and used by many queries: "
        "arithmetic is what takes the time there, and sharing hardly changes it.",
    },
    hints=(
        "What must a single new token fetch from memory, and how often is each number used?",
        "Sharing changes neither the number of query heads nor the number of scores.",
    ),
)
def what_mqa_is_for():
    """What sharing keys and values was invented for: a letter from a to e."""
    return "c"


# 8

GB, TERA = 1e9, 1e12


def machines():
    """weight_bytes, cache_bytes, flops, batch, group, bandwidth, compute."""
    return [
        (10.0, 40.0, 1.0, 1, 4, 10.0, 100.0),  # 50 bytes against 20
        (10.0, 41.5, 1.0, 1, 4, 10.0, 100.0),  # a cache that the group does not divide
        (0.0, 60.0, 1.0, 1, 3, 10.0, 100.0),
        (30.0, 10.0, 2.0, 5, 2, 7.0, 90.0),
        (10.0, 40.0, 8.0, 3, 4, 20.0, 10.0),  # a slow calculator: no gain at all
        (10.0, 40.0, 80.0, 2, 4, 20.0, 10.0),  # slow even for a single sequence
        (10.0, 40.0, 3.0, 2, 4, 0.05, 1.0),  # slow memory
        (10.0, 40.0, 3.0, 4, 8, 10.0, 1.5),  # bound by bytes before, by arithmetic after
        (13.5 * GB, 2.1 * GB, 14e9, 1, 4, 2000 * GB, 300 * TERA),
        (13.5 * GB, 2.1 * GB, 14e9, 32, 4, 2000 * GB, 300 * TERA),
        (13.5 * GB, 0.05 * GB, 14e9, 1, 32, 2000 * GB, 300 * TERA),
        (13.5 * GB, 0.05 * GB, 14e9, 400, 32, 2000 * GB, 300 * TERA),
        (2.0 * GB, 9.0 * GB, 3e9, 16, 1, 50 * GB, 2 * TERA),
    ]


@exercise(
    title="Predict the speed-up",
    difficulty="hard",
    minutes=12,
    cases=machines,
    tol=1e-6,
    hints=(
        "A step moves the weights once, for all sequences together, and each sequence's own cache. "
        "It computes `flops` for each sequence.",
        "Moving takes bytes / bandwidth, computing takes batch · flops / compute. They overlap: "
        "the step takes the longer of the two.",
        "Sharing divides the cache bytes by the group and leaves weights and FLOPs as they are. "
        "Time without sharing over time with it.",
    ),
)
def predict_speed(weight_bytes, cache_bytes, flops, batch, group, bandwidth, compute):
    """Bytes, FLOPs and a machine -> time of a step of MHA over time with a cache 1/group as large.

    cache_bytes (of MHA) and flops are those of one sequence; all sequences share the weights.
    """

    def seconds(cache):
        moving = (weight_bytes + batch * cache) / bandwidth
        return max(moving, batch * flops / compute)  # they overlap: the longer one counts

    return seconds(cache_bytes) / seconds(cache_bytes / group)


@predict_speed.right
def speed_in_lines(W, cache, flops, batch, G, bandwidth, compute):
    arithmetic = batch * flops / compute
    before = (W + batch * cache) / bandwidth
    after = (W + batch * cache / G) / bandwidth
    return max(before, arithmetic) / max(after, arithmetic)


@predict_speed.right
def speed_by_arrays(W, cache, flops, batch, G, bandwidth, compute):
    moved = (W + batch * cache / np.array([1.0, G])) / bandwidth
    before, after = np.maximum(moved, batch * flops / compute)
    return before / after


@predict_speed.right
def speed_in_torch(W, cache, flops, batch, G, bandwidth, compute):
    bytes_ = W + batch * cache / torch.tensor([1.0, G], dtype=torch.float64)
    t = torch.clamp(bytes_ / bandwidth, min=batch * flops / compute)
    return t[0] / t[1]


def timed(W, cache, flops, batch, G, bandwidth, compute, *, join=max, flops_after=1,
          batch_bytes=True, batch_flops=True):  # fmt: skip
    """Time before over time after, with parts to be exchanged, for mistakes."""
    many, often = batch if batch_bytes else 1, batch if batch_flops else 1

    def seconds(cache, flops):
        return join((W + many * cache) / bandwidth, often * flops / compute)

    return seconds(cache, flops) / seconds(cache / G, flops * flops_after)


mistakes(
    predict_speed,
    ("from_flops_alone", lambda W, c, f, B, G, bw, cp: 1.0,
     "Always 1: that is what FLOPs alone say, for sharing leaves their number as it is. But a step "
     "also moves bytes, and where that takes longer, fewer bytes are less time."),
    ("flops_divided_too", lambda W, c, f, B, G, bw, cp:
     timed(W, c, f, B, G, bw, cp, flops_after=1 / G),
     "The cache *and* the FLOPs were divided by the group. Every query head still computes its own "
     "scores: the FLOPs stay."),
    ("the_group_itself", lambda W, c, f, B, G, bw, cp: G,
     "The cache is G times smaller, but the step is not G times faster: the weights are moved as "
     "before, and arithmetic, of which sharing saves nothing, may take longer than moving."),
    ("weights_forgotten", lambda W, c, f, B, G, bw, cp: timed(0 * W, c, f, B, G, bw, cp),
     "The weights are not moved there. Each step reads all of them, once for the whole batch; with "
     "short contexts they are most of the bytes."),
    ("weights_for_each_sequence", lambda W, c, f, B, G, bw, cp:
     timed(W * B, c, f, B, G, bw, cp),
     "The weights were moved once *for each sequence*, or the batch was not used: the same ratio. "
     "The batch shares the weights; each sequence has a cache and arithmetic of its own."),
    ("one_cache", lambda W, c, f, B, G, bw, cp:
     timed(W, c, f, B, G, bw, cp, batch_bytes=False),
     "One cache was moved for the whole batch. Each sequence has its own: batch · cache_bytes."),
    ("flops_of_one", lambda W, c, f, B, G, bw, cp:
     timed(W, c, f, B, G, bw, cp, batch_flops=False),
     "The FLOPs are those of one sequence, while the bytes are those of the batch: batch · flops."),
    ("added_up", lambda W, c, f, B, G, bw, cp:
     timed(W, c, f, B, G, bw, cp, join=lambda a, b: a + b),
     "The two times were added. Moving and computing overlap: the step takes the longer of them."),
    ("shorter_of_the_two", lambda W, c, f, B, G, bw, cp: timed(W, c, f, B, G, bw, cp, join=min),
     "The shorter of the two times was taken. The step is over when *both* are: the longer."),
    ("bytes_alone", lambda W, c, f, B, G, bw, cp:
     timed(W, c, f, B, G, bw, cp, join=lambda a, b: a),
     "Arithmetic was left out. On a machine that calculates slowly, or with a large batch, it "
     "takes longer than moving, and then sharing gains less, or nothing."),
    ("longest_of_three", lambda W, c, f, B, G, bw, cp:
     max(W / bw, B * c / bw, B * f / cp) / max(W / bw, B * c / G / bw, B * f / cp),
     "Weights and cache were moved at the same time. They share one bandwidth: their bytes add "
     "up; only moving and computing overlap."),
    ("weights_first", lambda W, c, f, B, G, bw, cp:
     (W / bw + max(B * c / bw, B * f / cp)) / (W / bw + max(B * c / G / bw, B * f / cp)),
     "The weights were moved first, and only the cache while computing. All bytes are moved while "
     "computing: the step takes the longer of the two."),
    ("cache_twice", lambda W, c, f, B, G, bw, cp: timed(W, 2 * c, f, B, G, bw, cp),
     "The cache was moved twice, for keys and for values. `cache_bytes` is both together."),
    ("asked_once", lambda W, c, f, B, G, bw, cp:
     1.0 if B * f / cp > (W + B * c) / bw else (W + B * c) / (W + B * c / G),
     "Which of the two takes longer was asked for the step without sharing alone. With sharing "
     "there is less to move, and computing may be the longer one: take the longer of each step."),
    ("arithmetic_before_alone", lambda W, c, f, B, G, bw, cp:
     max((W + B * c) / bw, B * f / cp) / ((W + B * c / G) / bw),
     "Arithmetic was left out of the time with sharing. It takes as long as before."),
    ("bytes_of_one", lambda W, c, f, B, G, bw, cp: (W + c) / (W + c / G),
     "Neither the batch nor the arithmetic was used. Each sequence has a cache of its own, and the "
     "step takes the longer of moving and computing."),
    ("inverted", lambda W, c, f, B, G, bw, cp: 1 / timed(W, c, f, B, G, bw, cp),
     "That is time with sharing over time without. How many times *faster*: the other way round."),
    ("difference", lambda W, c, f, B, G, bw, cp:
     max((W + B * c) / bw, B * f / cp) - max((W + B * c / G) / bw, B * f / cp),
     "That is the time saved, in seconds. Asked for is a ratio."),
    ("time_after", lambda W, c, f, B, G, bw, cp: max((W + B * c / G) / bw, B * f / cp),
     "That is the time of a step with sharing, in seconds. Divide the time without by it."),
    ("time_before", lambda W, c, f, B, G, bw, cp: max((W + B * c) / bw, B * f / cp),
     "That is the time of a step without sharing, in seconds. Divide it by the time with it."),
    ("weights_shrink_too", lambda W, c, f, B, G, bw, cp:
     max((W + B * c) / bw, B * f / cp) / max((W / G + B * c / G) / bw, B * f / cp),
     "The weights were divided by the group, too. Only keys and values are shared; take the "
     "weights as they are."),
    ("multiplied_by_the_group", lambda W, c, f, B, G, bw, cp:
     timed(W, c, f, B, 1 / G, bw, cp),
     "The cache was multiplied by the group: sharing makes it smaller. `cache_bytes` is that of "
     "MHA."),
    ("bandwidth_multiplied", lambda W, c, f, B, G, bw, cp:
     timed(W, c, f, B, G, 1 / bw, cp),
     "Bytes were multiplied by the bandwidth. Seconds are bytes *over* bytes per second."),
    ("compute_forgotten", lambda W, c, f, B, G, bw, cp:
     timed(W, c, f, B, G, bw, 1.0),
     "The FLOPs were compared with seconds as they are. Seconds of arithmetic are FLOPs over "
     "`compute`."),
    ("cut_off", lambda W, c, f, B, G, bw, cp:
     max((W + B * c) / bw, B * f / cp) / max((W + B * c // G) / bw, B * f / cp),
     "`//` dropped a remainder: divide with `/`."),
    ("cut_off_in_both", lambda W, c, f, B, G, bw, cp: timed(W, c // G * G, f, B, G, bw, cp),
     "`//` dropped a remainder of the cache, before sharing and after: divide with `/`."),
    ("times_cut_off", lambda W, c, f, B, G, bw, cp:
     max((W + B * c) // bw, B * f / cp) / max((W + B * c / G) // bw, B * f / cp),
     "The time of moving was cut off to whole seconds. Divide with `/`, not with `//`."),
    ("ratio_cut_off", lambda W, c, f, B, G, bw, cp: timed(W, c, f, B, G, bw, cp) // 1,
     "The ratio was cut off to a whole number. Divide with `/`, not with `//`."),
    ("ratio_minus_one", lambda W, c, f, B, G, bw, cp: timed(W, c, f, B, G, bw, cp) - 1,
     "One was subtracted: that is the gain in percent. Asked for is the ratio of the times."),
)  # fmt: skip


# 9

SIZES_OF_MAPS = [  # H, K, D, C
    (2, 1, 1, 2), (4, 2, 1, 2), (4, 2, 2, 3), (6, 3, 2, 5), (6, 2, 4, 5), (3, 3, 2, 4),
    (8, 2, 3, 6), (4, 1, 3, 5), (4, 2, 4, 4), (2, 1, 2, 2), (4, 2, 4, 8), (4, 2, 2, 4),
    (12, 4, 3, 7),
]  # fmt: skip


def maps_to_pool():
    """w (n_heads · D, C), n_heads, n_kv_heads."""
    rng = np.random.default_rng(4)
    first = [(np.array([[1.0], [3.0], [10.0], [30.0]]), 4, 2)]
    return first + [(rng.normal(size=(H * D, C)), H, K) for H, K, D, C in SIZES_OF_MAPS]


@exercise(
    title="Pool neighbouring heads",
    difficulty="medium",
    minutes=8,
    cases=maps_to_pool,
    axes="KD C",
    hints=(
        "Rows h·D to (h + 1)·D are head h. View the rows as (n_kv_heads, G, D), C stays.",
        "w.reshape(n_kv_heads, G, D, C): which axis numbers the heads of one group?",
        "Mean over axis 1, then back to two axes: (n_kv_heads · D, C).",
    ),
)
def mean_pool_heads(w, n_heads, n_kv_heads):
    """w (n_heads · D, C) -> (n_kv_heads · D, C): each group of neighbouring heads, its mean."""
    rows, C = w.shape
    D, group = rows // n_heads, n_heads // n_kv_heads
    heads = w.reshape(n_kv_heads, group, D, C)  # (K · G · D, C) -> (K, G, D, C)
    return heads.mean(axis=1).reshape(n_kv_heads * D, C)


@mean_pool_heads.right
def pooled_in_torch(w, n_heads, n_kv_heads):
    return torch.flatten(w.unflatten(0, (n_kv_heads, n_heads // n_kv_heads, -1)).mean(1), 0, 1)


@mean_pool_heads.right
def pooled_by_loops(w, n_heads, n_kv_heads):
    heads, G = np.split(w, n_heads), n_heads // n_kv_heads
    return np.concatenate([sum(heads[k * G : (k + 1) * G]) / G for k in range(n_kv_heads)])


@mean_pool_heads.right
def pooled_by_a_matrix(w, n_heads, n_kv_heads):
    D, G = w.shape[0] // n_heads, n_heads // n_kv_heads
    return np.kron(np.kron(np.eye(n_kv_heads), np.ones((1, G)) / G), np.eye(D)) @ w


@mean_pool_heads.right
def pooled_by_chunks(w, n_heads, n_kv_heads):
    groups = w.chunk(n_kv_heads)
    return torch.cat([torch.stack(g.chunk(n_heads // n_kv_heads)).mean(0) for g in groups])


def in_groups(w, H, K):
    return w.reshape(K, H // K, w.shape[0] // H, w.shape[1])


mistakes(
    mean_pool_heads,
    ("first_head", lambda w, H, K: in_groups(w, H, K)[:, 0].reshape(-1, w.shape[1]),
     "That is the *first* head of each group; the others are thrown away. The mean keeps "
     "something of all."),
    ("last_head", lambda w, H, K: in_groups(w, H, K)[:, -1].reshape(-1, w.shape[1]),
     "That is the last head of each group. The mean keeps something of all."),
    ("not_neighbours", lambda w, H, K:
     w.reshape(H // K, K, -1, w.shape[1]).mean(0).reshape(-1, w.shape[1]),
     "Heads that are not neighbours were pooled: 0 with K, 2K ... But query heads 0 and 1 will "
     "read the *same* new head, so heads 0 and 1 go into it: view as (K, G, D, C), not (G, K, D, "
     "C)."),
    ("first_heads_of_all", lambda w, H, K: w[: w.shape[0] // H * K],
     "The first K heads were kept and the rest dropped. Each new head is the mean of a group."),
    ("summed", lambda w, H, K: in_groups(w, H, K).sum(1).reshape(-1, w.shape[1]),
     "The heads were summed: keys and values come out G times too large. Divide by G."),
    ("divided_by_all", lambda w, H, K: in_groups(w, H, K).sum(1).reshape(-1, w.shape[1]) / H,
     "The sums were divided by the number of all heads. A group has G = n_heads // n_kv_heads."),
    ("divided_by_root", lambda w, H, K:
     in_groups(w, H, K).sum(1).reshape(-1, w.shape[1]) / np.sqrt(H // K),
     "The sums were divided by √G, which keeps the *size* of random weights. The mean divides by "
     "G."),
    ("divided_by_key_heads", lambda w, H, K:
     in_groups(w, H, K).sum(1).reshape(-1, w.shape[1]) / K,
     "The sums were divided by n_kv_heads. A group has G = n_heads // n_kv_heads heads."),
    ("divided_by_two", lambda w, H, K: in_groups(w, H, K).sum(1).reshape(-1, w.shape[1]) / 2,
     "The sums were divided by 2. G is 2 in the example only: divide by n_heads // n_kv_heads."),
    ("ends_alone", lambda w, H, K:
     (in_groups(w, H, K)[:, 0] + in_groups(w, H, K)[:, -1]).reshape(-1, w.shape[1]) / 2,
     "Only the first and the last head of each group were averaged. With more than two in a group, "
     "those between count, too."),
    ("first_two", lambda w, H, K: in_groups(w, H, K)[:, :2].mean(1).reshape(-1, w.shape[1]),
     "Only the first two heads of each group were averaged. G is 2 in the example only."),
    ("over_the_groups", lambda w, H, K: in_groups(w, H, K).mean(0).reshape(-1, w.shape[1]),
     "The mean was taken over the groups, axis 0 of (K, G, D, C). Take it over the heads of a "
     "group, axis 1."),
    ("neighbouring_rows", lambda w, H, K: w.reshape(-1, H // K, w.shape[1]).mean(1),
     "Neighbouring *rows* were averaged: features of one head among themselves. Feature d of one "
     "head goes with feature d of the next: view as (K, G, D, C) and take the mean over G."),
    ("whole_mean", lambda w, H, K:
     np.tile(w.reshape(H, -1, w.shape[1]).mean(0), (K, 1)),
     "All heads were pooled into one, and it was copied. That is MQA: each group has a mean of its "
     "own."),
    ("columns", lambda w, H, K:
     w.reshape(w.shape[0], -1)[:, : w.shape[1]].T.reshape(w.shape[1], K, H // K, -1).mean(2)
     .reshape(w.shape[1], -1),
     "The result is transposed: (C, K·D). `nn.Linear` stores (out, in), so heads are rows."),
    ("four_axes", lambda w, H, K: in_groups(w, H, K).mean(1),
     "The numbers are right, but the axes are (K, D, C). Join K and D: (K·D, C)."),
    ("one_row_a_head", lambda w, H, K: w.reshape(K, -1, w.shape[1]).mean(1),
     "All rows of a group were averaged into one, features too: (K, C). A new head still has D "
     "rows: view as (K, G, D, C) and take the mean over G."),
    ("features_before_heads", lambda w, H, K:
     in_groups(w, H, K).mean(1).swapaxes(0, 1).reshape(-1, w.shape[1]),
     "The means are right, but the rows are ordered feature by feature. The D rows of a head lie "
     "together: (K, D, C), then join."),
    ("same_shape", lambda w, H, K:
     np.repeat(in_groups(w, H, K).mean(1), H // K, axis=0).reshape(w.shape),
     "Every head was replaced by the mean of its group, and there are still n_heads of them: "
     "nothing is saved. Keep each mean once."),
    ("features_of_a_head", lambda w, H, K:
     in_groups(w, H, K).mean(2).reshape(H, -1),
     "The mean was taken over the features of a head. Take it over the heads of a group, axis 1 of "
     "(K, G, D, C)."),
    ("median", lambda w, H, K: np.median(in_groups(w, H, K), axis=1).reshape(-1, w.shape[1]),
     "That is the median of a group (the same for two heads). The mean is asked for."),
    ("largest", lambda w, H, K: in_groups(w, H, K).max(1).reshape(-1, w.shape[1]),
     "That is the largest of each group, number by number (max pooling). The mean is asked for."),
    ("unchanged", lambda w, H, K: w,
     "Nothing was pooled. The result has n_kv_heads · D rows."),
    ("group_and_key_heads_swapped", lambda w, H, K:
     w.reshape(H // K, K, w.shape[0] // H, w.shape[1]).mean(1).reshape(-1, w.shape[1]),
     "n_kv_heads was taken for the size of a group. There are n_kv_heads groups, each of n_heads "
     "// n_kv_heads heads."),
)  # fmt: skip


# 10


def shared_maps():
    """wk (K·D, C), wv (K·D, C), n_heads, n_kv_heads."""
    rng = np.random.default_rng(5)
    first = [(np.array([[1.0], [2.0]]), np.array([[30.0], [40.0]]), 4, 2)]
    return first + [(*rng.normal(size=(2, K * D, C)), H, K) for H, K, D, C in SIZES_OF_MAPS]


@exercise(
    title="The MHA inside",
    difficulty="medium",
    minutes=8,
    cases=shared_maps,
    axes={"wk": "HD C", "wv": "HD C"},
    tol=1e-6,
    hints=(
        "Query head h of the GQA reads key head h // G. In the MHA it reads key head h: that must "
        "be the same keys, so the same D rows of the map.",
        "Rows k·D to (k + 1)·D are key head k. View as (n_kv_heads, D, C) before anything is "
        "repeated, or single rows are.",
        "np.repeat(heads, G, axis=0), torch's repeat_interleave: 0 0 1 1. Then back to two axes.",
    ),
)
def as_mha(wk, wv, n_heads, n_kv_heads):
    """Maps (K·D, C) of a GQA -> (wk, wv), each (H·D, C), of the MHA that computes the same."""
    group = n_heads // n_kv_heads

    def full(w):
        heads = w.reshape(n_kv_heads, -1, w.shape[1])  # (K·D, C) -> (K, D, C)
        return np.repeat(heads, group, axis=0).reshape(-1, w.shape[1])  # (H·D, C)

    return full(wk), full(wv)


@as_mha.right
def full_in_torch(wk, wv, n_heads, n_kv_heads):
    G = n_heads // n_kv_heads
    return [
        torch.repeat_interleave(w.unflatten(0, (n_kv_heads, -1)), G, dim=0).flatten(0, 1)
        for w in (wk, wv)
    ]


@as_mha.right
def full_by_stacking(wk, wv, n_heads, n_kv_heads):
    def rows(w):
        heads = np.split(w, n_kv_heads)
        return np.concatenate([heads[h * n_kv_heads // n_heads] for h in range(n_heads)])

    return rows(wk), rows(wv)


@as_mha.right
def full_by_expanding(wk, wv, n_heads, n_kv_heads):
    G = n_heads // n_kv_heads

    def full(w):
        C = w.shape[1]
        heads = w.reshape(n_kv_heads, 1, -1, C)
        return torch.Tensor.expand(heads, -1, G, -1, -1).reshape(-1, C)

    return full(wk), full(wv)


@as_mha.right
def full_by_an_index(wk, wv, n_heads, n_kv_heads):
    D = len(wk) // n_kv_heads
    h, d = np.divmod(np.arange(n_heads * D), D)
    rows = h // (n_heads // n_kv_heads) * D + d
    return np.stack([wk[rows], wv[rows]])


def both_maps(change):
    """A pair of maps changed in the same way, for mistakes."""
    return lambda wk, wv, H, K: (change(wk, H, K), change(wv, H, K))


def right_map(w, H, K):
    return as_mha.solve(w, w, H, K)[0]


mistakes(
    as_mha,
    ("tiled", both_maps(lambda w, H, K: np.tile(w, (H // K, 1))),
     "The heads were tiled, 0 1 0 1 (torch's `repeat` does that, too). Query head 1 would then "
     "read other keys than before. Neighbours share: 0 0 1 1."),
    ("rows_repeated", both_maps(lambda w, H, K: np.repeat(w, H // K, axis=0)),
     "Single *rows* were repeated, so a head holds one feature several times. Whole heads are "
     "repeated: view as (K, D, C) first."),
    ("columns_repeated", both_maps(lambda w, H, K: np.repeat(w, H // K, axis=1)),
     "The columns were repeated: those are the inputs. Heads are rows, (out, in)."),
    ("columns_tiled", both_maps(lambda w, H, K: np.tile(w, (1, H // K))),
     "The columns were tiled: those are the inputs. Heads are rows, (out, in)."),
    ("keys_alone", lambda wk, wv, H, K: (right_map(wk, H, K), wv),
     "The keys are right, the values still have K heads. An MHA has H of both."),
    ("values_alone", lambda wk, wv, H, K: (wk, right_map(wv, H, K)),
     "The values are right, the keys still have K heads. An MHA has H of both."),
    ("unchanged", lambda wk, wv, H, K: (wk, wv),
     "These are the maps of the GQA. An MHA has n_heads · D rows in each."),
    ("divided", both_maps(lambda w, H, K: right_map(w, H, K) / (H // K)),
     "The heads were divided by G. Each copy has to give the *same* keys and values: nothing is "
     "shared out."),
    ("values_divided", lambda wk, wv, H, K: (right_map(wk, H, K), right_map(wv, H, K) / (H // K)),
     "The values were divided by G. They are not added up: each head averages its own copy."),
    ("rooted", both_maps(lambda w, H, K: right_map(w, H, K) / np.sqrt(H // K)),
     "The heads were divided by √G. The width of a head, and so the √D, is as before."),
    ("keys_times_root", lambda wk, wv, H, K:
     (right_map(wk, H, K) * np.sqrt(H // K), right_map(wv, H, K)),
     "The keys were multiplied by √G. The width of a head, and so the √D, is as before."),
    ("zeros_for_the_others", both_maps(lambda w, H, K: np.concatenate(
        [w, np.zeros((w.shape[0] * (H // K - 1), w.shape[1]))])),
     "The K heads come first and zeros after. A head of zeros reads everything alike: each query "
     "head needs the keys it had."),
    ("zeros_between", both_maps(lambda w, H, K: np.stack(
        [w.reshape(K, -1, w.shape[1])]
        + [np.zeros((K, len(w) // K, w.shape[1]))] * (H // K - 1), axis=1
     ).reshape(-1, w.shape[1])),
     "Only the first query head of each group has keys, the others got zeros. All of a group read "
     "the same ones."),
    ("first_head_for_all", both_maps(lambda w, H, K: np.tile(w[: len(w) // K], (H, 1))),
     "Every head got the rows of key head 0, as in MQA. Head h needs those of key head h // G."),
    ("swapped", lambda wk, wv, H, K: (right_map(wv, H, K), right_map(wk, H, K)),
     "Keys and values changed places: first wk, then wv."),
    ("one_for_both", lambda wk, wv, H, K: (right_map(wk, H, K), right_map(wk, H, K)),
     "Both are made from wk. The second comes from wv."),
    ("keys_repeated_values_tiled", lambda wk, wv, H, K:
     (right_map(wk, H, K), np.tile(wv, (H // K, 1))),
     "The keys are repeated in place, 0 0 1 1, the values tiled, 0 1 0 1. Both in place."),
    ("keys_tiled_values_repeated", lambda wk, wv, H, K:
     (np.tile(wk, (H // K, 1)), right_map(wv, H, K)),
     "The values are repeated in place, 0 0 1 1, the keys tiled, 0 1 0 1. Both in place."),
    ("transposed", both_maps(lambda w, H, K: right_map(w, H, K).T),
     "The maps are transposed. `nn.Linear` stores (out, in): (n_heads · D, C)."),
    ("three_axes", both_maps(lambda w, H, K: right_map(w, H, K).reshape(H, -1, w.shape[1])),
     "The maps still have three axes, (H, D, C). Join the first two: (H·D, C)."),
    ("repeated_too_often", both_maps(lambda w, H, K:
     np.repeat(w.reshape(K, -1, w.shape[1]), H, axis=0).reshape(-1, w.shape[1])),
     "Every head was repeated n_heads times. G = n_heads // n_kv_heads times makes n_heads in "
     "all."),
    ("repeated_by_key_heads", both_maps(lambda w, H, K:
     np.repeat(w.reshape(K, -1, w.shape[1]), K, axis=0).reshape(-1, w.shape[1])),
     "Every head was repeated n_kv_heads times. G = n_heads // n_kv_heads times makes n_heads in "
     "all."),
    ("reversed", both_maps(lambda w, H, K:
     right_map(w, H, K).reshape(H, -1, w.shape[1])[::-1].reshape(-1, w.shape[1])),
     "The heads are in reverse order. Query head 0 read key head 0, and still does."),
)  # fmt: skip


# 11


def heads_of(pattern, seed, D=2, C=3):
    """A map (H·D, C) whose heads are as the letters say: equal letters, equal heads."""
    rng = np.random.default_rng(seed)
    heads = {letter: rng.normal(size=(D, C)) for letter in sorted(set(pattern))}
    return np.concatenate([heads[letter] for letter in pattern])


def maps_that_repeat():
    """wk, wv (H·D, C), n_heads. Patterns of keys and values, which need not be the same."""
    patterns = [
        ("aa", "aa"), ("ab", "ab"), ("aabb", "aabb"), ("abab", "abab"), ("aaaa", "aaaa"),
        ("aabb", "abcd"), ("aaaa", "aabb"), ("abcd", "aaaa"), ("aaab", "aaab"),
        ("aabbbb", "aabbbb"), ("aaabbb", "aabbcc"), ("aaabbb", "aaabbb"), ("aabbaa", "aabbaa"),
        ("aaaabbbb", "aabbaabb"), ("aaaabbbb", "ccccdddd"), ("abbbbbba", "abbbbbba"), ("a", "a"),
        ("aaaaaa", "abcdef"), ("aabbccdd", "aaaabbbb"), ("abba", "abba"),
        ("aaabbbccc", "aaabbbaaa"), ("aabbbccc", "aabbbccc"),
    ]  # fmt: skip
    widths = [(1, 2), (2, 3), (3, 5), (2, 2), (4, 3)]
    low, middle, high = (np.full((2, 3), height) for height in (1.0, 2.0, 3.0))
    around_its_first = np.concatenate([middle, low, high])  # the mean is the first head
    plain = [
        (heads_of(k, i, *widths[i % 5]), heads_of(v, 100 + i, *widths[i % 5]), len(k))
        for i, (k, v) in enumerate(patterns)
    ]
    turned = np.array([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0], [4.0, 3.0]])  # equal sums and first rows
    rounded, other = heads_of("aabbbb", 200), heads_of("aabbbb", 201)
    for w in (rounded, other):
        w[2:4] *= 1 + 3e-13  # the second head of a group
        w[8:10] *= 1 - 3e-13
    near, away = heads_of("aabb", 202), heads_of("aa", 203)
    near[[0, 2], 1] = 1.4996, 1.5004  # 8e-4 apart; to three digits, equal
    away[[0, 2], 1] = 1.5004, 1.4996
    return [
        *plain,
        (around_its_first, around_its_first, 3),
        (turned, turned, 2),
        (turned[::-1].copy(), turned[::-1].copy(), 2),  # equal sums and last rows
        (turned, 5.0 - turned, 2),  # equal wk + wv
        (np.full((3, 2), 2.0), np.full((3, 2), 2.0), 3),  # their mean is exact
        (rounded, other, 6),
        (near, heads_of("aabb", 204), 4),
        (heads_of("aa", 205), away, 2),
    ]


@exercise(
    title="How few would do?",
    difficulty="hard",
    minutes=12,
    cases=maps_that_repeat,
    hints=(
        "For one K: all heads of every group of H // K neighbours must be equal, in wk *and* in "
        "wv.",
        "K must divide H. Try the divisors from 1 up, and stop at the first that works; K = H "
        "always does.",
        "heads = w.reshape(K, G, -1): equal in a group means np.allclose(heads, heads[:, :1]). "
        "Not ==, since rounding may differ; and not so wide that 1e-3 gets through.",
    ),
)
def fewest_kv_heads(wk, wv, n_heads):
    """Maps (H·D, C) of an MHA -> the fewest key heads with which a GQA computes the same."""
    for n_kv_heads in range(1, n_heads + 1):
        if n_heads % n_kv_heads:
            continue
        both = [w.reshape(n_kv_heads, n_heads // n_kv_heads, -1) for w in (wk, wv)]
        if all(np.allclose(heads, heads[:, :1]) for heads in both):  # but for rounding
            return n_kv_heads
    raise ValueError("n_heads must be 1 or more")


@fewest_kv_heads.right
def fewest_in_torch(wk, wv, n_heads):
    heads = torch.cat([w.reshape(n_heads, -1) for w in (wk, wv)], dim=1)
    for K in [K for K in range(1, n_heads + 1) if n_heads % K == 0]:
        if torch.allclose(heads[:: n_heads // K].repeat_interleave(n_heads // K, 0), heads):
            return K


@fewest_kv_heads.right
def fewest_by_the_greatest_divisor(wk, wv, n_heads):
    heads = np.concatenate([w.reshape(n_heads, -1) for w in (wk, wv)], axis=1)
    changes = np.flatnonzero(np.abs(heads[1:] - heads[:-1]).max(axis=1) > 1e-12) + 1
    return n_heads // int(np.gcd.reduce([n_heads, *changes]))


@fewest_kv_heads.right
def fewest_by_loops(wk, wv, n_heads):
    D = len(wk) // n_heads

    def head(w, h):
        return w[h * D : (h + 1) * D]

    best = n_heads
    for G in range(1, n_heads + 1):
        if n_heads % G == 0 and all(
            np.allclose(head(w, h), head(w, h - h % G)) for h in range(n_heads) for w in (wk, wv)
        ):
            best = n_heads // G
    return best


def works(heads, K, tile=False, tol=0.0):
    """Whether K key heads do, shared by neighbours or, with `tile`, in turns."""
    G = len(heads) // K
    groups = heads.reshape(G, K, -1).swapaxes(0, 1) if tile else heads.reshape(K, G, -1)
    return (np.abs(groups - groups[:, :1]) <= tol).all()


def side_by_side(H, *maps):
    return np.concatenate([w.reshape(H, -1) for w in maps], axis=1)


def fewest(heads, tile=False, tol=0.0):
    H = len(heads)
    divisors = [K for K in range(1, H + 1) if H % K == 0]
    return next((K for K in divisors if works(heads, K, tile, tol)), H)


def runs(heads):
    """How many runs of equal heads there are."""
    return 1 + int((heads[1:] != heads[:-1]).any(axis=1).sum())


def run_lengths(heads):
    ends = np.flatnonzero((heads[1:] != heads[:-1]).any(axis=1)) + 1
    return [len(run) for run in np.split(heads, ends)]


def distinct(heads):
    return len(np.unique(heads, axis=0))


def either_way(name, answer, what):
    """Two rows for one mistake: made by who compares with a tolerance, and by who uses ==."""

    def close(wk, wv, n_heads):
        return answer(np.round(wk, 9), np.round(wv, 9), n_heads)

    exactly = f"{what} (And heads were compared exactly: rounding may differ, use `np.allclose`.)"
    return (name, close, what), (f"{name}_exactly", answer, exactly)


mistakes(
    fewest_kv_heads,
    ("compared_exactly", lambda wk, wv, H: fewest(side_by_side(H, wk, wv)),
     "Heads were compared exactly, or with next to no tolerance: rounding may differ. Use "
     "`np.allclose`."),
    ("compared_loosely", lambda wk, wv, H: fewest(side_by_side(H, wk, wv), tol=1e-2),
     "Heads that differ by 1e-3 were taken for equal: the tolerance is too wide. Rounding is below "
     "1e-9; `np.allclose` as it comes will do."),
    ("signed_difference", lambda wk, wv, H: _signed(side_by_side(H, wk, wv), 1),
     "The largest *signed* difference was compared: a head that is smaller than the first of its "
     "group gets through. Take np.abs first."),
    ("signed_difference_turned", lambda wk, wv, H: _signed(side_by_side(H, wk, wv), -1),
     "The largest *signed* difference was compared: a head that is larger than the first of its "
     "group gets through. Take np.abs first."),
    *either_way("distinct_heads", lambda wk, wv, H: distinct(side_by_side(H, wk, wv)),
     "The *different* heads were counted. Two equal heads can be shared only if they are "
     "neighbours, and all groups are equally large: a b a b needs four."),
    *either_way("runs_of_equal_heads", lambda wk, wv, H: runs(side_by_side(H, wk, wv)),
     "The runs of equal neighbours were counted. Groups must be equally large: a a b b b b has two "
     "runs, but needs three heads (a, b, b)."),
    *either_way("keys_alone", lambda wk, wv, H: fewest(side_by_side(H, wk)),
     "Only the keys were looked at. Heads that share a key head share its *values*, too: wv must "
     "agree as well."),
    *either_way("values_alone", lambda wk, wv, H: fewest(side_by_side(H, wv)),
     "Only the values were looked at. The keys of a group must agree as well."),
    *either_way("smaller_of_the_two", lambda wk, wv, H:
     min(fewest(side_by_side(H, wk)), fewest(side_by_side(H, wv))),
     "The smaller of what keys and values need was taken. One number serves both: it must do for "
     "the more demanding."),
    ("tiled", lambda wk, wv, H: fewest(side_by_side(H, wk, wv), tile=True),
     "Heads were grouped in turns, 0 1 0 1. Those that share are neighbours, 0 0 1 1."),
    *either_way("size_of_a_group", lambda wk, wv, H: H // fewest(side_by_side(H, wk, wv)),
     "That is the size of a group, H // K. Asked for is the number of key heads, K."),
    *either_way("first_groups_alone", lambda wk, wv, H: next(
        K for K in range(1, H + 1) if H % K == 0
        and works(side_by_side(H, wk, wv)[: H // K], 1)),
     "Only the first group was compared. The heads of *every* group must be equal."),
    *either_way("ends_of_groups", lambda wk, wv, H: next(
        K for K in range(1, H + 1) if H % K == 0 and all(
            (g[0] == g[-1]).all() for g in np.split(side_by_side(H, wk, wv), K))),
     "Only the first and the last head of each group were compared. Those between count, too."),
    *either_way("first_two_of_a_group", lambda wk, wv, H: next(
        K for K in range(1, H + 1) if H % K == 0 and all(
            (g[0] == g[min(1, len(g) - 1)]).all() for g in np.split(side_by_side(H, wk, wv), K))),
     "Only the first two heads of each group were compared. All of them must be equal."),
    ("largest_that_works", lambda wk, wv, H: H,
     "H heads always do. Asked for are the fewest: try the divisors from 1 up."),
    ("one_or_all", lambda wk, wv, H: 1 if works(side_by_side(H, wk, wv), 1) else H,
     "That is 1 where all heads are equal, and H everywhere else. Between them are the other "
     "divisors of H: try each, and compare a head with the first of its *own* group."),
    ("always_one", lambda wk, wv, H: 1,
     "That is always 1. The heads *of a group* are compared, `heads == heads[:, :1]`; `heads[:1]` "
     "compares the groups with each other, and with K = 1 there is only one."),
    *either_way("one_not_tried", lambda wk, wv, H: next(
        (K for K in range(2, H + 1) if H % K == 0 and works(side_by_side(H, wk, wv), K)), H),
     "K = 1 was not tried: where all heads are equal, one will do."),
    ("equal_to_their_mean", lambda wk, wv, H: next(
        (K for K in range(1, H + 1) if H % K == 0 and all(
            (g == g.mean(0)).all() for g in np.split(side_by_side(H, wk, wv), K))), H),
     "Heads were compared with their mean, or their deviation with 0. The mean of three equal "
     "numbers can be off by rounding: compare heads with each other, or use `np.allclose`."),
    ("sums", lambda wk, wv, H: next(
        K for K in range(1, H + 1) if H % K == 0 and all(
            np.allclose(g.sum(1), g[0].sum())
            for w in (wk, wv) for g in np.split(side_by_side(H, w), K))),
     "Heads were compared by one number each, as their sum. Different heads may have the same: "
     "compare all D · C numbers."),
    *either_way("keys_plus_values", lambda wk, wv, H: fewest((wk + wv).reshape(H, -1)),
     "wk and wv were added, and the sums compared. Heads may differ and have the same sum: compare "
     "keys with keys and values with values."),
    *either_way("first_rows", lambda wk, wv, H: _by_one_row(wk, wv, H, 0),
     "Only the first row of each head was compared. Head h owns D rows: compare all of them."),
    *either_way("last_rows", lambda wk, wv, H: _by_one_row(wk, wv, H, -1),
     "Only the last row of each head was compared. Head h owns D rows: compare all of them."),
    ("single_rows", lambda wk, wv, H: next(
        (K for K in range(1, H + 1) if H % K == 0 and all(
            (g == g[0]).all() for w in (wk, wv) for g in np.split(w, K))), H),
     "Single rows were compared, those of one head among themselves. Head h owns D rows: compare "
     "whole heads, a view as (K, G, D·C)."),
    *either_way("in_pairs", lambda wk, wv, H: _merged_in_pairs(side_by_side(H, wk, wv)),
     "Heads were merged in pairs, and pairs of pairs. A group may have three heads, too: try every "
     "divisor of H."),
    ("halves", lambda wk, wv, H: next(
        (K for K in (1, 2) if H % K == 0 and works(side_by_side(H, wk, wv), K)), H),
     "Only one and two key heads were tried, else all. Try every divisor of H."),
    *either_way("divisors_in_the_wrong_order", lambda wk, wv, H: next(
        (K for K in range(H - 1, 0, -1) if H % K == 0 and works(side_by_side(H, wk, wv), K)), H),
     "The first that works was taken, from H down: that is the *largest* below H. From 1 up."),
    *either_way("distinct_keys", lambda wk, wv, H: distinct(side_by_side(H, wk)),
     "The different heads of the keys were counted. The values must agree as well, and only "
     "neighbours share, in groups of equal size."),
    *either_way("shortest_run", lambda wk, wv, H: H // min(run_lengths(side_by_side(H, wk, wv))),
     "n_heads was divided by the shortest run of equal heads. Groups begin at multiples of G: runs "
     "of 2, 3 and 3 fit no group larger than 1."),
    *either_way("longest_run", lambda wk, wv, H: H // max(run_lengths(side_by_side(H, wk, wv))),
     "n_heads was divided by the longest run of equal heads. *All* groups are as large."),
    ("mean_is_the_first", lambda wk, wv, H: next(
        K for K in range(1, H + 1) if H % K == 0 and all(
            np.allclose(g.mean(0), g[0]) for g in np.split(side_by_side(H, wk, wv), K))),
     "Heads that differ passed as equal. Those of a group may be multiples of each other, and "
     "their mean may be the first of them: compare every number of every head."),
    ("powers_of_two", lambda wk, wv, H: next(
        (K for K in (1, 2, 4, 8) if H % K == 0 and works(side_by_side(H, wk, wv), K)), H),
     "Only powers of two were tried. Any divisor of H will do, 3 of 6 for instance."),
    *either_way("product", lambda wk, wv, H:
     fewest(side_by_side(H, wk)) * fewest(side_by_side(H, wv)),
     "What keys and values need was multiplied. The groups must do for both: compare wk and wv "
     "together."),
    *either_way("larger_of_the_two_counts", lambda wk, wv, H:
     max(distinct(side_by_side(H, wk)), distinct(side_by_side(H, wv))),
     "The different heads of keys and of values were counted, and the larger number taken. Where "
     "they stand matters: only neighbours share, in groups of equal size."),
    *either_way("larger_of_the_two", lambda wk, wv, H:
     max(fewest(side_by_side(H, wk)), fewest(side_by_side(H, wv))),
     "What keys and values need was found for each, and the larger number taken. The *groups* must "
     "do for both: keys in threes and values in twos need six heads of six."),
    *either_way("without_the_divisor_rule", lambda wk, wv, H: next(
        (K for K in range(1, H) if all(
            (g == g[:1]).all() for g in np.array_split(side_by_side(H, wk, wv), K))), H),
     "A number of heads was tried that does not divide H, or groups were not equally large. Every "
     "key head serves exactly H // K query heads."),
)  # fmt: skip


def _by_one_row(wk, wv, H, row):
    rows = [w.reshape(H, -1, w.shape[1])[:, row] for w in (wk, wv)]
    return fewest(np.concatenate(rows, axis=1))


def _signed(heads, sign):
    H = len(heads)
    groups = ((K, heads.reshape(K, H // K, -1)) for K in range(1, H + 1) if H % K == 0)
    return next(K for K, g in groups if (sign * (g - g[:, :1])).max() < 1e-8)


def _merged_in_pairs(heads):
    while len(heads) % 2 == 0 and (heads[::2] == heads[1::2]).all():
        heads = heads[::2]
    return len(heads)
