"""The equations in NumPy, as they stand on paper: what everything else must agree with.

One equation, one function, the letters of the formulas. Written for reading and for checking
other code, not for speed. Gradients, batching and GPUs are left to torch.
"""

import numpy as np


def softmax(z, temperature=1.0, axis=-1):
    """Scores z (..., n) -> probabilities p (..., n), none negative, summing to 1 along `axis`.

    p_i = exp(z_i / τ) / sum_j exp(z_j / τ), τ the temperature. The largest score is
    subtracted first: it cancels in the fraction, and without it exp(1000) overflows. A row of only
    -inf has no largest score to subtract and gives zeros, not NaN. Bridle 1990, https://doi.org/10.1007/978-3-642-76153-9_28

    >>> softmax(np.array([1.0, 2.0, 1000.0]))
    array([0., 0., 1.])

    Raises:
        ValueError: the temperature is not a positive number.
    """
    if not (np.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature must be a positive number, got {temperature}: 1.0 is plain")
    z = np.asarray(z, dtype=float) / temperature
    top = z.max(axis=axis, keepdims=True)
    e = np.exp(z - np.where(np.isfinite(top), top, 0.0))
    total = e.sum(axis=axis, keepdims=True)
    return np.divide(e, total, out=np.zeros_like(e), where=total != 0)


def attention(q, k, v, mask=None):
    """Queries q (T, D), keys k (S, D), values v (S, Dv) -> outputs y (T, Dv). One head, no batch.

    y_t = sum_s a_ts v_s, the average of the values with the weights of `attention_weights`.
    Vaswani et al. 2017, eq. 1, https://arxiv.org/abs/1706.03762

    >>> attention([[9.0]], [[8.0], [-8.0]], [[1.0], [2.0]])  # looks like the first key
    array([[1.]])

    Raises:
        ValueError: q, k, v or mask do not fit each other.
        TypeError: the mask is not boolean.
    """
    a, v = attention_weights(q, k, mask), np.asarray(v, dtype=float)
    T, S = a.shape
    if v.ndim != 2 or len(v) != S:
        raise ValueError(f"values must be (S, Dv), one for each of the {S} keys: got {v.shape}")
    y = np.zeros((T, v.shape[1]))
    for t in range(T):
        for s in range(S):
            y[t] += a[t, s] * v[s]
    return y


def attention_weights(q, k, mask=None):
    """Queries q (T, D), keys k (S, D) -> weights a (T, S): how much query t reads of token s.

    a_ts = softmax_s( q_t · k_s / √D ), over the keys with mask[t, s] True, or all without a mask.
    A query that may see none gives a row of zeros.
    """
    q, k = np.asarray(q, dtype=float), np.asarray(k, dtype=float)
    if q.ndim != 2 or k.ndim != 2 or q.shape[1] != k.shape[1]:
        raise ValueError(f"q must be (T, D) and k (S, D): got {q.shape} and {k.shape}")
    (T, D), S = q.shape, len(k)
    mask = np.ones((T, S), dtype=bool) if mask is None else np.asarray(mask)
    if mask.dtype != bool:
        raise TypeError(f"mask must be boolean, True = may be seen: got {mask.dtype}")
    if mask.shape != (T, S):
        raise ValueError(f"mask must be (T, S) = {(T, S)}: got {mask.shape}")
    z = np.full((T, S), -np.inf)
    for t in range(T):
        for s in range(S):
            if mask[t, s]:
                z[t, s] = q[t] @ k[s] / np.sqrt(D)
    return softmax(z)


def causal_mask(T, S):
    """(T, S), True where query t may see key s: the T queries are the last of S tokens.

    Query t stands at position S - T + t and sees every s up to there.

    >>> causal_mask(2, 3).astype(int)
    array([[1, 1, 0],
           [1, 1, 1]])

    Raises:
        ValueError: there are more queries than keys.
    """
    if T > S:
        raise ValueError(f"T queries need S >= T keys under a causal mask: got T={T}, S={S}")
    mask = np.zeros((T, S), dtype=bool)
    for t in range(T):
        for s in range(S):
            mask[t, s] = s <= S - T + t
    return mask


def entropy(p, axis=-1):
    """Probabilities p (..., n) -> bits: the average surprise of someone who knows p.

    entropy = -sum_i p_i log2 p_i, with 0 log 0 = 0. Shannon 1948, section 6,
    https://doi.org/10.1002/j.1538-7305.1948.tb01338.x

    >>> float(entropy(np.array([0.5, 0.25, 0.25])))
    1.5
    """
    p = np.asarray(p, dtype=float)
    bits = -np.log2(p, out=np.zeros_like(p), where=p > 0)
    return (p * bits).sum(axis=axis) + 0.0  # + 0.0 turns -0.0 into 0.0


def cross_entropy(logits, targets):
    """Logits (T, V) and target ids (T,) -> nats: the mean surprise at the targets.

    loss = mean_t( log sum_v exp(z_tv) - z_t,target ). In nats, as torch and the papers count;
    divide by ln 2 for bits. The softmax is never formed: a small probability would underflow to 0.

    >>> float(cross_entropy(np.zeros((3, 4)), np.array([0, 1, 3])).round(4))  # ln 4
    1.3863

    Raises:
        ValueError: logits and targets differ in T, or a target is not in 0 .. V-1.
        TypeError: targets are not integers.
    """
    z, targets = np.asarray(logits, dtype=float), np.asarray(targets)
    if z.ndim != 2 or targets.shape != z.shape[:1]:
        raise ValueError(f"logits (T, V) need targets (T,): got {z.shape} and {targets.shape}")
    if targets.dtype.kind not in "iu":
        raise TypeError(f"targets are ids, integers: got an array of {targets.dtype}")
    T, V = z.shape
    if targets.size and not (0 <= targets.min() and targets.max() < V):
        raise ValueError(f"targets must be in 0..{V - 1}: got {targets.min()}..{targets.max()}")
    top = z.max(axis=1, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    log_total = top[:, 0] + np.log(np.exp(z - top).sum(axis=1))
    return (log_total - z[np.arange(T), targets]).mean()
