"""Chapter 8: a cache of latents, its bytes, rotary keys beside them, absorption, GQA as a latent.

Axes differ in size in most cases. In some the width of a head equals the latent's rank, or keys are
as wide as values: only there does a transposed map or a wrong slice raise no error. Weights are as
`nn.Linear` stores them, (out, in).
"""

import numpy as np
import torch

from lib.checks.attention import mistakes
from lib.checks.framework import exercise
from lib.checks.multi_head import Layer, self_attention
from lib.checks.positions import turn, turn_half_split

# 1


def latents_to_extend():
    """x (T, C), w_down (R, C), w_uk (H, N, R), w_uv (H, V, R), cache (S, R)."""
    rng = np.random.default_rng(1)
    sizes = [(1, 1, 2, 2, 2, 3, 2), (2, 3, 4, 3, 2, 5, 6), (1, 4, 5, 2, 3, 6, 4),
             (3, 0, 4, 2, 2, 3, 5), (2, 2, 3, 3, 3, 3, 3), (4, 3, 6, 6, 2, 4, 4),
             (2, 3, 4, 4, 3, 4, 4), (2, 2, 2, 2, 2, 2, 2), (1, 6, 7, 5, 4, 3, 3)]  # fmt: skip
    return [
        tuple(rng.normal(size=s) for s in ((T, C), (R, C), (H, N, R), (H, V, R), (S, R)))
        for T, S, C, R, H, N, V in sizes
    ]


@exercise(
    title="A cache of latents",
    difficulty="medium",
    minutes=8,
    cases=latents_to_extend,
    axes={"cache": "S R", "keys": "H S N", "values": "H S V"},
    hints=(
        "Down first: x @ w_down.T is (T, R), one latent a token, without any head.",
        "Append it to the cache along the tokens: (S, R) and (T, R) give (S + T, R).",
        "Up last, from all latents, old and new: einsum('sr,hnr->hsn', cache, w_uk).",
    ),
)
def latent_cache(x, w_down, w_uk, w_uv, cache):
    """x (T, C), cache (S, R) -> cache (S + T, R), keys (H, S + T, N), values (H, S + T, V)."""
    cache = np.concatenate((cache, x @ w_down.T))  # (T, C) x (C, R) -> (T, R), behind the old ones
    keys = np.einsum("sr,hnr->hsn", cache, w_uk)  # each head reads the same latents its own way
    values = np.einsum("sr,hvr->hsv", cache, w_uv)
    return cache, keys, values


@latent_cache.right
def latents_in_torch(x, w_down, w_uk, w_uv, cache):
    cache = torch.cat((cache, torch.nn.functional.linear(x, w_down)))
    return cache, cache @ w_uk.mT, torch.matmul(cache[None], w_uv.transpose(1, 2))


@latent_cache.right
def latents_head_by_head(x, w_down, w_uk, w_uv, cache):
    rows = list(cache)
    for token in x:
        rows.append(w_down @ token)
    keys = np.stack([[up @ c for c in rows] for up in w_uk])
    return np.array(rows), keys, np.stack([[up @ c for c in rows] for up in w_uv])


@latent_cache.right
def latents_as_a_list(x, w_down, w_uk, w_uv, cache):
    cache = np.vstack([cache, np.einsum("tc,rc->tr", x, w_down)])
    return [cache, np.array([cache @ w.T for w in w_uk]), np.array([cache @ w.T for w in w_uv])]


def latent_parts(x, w_down, w_uk, w_uv, cache, old_first=True):
    """All latents in the cache, and a function that sends latents up: for mistakes."""
    new = x @ w_down.T
    parts = (cache, new) if old_first else (new, cache)
    return np.concatenate(parts), new, lambda c, w: np.einsum("sr,hnr->hsn", c, w)


def latent_mistake(change):
    """A wrong answer from change(all latents, new ones, up, x, w_down, w_uk, w_uv, cache)."""
    return lambda x, d, k, v, c: change(*latent_parts(x, d, k, v, c), x, d, k, v, c)


mistakes(
    latent_cache,
    ("up_projected_keys_cached",
     latent_mistake(lambda a, n, up, x, d, k, v, c: (up(a, k), up(a, k), up(a, v))),
     "The keys of all heads were cached: H · N numbers a token. Cache what they are made from, the "
     "latent."),
    ("keys_and_values_cached", latent_mistake(lambda a, n, up, x, d, k, v, c: (
        np.concatenate((up(a, k), up(a, v)), -1), up(a, k), up(a, v))),
     "The keys and values of all heads were cached, as in MHA. Cache what they are made from, the "
     "latent."),
    ("a_latent_per_head", latent_mistake(lambda a, n, up, x, d, k, v, c: (
        np.repeat(a[None], len(k), 0), up(a, k), up(a, v))),
     "The cache has a copy of the latent for each head. One serves them all: (S + T, R)."),
    ("latent_twice", latent_mistake(lambda a, n, up, x, d, k, v, c: (
        np.concatenate((a, a), -1), up(a, k), up(a, v))),
     "The latent is cached twice, for keys and for values. One serves both: (S + T, R)."),
    ("new_tokens_alone", latent_mistake(lambda a, n, up, x, d, k, v, c: (a, up(n, k), up(n, v))),
     "Keys and values were made for the new tokens only. Old tokens' are not kept anywhere: make "
     "them of *all* latents."),
    ("old_tokens_alone", latent_mistake(lambda a, n, up, x, d, k, v, c: (a, up(c, k), up(c, v))),
     "Keys and values were made before the new latents were appended. The new tokens see "
     "themselves: append first."),
    ("not_appended", latent_mistake(lambda a, n, up, x, d, k, v, c: (n, up(n, k), up(n, v))),
     "The old latents are gone: what is returned holds the new ones only."),
    ("cache_unchanged", latent_mistake(lambda a, n, up, x, d, k, v, c: (c, up(a, k), up(a, v))),
     "The cache that is returned lacks the new latents."),
    ("cache_of_new_alone", latent_mistake(lambda a, n, up, x, d, k, v, c: (n, up(a, k), up(a, v))),
     "The cache that is returned holds the new latents only; the old ones belong before them."),
    ("new_first", lambda x, d, k, v, c: _new_first(x, d, k, v, c),
     "The new latents stand before the old ones. Append them behind: row s is token s."),
    ("values_from_keys", latent_mistake(lambda a, n, up, x, d, k, v, c: (a, up(a, k), up(a, k))),
     "The values were made with w_uk. They have a map of their own, w_uv."),
    ("swapped", latent_mistake(lambda a, n, up, x, d, k, v, c: (a, up(a, v), up(a, k))),
     "Keys and values are exchanged: w_uk makes keys, w_uv values, in this order."),
    ("first_head_for_all", latent_mistake(lambda a, n, up, x, d, k, v, c: (
        a, up(a, np.repeat(k[:1], len(k), 0)), up(a, np.repeat(v[:1], len(v), 0)))),
     "Every head got the maps of head 0. Each has its own: that is what MLA keeps and MQA gives "
     "up."),
    ("one_head_without_axis", latent_mistake(lambda a, n, up, x, d, k, v, c: (
        a, up(a, k)[0], up(a, v)[0])),
     "Only head 0 was returned. There are H of them, along the first axis."),
    ("heads_summed", latent_mistake(lambda a, n, up, x, d, k, v, c: (
        a, up(a, k).sum(0), up(a, v).sum(0))),
     "The heads were summed (in an einsum: the letter h is missing after the arrow)."),
    ("tokens_first", latent_mistake(lambda a, n, up, x, d, k, v, c: (
        a, up(a, k).swapaxes(0, 1), up(a, v).swapaxes(0, 1))),
     "Keys and values have their axes as (S, H, ·). Asked for is (H, S, ·): heads first."),
    ("tokens_last", latent_mistake(lambda a, n, up, x, d, k, v, c: (
        a, up(a, k).swapaxes(1, 2), up(a, v).swapaxes(1, 2))),
     "Keys and values have their axes as (H, ·, S). Asked for is (H, S, ·)."),
    ("down_transposed", lambda x, d, k, v, c: _with_down(x, d.T, k, v, c),
     "w_down is (R, C), as `nn.Linear` stores it: multiply by its transpose, x @ w_down.T. (Where "
     "C equals R the other way raises no error.)"),
    ("up_transposed", lambda x, d, k, v, c: _with_down(x, d, k.swapaxes(1, 2), v.swapaxes(1, 2), c),
     "The up-projections were transposed. w_uk is (H, N, R) and takes R numbers to N: "
     "cache @ w_uk[h].T. (Where N equals R the other way raises no error.)"),
    ("all_transposed", lambda x, d, k, v, c: _with_down(
        x, d.T, k.swapaxes(1, 2), v.swapaxes(1, 2), c),
     "All maps were used transposed. They are stored as (out, in): x @ w_down.T goes down, "
     "cache @ w_uk[h].T up. (Only where the sizes are equal the other way raises no error.)"),
    ("keys_transposed", lambda x, d, k, v, c: _with_down(x, d, k.swapaxes(1, 2), v, c),
     "w_uk was transposed. It is (H, N, R) and takes R numbers to N: cache @ w_uk[h].T. (Where N "
     "equals R the other way raises no error.)"),
    ("values_transposed", lambda x, d, k, v, c: _with_down(x, d, k, v.swapaxes(1, 2), c),
     "w_uv was transposed. It is (H, V, R) and takes R numbers to V: cache @ w_uv[h].T. (Where V "
     "equals R the other way raises no error.)"),
    ("normalised", lambda x, d, k, v, c: _with_latents(_normalised(x @ d.T), k, v, c),
     "The new latents were normalised. DeepSeek's layer does that; here it is not asked for: "
     "x @ w_down.T is the latent."),
    ("latents_scaled", lambda x, d, k, v, c: _with_latents(x @ d.T / np.sqrt(len(d)), k, v, c),
     "The new latents were divided by √R. Nothing is scaled here; that comes with the scores."),
    ("keys_scaled", latent_mistake(lambda a, n, up, x, d, k, v, c: (
        a, up(a, k) / np.sqrt(k.shape[1]), up(a, v))),
     "The keys were divided by √N. Nothing is scaled here; that comes with the scores."),
    ("softmax_of_latents", lambda x, d, k, v, c: _with_latents(_softmax(x @ d.T), k, v, c),
     "The new latents went through a softmax. They are no weights: x @ w_down.T as it is."),
    ("tokens_cached", lambda x, d, k, v, c: _tokens_cached(x, d, k, v, c),
     "The tokens themselves were appended, C numbers each. Down-project first: (T, C) -> (T, R)."),
    ("latents_for_keys", latent_mistake(lambda a, n, up, x, d, k, v, c: (a, a, a)),
     "The latents were returned as keys and values. Each head makes its own of them, with w_uk and "
     "w_uv."),
    ("rows_instead_of_cache", latent_mistake(lambda a, n, up, x, d, k, v, c: (
        a[None], up(a, k), up(a, v))),
     "The cache has an axis too many: (S + T, R), two axes."),
    ("cache_not_returned", latent_mistake(lambda a, n, up, x, d, k, v, c: (up(a, k), up(a, v))),
     "Keys and values came back, the cache did not. Return three things: cache, keys, values."),
)  # fmt: skip


def _new_first(x, w_down, w_uk, w_uv, cache):
    rows, _, up = latent_parts(x, w_down, w_uk, w_uv, cache, old_first=False)
    return rows, up(rows, w_uk), up(rows, w_uv)


def _with_down(x, w_down, w_uk, w_uv, cache):
    rows, _, up = latent_parts(x, w_down, w_uk, w_uv, cache)
    return rows, up(rows, w_uk), up(rows, w_uv)


def _with_latents(new, w_uk, w_uv, cache):
    return _with_down(new, np.eye(new.shape[1]), w_uk, w_uv, cache)


def _normalised(x):
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6)


def _tokens_cached(x, w_down, w_uk, w_uv, cache):
    return _with_latents(x, w_uk, w_uv, cache)


# 2


def grouped_maps():
    """w_k and w_v (K·D, C), n_heads, n_kv_heads."""
    rng = np.random.default_rng(6)
    sizes = [(2, 1, 1, 2), (2, 2, 2, 3), (4, 2, 1, 3), (4, 2, 3, 5), (6, 2, 2, 7), (6, 3, 4, 5),
             (3, 1, 4, 6), (8, 4, 2, 3), (4, 4, 3, 8)]  # fmt: skip
    return [
        (rng.normal(size=(K * D, C)), rng.normal(size=(K * D, C)), H, K) for H, K, D, C in sizes
    ]


def wrong_latent_form(out, w_k, w_v, n_heads, n_kv_heads):
    """What is wrong with (w_down, w_uk, w_uv), or "": any order of the latent's features goes."""
    if not isinstance(out, tuple | list) or len(out) != 3:
        return "Expected three things: w_down (R, C), w_uk (H, D, R) and w_uv (H, D, R)."
    (rows, C), H = w_k.shape, n_heads
    R, D = 2 * rows, rows // n_kv_heads
    forms = ("w_down", (R, C)), ("w_uk", (H, D, R)), ("w_uv", (H, D, R))
    for (name, shape), got in zip(forms, out):
        got = np.asarray(got)
        if got.dtype.kind not in "iuf" or got.shape != shape:
            what = f"shape {got.shape}" if got.dtype.kind in "iuf" else "no numbers"
            return f"{name} must be {shape}, with R = 2 · n_kv_heads · D: got {what}."
    down, up_k, up_v = (np.asarray(x) for x in out)
    for name, up, w in (("key", up_k, w_k), ("value", up_v, w_v)):
        heads = np.repeat(w.reshape(n_kv_heads, D, C), H // n_kv_heads, axis=0)
        off = np.abs(up @ down - heads).max(axis=(1, 2))
        if not np.all(off < 1e-6):
            h = int(np.argmax(~(off < 1e-6)))
            return (
                f"Head {h}: up @ down is not its {name} map in GQA. Query head {h} reads "
                f"{name} head {h // (H // n_kv_heads)}."
            )
    return ""


@exercise(
    title="GQA as a latent",
    difficulty="hard",
    minutes=12,
    cases=grouped_maps,
    judge=wrong_latent_form,
    hints=(
        "What does GQA cache? All keys and all values of a token: R = 2 · K · D numbers. Let that "
        "be the latent: which w_down makes it?",
        "w_down is w_k on top of w_v. Then a head's up-projection has nothing to compute: it picks "
        "D of the R numbers, so its rows are rows of the identity.",
        "Query head h reads key head k = h // (H // K): ones at w_uk[h, d, k·D + d], and for the "
        "values K·D further on.",
    ),
)
def gqa_as_latent(w_k, w_v, n_heads, n_kv_heads):
    """w_k, w_v (K·D, C) -> w_down (R, C), w_uk and w_uv (H, D, R), with R = 2·K·D."""
    rows = len(w_k)
    D, group = rows // n_kv_heads, n_heads // n_kv_heads
    w_down = np.concatenate((w_k, w_v))  # (2·K·D, C): the latent is all keys, then all values
    pick = np.eye(2 * rows)
    w_uk = np.stack([pick[h // group * D :][:D] for h in range(n_heads)])
    w_uv = np.stack([pick[rows + h // group * D :][:D] for h in range(n_heads)])
    return w_down, w_uk, w_uv


@gqa_as_latent.right
def latent_form_in_torch(w_k, w_v, n_heads, n_kv_heads):
    eye = torch.eye(2 * w_k.shape[0]).double().unflatten(0, (2, n_kv_heads, -1))
    w_uk, w_uv = eye.repeat_interleave(n_heads // n_kv_heads, dim=1)
    return torch.cat((w_k, w_v)), w_uk, w_uv


@gqa_as_latent.right
def latent_form_values_first(w_k, w_v, n_heads, n_kv_heads):
    down, w_uv, w_uk = gqa_as_latent.solve(w_v, w_k, n_heads, n_kv_heads)
    return [down, w_uk, w_uv]


@gqa_as_latent.right
def latent_form_in_another_basis(w_k, w_v, n_heads, n_kv_heads):
    down, w_uk, w_uv = gqa_as_latent.solve(w_k, w_v, n_heads, n_kv_heads)
    turn_it = np.linalg.qr(np.random.default_rng(0).normal(size=(len(down), len(down))))[0]
    return turn_it @ down, w_uk @ turn_it.T, w_uv @ turn_it.T


def latent_form(w_k, w_v, H, K, choose=None, choose_v=None, offset=None):
    """The solution with the choice of key heads exchanged, for mistakes."""
    rows, D = len(w_k), len(w_k) // K
    choose = choose or (lambda h: h // (H // K))
    offset, pick = rows if offset is None else offset, np.eye(2 * rows)
    w_uk = np.stack([pick[choose(h) * D :][:D] for h in range(H)])
    w_uv = np.stack([pick[offset + (choose_v or choose)(h) * D :][:D] for h in range(H)])
    return np.concatenate((w_k, w_v)), w_uk, w_uv


mistakes(
    gqa_as_latent,
    ("tiled", lambda a, b, H, K: latent_form(a, b, H, K, choose=lambda h: h % K),
     "The key heads are dealt out in turn, h % K. Neighbours share: query head h reads key head "
     "h // (H // K)."),
    ("values_tiled", lambda a, b, H, K: latent_form(a, b, H, K, choose_v=lambda h: h % K),
     "The value heads are dealt out in turn, h % K. Neighbours share, as with the keys."),
    ("first_head_for_all", lambda a, b, H, K: latent_form(a, b, H, K, choose=lambda h: 0),
     "Every head reads key head 0: that is MQA. Query head h reads key head h // (H // K)."),
    ("values_are_keys", lambda a, b, H, K: latent_form(a, b, H, K, offset=0),
     "The values pick the keys' part of the latent. Theirs begins K·D further on."),
    ("swapped", lambda a, b, H, K: (lambda d, k, v: (d, v, k))(*latent_form(a, b, H, K)),
     "w_uk and w_uv are exchanged: keys are picked from where w_k made them."),
    ("up_transposed", lambda a, b, H, K: (lambda d, k, v: (
        d, k.swapaxes(1, 2), v.swapaxes(1, 2)))(*latent_form(a, b, H, K)),
     "The up-projections are transposed: (H, D, R), from the latent to the head."),
    ("down_transposed", lambda a, b, H, K: (lambda d, k, v: (d.T, k, v))(*latent_form(a, b, H, K)),
     "w_down is transposed: (R, C), from the token to the latent."),
    ("keys_alone", lambda a, b, H, K: (a, *(np.stack([
        np.eye(len(a))[h // (H // K) * (len(a) // K):][: len(a) // K] for h in range(H)])
        for _ in "kv")),
     "The latent holds the keys only; values cannot be made of it. R = 2 · K · D: keys and "
     "values."),
    ("maps_in_the_up_projection", lambda a, b, H, K: (
        np.eye(a.shape[1]), *(np.repeat(w.reshape(K, -1, w.shape[1]), H // K, 0) for w in (a, b))),
     "The latent is the token itself, C numbers, and the maps moved into the up-projections. That "
     "is right as a product, but nothing is saved: the latent is to have R = 2 · K · D numbers."),
    ("a_latent_of_all_heads", lambda a, b, H, K: latent_form(
        *(np.repeat(w.reshape(K, -1, w.shape[1]), H // K, 0).reshape(-1, w.shape[1])
          for w in (a, b)), H, H),
     "Keys and values were repeated for every query head, so the latent is as large as MHA's "
     "cache. Repeating is what the *up*-projections do: R = 2 · K · D."),
    ("maps_twice", lambda a, b, H, K: (lambda d, k, v: (d, k @ d, v @ d))(
        *latent_form(a, b, H, K)),
     "The up-projections hold the maps w_k and w_v again, (H, D, C). The latent is keys and values "
     "already: up-projections only pick, (H, D, R)."),
    ("added", lambda a, b, H, K: (a + b, *latent_form(a, b, H, K)[1:]),
     "w_k and w_v were added. Keys and values lie side by side in the latent: put one on top of "
     "the other."),
    ("interleaved_down", lambda a, b, H, K: (
        np.stack((a, b), 1).reshape(-1, a.shape[1]), *latent_form(a, b, H, K)[1:]),
     "The rows of w_k and w_v take turns in w_down, but the up-projections pick as if all keys "
     "came first. Either order is right; both must agree."),
    ("averaged", lambda a, b, H, K: (lambda d, k, v: (
        d, np.repeat(k.mean(0, keepdims=True), H, 0), np.repeat(v.mean(0, keepdims=True), H, 0)))(
        *latent_form(a, b, H, K)),
     "The up-projections of all heads were averaged. Each picks the key head it reads."),
    ("reversed", lambda a, b, H, K: latent_form(a, b, H, K, choose=lambda h: K - 1 - h // (H // K)),
     "The groups are in reverse order: query head 0 reads key head 0."),
    ("cut_off", lambda a, b, H, K: latent_form(a, b, H, K, choose=lambda h: min(h, K - 1)),
     "The heads beyond the last key head all got the last one. Share evenly: h // (H // K)."),
    ("one_pick_per_key_head", lambda a, b, H, K: (lambda d, k, v: (
        d, k[:: H // K], v[:: H // K]))(*latent_form(a, b, H, K)),
     "There is an up-projection for each *key* head. Each of the H query heads needs one; those of "
     "a group are copies."),
)  # fmt: skip


# 3


@exercise(
    title="Why RoPE is in the way",
    difficulty="easy",
    minutes=3,
    options={
        "a": "RoPE *is* linear: a rotation is a matrix. That is why one can write the product at "
        "all, and see what stands where.",
        "b": "The softmax comes later. Absorption changes how a *score* is computed, before any "
        "softmax.",
        "c": "Rotations do not commute with a general matrix: Rot(s) W_UK is not W_UK Rot(s). And "
        "the latent has R features, a key has N: the same rotation does not even fit.",
        "d": "Yes. The score is qᵀ Rot(s − t) W_UK c, and the query would have to be multiplied "
        "anew for every distance, once for each key: as much work as rebuilding the keys.",
        "e": "No inverse is needed. Absorption moves W_UK to the other side of a dot product by "
        "transposing it, and every matrix has a transpose.",
        "f": "It would be possible to cache rotated keys, H · N numbers a token; that is MHA's "
        "cache. But the mask has nothing to do with it: it is added to the finished score.",
    },
    hints=(
        "Write the score of query t and key s with everything between q and c in one line.",
        "Which of the factors between q and c are the same for all keys? Only those can be "
        "multiplied into the query once.",
    ),
)
def why_rope_blocks():
    """Why a key Rot(s) · W_UK · c cannot be absorbed: a letter from a to f."""
    return "d"


# 4


def parts_of_scores():
    """q_nope (H, T, N), q_rope (H, T, P), w_uk (H, N, R), latent (S, R), k_rope (S, P)."""
    rng = np.random.default_rng(2)
    sizes = [
        (1, 1, 2, 2, 2, 1),
        (2, 1, 3, 4, 2, 5),
        (3, 2, 5, 6, 4, 3),
        (2, 3, 3, 2, 4, 6),
        (2, 4, 6, 4, 4, 4),
        (3, 3, 3, 3, 6, 2),
        (2, 2, 2, 2, 2, 2),
        (4, 3, 7, 5, 8, 6),
    ]
    return [
        tuple(rng.normal(size=s) for s in ((H, T, N), (H, T, P), (H, N, R), (S, R), (S, P)))
        for H, T, S, N, P, R in sizes
    ]


@exercise(
    title="Scores with a rotary key beside the latent",
    difficulty="hard",
    minutes=12,
    cases=parts_of_scores,
    axes="H T S",
    hints=(
        "Two dot products that are added: one without position, over N, and one with, over P.",
        "Only q_rope and k_rope are turned. Key s stands at position s; the T queries are the last "
        "of the S tokens, so query t stands at S − T + t.",
        "A head compares N + P numbers in all: the scale is 1/√(N + P). k_rope is one for all "
        "heads.",
    ),
)
def decoupled_rope(q_nope, q_rope, w_uk, latent, k_rope):
    """-> scores (H, T, S) of T queries, the last of S tokens: with RoPE, scaled, without a mask."""
    (_, T, N), (S, P) = q_nope.shape, k_rope.shape

    def rotate(x, positions):  # x (..., T, P), pairs (2i, 2i + 1)
        angle = positions[:, None] * 10_000.0 ** -(np.arange(0, P, 2) / P)
        cos, sin, out = np.cos(angle), np.sin(angle), np.empty_like(x)
        out[..., 0::2] = x[..., 0::2] * cos - x[..., 1::2] * sin
        out[..., 1::2] = x[..., 0::2] * sin + x[..., 1::2] * cos
        return out

    k_nope = np.einsum("sr,hnr->hsn", latent, w_uk)
    content = q_nope @ k_nope.swapaxes(-1, -2)  # (H, T, S)
    place = rotate(q_rope, np.arange(S - T, S)) @ rotate(k_rope, np.arange(S)).T
    return (content + place) / np.sqrt(N + P)


def rotary_scores(
    q_nope, q_rope, w_uk, latent, k_rope, width=lambda N, P: N + P, rotate=turn, first=None,
    turned="qk", content=1.0, place=1.0,
):  # fmt: skip
    """The solution with its parts to be exchanged, for other answers and mistakes."""
    (_, T, N), (S, P) = q_nope.shape, k_rope.shape
    first = S - T if first is None else first
    q = rotate(q_rope, np.arange(first, first + T)) if "q" in turned else q_rope
    k = rotate(k_rope, np.arange(S)) if "k" in turned else k_rope
    k_nope = np.einsum("sr,hnr->hsn", latent, w_uk)
    scores = content * q_nope @ k_nope.swapaxes(-1, -2) + place * q @ k.T
    return scores / np.sqrt(width(N, P))


def at_exponents(factor):
    """RoPE whose exponents are `factor` times those that they should be, for mistakes."""

    def rotate(x, positions):
        P = x.shape[-1]
        return turn(x, positions, freq=10_000.0 ** (-factor * np.arange(0, P, 2) / P))

    return rotate


@decoupled_rope.right
def scores_absorbed(q_nope, q_rope, w_uk, latent, k_rope):
    (_, T, N), (S, P) = q_nope.shape, k_rope.shape
    q = np.concatenate((q_nope @ w_uk, turn(q_rope, np.arange(S)[-T:])), -1)
    rows = np.concatenate((latent, turn(k_rope, np.arange(S))), -1)
    return q @ rows.T * (N + P) ** -0.5


@decoupled_rope.right
def scores_in_torch(q_nope, q_rope, w_uk, latent, k_rope):
    (H, T, N), (S, P) = q_nope.shape, k_rope.shape

    def rotate(x, at):
        f = 10000 ** (-torch.arange(0, P, 2, dtype=x.dtype) / P)
        z = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
        return torch.view_as_real(z * torch.exp(1j * at[:, None] * f)).flatten(-2)

    k = torch.cat((latent @ w_uk.mT, rotate(k_rope, torch.arange(S)).expand(H, S, P)), -1)
    q = torch.cat((q_nope, rotate(q_rope, torch.arange(S - T, S))), -1)
    return q @ k.mT / (N + P) ** 0.5


@decoupled_rope.right
def scores_by_distance(q_nope, q_rope, w_uk, latent, k_rope):
    (H, T, N), (S, P) = q_nope.shape, k_rope.shape
    out = np.zeros((H, T, S))
    for h in range(H):
        for t in range(T):
            for s in range(S):  # only the distance counts: the query is turned by it, the key not
                near = turn(q_rope[h, t : t + 1], [S - T + t - s])[0] @ k_rope[s]
                out[h, t, s] = (q_nope[h, t] @ w_uk[h] @ latent[s] + near) / np.sqrt(N + P)
    return out


@decoupled_rope.right
def scores_in_half_split_pairs(q_nope, q_rope, w_uk, latent, k_rope):
    P = k_rope.shape[1]
    order = np.r_[0:P:2, 1:P:2]  # the same pairs, laid out as halves
    return rotary_scores(
        q_nope, q_rope[..., order], w_uk, latent, k_rope[..., order], rotate=turn_half_split
    )


mistakes(
    decoupled_rope,
    ("latent_rotated", lambda a, b, w, c, k: _latent_rotated(a, b, w, c, k),
     "The latent was turned. It carries no position: it must stay as it is, or the part without "
     "position could not be absorbed. Only q_rope and k_rope are turned."),
    ("nope_rotated", lambda a, b, w, c, k: _nope_rotated(a, b, w, c, k),
     "The part without position was turned, too. Only the P rotary features are."),
    ("scale_of_nope", lambda *a: rotary_scores(*a, width=lambda N, P: N),
     "Scores are divided by √N, the width without position. A head compares N + P numbers: "
     "√(N + P)."),
    ("scale_of_rope", lambda *a: rotary_scores(*a, width=lambda N, P: P),
     "Scores are divided by √P. A head compares N + P numbers: √(N + P)."),
    ("scale_of_the_row", lambda *a: rotary_scores(
        *a, width=lambda N, P: a[3].shape[1] + P),
     "Scores are divided by √(R + P), the width of a cached row. Absorbed or not, the scale is "
     "that of the naive head: √(N + P)."),
    ("no_scale", lambda *a: rotary_scores(*a, width=lambda N, P: 1),
     "The scores are not scaled: divide by √(N + P)."),
    ("no_root", lambda *a: rotary_scores(*a, width=lambda N, P: (N + P) ** 2),
     "The scores are divided by N + P. Take the root."),
    ("scaled_apart", lambda a, b, w, c, k: (
        rotary_scores(a, b, w, c, k, width=lambda N, P: N, place=0.0)
        + rotary_scores(a, b, w, c, k, width=lambda N, P: P, content=0.0)),
     "The two parts were scaled apart, by √N and √P. They are one dot product of width N + P: add "
     "first, then divide by √(N + P)."),
    ("only_content_scaled", lambda a, b, w, c, k: (
        rotary_scores(a, b, w, c, k, place=0.0)
        + rotary_scores(a, b, w, c, k, content=0.0, width=lambda N, P: 1)),
     "Only the part without position was scaled. Add both, then divide by √(N + P)."),
    ("queries_from_zero", lambda *a: rotary_scores(*a, first=0),
     "The queries were turned as if they stood at 0, 1, …. They are the *last* T of S tokens: "
     "query t stands at S − T + t. With a cache, that is the usual case."),
    ("queries_after_the_end", lambda *a: rotary_scores(*a, first=a[4].shape[0]),
     "The queries were turned as if they stood behind all S keys. They are among them: query t "
     "stands at S − T + t."),
    ("positions_from_one", lambda *a: rotary_scores(
        *a, first=a[4].shape[0] - a[1].shape[1] + 1),
     "The queries' positions are one too large compared with the keys'. Query t stands at "
     "S − T + t, key s at s."),
    ("keys_not_turned", lambda *a: rotary_scores(*a, turned="q"),
     "The rotary key was not turned. Both sides turn; only then is the difference what counts."),
    ("queries_not_turned", lambda *a: rotary_scores(*a, turned="k"),
     "The rotary part of the queries was not turned. Both sides turn."),
    ("nothing_turned", lambda *a: rotary_scores(*a, turned=""),
     "Nothing was turned: the scores know no positions. q_rope and k_rope come unrotated."),
    ("turned_backwards", lambda *a: rotary_scores(*a, rotate=lambda x, p: turn(
        x, p, sign=-1.0) if x.ndim == 3 else turn(x, p)),
     "Query and key turn in opposite directions: the score then depends on the *sum* of the "
     "positions. Turn both the same way."),
    ("clockwise", lambda *a: rotary_scores(*a, rotate=lambda x, p: turn(x, p, sign=-1.0)),
     "Query and key turn clockwise, or the two features of a pair changed places. As in chapter 4, "
     "(a, b) becomes (a cos − b sin, a sin + b cos)."),
    ("keys_turned_backwards", lambda *a: rotary_scores(*a, rotate=lambda x, p: turn(
        x, p, sign=-1.0) if x.ndim == 2 else turn(x, p)),
     "The key turns clockwise, the query the other way: the score then depends on the *sum* of the "
     "positions. Turn both the same way."),
    ("exponent_over_half_the_width", lambda *a: rotary_scores(*a, rotate=at_exponents(2.0)),
     "The exponent is −2i/(P/2), twice too large: `np.arange(0, P, 2)` holds 2i already, and P/2 "
     "would halve the width once more. Pair i has the frequency 10000^(−2i/P)."),
    ("exponent_without_the_two", lambda *a: rotary_scores(*a, rotate=at_exponents(0.5)),
     "The exponent is −i/P, half of what it should be: pair i has the frequency 10000^(−2i/P), and "
     "`np.arange(P // 2)` holds i, not 2i."),
    ("growing_frequencies", lambda *a: rotary_scores(*a, rotate=at_exponents(-1.0)),
     "The exponent lacks its minus sign: frequencies grow from pair to pair. They fall: pair i has "
     "10000^(−2i/P)."),
    ("half_split", lambda *a: rotary_scores(*a, rotate=turn_half_split),
     "The pairs are (i, i + P/2), as in Hugging Face's Llama. Here, and in DeepSeek's code, they "
     "are neighbours, (2i, 2i + 1)."),
    ("frequencies_of_the_whole_head", lambda *a: rotary_scores(*a, rotate=lambda x, p: turn(
        x, p, freq=10_000.0 ** -(
            np.arange(0, x.shape[-1], 2) / (a[0].shape[-1] + x.shape[-1])))),
     "The frequencies are those of a head of width N + P. RoPE knows only the P features it turns: "
     "10000^(−2i/P)."),
    ("one_frequency", lambda *a: rotary_scores(*a, rotate=lambda x, p: turn(
        x, p, freq=np.ones(x.shape[-1] // 2))),
     "All pairs turn at the same speed. Pair i has the frequency 10000^(−2i/P)."),
    ("content_alone", lambda *a: rotary_scores(*a, place=0.0),
     "The rotary part is missing: add its dot product."),
    ("place_alone", lambda *a: rotary_scores(*a, content=0.0),
     "Only the rotary part is there: add the dot product without position."),
    ("subtracted", lambda *a: rotary_scores(*a, place=-1.0),
     "The rotary part was subtracted. The two dot products are added."),
    ("multiplied", lambda a, b, w, c, k: (
        rotary_scores(a, b, w, c, k, place=0.0, width=lambda N, P: 1)
        * rotary_scores(a, b, w, c, k, content=0.0)),
     "The two parts were multiplied. One dot product over N + P features is their *sum*."),
    ("softmax", lambda *a: _softmax(rotary_scores(*a)),
     "Those are weights. Asked for are the scores, before the softmax."),
    ("masked", lambda *a: _masked(rotary_scores(*a)),
     "The scores were masked. Asked for are all of them, without a mask."),
    ("transposed", lambda *a: rotary_scores(*a).swapaxes(-1, -2),
     "Queries and keys are exchanged: (H, T, S) has a row for each query."),
    ("up_transposed", lambda a, b, w, c, k: rotary_scores(a, b, w.swapaxes(1, 2), c, k),
     "w_uk was used transposed. It is (H, N, R) and takes a latent to a key: w_uk[h] @ c. (Where N "
     "equals R the other way raises no error.)"),
    ("first_head_for_all", lambda a, b, w, c, k: rotary_scores(
        a, b, np.repeat(w[:1], len(w), 0), c, k),
     "Every head got the map of head 0. Only the rotary key is shared; each head has a w_uk of its "
     "own."),
)  # fmt: skip


def _softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _masked(scores):
    T, S = scores.shape[-2:]
    return np.where(np.tril(np.ones((T, S), bool), S - T), scores, -np.inf)


def _latent_rotated(q_nope, q_rope, w_uk, latent, k_rope):
    even = latent.shape[1] // 2 * 2
    turned = turn(latent[:, :even], np.arange(len(latent)))
    latent = np.concatenate((turned, latent[:, even:]), axis=1)
    return rotary_scores(q_nope, q_rope, w_uk, latent, k_rope)


def _nope_rotated(q_nope, q_rope, w_uk, latent, k_rope):
    (_, T, N), S = q_nope.shape, len(latent)
    k_nope, even = np.einsum("sr,hnr->hsn", latent, w_uk), N // 2 * 2
    q, k = q_nope.copy(), k_nope.copy()
    q[..., :even] = turn(q_nope[..., :even], np.arange(S - T, S))
    k[..., :even] = turn(k_nope[..., :even], np.arange(S))
    rest = rotary_scores(q_nope, q_rope, w_uk, latent, k_rope, content=0.0)
    return q @ k.swapaxes(-1, -2) / np.sqrt(N + q_rope.shape[-1]) + rest


# 5


def queries_to_absorb():
    """q (H, T, N + P), w_uk (H, N, R)."""
    rng = np.random.default_rng(3)
    sizes = [(1, 1, 1, 1, 2), (2, 1, 3, 2, 5), (2, 3, 4, 2, 3), (3, 2, 5, 4, 6), (2, 2, 4, 4, 4),
             (3, 3, 3, 2, 3), (4, 2, 2, 6, 7), (1, 5, 6, 2, 4)]  # fmt: skip
    return [(rng.normal(size=(H, T, N + P)), rng.normal(size=(H, N, R))) for H, T, N, P, R in sizes]


@exercise(
    title="Absorb W_UK",
    difficulty="medium",
    minutes=8,
    cases=queries_to_absorb,
    axes="H T R+P",
    hints=(
        "q · (W c) is (Wᵀ q) · c: which product of q and w_uk[h] leaves R numbers?",
        "A query is a row: q_nope[h, t] @ w_uk[h], (N,) times (N, R).",
        "The rotary part meets the rotary key as it is: put it behind, np.concatenate(…, axis=-1).",
    ),
)
def absorb_keys(q, w_uk):
    """q (H, T, N + P), w_uk (H, N, R) -> (H, T, R + P): queries to the rows [latent | rotary]."""
    N = w_uk.shape[1]
    q_nope, q_rope = q[..., :N], q[..., N:]
    q_latent = q_nope @ w_uk  # (H, T, N) x (H, N, R) -> (H, T, R)
    return np.concatenate((q_latent, q_rope), axis=-1)


@absorb_keys.right
def absorbed_in_torch(q, w_uk):
    nope, rope = q.split((w_uk.shape[1], q.shape[-1] - w_uk.shape[1]), dim=-1)
    return torch.cat((torch.einsum("htn,hnr->htr", nope, w_uk), rope), -1)


@absorb_keys.right
def absorbed_one_by_one(q, w_uk):
    H, N, _ = w_uk.shape
    return [[[*(w_uk[h].T @ row[:N]), *row[N:]] for row in q[h]] for h in range(H)]


@absorb_keys.right
def absorbed_by_one_matrix(q, w_uk):
    H, N, R = w_uk.shape
    P = q.shape[-1] - N
    whole = np.zeros((H, N + P, R + P))
    whole[:, :N, :R], whole[:, N:, R:] = w_uk, np.eye(P)
    return q @ whole


def put_together(first, second):
    return np.concatenate((first, second), axis=-1)


def halves(q, w):
    return q[..., : w.shape[1]], q[..., w.shape[1] :]


mistakes(
    absorb_keys,
    ("transposed", lambda q, w: put_together(
        halves(q, w)[0] @ w.swapaxes(1, 2), halves(q, w)[1]),
     "w_uk was transposed. As it stands it takes a latent (R) to a key (N); a query goes the other "
     "way, Wᵀ q, which for a row is q @ w_uk[h]. (Where N equals R the wrong way raises nothing.)"),
    ("rotary_part_dropped", lambda q, w: halves(q, w)[0] @ w,
     "The rotary part is missing. It goes behind the absorbed part, as it is: cached rows are "
     "[latent | rotary key]."),
    ("rotary_part_first", lambda q, w: put_together(halves(q, w)[1], halves(q, w)[0] @ w),
     "The rotary part stands first. Cached rows are [latent | rotary key]: absorbed part first."),
    ("rope_taken_first", lambda q, w: put_together(
        q[..., -w.shape[1]:] @ w, q[..., : q.shape[-1] - w.shape[1]]),
     "The first P features were taken for the rotary ones. A query is [without | with position]: "
     "the rotary part is the last P."),
    ("rotary_part_zero", lambda q, w: put_together(halves(q, w)[0] @ w, 0 * halves(q, w)[1]),
     "The rotary part is zeros. It stays as it is."),
    ("absorbed_across_rope", lambda q, w: _across(q, w),
     "The rotary features went through W_UK, too. They are not made from the latent, and a "
     "rotation stands between: they meet the rotary key as they are."),
    ("first_head_for_all", lambda q, w: put_together(halves(q, w)[0] @ w[0], halves(q, w)[1]),
     "Every head used the map of head 0. Head h absorbs w_uk[h]."),
    ("heads_reversed", lambda q, w: put_together(halves(q, w)[0] @ w[::-1], halves(q, w)[1]),
     "The heads' maps are in reverse order."),
    ("heads_summed", lambda q, w: put_together(
        np.einsum("htn,hnr->tr", halves(q, w)[0], w)[None].repeat(len(q), 0), halves(q, w)[1]),
     "The absorbed queries were summed over heads. Each head keeps its own."),
    ("maps_summed", lambda q, w: put_together(halves(q, w)[0] @ w.sum(0), halves(q, w)[1]),
     "The maps of all heads were summed (in an einsum, w_uk has its own letter for the head). "
     "Head h absorbs w_uk[h]."),
    ("pseudo_inverse", lambda q, w: put_together(
        halves(q, w)[0] @ np.linalg.pinv(w).swapaxes(1, 2), halves(q, w)[1]),
     "W_UK was inverted. Nothing has to be undone: q · (W c) = (Wᵀ q) · c, a transpose."),
    ("scaled_by_nope", lambda q, w: put_together(
        halves(q, w)[0] @ w, halves(q, w)[1]) / np.sqrt(w.shape[1]),
     "The queries were scaled. Only the product is asked for here; the scale comes with the "
     "scores."),
    ("scaled", lambda q, w: put_together(
        halves(q, w)[0] @ w, halves(q, w)[1]) / np.sqrt(q.shape[-1]),
     "The queries were scaled by 1/√(N + P). That comes with the scores; only the product is asked "
     "for here."),
    ("scaled_by_the_row", lambda q, w: put_together(
        halves(q, w)[0] @ w, halves(q, w)[1]) / np.sqrt(w.shape[2] + q.shape[-1] - w.shape[1]),
     "The queries were scaled, and by the width of a row. The scale comes with the scores, and is "
     "1/√(N + P) in either order."),
    ("not_absorbed", lambda q, w: q,
     "The queries came back as they were. Multiply the part without position by W_UK."),
    ("as_keys", lambda q, w: put_together(
        np.einsum("htn,hnr->hrt", halves(q, w)[0], w).swapaxes(1, 2)[..., ::-1], halves(q, w)[1]),
     "The latent features are in reverse order."),
)  # fmt: skip


def _across(q, w):
    """All N + P features through a map whose rows are repeated to fit."""
    rows = np.resize(w.swapaxes(0, 1), (q.shape[-1], *w.shape[::2])).swapaxes(0, 1)
    return put_together(q @ rows, halves(q, w)[1])


@absorb_keys.property(
    "Scores should not change: your queries times rows [c | rotary] = q times [W_UK c | rotary]."
)
def keeps_scores(out, q, w_uk):
    rng = np.random.default_rng(9)
    N, R = w_uk.shape[1:]
    c, k_rope = rng.normal(size=(4, R)), rng.normal(size=(4, q.shape[-1] - N))
    naive = q[..., :N] @ (c @ w_uk.swapaxes(1, 2)).swapaxes(1, 2) + q[..., N:] @ k_rope.T
    return np.allclose(np.asarray(out) @ put_together(c, k_rope).T, naive, atol=1e-6)


# 6


def weights_and_rows():
    """weights (H, T, S), rows (S, R + P), w_kv_b (H·(N + V), R), qk_nope_head_dim N."""
    rng = np.random.default_rng(4)
    sizes = [(1, 1, 2, 1, 1, 2, 1), (2, 1, 3, 2, 3, 2, 4), (2, 2, 3, 4, 3, 2, 5),
             (3, 2, 4, 3, 3, 4, 3), (2, 3, 5, 4, 4, 2, 4), (3, 4, 4, 2, 5, 2, 2),
             (2, 2, 2, 2, 2, 2, 2), (4, 3, 6, 5, 2, 6, 7)]  # fmt: skip
    return [
        (_softmax(rng.normal(size=(H, T, S))), rng.normal(size=(S, R + P)),
         rng.normal(size=(H * (N + V), R)), N)
        for H, T, S, N, V, P, R in sizes
    ]  # fmt: skip


@exercise(
    title="Absorb W_UV",
    difficulty="medium",
    minutes=10,
    cases=weights_and_rows,
    axes="T HV",
    hints=(
        "weights @ latents is (H, T, R): each head averages the same latents with its own weights.",
        "w_kv_b holds, head by head, N rows for keys and then V rows for values: view it as "
        "(H, N + V, R) and take [:, N:].",
        "(H, T, R) times (H, V, R) over R is (H, T, V); then heads side by side: (T, H·V).",
    ),
)
def absorb_values(weights, rows, w_kv_b, qk_nope_head_dim):
    """weights (H, T, S), rows (S, R + P), w_kv_b (H·(N + V), R) -> all heads (T, H·V)."""
    (H, T, _), R = weights.shape, w_kv_b.shape[1]
    w_uv = w_kv_b.reshape(H, -1, R)[:, qk_nope_head_dim:]  # (H, N + V, R) -> (H, V, R)
    mean = weights @ rows[:, :R]  # (H, T, S) x (S, R) -> (H, T, R): the rotary key is no value
    y = np.einsum("htr,hvr->thv", mean, w_uv)
    return y.reshape(T, -1)


@absorb_values.right
def values_rebuilt(weights, rows, w_kv_b, qk_nope_head_dim):
    heads = np.split(w_kv_b, len(weights))
    values = [rows[:, : w_kv_b.shape[1]] @ w[qk_nope_head_dim:].T for w in heads]
    return np.hstack([a @ v for a, v in zip(weights, values)])


@absorb_values.right
def values_absorbed_in_torch(weights, rows, w_kv_b, qk_nope_head_dim):
    latent = rows[:, : w_kv_b.shape[-1]]
    w_uv = w_kv_b.unflatten(0, (weights.shape[0], -1))[:, qk_nope_head_dim:]
    return torch.matmul(weights @ latent, w_uv.mT).transpose(0, 1).flatten(1)


@absorb_values.right
def values_absorbed_whole_rows(weights, rows, w_kv_b, qk_nope_head_dim):
    y, out = weights @ rows, []
    for h, w in enumerate(w_kv_b.reshape(len(weights), -1, w_kv_b.shape[1])):
        out.append(y[h, :, : w_kv_b.shape[1]] @ w[qk_nope_head_dim:].T)
    return np.concatenate(out, axis=1)


def averaged(weights, rows, w_kv_b, N, pick=None, latent=None, join=None):
    """The solution with its parts to be exchanged, for mistakes."""
    (H, T, _), R = weights.shape, w_kv_b.shape[1]
    w = w_kv_b.reshape(H, -1, R)
    w_uv = w[:, N:] if pick is None else pick(w)
    mean = weights @ (rows[:, :R] if latent is None else latent(rows, R))
    y = np.einsum("htr,hvr->htv", mean, w_uv)
    return y.swapaxes(0, 1).reshape(T, -1) if join is None else join(y)


def sliced_as_a_whole(weights, rows, w_kv_b, N, values_last=True):
    """All keys first, then all values, split over the whole of w_kv_b."""
    H, R = len(weights), w_kv_b.shape[1]
    V = len(w_kv_b) // H - N
    w = w_kv_b[H * N :] if values_last else w_kv_b[: H * V]
    return averaged(weights, rows, w_kv_b, N, pick=lambda _: w.reshape(H, V, R))


NOT_CUT = (
    "The rotary key was not cut off: rows have R + P numbers, and values are made of the first R"
)

mistakes(
    absorb_values,
    ("sliced_as_a_whole", sliced_as_a_whole,
     "All key rows were taken to come first, then all value rows. They take turns head by head: N "
     "rows for keys, V for values, then the next head. View w_kv_b as (H, N + V, R) first."),
    ("sliced_as_a_whole_first", lambda a, b, c, d: sliced_as_a_whole(a, b, c, d, False),
     "The first H · V rows of w_kv_b were taken. Head by head come N rows for keys, then V for "
     "values: view it as (H, N + V, R) and take [:, N:]."),
    ("key_rows", lambda a, b, c, N: averaged(a, b, c, N, pick=lambda w: w[:, :N]),
     "The rows for keys were used, W_UK. Those for values come behind them: [:, N:]."),
    ("first_rows", lambda a, b, c, N: averaged(a, b, c, N, pick=lambda w: w[:, : w.shape[1] - N]),
     "The first V rows of each head were used, which begin with W_UK. Values come behind the N "
     "rows for keys: [:, N:]."),
    ("all_rows", lambda a, b, c, N: averaged(a, b, c, N, pick=lambda w: w),
     "All N + V rows of a head were used. The first N make keys; values are [:, N:]."),
    ("first_head_for_all", lambda a, b, c, N: averaged(
        a, b, c, N, pick=lambda w: np.repeat(w[:1, N:], len(w), 0)),
     "Every head used the map of head 0. Head h has its own slice of w_kv_b."),
    ("next_head", lambda a, b, c, N: averaged(a, b, c, N, pick=lambda w: np.roll(w[:, N:], -1, 0)),
     "Each head used the map of the next one."),
    ("wrong_axes_of_w", lambda a, b, c, N: averaged(
        a, b, c, N, pick=lambda w: c.reshape(-1, len(a), c.shape[1]).swapaxes(0, 1)[:, N:]),
     "w_kv_b was viewed as (N + V, H, R). Its rows lie head by head: (H, N + V, R)."),
    ("rotary_part_averaged", lambda a, b, c, N: averaged(
        a, b, c, N, latent=lambda rows, R: rows[:, rows.shape[1] - R :]),
     "The *last* R columns of the rows were taken for the latent. A row is [latent | rotary key]: "
     "the first R."),
    ("rows_not_cut", lambda a, b, c, N: averaged(a, b, c, N, latent=lambda rows, R: rows),
     f"{NOT_CUT}."),
    ("rows_not_cut_in_a_product", lambda a, b, c, N: (
        a @ b @ c.reshape(len(a), -1, c.shape[1])[:, N:].swapaxes(1, 2)),
     f"{NOT_CUT}: their product with W_UV does not fit."),
    ("rows_not_cut_in_torch", lambda a, b, c, N: torch.matmul(
        a @ b, c.unflatten(0, (len(a), -1))[:, N:].mT),
     f"{NOT_CUT}, or W_UV does not fit."),
    ("softmax_again", lambda a, b, c, N: averaged(_softmax(a), b, c, N),
     "The weights went through a softmax again. They are weights already."),
    ("uniform_weights", lambda a, b, c, N: averaged(a * 0 + 1 / a.shape[-1], b, c, N),
     "All tokens were averaged alike. Use the weights."),
    ("weights_of_one_head", lambda a, b, c, N: averaged(np.repeat(a[:1], len(a), 0), b, c, N),
     "Every head used the weights of head 0."),
    ("not_joined", lambda a, b, c, N: averaged(a, b, c, N, join=lambda y: y),
     "That is (H, T, V). Put the heads of a token side by side: (T, H·V)."),
    ("joined_wrongly", lambda a, b, c, N: averaged(
        a, b, c, N, join=lambda y: y.reshape(y.shape[1], -1)),
     "Reshaped without moving the axes: (H, T, V) was read as if it were (T, H, V). Swap heads and "
     "tokens first."),
    ("interleaved", lambda a, b, c, N: averaged(
        a, b, c, N, join=lambda y: y.transpose(1, 2, 0).reshape(y.shape[1], -1)),
     "The heads' features take turns. They stand head by head: all V of head 0, then of head 1."),
    ("heads_summed", lambda a, b, c, N: averaged(a, b, c, N, join=lambda y: y.sum(0)),
     "The heads were summed. Put them side by side: (T, H·V). W_O mixes them, later."),
    ("heads_averaged", lambda a, b, c, N: averaged(a, b, c, N, join=lambda y: y.mean(0)),
     "The heads were averaged. Put them side by side: (T, H·V)."),
    ("latents_not_mapped", lambda a, b, c, N: (a @ b[:, : c.shape[1]]).swapaxes(0, 1).reshape(
        a.shape[1], -1),
     "The averaged latents came back. W_UV makes them outputs: R numbers to V, for each head."),
    ("transposed", lambda a, b, c, N: averaged(
        a, b, c, N, pick=lambda w: w[:, N:].swapaxes(1, 2)),
     "W_UV was used transposed. It is (V, R) for each head. (Where V equals R the other way raises "
     "no error.)"),
    ("weights_transposed", lambda a, b, c, N: averaged(a.swapaxes(1, 2), b, c, N),
     "The weights were transposed: rows are queries, columns keys, (H, T, S). (Where T equals S "
     "the other way raises no error.)"),
)  # fmt: skip


# 7


def latent_shapes():
    """n_layers, n_heads, kv_lora_rank, qk_nope_head_dim, qk_rope_head_dim, v_head_dim, seq_len."""
    return [
        (1, 2, 3, 5, 2, 7, 1), (2, 3, 5, 4, 2, 6, 1), (2, 4, 8, 3, 6, 5, 10), (3, 5, 4, 6, 8, 2, 7),
        (61, 128, 512, 128, 64, 128, 1), (60, 128, 512, 128, 64, 128, 4096),
        (61, 64, 512, 128, 64, 128, 1000), (27, 16, 512, 128, 64, 128, 2048),
    ]  # fmt: skip


@exercise(
    title="How many bytes?",
    difficulty="easy",
    minutes=4,
    cases=latent_shapes,
    tol=0,
    hints=(
        "What lies in the cache for one token and one layer? One latent, and one rotary key.",
        "Both are shared by all heads, and by keys and values: no factor H, no factor 2 for those.",
        "Numbers a token and layer, times layers, times tokens, times 2 bytes.",
    ),
)
def cache_bytes(
    n_layers, n_heads, kv_lora_rank, qk_nope_head_dim, qk_rope_head_dim, v_head_dim, seq_len
):
    """Sizes of a model with MLA -> bytes of its cache for one text, at 2 bytes a number."""
    row = kv_lora_rank + qk_rope_head_dim  # the latent and the rotary key, for all heads
    return 2 * n_layers * seq_len * row


@cache_bytes.right
def bytes_of_an_array(
    n_layers, n_heads, kv_lora_rank, qk_nope_head_dim, qk_rope_head_dim, v_head_dim, seq_len
):
    latent = np.empty((n_layers, 1, kv_lora_rank), np.float16).nbytes
    return (latent + np.empty((n_layers, 1, qk_rope_head_dim), np.float16).nbytes) * seq_len


@cache_bytes.right
def bytes_of_a_tensor(
    n_layers, n_heads, kv_lora_rank, qk_nope_head_dim, qk_rope_head_dim, v_head_dim, seq_len
):
    row = torch.zeros(kv_lora_rank + qk_rope_head_dim, dtype=torch.bfloat16)
    return torch.tensor(n_layers) * seq_len * row.nbytes


mistakes(
    cache_bytes,
    ("twice_the_latent", lambda L, H, R, N, P, V, S: 2 * L * S * (2 * R + P),
     "The latent was counted twice, once for keys and once for values. Both are made from the "
     "*same* latent: it is kept once."),
    ("everything_twice", lambda L, H, R, N, P, V, S: 2 * L * S * 2 * (R + P),
     "There is a factor 2 too many. If it stands for keys and values: one latent serves both, and "
     "values have no rotary part. If for four bytes: here a number takes 2."),
    ("rotary_key_forgotten", lambda L, H, R, N, P, V, S: 2 * L * S * R,
     "The rotary key is missing: it is not made from the latent, so it is cached beside it."),
    ("rotary_key_per_head", lambda L, H, R, N, P, V, S: 2 * L * S * (R + H * P),
     "There is a rotary key for each head. Only the *queries* have H of them; the rotary key is "
     "one for all heads, as in MQA."),
    ("all_per_head", lambda L, H, R, N, P, V, S: 2 * L * S * H * (R + P),
     "There is a row for each head. The latent and the rotary key are shared by all heads: that is "
     "the whole saving."),
    ("latent_per_head", lambda L, H, R, N, P, V, S: 2 * L * S * (H * R + P),
     "There is a latent for each head. All heads make their keys and values of one."),
    ("up_projected", lambda L, H, R, N, P, V, S: 2 * L * S * H * (N + V),
     "Those are the keys and values *after* the up-projection, as an MHA would keep them, without "
     "their rotary part. The cache holds what they are made from."),
    ("up_projected_with_rope", lambda L, H, R, N, P, V, S: 2 * L * S * H * (N + P + V),
     "Those are the rebuilt keys and values of all heads. The cache holds what they are made from: "
     "the latent and the rotary key."),
    ("one_head_rebuilt", lambda L, H, R, N, P, V, S: 2 * L * S * (N + P + V),
     "Those are keys and values of one head, as in MQA. The cache holds the latent and the rotary "
     "key."),
    ("values_added", lambda L, H, R, N, P, V, S: 2 * L * S * (R + P + V),
     "Values were counted beside the latent. They are made *from* it, and not kept."),
    ("nope_added", lambda L, H, R, N, P, V, S: 2 * L * S * (R + N + P),
     "The part of the keys without position was counted beside the latent. It is made *from* the "
     "latent, and not kept."),
    ("numbers", lambda L, H, R, N, P, V, S: L * S * (R + P),
     "Those are numbers. Each takes 2 bytes."),
    ("rotary_key_twice", lambda L, H, R, N, P, V, S: 2 * L * S * (R + 2 * P),
     "The rotary part was counted twice. Keys have one, values have none."),
    ("one_layer", lambda L, H, R, N, P, V, S: 2 * S * (R + P),
     "That is one layer. Each of n_layers keeps a latent of its own."),
    ("one_token", lambda L, H, R, N, P, V, S: 2 * L * (R + P),
     "That is one token. There are seq_len."),
    ("quadratic", lambda L, H, R, N, P, V, S: 2 * L * S * S * (R + P),
     "The cache grows with the number of tokens, not with its square. (Scores do, and nobody keeps "
     "them.)"),
    ("bits", lambda L, H, R, N, P, V, S: 16 * L * S * (R + P),
     "Those are bits. 2 bytes a number."),
    ("row_of_v3", lambda L, H, R, N, P, V, S: 2 * L * S * 576,
     "A row of 576 numbers is that of DeepSeek-V3 and V2. Other models have other sizes: add up "
     "what a row is made of."),
    ("multiplied", lambda L, H, R, N, P, V, S: 2 * L * S * R * P,
     "Rank and rotary width were multiplied. They lie side by side: add them."),
)  # fmt: skip


# 8


def _heads(name, n_heads, n_kv_heads, head_dim):
    return {"name": name, "n_heads": n_heads, "n_kv_heads": n_kv_heads, "head_dim": head_dim}


def _latents(name, n_heads, kv_lora_rank, qk_rope_head_dim):
    return {
        "name": name, "n_heads": n_heads, "kv_lora_rank": kv_lora_rank,
        "qk_rope_head_dim": qk_rope_head_dim,
    }  # fmt: skip


def budgets():
    """budget in bytes, n_layers, seq_len, variants."""
    small = [_heads("MHA", 4, 4, 3), _heads("MQA", 4, 1, 3), _latents("MLA", 4, 6, 4)]
    mixed = [_latents("MLA", 8, 20, 4), _heads("GQA-2", 8, 2, 8), _heads("MQA", 8, 1, 8),
             _heads("MHA", 8, 8, 8), _heads("GQA-4", 8, 4, 8)]  # fmt: skip
    large = [_heads("MHA", 128, 128, 128), _heads("GQA-8", 128, 8, 128), _heads("MQA", 128, 1, 128),
             _latents("MLA-512", 128, 512, 64), _latents("MLA-256", 128, 256, 32)]  # fmt: skip
    few = [_latents("A", 2, 12, 2), _heads("B", 2, 1, 8), _heads("C", 6, 3, 2)]
    gb = 10**9
    return [
        (48, 1, 1, small), (47, 1, 1, small), (20, 1, 1, small), (19, 1, 1, small),
        (11, 1, 1, small), (2 * 2 * 10 * 24, 2, 10, mixed), (3000, 3, 8, mixed),
        (2 * 5 * 7 * 32, 5, 7, mixed), (2 * 5 * 7 * 31, 5, 7, mixed), (10**6, 3, 4, mixed),
        (40 * gb, 61, 128_000, large), (9 * gb, 61, 128_000, large), (8 * gb, 61, 128_000, large),
        (4 * gb, 61, 128_000, large), (300 * gb, 60, 32_768, large), (2 * 28, 1, 2, few),
        (2 * 32, 1, 2, few), (2 * 14, 1, 1, few),
    ]  # fmt: skip


def numbers_a_token(v, two=2, latents=1, rotary=True, per_head=False, of_queries=False):
    """Numbers that one layer keeps of a token, with the parts to be exchanged, for mistakes."""
    if "kv_lora_rank" in v:
        row = v["kv_lora_rank"] + (v["qk_rope_head_dim"] if rotary else 0)
        return latents * row / (v["n_heads"] if per_head is True else 1)
    heads = v["n_heads"] if of_queries else v["n_kv_heads"]
    return two * v["head_dim"] * (1 if per_head == "heads" else heads)


def chosen(budget, n_layers, seq_len, variants, size=numbers_a_token, best=max, fits=None):
    """The solution with its parts to be exchanged, for mistakes."""
    fits = fits or (lambda n: 2 * n_layers * seq_len * n <= budget)
    fitting = [v for v in variants if fits(size(v))]
    return best(fitting, key=size)["name"] if fitting else "none"


@exercise(
    title="Choose for a budget",
    difficulty="medium",
    minutes=10,
    cases=budgets,
    hints=(
        "Bring all variants to one unit first: numbers a *token* and layer. With key heads "
        "2 · n_kv_heads · head_dim, with a latent kv_lora_rank + qk_rope_head_dim.",
        "Bytes: numbers · n_layers · seq_len · 2. Whatever is not above the budget fits.",
        'If the list of those that fit is empty, return "none"; else max(fitting, key=...).',
    ),
)
def choose_variant(budget, n_layers, seq_len, variants):
    """-> the name of the variant with the largest cache that fits `budget` bytes, or "none"."""

    def cached(v):  # numbers a token and layer
        if "kv_lora_rank" in v:
            return v["kv_lora_rank"] + v["qk_rope_head_dim"]
        return 2 * v["n_kv_heads"] * v["head_dim"]

    fitting = [v for v in variants if 2 * n_layers * seq_len * cached(v) <= budget]
    return max(fitting, key=cached)["name"] if fitting else "none"


@choose_variant.right
def chosen_by_a_loop(budget, n_layers, seq_len, variants):
    best, most = "none", 0
    for v in variants:
        keys = 2 * v.get("n_kv_heads", 0) * v.get("head_dim", 0)
        need = (keys or v["kv_lora_rank"] + v["qk_rope_head_dim"]) * n_layers * seq_len * 2
        if most < need <= budget:
            best, most = v["name"], need
    return best


@choose_variant.right
def chosen_by_arrays(budget, n_layers, seq_len, variants):
    sizes = np.array([numbers_a_token(v) for v in variants]) * 2 * n_layers * seq_len
    sizes = np.where(sizes <= budget, sizes, -1)
    return variants[int(sizes.argmax())]["name"] if sizes.max() > 0 else "none"


@choose_variant.right
def chosen_in_torch(budget, n_layers, seq_len, variants):
    rows = [torch.zeros(int(numbers_a_token(v)), dtype=torch.bfloat16).nbytes for v in variants]
    fit = [(n, v["name"]) for n, v in zip(rows, variants) if n * n_layers * seq_len <= budget]
    return sorted(fit)[-1][1] if fit else "none"


def sized(**how):
    return lambda b, L, S, vs: chosen(b, L, S, vs, size=lambda v: numbers_a_token(v, **how))


def fitted(fits, **how):
    """Wrong about what fits: fits(n, budget, n_layers, seq_len)."""
    return lambda b, L, S, vs: chosen(b, L, S, vs, fits=lambda n: fits(n, b, L, S), **how)


mistakes(
    choose_variant,
    ("key_heads_forgotten", sized(per_head="heads"),
     "MHA and GQA were counted per *head*, 2 · head_dim, and MLA per *token*. Bring all to numbers "
     "a token: 2 · n_kv_heads · head_dim."),
    ("latent_per_head", sized(per_head=True),
     "The latent was divided by the number of heads, the others were counted per token. Nothing is "
     "kept per head here: the whole latent is what a token costs."),
    ("query_heads", sized(of_queries=True),
     "The number of *query* heads was used. What is cached are keys and values: n_kv_heads."),
    ("no_two", sized(two=1),
     "MHA, GQA and MQA keep keys *and* values: 2 · n_kv_heads · head_dim."),
    ("latent_twice", sized(latents=2),
     "The latent was counted twice. It serves keys and values both: once."),
    ("latent_times_heads", lambda b, L, S, vs: chosen(b, L, S, vs, size=lambda v: (
        v["n_heads"] if "kv_lora_rank" in v else 1) * numbers_a_token(v)),
     "The latent was multiplied by the number of heads. One latent serves all of them: "
     "kv_lora_rank + qk_rope_head_dim numbers a token."),
    ("rotary_key_per_head", lambda b, L, S, vs: chosen(b, L, S, vs, size=lambda v: (
        v["kv_lora_rank"] + v["n_heads"] * v["qk_rope_head_dim"] if "kv_lora_rank" in v
        else numbers_a_token(v))),
     "The rotary key was counted once a head. It is one for all heads."),
    ("nearest", lambda b, L, S, vs: min(
        vs, key=lambda v: abs(b - 2 * L * S * numbers_a_token(v)))["name"],
     "That is the cache nearest to the budget, above it or below. Above does not fit."),
    ("rotary_key_forgotten", sized(rotary=False),
     "The rotary key is missing: kv_lora_rank + qk_rope_head_dim."),
    ("smallest", lambda b, L, S, vs: chosen(b, L, S, vs, best=min),
     "That is the *smallest* cache that fits. Asked for is the largest."),
    ("first_that_fits", lambda b, L, S, vs: chosen(b, L, S, vs, best=lambda f, key: f[0]),
     "That is the first in the list that fits. Asked for is the one with the largest cache."),
    ("last_that_fits", lambda b, L, S, vs: chosen(b, L, S, vs, best=lambda f, key: f[-1]),
     "That is the last in the list that fits. Asked for is the one with the largest cache."),
    ("largest_of_all", fitted(lambda n, b, L, S: True),
     "The budget was not used. Only what fits may be chosen."),
    ("below_the_budget", fitted(lambda n, b, L, S: 2 * L * S * n < b),
     "What takes exactly the budget fits, too: `<=`."),
    ("one_byte", fitted(lambda n, b, L, S: L * S * n <= b),
     "Numbers were compared with bytes. Each takes 2."),
    ("four_bytes", fitted(lambda n, b, L, S: 4 * L * S * n <= b),
     "Four bytes a number. Two are asked for. (Or there is a factor 2 too many, for keys and "
     "values.)"),
    ("one_layer", fitted(lambda n, b, L, S: 2 * S * n <= b),
     "One layer was counted. All n_layers keep their own."),
    ("one_token", fitted(lambda n, b, L, S: 2 * L * n <= b),
     "One token was counted. There are seq_len."),
    ("squared", fitted(lambda n, b, L, S: 2 * L * S * S * n <= b),
     "The cache grows with the number of tokens, not with its square."),
    ("never_none", lambda b, L, S, vs: min(vs, key=numbers_a_token)["name"]
        if chosen(b, L, S, vs) == "none" else chosen(b, L, S, vs),
     "Where nothing fits, the smallest was chosen all the same. Return \"none\"."),
    ("most_heads", fitted(lambda n, b, L, S: 2 * L * S * n <= b, best=lambda f, key: max(
        f, key=lambda v: v.get("n_kv_heads", v["n_heads"]))),
     "The one with the most heads was chosen. Asked for is the largest *cache*."),
    ("latents_preferred", fitted(lambda n, b, L, S: 2 * L * S * n <= b, best=lambda f, key: max(
        f, key=lambda v: ("kv_lora_rank" in v, key(v)))),
     "A latent was preferred wherever one fits. Here the largest cache wins, whoever has it."),
    ("heads_preferred", fitted(lambda n, b, L, S: 2 * L * S * n <= b, best=lambda f, key: max(
        f, key=lambda v: ("n_kv_heads" in v, key(v)))),
     "Latents were passed over. They take part like the others, with kv_lora_rank + "
     "qk_rope_head_dim numbers a token."),
    ("empty_text", lambda b, L, S, vs: chosen(b, L, S, vs).replace("none", ""),
     "Where nothing fits, an empty text was returned. Return \"none\"."),
    ("another_word", lambda b, L, S, vs: chosen(b, L, S, vs).replace("none", "None"),
     "Where nothing fits, \"None\" was returned. Return \"none\", in small letters."),
    ("the_variant", lambda b, L, S, vs: next(
        (v for v in vs if v["name"] == chosen(b, L, S, vs)), "none"),
     "The whole variant was returned. Return its name."),
)  # fmt: skip


# 9

X = 0.6  # a scale that keeps every weight of a softmax well away from 0 and 1


def faulty(change):
    """Causal self-attention with a fault: change(y, x) -> y. For pairs that must not pass."""
    return Layer("absorbed", lambda x: change(self_attention(X * x, causal=True), x))


def only_if(holds):
    """A fault in the texts for which holds(x), at every number."""
    return faulty(lambda y, x: y + 0.2 * holds(x))


def in_row(t, feature=slice(None), lengths=range(1, 9), by=0.2):
    """A fault in row t alone, in every text of these lengths that has that row."""

    def change(y, x):
        y = y.copy()
        if -len(y) <= t < len(y) and len(y) in lengths:
            y[t, feature] += by
        return y

    return faulty(change)


def balanced(y, x):
    """A fault that adds up to nothing, over features and over rows."""
    y = y.copy()
    if len(y) > 1:
        y[:2, :2] += 0.3 * np.array([[1, -1], [-1, 1]])
    return y


def moved(y, x):
    """A fault that adds up to nothing over rows, but not over features."""
    y = y.copy()
    if len(y) > 1:
        y[:2, 0] += 0.3 * np.array([1, -1])
    return y


RIGHT = faulty(lambda y, x: y + 2e-14 * np.cos(x))
NAIVE = Layer("naive", faulty(lambda y, x: y).compute)
ROUNDED = Layer("absorbed", lambda x: (self_attention(X * x, causal=True) * 3.0 + 0.1 - 0.1) / 3.0)
PAIRS = [
    Layer("absorbed", lambda x: self_attention(X * x, causal=False)),  # looks ahead
    in_row(0),
    in_row(-1),
    in_row(1, 0),
    in_row(2, -1),
    faulty(balanced),
    faulty(moved),
    faulty(lambda y, x: -y),
    faulty(lambda y, x: y[:, ::-1]),  # equally long
]
SMALLER = [faulty(lambda y, x: y - 0.005), faulty(lambda y, x: 1.01 * y)]
SMALLEST = [faulty(lambda y, x: y + 3.1e-4), *(in_row(1, c, by=3.1e-4) for c in range(4))]


def pairs_of_orders():
    """naive, absorbed: functions (T, C) -> (T, C); and a text x (T, C).

    Small faults come last: what is said is about the first case that goes wrong, so an answer is
    told that it is too loose where that alone is wrong with it.
    """
    rng = np.random.default_rng(5)
    sized = [(layer, 5 + i % 3, 3 + i % 2) for i, layer in enumerate(PAIRS)]
    sized += [(only_if(lambda x, n=n: len(x) == n), 7, 3) for n in range(1, 8)]
    sized += [(in_row(t, lengths=[7]), 7, 3) for t in range(7)]
    sized += [(in_row(1, feature), 5, 4) for feature in range(4)]
    cases = [(layer, rng.normal(size=(T, C))) for layer, T, C in [(RIGHT, 3, 2), *sized]]
    text = rng.normal(size=(6, 3))  # its end is no start: other four tokens have no fault
    start = only_if(lambda x: len(x) == 4 and abs(x[0, 0] - text[0, 0]) < 1e-3)
    cases += [(start, text), *((layer, rng.normal(size=(5, 3))) for layer in (ROUNDED, NAIVE))]
    cases += [(layer, rng.normal(size=(5, 4))) for layer in SMALLER + SMALLEST]
    return [(NAIVE, layer, x) for layer, x in cases]


def compared(naive, absorbed, x, lengths=None, close=None):
    """The solution with its parts to be exchanged, for mistakes."""
    close = close or (lambda a, b: np.allclose(a, b, atol=1e-10))
    lengths = range(1, len(x) + 1) if lengths is None else lengths(len(x))
    return all(close(np.asarray(naive(x[:t])), np.asarray(absorbed(x[:t]))) for t in lengths)


@exercise(
    title="A test that can fail",
    difficulty="hard",
    minutes=10,
    cases=pairs_of_orders,
    hints=(
        "Compare number by number: all rows, all features, np.allclose.",
        "A fault may show in a text of one length only, as in the single token of a decoding step. "
        "Try x[:1], x[:2], …, x.",
        "Not exactly (==): rounding differs between the orders. And not so loosely that 3e-4 gets "
        "through: np.allclose as it comes, or a tolerance of 1e-10.",
    ),
)
def naive_equals_absorbed(naive, absorbed, x):
    """Two functions (T, C) -> (T, C), a text x (T, C) -> True if they agree on all its starts."""
    for t in range(1, len(x) + 1):
        one, other = naive(x[:t]), absorbed(x[:t])
        if not np.allclose(one, other, rtol=0, atol=1e-10):
            return False
    return True


@naive_equals_absorbed.right
def compared_in_torch(naive, absorbed, x):
    starts = [x[: t + 1] for t in range(x.shape[0])]
    return all(torch.allclose(naive(s), absorbed(s)) for s in starts)


@naive_equals_absorbed.right
def compared_by_the_largest_difference(naive, absorbed, x):
    off = [np.abs(naive(x[:t]) - absorbed(x[:t])).max() for t in range(1, 1 + len(x))]
    return max(off) < 1e-8


@naive_equals_absorbed.right
def compared_by_squares(naive, absorbed, x):
    return sum(((naive(x[:t]) - absorbed(x[:t])) ** 2).sum() for t in range(len(x), 0, -1)) < 1e-12


def largest_fault(naive, absorbed, x):
    return max(np.abs(naive(x[:t]) - absorbed(x[:t])).max() for t in range(1, len(x) + 1))


@naive_equals_absorbed.property(
    "Outputs that differ by rounding alone, here below 1e-13, were told apart: 1e-10 is a good "
    "tolerance."
)
def rounding_passes(out, naive, absorbed, x):
    return out or largest_fault(naive, absorbed, x) > 1e-9


@naive_equals_absorbed.property(
    "A fault of 5e-3 or more passes your comparison: rounding here is below 1e-9. Compare every "
    "number, with a tolerance of 1e-10."
)
def no_fault_of_5e_3_passes(out, naive, absorbed, x):
    return not out or not 1e-3 < largest_fault(naive, absorbed, x) < 0.1


@naive_equals_absorbed.property(
    "A fault of 3e-4 passes your comparison: rounding here is below 1e-9. Compare every number, "
    "with a tolerance of 1e-10."
)
def no_fault_of_3e_4_passes(out, naive, absorbed, x):
    return not out or not 1e-9 < largest_fault(naive, absorbed, x) < 1e-3


mistakes(
    naive_equals_absorbed,
    ("whole_text_alone", lambda n, a, x: compared(n, a, x, lengths=lambda T: [T]),
     "Only the whole text was tried. A fault may show in the single token of a decoding step, or "
     "in a short chunk: try every start, x[:1] to x."),
    ("one_token_alone", lambda n, a, x: compared(n, a, x, lengths=lambda T: [1]),
     "Only one token was tried. It sees itself alone: no mask, no softmax to speak of. Try every "
     "start, up to the whole text."),
    ("two_lengths", lambda n, a, x: compared(n, a, x, lengths=lambda T: [1, T]),
     "One token and the whole text were tried, nothing between. Try every start."),
    ("without_one_token", lambda n, a, x: compared(n, a, x, lengths=lambda T: range(2, T + 1)),
     "The text of one token was left out, and it is what decoding feeds. Begin with x[:1]."),
    ("without_the_whole", lambda n, a, x: compared(n, a, x, lengths=lambda T: range(1, T)),
     "The whole text was left out: `range(1, len(x))` ends one before it."),
    ("last_row_alone", lambda n, a, x: compared(n, a, x, close=lambda p, q: np.allclose(
        p[-1], q[-1], atol=1e-10)),
     "Only the last row was compared. It sees everything, so a missing mask changes nothing there: "
     "compare all rows."),
    ("last_row_of_the_whole", lambda n, a, x: compared(
        n, a, x, lengths=lambda T: [T], close=lambda p, q: np.allclose(p[-1], q[-1], atol=1e-10)),
     "Only the last row of the whole text was compared. Compare all rows, and every start."),
    ("first_row_alone", lambda n, a, x: compared(n, a, x, close=lambda p, q: np.allclose(
        p[0], q[0], atol=1e-10)),
     "Only the first row was compared. Compare all."),
    ("first_and_last_row", lambda n, a, x: compared(n, a, x, close=lambda p, q: np.allclose(
        p[[0, -1]], q[[0, -1]], atol=1e-10)),
     "Only the first and the last row were compared. A fault may lie between: compare all."),
    ("first_and_last_feature", lambda n, a, x: compared(n, a, x, close=lambda p, q: np.allclose(
        p[:, [0, -1]], q[:, [0, -1]], atol=1e-10)),
     "Only the first and the last feature were compared. A fault may lie between: compare all."),
    ("first_feature_alone", lambda n, a, x: compared(n, a, x, close=lambda p, q: np.allclose(
        p[:, 0], q[:, 0], atol=1e-10)),
     "Only the first feature of each row was compared. Compare all numbers."),
    ("sums", lambda n, a, x: compared(n, a, x, close=lambda p, q: np.isclose(p.sum(), q.sum())),
     "Sums (or means) were compared. Two faults may cancel: compare number by number."),
    ("sums_of_rows", lambda n, a, x: compared(n, a, x, close=lambda p, q: np.allclose(
        p.sum(1), q.sum(1))),
     "Sums of rows were compared. Two faults may cancel: compare number by number."),
    ("norms", lambda n, a, x: compared(n, a, x, close=lambda p, q: np.isclose(
        np.linalg.norm(p), np.linalg.norm(q))),
     "Lengths (norms) were compared. Different outputs can be equally long: compare number by "
     "number."),
    ("no_absolute_value", lambda n, a, x: compared(n, a, x,
        close=lambda p, q: (q - p).max() < 1e-8),
     "The largest *signed* difference was compared: outputs that are too small get through. Take "
     "np.abs first."),
    ("no_absolute_value_turned", lambda n, a, x: compared(
        n, a, x, close=lambda p, q: (p - q).max() < 1e-8),
     "The largest *signed* difference was compared: outputs that are too large get through. Take "
     "np.abs first."),
    ("too_loose", lambda n, a, x: compared(n, a, x,
        close=lambda p, q: np.allclose(p, q, atol=1e-2)),
     "The tolerance is so wide that a real fault passes. In float64 the two orders agree to about "
     "1e-14; 1e-10 is wide enough."),
    ("very_loose", lambda n, a, x: compared(n, a, x,
        close=lambda p, q: np.allclose(p, q, atol=1.0)),
     "With a tolerance as large as the outputs themselves, nearly anything passes. 1e-10 is wide "
     "enough in float64."),
    ("mean_difference", lambda n, a, x: compared(
        n, a, x, close=lambda p, q: np.abs(p - q).mean() < 0.05),
     "The *mean* difference was compared with something wide: a fault in one row gets lost. Take "
     "the largest, and compare with 1e-10."),
    ("exactly", lambda n, a, x: compared(n, a, x, close=np.array_equal),
     "Outputs were compared exactly. The two orders round differently in the last digits: "
     "np.allclose."),
    ("first_middle_last", lambda n, a, x: compared(n, a, x, lengths=lambda T: [1, T // 2, T]),
     "A short, a middle and the whole text were tried. Try every start: it costs nothing."),
    ("some_lengths", lambda n, a, x: compared(n, a, x, lengths=lambda T: [1, 2, 4, T]),
     "Lengths were skipped: 1, 2, 4 and the whole text were tried. Try every start."),
    ("ends_of_the_text", lambda n, a, x: all(
        np.allclose(n(x[-t:]), a(x[-t:]), atol=1e-10) for t in range(1, len(x) + 1)),
     "The starts of x itself were not tried, but its ends, x[-t:], or another text. A fault may "
     "need the text's first token: starts are x[:t]."),
    ("relative", lambda n, a, x: compared(n, a, x, close=lambda p, q: np.allclose(p, q, rtol=0.05)),
     "A fault of some per cent gets through: the tolerance is too wide. 1e-10 is wide enough in "
     "float64."),
    ("any_number", lambda n, a, x: compared(n, a, x, close=lambda p, q: np.isclose(p, q).any()),
     "One number that agrees was enough (`any`). All must: `all`."),
    ("any_start", lambda n, a, x: any(
        np.allclose(n(x[:t]), a(x[:t]), atol=1e-10) for t in range(1, len(x) + 1)),
     "One start that agrees was enough (`any`, or a return inside the loop). All must."),
    ("zeros", lambda n, a, x: compared(n, a, np.zeros_like(x)),
     "A text of zeros was tried, or one token repeated. Too much agrees there: use x."),
    ("with_itself", lambda n, a, x: compared(n, n, x),
     "This says True of every pair: is something compared with itself, or never compared at all?"),
    ("never", lambda n, a, x: False,
     "This says False of every pair. Some agree, up to rounding."),
    ("upside_down", lambda n, a, x: not compared(n, a, x),
     "The answer is turned round: True means that they agree."),
)  # fmt: skip


# 10


@exercise(
    title="Which order, when?",
    difficulty="easy",
    minutes=3,
    options={
        "a": "For writing, yes. But 8,000 queries at once each meet rows of R + P numbers where "
        "naive heads have N + P: about three times the arithmetic, and reading a prompt is bound "
        "by arithmetic.",
        "b": "For reading, yes. But for each single token written, all keys and values would be "
        "rebuilt from 8,000 latents, and used once.",
        "c": "Right. Rebuilding pays when many queries use the keys, absorbing when one does. "
        "Nothing has to be converted in between: both orders leave the same rows.",
        "d": "The other way round. One query does not pay for rebuilding the keys of 8,000 tokens; "
        "8,000 queries do.",
        "e": "The same *result*, up to rounding, is not the same *work*: brackets decide how large "
        "the products in between are.",
        "f": "Both orders read and write the same rows, [latent | rotary key]: nothing is "
        "converted.",
    },
    hints=(
        "How many queries use each rebuilt key: 8,000 while reading, or one at a time?",
        "What lies in the cache does not depend on the order of the products.",
    ),
)
def which_order():
    """Read a prompt of 8,000 tokens at once, then write 500: which order? A letter, a to f."""
    return "c"
