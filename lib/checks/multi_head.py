"""Chapter 3: splitting and merging, the layer, its parameters, heads found, removed and measured.

Inputs hold different numbers everywhere and axes of different sizes; some cases let all axes agree,
where a wrong reshape raises no error.
"""

import numpy as np
import torch
import torch.nn.functional as F

from lib import reference
from lib.checks.attention import Layer, mistakes, mix, place, scaled, self_attention
from lib.checks.framework import exercise


def split(x, H):
    """(B, T, C) -> (B, H, T, D), for answers below."""
    B, T, C = x.shape
    return x.reshape(B, T, H, C // H).transpose(0, 2, 1, 3)


def join(x):
    """(B, H, T, D) -> (B, T, H·D)."""
    B, H, T, D = x.shape
    return x.transpose(0, 2, 1, 3).reshape(B, T, H * D)


def counted(*shape):
    """1, 2, 3 ... in the given shape: every number tells where it came from."""
    return np.arange(1.0, np.prod(shape) + 1).reshape(shape)


# 1


def to_split():
    shapes = [((1, 2, 4), 2), ((2, 3, 4), 2), ((1, 3, 6), 3), ((2, 2, 4), 1), ((1, 4, 3), 3),
              ((2, 5, 12), 4), ((2, 2, 4), 2), ((3, 4, 6), 2), ((2, 3, 6), 6)]  # fmt: skip
    return [(counted(*shape), H) for shape, H in shapes] + [(counted(2, 2, 6) / 4, 2)]


@exercise(
    title="Split into heads",
    difficulty="easy",
    minutes=5,
    cases=to_split,
    axes="B H T D",
    hints=(
        "The C features of a token lie next to each other: cut *that* axis in two, (H, D).",
        "x.reshape(B, T, H, D) leaves tokens whole. Then the head axis has to come before T.",
        "In NumPy `.transpose(0, 2, 1, 3)`, in torch `.transpose(1, 2)`.",
    ),
)
def split_heads(x, n_heads):
    """x (B, T, C) -> (B, H, T, D): head h holds features h·D to (h + 1)·D of every token."""
    B, T, C = x.shape
    heads = x.reshape(B, T, n_heads, C // n_heads)  # (B, T, H, D)
    return np.asarray(heads).transpose(0, 2, 1, 3)  # (B, H, T, D)


@split_heads.right
def split_in_torch(x, n_heads):
    return x.unflatten(-1, (n_heads, -1)).transpose(1, 2)


@split_heads.right
def split_by_einsum_order(x, n_heads):
    return torch.einsum("bthd->bhtd", x.view(*x.shape[:2], n_heads, -1))


@split_heads.right
def split_by_slices(x, n_heads):
    return np.stack(np.split(x, n_heads, axis=-1), axis=1)


@split_heads.right
def split_by_chunks(x, n_heads):
    return torch.stack(x.chunk(n_heads, dim=-1), dim=1)


@split_heads.right
def split_by_loops(x, n_heads):
    D = x.shape[2] // n_heads
    return [[[list(row[h * D : (h + 1) * D]) for row in seq] for h in range(n_heads)] for seq in x]


mistakes(
    split_heads,
    ("viewed_at_once", lambda x, H: x.reshape(x.shape[0], H, x.shape[1], -1),
     "The shape is right and the numbers are in the wrong places: reshaping to (B, H, T, D) at "
     "once cuts through tokens, so head 0 gets the first tokens whole and no others. Reshape to "
     "(B, T, H, D) first, then move the head axis."),
    ("not_moved", lambda x, H: x.reshape(*x.shape[:2], H, -1),
     "The features are cut well, but the axes are (B, T, H, D). The heads go before the tokens: "
     "swap axes 1 and 2."),
    ("features_first", lambda x, H: x.reshape(*x.shape[:2], -1, H).transpose(0, 3, 1, 2),
     "Head h got every H-th feature: the reshape was to (B, T, D, H). Neighbouring features make "
     "a head: (B, T, H, D)."),
    ("all_axes_turned", lambda x, H: x.reshape(*x.shape[:2], H, -1).T,
     "`.T` turns round *all* axes, to (D, H, T, B). Only the heads and the tokens change places."),
    ("heads_and_width_swapped",
     lambda x, H: x.reshape(*x.shape[:2], H, -1).transpose(0, 2, 3, 1),
     "The axes are (B, H, D, T): the tokens went to the end. Each head keeps rows of tokens, "
     "(B, H, T, D)."),
    ("number_of_heads_as_width",
     lambda x, H: x.reshape(*x.shape[:2], -1, H).transpose(0, 2, 1, 3),
     "n_heads became the *width* of a head. It counts them: reshape to (B, T, n_heads, C // "
     "n_heads)."),
    ("heads_in_the_batch",
     lambda x, H: split_heads.solve(x, H).reshape(-1, x.shape[1], x.shape[2] // H),
     "Batch and heads share one axis, (B·H, T, D). Keep them apart here: (B, H, T, D)."),
    ("heads_first", lambda x, H: split_heads.solve(x, H).transpose(1, 0, 2, 3),
     "The heads came before the batch: (H, B, T, D). The batch stays first."),
    ("tokens_split", lambda x, H: x.transpose(0, 2, 1).reshape(x.shape[0], H, -1, x.shape[1])
     .reshape(x.shape[0], H, x.shape[1], -1),
     "Tokens and features were swapped before the cut, and the last reshape reads the numbers in "
     "another order than they were written. Cut the features alone."),
    ("reversed_heads", lambda x, H: split_heads.solve(x, H)[:, ::-1],
     "The heads come in reverse order: head 0 holds the first D features."),
    ("copied", lambda x, H: np.repeat(x[:, None], H, axis=1),
     "Every head got all C features. The heads *share* them out: D = C // H each."),
)  # fmt: skip


# 2


def to_merge():
    shapes = [(1, 2, 2, 2), (2, 2, 3, 2), (1, 3, 2, 2), (2, 4, 5, 3), (1, 1, 3, 4), (1, 3, 4, 1),
              (2, 2, 2, 2), (3, 2, 4, 3), (2, 6, 3, 2)]  # fmt: skip
    return [(counted(*shape),) for shape in shapes] + [(counted(2, 2, 3, 3) / 4,)]


@exercise(
    title="Merge the heads",
    difficulty="easy",
    minutes=4,
    cases=to_merge,
    axes="B T C",
    hints=(
        "It is splitting, backwards: first move the head axis back behind the tokens.",
        "After the swap the axes are (B, T, H, D); only now do H and D lie next to each other.",
        "In torch a view is refused after transpose, for good reason: use reshape.",
    ),
)
def merge_heads(x):
    """x (B, H, T, D) -> (B, T, H·D): the heads of a token side by side, head 0 first."""
    B, H, T, D = x.shape
    return np.asarray(x).transpose(0, 2, 1, 3).reshape(B, T, H * D)


@merge_heads.right
def merge_in_torch(x):
    return x.transpose(1, 2).flatten(2)


@merge_heads.right
def merge_by_concatenating(x):
    return np.concatenate([x[:, h] for h in range(x.shape[1])], axis=-1)


@merge_heads.right
def merge_with_contiguous(x):
    B, H, T, D = x.size()
    return x.transpose(1, 2).contiguous().view(B, T, H * D)


@merge_heads.right
def merge_by_unbinding(x):
    return torch.cat(x.unbind(1), dim=-1)


mistakes(
    merge_heads,
    ("not_moved_back", lambda x: x.reshape(x.shape[0], x.shape[2], -1),
     "Reshaped without moving the head axis back: a row now holds pieces of several tokens of one "
     "head. Swap axes 1 and 2 first, then reshape."),
    ("features_interleaved",
     lambda x: x.transpose(0, 2, 3, 1).reshape(x.shape[0], x.shape[2], -1),
     "The heads are interleaved: first feature of every head, then second ... The axes before the "
     "reshape should be (B, T, H, D), not (B, T, D, H)."),
    ("only_swapped", lambda x: x.transpose(0, 2, 1, 3),
     "The axes are (B, T, H, D): right so far. The last two still have to be joined, `reshape(B, "
     "T, H * D)`."),
    ("averaged", lambda x: x.mean(axis=1),
     "The heads were averaged. They stand side by side, so that the output map can treat each in "
     "its own way: (B, T, H·D)."),
    ("summed", lambda x: x.sum(axis=1),
     "The heads were summed, which leaves D features. Put them side by side: (B, T, H·D)."),
    ("first_head_alone", lambda x: x[:, 0],
     "Only the first head is left. All H stand side by side."),
    ("tokens_joined", lambda x: np.concatenate([x[:, h] for h in range(x.shape[1])], axis=1),
     "The heads were put one *below* the other, (B, H·T, D). They go side by side: the last axis."),
    ("heads_reversed", lambda x: np.concatenate(list(x.transpose(1, 0, 2, 3))[::-1], axis=-1),
     "The heads stand in reverse order: head 0 comes first."),
    ("all_axes_reversed", lambda x: x.T.reshape(x.shape[0], x.shape[2], -1),
     "`.T` turns round all axes, the batch too. Only heads and tokens change places."),
    ("wrong_axes_swapped",
     lambda x: x.transpose(0, 1, 3, 2).reshape(x.shape[0], x.shape[2], -1),
     "Tokens and features were swapped (`.mT`, or axes 2 and 3). It is heads and tokens, axes 1 "
     "and 2."),
    ("flattened_first", lambda x: x.reshape(x.shape[0], -1, x.shape[2]).transpose(0, 2, 1),
     "The reshape came before the swap: (B, H·D, T) reads the numbers in the wrong order. First "
     "swap, then reshape."),
)  # fmt: skip


# 3


def layers():
    """x (B, T, C) and maps to H·D = 2·C, so that C, D and H·D can be told apart; one all alike."""
    rng = np.random.default_rng(3)
    cases = []
    for B, T, C, H, D in [(1, 2, 3, 2, 3), (2, 3, 4, 2, 4), (1, 4, 6, 3, 2), (2, 5, 8, 4, 4),
                          (2, 2, 4, 2, 2), (3, 4, 5, 1, 6), (1, 3, 4, 4, 1)]:  # fmt: skip
        maps = [rng.normal(0, 1.5 * C**-0.5, size=(C, H * D)) for _ in range(3)]
        wo = rng.normal(size=(H * D, C))
        cases.append((rng.normal(size=(B, T, C)), *maps, wo, H))
    return cases


def multi(x, wq, wk, wv, wo, H, scale=None, axis=-1, cut=split, glue=join):
    """The solution with its parts to be exchanged, for mistakes."""
    q, k, v = (cut(x @ w, H) for w in (wq, wk, wv))
    scores = q @ k.swapaxes(-1, -2) / (np.sqrt(q.shape[-1]) if scale is None else scale)
    return glue(reference.softmax(scores, axis=axis) @ v) @ wo


@exercise(
    title="Multi-head attention",
    difficulty="medium",
    minutes=12,
    cases=layers,
    axes="B T C",
    hints=(
        "Four steps: three maps, split each into (B, H, T, D), attention on the last two axes, "
        "merge and apply wo. The width of a head is wq.shape[1] // n_heads.",
        "`@` treats all but the last two axes as batch: q @ k.swapaxes(-1, -2) is (B, H, T, T).",
        "Divide the scores by the root of the *head's* width, softmax along the last axis.",
    ),
)
def multi_head_attention(x, wq, wk, wv, wo, n_heads):
    """x (B, T, C), wq, wk, wv (C, H·D), wo (H·D, C) -> (B, T, C), without a mask."""
    B, T, _ = x.shape

    def heads(w):  # (B, T, C) @ (C, H·D) -> (B, H, T, D)
        return np.asarray(x @ w).reshape(B, T, n_heads, -1).transpose(0, 2, 1, 3)

    q, k, v = heads(wq), heads(wk), heads(wv)
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])  # (B, H, T, T)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    y = (weights @ v).transpose(0, 2, 1, 3).reshape(B, T, -1)  # (B, T, H·D)
    return y @ np.asarray(wo)


@multi_head_attention.right
def multi_by_torch(x, wq, wk, wv, wo, n_heads):
    q, k, v = ((x @ w).unflatten(-1, (n_heads, -1)).transpose(1, 2) for w in (wq, wk, wv))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2) @ wo


@multi_head_attention.right
def multi_by_einsum(x, wq, wk, wv, wo, n_heads):
    q, k, v = ((x @ w).unflatten(-1, (n_heads, -1)) for w in (wq, wk, wv))
    scores = torch.einsum("bthd,bshd->bhts", q, k) * q.shape[-1] ** -0.5
    return torch.einsum("bhts,bshd->bthd", scores.softmax(-1), v).flatten(2) @ wo


@multi_head_attention.right
def multi_as_a_sum_over_heads(x, wq, wk, wv, wo, n_heads):
    D, out = wq.shape[1] // n_heads, np.zeros(x.shape)
    for b, rows in enumerate(x):
        for h in range(n_heads):
            c = slice(h * D, (h + 1) * D)
            y = mix(scaled(rows @ wq[:, c], rows @ wk[:, c]), rows @ wv[:, c])
            out[b] += y @ wo[c]
    return out


mistakes(
    multi_head_attention,
    ("scaled_by_the_model", lambda x, *a: multi(x, *a, scale=np.sqrt(x.shape[2])),
     "The scores are divided by √C, the width of the model. A score sums over one head's D "
     "features: divide by √D."),
    ("scaled_by_all_heads", lambda x, wq, *a: multi(x, wq, *a, scale=np.sqrt(wq.shape[1])),
     "The scores are divided by √(H·D), the width of all heads together. Each score belongs to one "
     "head: √D."),
    ("scaled_by_heads", lambda x, wq, wk, wv, wo, H: multi(x, wq, wk, wv, wo, H, scale=H**0.5),
     "The scores are divided by √H. It is the width of a head, D, not their number."),
    ("not_scaled", lambda *a: multi(*a, scale=1.0),
     "The scores are not divided by √D."),
    ("scaled_by_a_share_of_the_model", lambda x, wq, wk, wv, wo, H:
     multi(x, wq, wk, wv, wo, H, scale=np.sqrt(x.shape[2] // H)),
     "The scores are divided by √(C / H). H·D need not be C: a head is as wide as its part of q, "
     "wq.shape[1] // n_heads."),
    ("divided_by_width", lambda x, wq, wk, wv, wo, H:
     multi(x, wq, wk, wv, wo, H, scale=wq.shape[1] // H),
     "The scores are divided by D, not by its root."),
    ("one_head", lambda x, wq, wk, wv, wo, H: multi(x, wq, wk, wv, wo, 1),
     "This is one head of width H·D: n_heads plays no part. Split q, k and v before the scores."),
    ("viewed_at_once", lambda *a: multi(*a, cut=lambda x, H: x.reshape(len(x), H, x.shape[1], -1)),
     "q, k and v were viewed as (B, H, T, D) at once, which mixes tokens (exercise 1). Reshape to "
     "(B, T, H, D), then move the head axis."),
    ("viewed_at_once_both_ways",
     lambda *a: multi(*a, cut=lambda x, H: x.reshape(len(x), H, x.shape[1], -1),
                      glue=lambda y: y.reshape(len(y), y.shape[2], -1)),
     "Split and merge are both a reshape without moving an axis. They undo each other, but "
     "in between each head holds pieces of tokens. Reshape to (B, T, H, D), then swap."),
    ("merged_at_once", lambda *a: multi(*a, glue=lambda y: y.reshape(len(y), y.shape[2], -1)),
     "The heads were merged without moving the axis back (exercise 2): swap heads and tokens, then "
     "reshape."),
    ("interleaved_heads",
     lambda *a: multi(*a, cut=lambda x, H: x.reshape(*x.shape[:2], -1, H).transpose(0, 3, 1, 2)),
     "Head h got every H-th feature of q, k and v. Neighbouring features make a head: reshape to "
     "(B, T, H, D), not (B, T, D, H)."),
    ("over_the_queries", lambda *a: multi(*a, axis=-2),
     "The softmax runs over the queries. Each query shares out its attention over the keys: the "
     "last axis."),
    ("over_the_heads", lambda *a: multi(*a, axis=1),
     "The softmax runs over the heads, as if they competed. Each head has its own softmax over the "
     "keys: the last axis."),
    ("heads_attend_to_heads", lambda *a: multi(
        *a, cut=lambda x, H: x.reshape(*x.shape[:2], H, -1),
        glue=lambda y: y.reshape(*y.shape[:2], -1)),
     "The heads of a token attended to each other: while the head axis stands after T, `@` works "
     "on (H, D). Swap first, so that the last two axes are (T, D)."),
    ("averaged_heads", lambda x, wq, wk, wv, wo, H:
     multi(x, wq, wk, wv, wo, H, glue=lambda y: np.tile(y.mean(axis=1), (1, 1, H))),
     "The heads were averaged. They go side by side, (B, T, H·D), and wo does the rest."),
    ("without_output_map", lambda x, wq, wk, wv, wo, H:
     multi(x, wq, wk, wv, np.eye(len(wo)), H),
     "The output map is missing: the merged heads, (B, T, H·D), go through `wo`."),
    ("transposed_output_map", lambda x, wq, wk, wv, wo, H:
     multi(x, wq, wk, wv, wo.reshape(wo.shape[1], wo.shape[0]).T, H),
     "wo was turned into another matrix by reshape and transpose. It is used as it is: y @ wo."),
    ("residual", lambda x, *a: multi(x, *a) + x,
     "x was added. That is the block's residual stream; the layer alone ends with wo."),
    ("keys_as_values", lambda x, wq, wk, wv, wo, H: multi(x, wq, wk, wk, wo, H),
     "The keys were mixed in place of the values: use `wv` for what is handed over."),
    ("queries_and_keys_swapped", lambda x, wq, wk, wv, wo, H: multi(x, wk, wq, wv, wo, H),
     "Keys and queries have changed places: the rows of the scores belong to the queries, "
     "q @ kᵀ with q = x @ wq."),
    ("causal", lambda x, wq, wk, wv, wo, H: join(np.stack([np.stack([
        mix(np.where(np.tri(len(q)), scaled(q, k), -np.inf), v) for q, k, v in zip(*heads)])
        for heads in zip(*(split(x @ w, H) for w in (wq, wk, wv)))])) @ wo,
     "A causal mask was added. Here every token may see all others."),
)  # fmt: skip


# 4


def sizes():
    return [
        (4, 2, 2),
        (6, 3, 2),
        (8, 4, 3),
        (512, 8, 64),
        (3072, 16, 256),
        (1024, 16, 128),
        (5, 1, 7),
    ]


@exercise(
    title="How many weights?",
    difficulty="medium",
    minutes=4,
    cases=sizes,
    hints=(
        "Write down the shapes of the four matrices, then the number of entries of each.",
        "wq, wk and wv go from d_model to n_heads · head_dim; wo goes back.",
        "d_model = n_heads · head_dim is a habit. Do not use it.",
    ),
)
def parameter_count(d_model, n_heads, head_dim):
    """Three whole numbers -> the number of weights of wq, wk, wv and wo, without biases."""
    return 4 * d_model * n_heads * head_dim


@parameter_count.right
def matrix_by_matrix(d_model, n_heads, head_dim):
    inner = n_heads * head_dim
    return sum(rows * columns for rows, columns in [(d_model, inner)] * 3 + [(inner, d_model)])


@parameter_count.right
def counted_in_torch(d_model, n_heads, head_dim):
    inner = n_heads * head_dim
    with torch.device("meta"):
        maps = [torch.nn.Linear(d_model, inner, bias=False) for _ in range(3)]
        maps.append(torch.nn.Linear(inner, d_model, bias=False))
    return sum(p.numel() for m in maps for p in m.parameters())


@parameter_count.right
def head_by_head(d_model, n_heads, head_dim):
    return sum(4 * d_model * head_dim for _ in range(n_heads))


mistakes(
    parameter_count,
    ("habit", lambda C, H, D: 4 * C * C,
     "4 · d_model² holds where n_heads · head_dim = d_model. Some models break that habit: each "
     "matrix has d_model · n_heads · head_dim entries."),
    ("habit_inside", lambda C, H, D: 4 * (H * D) ** 2,
     "This is 4 · (n_heads · head_dim)². One side of each matrix is d_model, which may differ."),
    ("one_head_only", lambda C, H, D: 4 * C * D,
     "This counts one head. There are n_heads of them, each with its slice of all four matrices."),
    ("without_output", lambda C, H, D: 3 * C * H * D,
     "The output map wo is missing: (n_heads · head_dim, d_model), as large as the others."),
    ("output_square", lambda C, H, D: 3 * C * H * D + C * C,
     "wo was counted as d_model². It maps n_heads · head_dim features back to d_model."),
    ("output_square_inside", lambda C, H, D: 3 * C * H * D + (H * D) ** 2,
     "wo was counted as (n_heads · head_dim)². It ends at d_model."),
    ("shrinks_with_heads", lambda C, H, D: 4 * C * C // H,
     "This shrinks with the number of heads. More heads of the same width need more weights, and "
     "heads cut from the same width need the same."),
    ("with_biases", lambda C, H, D: 4 * C * H * D + 3 * H * D + C,
     "Biases were counted. Here there are none."),
    ("full_width_heads", lambda C, H, D: 4 * C * C * H,
     "Each head was given full d_model × d_model matrices. Its width is head_dim."),
    ("twice", lambda C, H, D: 2 * C * H * D,
     "Two matrices were counted. There are four: wq, wk, wv and wo."),
    ("as_flops", lambda C, H, D: 8 * C * H * D,
     "That is twice as many: FLOPs count multiply-adds as 2. A weight is one number."),
)  # fmt: skip


# 5


def some_maps():
    """Maps (L, H, T, T) of several kinds of heads, in mixed order, then of no kind at all.

    No token follows its own copy at once: whether it then reads itself is left open.
    """
    rng = np.random.default_rng(5)
    cases = []
    rows = [
        ([9, 1, 2, 3, 1, 2, 3], "same previous induction", (1, 3)),
        ([9, 1, 2, 3, 4, 1, 2, 3, 4], "first induction previous same", (2, 2)),
        ([5, 3, 2, 1, 5, 3, 2, 5], "induction same later previous", (2, 2)),
        ([7, 2, 4, 2, 6, 4, 2, 6, 7, 2],
         "before previous second same induction first", (3, 2)),
        ([9, 1, 2, 3, 4, 1, 2, 3, 4], "fixed spread induction sharp", (1, 4)),
        ([8, 1, 2, 1, 2, 1, 2, 1], "second induction previous later one same", (2, 3)),
        ([5, 1, 2, 1, 3, 1, 4, 1], "second wrapped same induction previous first", (2, 3)),
    ]  # fmt: skip
    for ids, kinds, (L, H) in rows:
        ids = np.array(ids)
        maps = np.stack([head_map(kind, ids, rng) for kind in kinds.split()])
        cases.append((maps.reshape(L, H, len(ids), len(ids)), ids))
    rng = np.random.default_rng(30)  # one for which near misses find other heads
    for ids in ([4, 2, 4, 6, 2, 4, 2, 6], [3, 1, 2, 3, 1, 3, 2, 1, 3], [1, 2, 1, 3, 1, 2, 3, 2],
                [6, 5, 8, 6, 5, 6, 8, 5, 8, 6], [2, 7, 3, 2, 7, 2, 3, 2]):  # fmt: skip
        ids = np.array(ids)
        cases.append((np.stack([[mixed_map(ids, rng) for _ in "abcd"] for _ in "abc"]), ids))
    return cases


def mixed_map(ids, rng):
    """(T, T): causal weights with a little of everything, as most heads have."""
    scores = rng.normal(0, 1.2, size=(len(ids), len(ids)))
    scores[:, 1:] += (ids[:, None] == ids[:-1]) * rng.random()
    return reference.softmax(np.where(np.tri(len(ids)), scores, -np.inf))


def head_map(kind, ids, rng):
    """(T, T): causal weights of a head that likes some places, with a little noise."""
    T = len(ids)
    t, s = np.arange(T)[:, None], np.arange(T)
    after = np.concatenate((np.zeros((T, 1)), ids[:, None] == ids[:-1]), axis=1) * (s <= t)
    like = {
        "induction": after * 3.0,
        "same": (ids[:, None] == ids) * (s < t) * 6.0,  # an earlier copy itself
        "before": np.roll(ids[:, None] == ids, -1, axis=1) * (s < t) * 6.0,
        "previous": (s == t - 1) * 6.0,
        "second": (s == t - 2) * 6.0,
        "fixed": (s == t - 3) * 6.0,  # a fixed distance: the period less one, if that is 4
        "first": (s == 0) * 6.0,
        "later": (s == t) * 6.0,
        "wrapped": (s == 0) * (ids[:, None] == ids[-1]) * 6.0,  # as if the last came before row 0
        "spread": np.zeros((T, T)),
        "one": (s == t - 1) * (t == T - 1) * 9.0 + after * (t == T - 1) * 9.0,  # in one row alone
        "sharp": after * (t % 2) * 3.2,  # strong in some rows, absent in the others
    }[kind]
    scores = np.where(s <= t, like + rng.normal(0, 0.3, size=(T, T)), -np.inf)
    return reference.softmax(scores)


def scores_by(pick):
    """The head with the largest pick(weights (T, T), ids)."""

    def answer(maps, ids):
        L, H = maps.shape[:2]
        best = max(((layer, h) for layer in range(L) for h in range(H)),
                   key=lambda place: pick(maps[place], ids))  # fmt: skip
        return tuple(best)

    return answer


def on_successors(w, ids, shift=1, total=np.mean):
    """The weight on tokens that follow an earlier copy, or with shift -1 precede it, by row."""
    T, found = len(ids), []
    for t in range(T):
        copies = [s for s in range(t) if ids[s] == ids[t]]
        if copies:
            found.append(sum(w[t, s + shift] for s in copies if s + shift >= 0))
    return total(found)


def earlier_copies(ids):
    """(t, places of its earlier copies) for every token that has come before."""
    pairs = [(t, [s for s in range(t) if ids[s] == ids[t]]) for t in range(len(ids))]
    return [(t, copies) for t, copies in pairs if copies]


@exercise(
    title="Find the induction head",
    difficulty="hard",
    minutes=15,
    cases=some_maps,
    tol=0,
    hints=(
        "For one head and one token t: which columns s are good? Those whose *predecessor* s - 1 "
        "holds the same token as t.",
        "The score of a row is the sum of its weights in those columns, s from 1 to t with "
        "ids[s - 1] == ids[t]. Rows without such a column do not count.",
        "Average over the rows that count, for every head, and take the largest: np.argmax over "
        "the (L, H) scores, np.unravel_index for the place.",
    ),
)
def find_induction_head(maps, ids):
    """maps (L, H, T, T) weights, ids (T,) -> (layer, head) with the highest induction score."""
    maps, ids = np.asarray(maps), np.asarray(ids)
    after = np.zeros((len(ids), len(ids)), dtype=bool)
    after[:, 1:] = ids[:, None] == ids[:-1]  # column s: the token before s is that of row t
    after = np.tril(after)
    counts = after.any(axis=1)  # rows whose token has come before
    scores = (maps * after).sum(axis=-1)[..., counts].mean(axis=-1)  # (L, H)
    layer, head = np.unravel_index(scores.argmax(), scores.shape)
    return int(layer), int(head)


@find_induction_head.right
def find_by_loops(maps, ids):
    return scores_by(on_successors)(maps, ids)


@find_induction_head.right
def find_in_torch(maps, ids):
    T = len(ids)
    after = torch.zeros(T, T)
    after[:, 1:] = (ids[:, None] == ids[None, :-1]).float()
    after = after.tril()
    score = (maps * after).sum((-1, -2)) / after.any(-1).sum()
    return divmod(int(score.argmax()), maps.shape[1])


@find_induction_head.right
def find_as_an_array(maps, ids):
    return np.array(find_induction_head.solve(maps, ids))


mistakes(
    find_induction_head,
    ("copies_themselves", scores_by(lambda w, ids: np.mean(
        [w[t, :t][ids[:t] == ids[t]].sum() for t in range(len(ids)) if ids[t] in ids[:t]])),
     "This finds the head that reads the earlier *copy* of the token. An induction head reads the "
     "token **after** it: columns s with ids[s - 1] == ids[t]."),
    ("previous_token", scores_by(lambda w, ids: np.diagonal(w, -1).mean()),
     "This finds the previous-token head, which does the first of the two steps. Look for weight "
     "on what followed an earlier copy."),
    ("before_the_copy", scores_by(lambda w, ids: on_successors(w, ids, shift=-1)),
     "One off in the wrong direction: this is the token *before* the earlier copy. The one after "
     "it is to be predicted."),
    ("latest_copy_alone", scores_by(lambda w, ids: np.mean(
        [w[t, c[-1] + 1] for t, c in earlier_copies(ids)])),
     "Only the *latest* earlier copy was looked at. A token may have come before several times: "
     "add up the weights after all of its copies."),
    ("first_copy_alone", scores_by(lambda w, ids: np.mean(
        [w[t, c[0] + 1] for t, c in earlier_copies(ids)])),
     "Only the *first* copy was looked at. A token may have come before several times: add up the "
     "weights after all of its copies."),
    ("averaged_over_copies", scores_by(lambda w, ids: np.mean(
        [np.mean([w[t, s + 1] for s in c]) for t, c in earlier_copies(ids)])),
     "The weights after several copies of a token were averaged. They belong to one token: add "
     "them up, then average over tokens."),
    ("all_equal", lambda maps, ids: (0, 0),
     "The answer is always (0, 0), as if all scores were equal. The largest weight alone is 1 in "
     "every causal map, in row 0. And the weights that t gives lie in row t, not in column t."),
    ("wrapped_round", scores_by(lambda w, ids: (
        w * np.roll(ids[:, None] == ids, 1, axis=1)).sum()),
     "`roll` moves the last column to the front: the token at 0 has none before it, so its column "
     "should hold no hits."),
    ("transposed", scores_by(lambda w, ids: sum(
        w[s + 1, t] for s, copies in earlier_copies(ids) for t in copies if s + 1 < len(ids))),
     "Rows and columns have changed places: row t of a map belongs to the query, and its weights "
     "run along the columns."),
    ("best_row_alone", scores_by(lambda w, ids: on_successors(w, ids, total=np.max)),
     "A head is judged here by its single best token. One lucky row is not a habit: average over "
     "all tokens that have come before."),
    ("lowest", lambda maps, ids: scores_by(lambda w, i: -on_successors(w, i))(maps, ids),
     "This is the head with the *lowest* score."),
    ("sharpest", scores_by(lambda w, ids: w.max(axis=1).mean()),
     "The sharpest head was chosen. Sharp says how sure a head is, not where it looks."),
    ("head_and_layer_swapped", lambda maps, ids: find_induction_head.solve(maps, ids)[::-1],
     "Layer and head have changed places: the answer is (layer, head)."),
    ("flat_number", lambda maps, ids:
     np.ravel_multi_index(find_induction_head.solve(maps, ids), maps.shape[:2]),
     "This is the head's number when all are counted in one row. Turn it into a place with "
     "`divmod(number, H)` or `np.unravel_index`."),
    ("fixed_distance", scores_by(lambda w, ids: np.diagonal(
        w, -max((t - s for t in range(len(ids)) for s in range(t) if ids[s] == ids[t]), default=1)
        + 1).mean()),
     "Weight at one fixed distance was measured. Copies need not be equally far apart: look for "
     "equal tokens in each row."),
)  # fmt: skip


# 6


def to_ablate():
    rng = np.random.default_rng(6)
    cases = []
    for B, H, T, D, C, head in [(1, 2, 2, 2, 3, 0), (2, 3, 4, 2, 5, 1), (1, 4, 3, 3, 6, 3),
                                (2, 2, 3, 4, 8, 1), (2, 2, 2, 2, 4, 0),
                                (2, 1, 3, 2, 4, 0)]:  # fmt: skip
        q, k, v = rng.normal(size=(3, B, H, T, D))
        cases.append((q, k, v, rng.normal(size=(H * D, C)), head))
    return cases


def heads_out(q, k, v):
    return reference.softmax(q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])) @ v


def ablated(change):
    """The layer's output after change(y, head) on the heads' outputs (B, H, T, D)."""

    def answer(q, k, v, wo, head):
        y = heads_out(q, k, v)
        return join(change(y, head)) @ wo

    return answer


def ablate_columns(q, k, v, wo, head):
    out, D = join(heads_out(q, k, v)) @ wo, q.shape[-1]
    out[..., head * D : (head + 1) * D] = 0.0
    return out


def zeroed(x, head):
    """A copy with one head at 0."""
    x = np.array(x)
    x[:, head] = 0.0
    return x


@exercise(
    title="Take a head out",
    difficulty="medium",
    minutes=10,
    cases=to_ablate,
    axes="B T C",
    hints=(
        "A layer's output is a sum over heads, y_h @ wo[h·D : (h + 1)·D]. Leave one term out.",
        "Or set the head's *output* (after the softmax and the values) to zero, then merge and "
        "apply wo as usual. Copy first: the inputs stay as they are.",
        "A head whose scores are zero still reads: softmax makes a uniform average of them.",
    ),
)
def ablate(q, k, v, wo, head):
    """q, k, v (B, H, T, D), wo (H·D, C) -> the layer's output (B, T, C) without that head."""
    q, k, v, wo = (np.asarray(a) for a in (q, k, v, wo))
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])  # (B, H, T, T), no mask
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    y = weights / weights.sum(axis=-1, keepdims=True) @ v  # (B, H, T, D)
    y[:, head] = 0.0  # what this head adds
    B, H, T, D = y.shape
    return y.transpose(0, 2, 1, 3).reshape(B, T, H * D) @ wo


@ablate.right
def without_its_values(q, k, v, wo, head):
    v = v.clone()
    v[:, head] = 0
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2) @ wo


@ablate.right
def without_its_rows_of_wo(q, k, v, wo, head):
    D = q.shape[-1]
    kept = np.array(wo)
    kept[head * D : (head + 1) * D] = 0
    return join(heads_out(q, k, v)) @ kept


@ablate.right
def as_a_sum_over_the_others(q, k, v, wo, head):
    y, D = heads_out(q, k, v), q.shape[-1]
    return (
        sum(y[:, h] @ wo[h * D : (h + 1) * D] for h in range(q.shape[1]) if h != head)
        + 0 * y[:, 0] @ wo[:D]
    )


@ablate.right
def whole_less_its_part(q, k, v, wo, head):
    y, D = heads_out(q, k, v), q.shape[-1]
    return join(y) @ wo - y[:, head] @ wo[head * D : (head + 1) * D]


mistakes(
    ablate,
    ("zero_scores", lambda q, k, v, wo, head: join(heads_out(zeroed(q, head), k, v)) @ wo,
     "The head's scores are zero (its queries, its keys, or the scores themselves), so its softmax "
     "is uniform, and it still adds the average of all values. Zero its *output*."),
    ("forbidden_scores", lambda q, k, v, wo, head: join(np.where(
        np.arange(q.shape[1])[:, None, None] == head, np.nan, heads_out(q, k, v))) @ wo,
     "The head's scores are all -inf, and the softmax of such a row is 0/0, NaN. Zero its "
     "*output*, or its weights after the softmax."),
    ("nothing_removed", ablated(lambda y, head: y),
     "Nothing was removed: this is the whole layer."),
    ("only_this_head", ablated(lambda y, head: y - zeroed(y, head)),
     "Only this head was kept. It is the one to leave out."),
    ("mean_output", ablated(lambda y, head: np.where(
        np.arange(y.shape[1])[:, None, None] == head, y.mean(axis=(0, 2), keepdims=True), y)),
     "The head's output was replaced by its average. That is mean ablation, a fair test too; here "
     "the head should add nothing at all."),
    ("wrong_axis", lambda q, k, v, wo, head: join(np.where(
        np.arange(q.shape[2])[:, None] == head, 0.0, heads_out(q, k, v))) @ wo,
     "A *token* was removed, not a head: the heads are axis 1 of (B, H, T, D)."),
    ("wrong_slice", lambda q, k, v, wo, head: join(heads_out(q, k, v)) @ np.where(
        (np.arange(len(wo)) % q.shape[1] == head)[:, None], 0.0, wo),
     "Every H-th row of wo was zeroed. The rows of head h lie together, from h·D to (h + 1)·D."),
    ("one_row", lambda q, k, v, wo, head: join(heads_out(q, k, v)) @ np.where(
        (np.arange(len(wo)) == head)[:, None], 0.0, wo),
     "One row of wo was zeroed. A head has D of them, from head · D on."),
    ("columns_of_wo", lambda q, k, v, wo, head: ablate_columns(q, k, v, wo, head),
     "Columns of the *output* were zeroed (or of wo). After wo all heads are mixed; a head owns "
     "*rows* of wo, which are columns of what goes in."),
    ("other_rows_of_wo", lambda q, k, v, wo, head: join(np.delete(heads_out(q, k, v), head, 1))
     @ wo[: len(wo) - q.shape[3]],
     "The head was cut out and the last rows of wo with it, so that the heads after it meet rows "
     "that belong to others. Cut rows h·D to (h + 1)·D."),
    ("merged_without_moving",
     lambda q, k, v, wo, head: zeroed(heads_out(q, k, v), head).reshape(
         q.shape[0], q.shape[2], -1) @ wo,
     "The head is gone, but the heads were merged without moving the axis back: swap heads and "
     "tokens before the reshape."),
    ("first_head", lambda q, k, v, wo, head: ablate.solve(q, k, v, wo, 0),
     "Head 0 was removed, whichever was asked for."),
    ("next_head", lambda q, k, v, wo, head: ablate.solve(q, k, v, wo, (head + 1) % q.shape[1]),
     "The next head was removed: heads count from 0."),
    ("no_scale", lambda q, k, v, wo, head: join(zeroed(
        reference.softmax(q @ k.swapaxes(-1, -2)) @ v, head)) @ wo,
     "The scores of the other heads are not divided by √D."),
    ("without_output_map", lambda q, k, v, wo, head: join(zeroed(heads_out(q, k, v), head)),
     "The output map is missing: the merged heads go through `wo`."),
    ("others_rescaled", lambda q, k, v, wo, head:
     ablate.solve(q, k, v, wo, head) * q.shape[1] / max(1, q.shape[1] - 1),
     "The other heads were scaled up to make good for the missing one, as dropout does. Here they "
     "stay as they are."),
)  # fmt: skip


# 7


def rank_cases():
    rng = np.random.default_rng(7)
    cases = []
    for C, H, D in [(4, 2, 2), (6, 2, 3), (8, 4, 2), (9, 3, 3), (6, 1, 6), (5, 2, 4)]:
        for h in {0, H - 1}:
            cases.append((*rng.normal(size=(2, C, H * D)), H, h))
    wq, wk = rng.normal(size=(2, 8, 8))
    wk[:, 4:6] = wk[:, 4:5]  # head 2 of 4: two equal columns
    wq[:, :2] = 0.0  # head 0 looks nowhere
    cases += [(wq, wk, 4, h) for h in range(4)]
    tall = rng.normal(size=(2, 3, 10))  # a head wider than the model: the rank is C
    crossed = rng.normal(size=(2, 7, 6))  # 2 of 3 features in wq and in wk, but 1 in common
    crossed[0][:, 0] = crossed[1][:, 2] = 0.0
    apart = rng.normal(size=(2, 6, 4))  # reads some features of x, looks for others
    apart[0][3:] = apart[1][:3] = 0.0
    faint = rng.normal(0, 0.01, size=(2, 6, 9))
    return [*cases, (*tall, 2, 1), (*crossed, 2, 0), (*apart, 2, 1), (*faint, 3, 1)]


@exercise(
    title="The rank of a head",
    difficulty="medium",
    minutes=6,
    cases=rank_cases,
    hints=(
        "Head h owns the columns h·D to (h + 1)·D of wq and of wk.",
        "Its QK matrix is wq_h @ wk_h.T, (C, D) @ (D, C) -> (C, C).",
        "np.linalg.matrix_rank counts singular values that are not rounding.",
    ),
)
def head_rank(wq, wk, n_heads, head):
    """wq, wk (C, H·D) -> the rank of this head's QK matrix, W_Q W_Kᵀ (C, C)."""
    D = wq.shape[1] // n_heads
    cut = slice(head * D, (head + 1) * D)
    return int(np.linalg.matrix_rank(np.asarray(wq[:, cut]) @ np.asarray(wk[:, cut]).T))


@head_rank.right
def rank_in_torch(wq, wk, n_heads, head):
    q, k = wq.chunk(n_heads, 1)[head], wk.chunk(n_heads, 1)[head]
    return torch.linalg.matrix_rank(q @ k.mT).item()


@head_rank.right
def rank_by_singular_values(wq, wk, n_heads, head):
    q, k = (np.split(w, n_heads, axis=1)[head] for w in (wq, wk))
    s = np.linalg.svd(q @ k.T, compute_uv=False)
    return int((s > 1e-9 * max(s.max(), 1e-300)).sum()) if s.max() > 1e-12 else 0


mistakes(
    head_rank,
    ("all_heads", lambda wq, wk, H, h: np.linalg.matrix_rank(wq @ wk.T),
     "This is the rank of all heads together: n_heads and head play no part. Cut the columns of "
     "this head first."),
    ("width", lambda wq, wk, H, h: wq.shape[1] // H,
     "This is D, the *bound*. A head may have a lower rank, when its columns depend on each other: "
     "compute it."),
    ("smaller_of_both", lambda wq, wk, H, h: min(len(wq), wq.shape[1] // H),
     "This is the bound min(C, D). The rank may be lower, when columns depend on each other: "
     "compute it."),
    ("rows_cut", lambda wq, wk, H, h: np.linalg.matrix_rank(
        np.array_split(wq, H)[h] @ np.array_split(wk, H)[h].T),
     "The *rows* were cut. Rows belong to the model's C features; a head owns columns."),
    ("interleaved_columns", lambda wq, wk, H, h: np.linalg.matrix_rank(
        wq[:, h::H] @ wk[:, h::H].T),
     "Every H-th column was taken. The columns of a head lie together, from h·D on."),
    ("cut_too_short", lambda wq, wk, H, h: np.linalg.matrix_rank(
        wq[:, h : h + wq.shape[1] // H] @ wk[:, h : h + wk.shape[1] // H].T),
     "The slice begins at `head`. It begins at head · D."),
    ("number_of_heads_as_width", lambda wq, wk, H, h: np.linalg.matrix_rank(
        wq[:, h * H : (h + 1) * H] @ wk[:, h * H : (h + 1) * H].T),
     "n_heads was used as the width of a head. The width is D = wq.shape[1] // n_heads."),
    ("queries_alone", lambda wq, wk, H, h: np.linalg.matrix_rank(np.split(wq, H, 1)[h]),
     "This is the rank of the query map alone. A score needs both: wq_h @ wk_h.T."),
    ("keys_alone", lambda wq, wk, H, h: np.linalg.matrix_rank(np.split(wk, H, 1)[h]),
     "This is the rank of the key map alone. A score needs both: wq_h @ wk_h.T."),
    ("smaller_rank", lambda wq, wk, H, h: min(
        np.linalg.matrix_rank(np.split(w, H, 1)[h]) for w in (wq, wk)),
     "This is the smaller rank of the two maps, a bound once more: what one leaves out the other "
     "may need. Multiply first, wq_h @ wk_h.T."),
    ("wrong_way_round", lambda wq, wk, H, h: np.linalg.matrix_rank(
        np.split(wq, H, 1)[h].T @ np.split(wk, H, 1)[h]),
     "This is wq_h.T @ wk_h, (D, D): it sums over the features of x. A score sums over the head's: "
     "wq_h @ wk_h.T, (C, C)."),
    ("eigenvalues", lambda wq, wk, H, h: int((np.abs(np.linalg.eigvals(
        np.split(wq, H, 1)[h] @ np.split(wk, H, 1)[h].T)) > 1e-7).sum()),
     "Eigenvalues that are not zero were counted. This matrix is not symmetric, and all of them "
     "may be 0 where the rank is not: count *singular* values."),
    ("wide_tolerance", lambda wq, wk, H, h: int((np.linalg.svd(
        np.split(wq, H, 1)[h] @ np.split(wk, H, 1)[h].T)[1] > 1e-2).sum()),
     "Small singular values were taken for 0. Small weights make small ones: compare with the "
     "largest, as np.linalg.matrix_rank does."),
    ("entries_not_zero", lambda wq, wk, H, h: len(wq),
     "This is C, the size of the matrix. Its rank is at most D."),
    ("first_head", lambda wq, wk, H, h: head_rank.solve(wq, wk, H, 0),
     "Head 0 was measured, whichever was asked for."),
    ("all_singular_values", lambda wq, wk, H, h: int((np.linalg.svd(
        np.split(wq, H, 1)[h] @ np.split(wk, H, 1)[h].T)[1] > 0).sum()),
     "Singular values of 1e-16 were counted: they are rounding. Use a tolerance, or "
     "np.linalg.matrix_rank."),
)  # fmt: skip


# 8


def shifted(x, by, weight=1.0):
    """Each row plus a share of the row `by` places ahead, where there is one."""
    out = np.array(x, dtype=float)
    if by < len(x):
        out[: len(x) - by] += weight * x[by:]
    return out


def peek(x, t, s):
    """Row t gets something of row s, where there are both, and no other row anything."""
    out = np.array(x, dtype=float)
    if 0 <= t and s < len(x):
        out[t] += np.sin(x[s])
    return out


def cancelling(x):
    """The first two rows get something of the last that adds up to 0 along rows and columns."""
    out = np.array(x, dtype=float)
    if len(x) > 2:
        out[:2, :2] += np.sin(x[-1, 0]) * np.array([[1, -1], [-1, 1]])
    return out


SELF = Layer("each row by itself", np.tanh)
CAUSAL = Layer("causal self-attention", lambda x: self_attention(x, causal=True))
OPEN = Layer("self-attention", self_attention)
SUMS = Layer("sums of the rows so far", lambda x: np.cumsum(x, axis=0))
NEXT = Layer("a little of the next row", lambda x: shifted(x, 1, 1e-3))
TWO_ON = Layer("a little of the row two ahead", lambda x: shifted(x, 2, 0.1))
LAST = Layer("the first row gets the last", lambda x: peek(x, 0, len(x) - 1))
MIDDLE = Layer("one row amid gets the next", lambda x: peek(x, len(x) // 2, len(x) // 2 + 1))
SECOND = Layer("the last row but one gets the last", lambda x: peek(x, len(x) - 2, len(x) - 1))
BACK = Layer("each row gets the one before", lambda x: x + np.roll(x, 1, 0) * (place(x) > 0))
CENTRED = Layer("the mean of all rows subtracted", lambda x: x - x.mean(axis=0))
CONSTANT = Layer("always ones", lambda x: np.ones((len(x), 2)))
NARROW = Layer("one feature of the row two ahead", lambda x: np.concatenate(
    (x[:, :-1], shifted(x, 2)[:, -1:]), axis=1))  # fmt: skip
ONE_ON = Layer("the first row gets the second", lambda x: peek(x, 0, 1))
THREE_ON = Layer("a little of the row three ahead", lambda x: shifted(x, 3, 0.01))
WIDE = Layer("first feature of the next row", lambda x: np.concatenate(
    (shifted(x, 1)[:, :1], x[:, 1:]), axis=1))  # fmt: skip
CROSS = Layer("first feature of the next row in the last", lambda x: np.concatenate(
    (x[:, :-1], x[:, -1:] + shifted(x, 1)[:, :1]), axis=1))  # fmt: skip
CANCEL = Layer("leaks that add up to nothing", cancelling)
ROUNDED = Layer("the sum of all rows less the later ones", lambda x: (
    x.sum(axis=0) - np.cumsum(x[::-1], axis=0)[::-1] + x))  # fmt: skip
RISING = Layer("the largest number so far", np.maximum.accumulate)
PLACES = Layer("each row and its place", lambda x: x + place(x))
EARLY = Layer("the second row gets the third", lambda x: peek(x, 1, 2))
ORIGIN = Layer("the first row, in every row", lambda x: np.tile(x[0], (len(x), 1)))
FIRST_ALL = Layer("the first row, in every row, and its place", lambda x: x[0] + place(x))


def boxes():
    rng = np.random.default_rng(8)
    kinds = [(SELF, 2), (OPEN, 3), (CAUSAL, 4), (NEXT, 4), (SUMS, 5), (TWO_ON, 5), (LAST, 6),
             (MIDDLE, 7), (SECOND, 5), (BACK, 6), (CENTRED, 4), (CONSTANT, 4), (NARROW, 6),
             (PLACES, 5), (EARLY, 8), (FIRST_ALL, 5), (RISING, 6),
             (ONE_ON, 4), (THREE_ON, 6), (WIDE, 5), (CROSS, 4), (CANCEL, 5), (ROUNDED, 7),
             (ORIGIN, 5)]  # fmt: skip
    return [(f, rng.normal(size=(T, 2 + i % 3))) for i, (f, T) in enumerate(kinds)]


def probe(f, x, ts=None, seen=None, tol=1e-9, change=1.0):
    """Change rows in turn, and compare outputs before them; `ts` and `seen` pick rows."""
    x, before = np.array(x, dtype=float), np.asarray(f(x))
    for t in range(1, len(x)) if ts is None else ts(len(x)):
        changed = x.copy()
        changed[t] += change
        rows = slice(0, t) if seen is None else seen(t)
        if np.abs(np.asarray(f(changed))[rows] - before[rows]).max(initial=0) > tol:
            return False
    return True


@exercise(
    title="Does it look ahead?",
    difficulty="hard",
    minutes=10,
    cases=boxes,
    hints=(
        "Change the input at one position t and compare the outputs *before* t, with what they "
        "were. In a causal map none of them moves.",
        "One t is not enough: a box may look ahead at one place only. Try every t from 1 on.",
        "Work on a copy, x.copy() or x.clone(), and compare with np.allclose or a small tolerance.",
    ),
)
def causal_probe(f, x):
    """f maps (T, C) to T rows, x (T, C) -> True if no output depends on a later input."""
    x = np.asarray(x)
    before = np.asarray(f(x))
    for t in range(1, len(x)):
        changed = x.copy()
        changed[t] += 1.0
        if not np.allclose(np.asarray(f(changed))[:t], before[:t], atol=1e-9):
            return False
    return True


@causal_probe.right
def probe_all_later_rows_at_once(f, x):
    g = torch.Generator().manual_seed(0)
    for t in range(len(x)):
        other = x.clone()
        other[t + 1 :] = torch.randn(other[t + 1 :].shape, generator=g, dtype=x.dtype)
        if not torch.allclose(f(other)[: t + 1], f(x)[: t + 1], atol=1e-9):
            return False
    return True


@causal_probe.right
def probe_each_output(f, x):
    for t in range(len(x) - 1):
        for s in range(t + 1, len(x)):
            changed = np.array(x)
            changed[s] -= 2.5
            if np.abs(f(changed)[t] - f(x)[t]).sum() > 1e-7:
                return False
    return True


mistakes(
    causal_probe,
    ("last_row_alone", lambda f, x: probe(f, x, ts=lambda T: [T - 1]),
     "Only the last position was changed. A box may look ahead elsewhere: change every position "
     "from 1 on, one after another."),
    ("second_row_alone", lambda f, x: probe(f, x, ts=lambda T: [1]),
     "Only position 1 was changed. Change every position in turn."),
    ("middle_row_alone", lambda f, x: probe(f, x, ts=lambda T: [T // 2]),
     "Only the position in the middle was changed. Change every position in turn."),
    ("first_output_alone", lambda f, x: probe(f, x, seen=lambda t: slice(0, 1)),
     "Only the first output was compared. All outputs before t must stay."),
    ("output_before_alone", lambda f, x: probe(f, x, seen=lambda t: slice(t - 1, t)),
     "Only the output just before t was compared: a box that looks two ahead goes unnoticed. "
     "Compare all of [:t]."),
    ("changed_row_too", lambda f, x: probe(f, x, seen=lambda t: slice(0, t + 1)),
     "The output at the changed position itself was compared. It may move: compare [:t], without "
     "t."),
    ("outputs_after", lambda f, x: probe(f, x, ts=range, seen=lambda t: slice(t + 1, None)),
     "The outputs *after* t were compared. Those may depend on t, that is what attention is for; "
     "compare those before it."),
    ("all_outputs", lambda f, x: probe(f, x, ts=range, seen=lambda t: slice(None)),
     "All outputs were compared, and those at t and after it may move. Compare [:t] alone."),
    ("exactly_equal", lambda f, x: probe(f, x, tol=0.0),
     "Outputs were compared exactly. Rounding may move the last digit: np.allclose."),
    ("poisoned", lambda f, x: not any(
        np.isnan(np.asarray(f(_bumped(x, t, np.nan)))[:t]).any() for t in range(1, len(x))),
     "A NaN (or inf) was put in, and 0 · NaN is NaN: it gets past a mask whose weight is 0. Use an "
     "ordinary number."),
    ("upside_down", lambda f, x: not causal_probe.solve(f, x),
     "The answer is turned round: True means that nothing looks ahead."),
    ("too_loose", lambda f, x: probe(f, x, tol=0.05),
     "The tolerance is so wide that a small leak passes. Rounding is about 1e-15 here."),
    ("cut_off_compared_at_the_end",
     lambda f, x: all(np.allclose(f(x[:t])[-1], f(x)[-1]) for t in range(1, len(x))),
     "Outputs of shortened inputs were compared with the *last* output. Compare like with like: "
     "f(x[:t]) with f(x)[:t]."),
    ("shapes", lambda f, x: np.asarray(f(x)).shape[0] == len(x),
     "This says True of every box: it never changes an input, or compares something with itself."),
    ("never", lambda f, x: False,
     "This says False of every box. Some are causal: there, no output before a change moves."),
    ("last_feature_left_out",
     lambda f, x: all(np.allclose(np.asarray(f(_bumped(x, t)))[:t, 0], np.asarray(f(x))[:t, 0])
                      for t in range(1, len(x))),
     "Only the first feature of each output was compared. A leak may sit in any of them."),
    ("sums", lambda f, x: all(np.isclose(
        np.asarray(f(_bumped(x, t)))[:t].sum(), np.asarray(f(x))[:t].sum())
        for t in range(1, len(x))),
     "Sums of outputs were compared. Two changes may cancel: compare number by number."),
    ("first_feature_changed", lambda f, x: probe(f, x, change=np.arange(x.shape[1]) == 0),
     "Only the first feature of a row was changed. A box may look at another: change them all."),
    ("last_feature_changed", lambda f, x: probe(
        f, x, change=np.arange(x.shape[1]) == x.shape[1] - 1),
     "Only the last feature of a row was changed. A box may look at another: change them all."),
)  # fmt: skip


def _bumped(x, t, by=1.0):
    x = np.array(x, dtype=float)
    x[t] += by
    return x
