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
