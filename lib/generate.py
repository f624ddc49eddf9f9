"""From logits to text: choose a token, append it, ask again.

    probabilities    logits, by temperature, top-k and top-p, to the distribution to draw from
    sample           one draw from it
    generate         the loop, with or without a cache

Top-k: Fan et al. 2018, https://arxiv.org/abs/1805.04833; top-p: Holtzman et al. 2019,
https://arxiv.org/abs/1904.09751. Left out: beams, penalties, a token to stop at.
"""

import math
from numbers import Integral, Real

import torch

from lib.cache import Cache


def probabilities(logits, temperature=1.0, top_k=None, top_p=None):
    """Logits (B, V) -> the probabilities (B, V) that `sample` draws from.

    In this order: divide by `temperature`, where 0 leaves the likeliest token alone, of equals the
    first; keep the `top_k` likeliest, and all that are as likely as the last of them; of what is
    left, keep the likeliest until they reach `top_p` together, the one that crosses included (of
    equals the first come first).

    >>> logits = torch.tensor([[0.5, 0.3, 0.2]]).log()
    >>> probabilities(logits, top_p=0.6)  # 0.5 is not enough, 0.5 + 0.3 is
    tensor([[0.6250, 0.3750, 0.0000]])

    Raises ValueError for a temperature below 0, top_k below 1, top_p outside (0, 1], and logits
    without a largest one.
    """
    _check_sampling(temperature, top_k, top_p)
    logits = _checked(logits)
    logits = logits - logits.amax(-1, keepdim=True)  # now a small temperature cannot overflow
    if temperature == 0:
        return torch.zeros_like(logits).scatter(-1, logits.argmax(-1, keepdim=True), 1.0)
    logits = logits / max(temperature, torch.finfo(logits.dtype).tiny)  # not by a rounded 0
    if top_k is not None and top_k < logits.shape[-1]:
        kth = logits.topk(top_k).values[:, -1:]  # (B, 1)
        logits = logits.masked_fill(logits < kth, -math.inf)
    probs = logits.softmax(-1)
    if top_p is not None and top_p < 1:
        ordered, order = probs.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(-1) - ordered  # (B, V): what the likelier ones hold together
        ordered = ordered.masked_fill(before >= top_p, 0.0)
        probs = torch.zeros_like(probs).scatter(-1, order, ordered)
        probs = probs / probs.sum(-1, keepdim=True)
    return probs


def sample(logits, temperature=1.0, top_k=None, top_p=None, generator=None):
    """Logits (B, V) -> one id a row, (B,), drawn from `probabilities`, which see for the rest.

    >>> sample(torch.tensor([[0.0, 2.0, 1.0]]), temperature=0)
    tensor([1])
    """
    probs = probabilities(logits, temperature, top_k, top_p)
    return torch.multinomial(probs, 1, generator=generator)[:, 0]  # (B, 1) -> (B,)


@torch.no_grad()
def generate(model, ids, max_new_tokens, *, use_cache=True, caches=None, mask=None, **sampling):
    """ids (B, T) -> ids (B, T + max_new_tokens): the prompts, and what `model` says after them.

    The cache saves time and never changes the result: without it, all is read again for each token.

    Args:
        caches: one a layer, of any kind, in place of new ones. What they hold comes before ids; the
            last new token, which nobody has read yet, is not in them afterwards.
        mask: boolean (B, S), True where a token is real; S counts cached tokens, too. Prompts of
            different lengths are padded on the left, so that all end where the new tokens begin.
        sampling: temperature, top_k, top_p and generator, for `sample`.

    Raises ValueError for an empty prompt, more tokens than the model's `max_seq_len` or than fit in
    the caches, a prompt that ends in padding, and padding before learned or sinusoidal positions,
    which it would shift, or under sinks, whose places it would take.
    """
    if caches is not None and not use_cache:
        raise ValueError("caches are there to be used: leave them out, or use_cache=False")
    held = caches[0].length if caches else 0
    _check_prompt(model.config, ids, max_new_tokens, mask, held)
    _check_room(caches or (), held + ids.shape[1] + max_new_tokens, mask)
    _check_sampling(**{name: x for name, x in sampling.items() if name != "generator"})
    if use_cache and caches is None:
        caches = [Cache(ids.shape[1] + max_new_tokens) for _ in model.blocks]
    unread = ids
    for _ in range(max_new_tokens):
        logits = model(unread, caches=caches, mask=mask)[:, -1]  # (B, T, V) -> (B, V)
        new = sample(logits, **sampling)[:, None].to(ids.dtype)
        ids = torch.cat((ids, new), 1)  # (B, T) -> (B, T + 1)
        unread = new if use_cache else ids
        if mask is not None:
            mask = torch.cat((mask, torch.ones_like(mask[:, :1])), 1)
    return ids


def _check_room(caches, length, mask):
    padded = mask is not None and not mask.all()
    for cache in caches:
        if padded and (sinks := getattr(cache, "sinks", 0)):
            got = f"sinks {sinks} and a mask with padding"
            better = "give prompts of one length, or one at a time"
            raise ValueError(f"padding would take the place of the sinks: got {got}; {better}")
        if length - 1 > cache.max_seq_len:  # the last new token is not read any more
            got = f"{length - 1} are to be read, {cache.length} of them already in it"
            raise ValueError(f"a cache has room for {cache.max_seq_len} tokens: {got}")


def _check_sampling(temperature=1.0, top_k=None, top_p=None):
    if not isinstance(temperature, Real) or not 0 <= temperature < math.inf:
        raise ValueError(f"temperature must be a number, 0 or more: got {temperature!r}")
    whole = isinstance(top_k, Integral) and not isinstance(top_k, bool)
    if top_k is not None and (not whole or top_k < 1):
        raise ValueError(f"top_k must be an integer, 1 or more, or None: got {top_k!r}")
    if top_p is not None and (not isinstance(top_p, Real) or not 0 < top_p <= 1):
        raise ValueError(f"top_p must be above 0 and at most 1, or None: got {top_p!r}")


def _checked(logits):
    if not isinstance(logits, torch.Tensor) or not logits.is_floating_point():
        got = logits.dtype if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise TypeError(f"logits must be a tensor of floating point numbers: got {got}")
    if logits.ndim != 2 or 0 in logits.shape:
        raise ValueError(f"logits must be (B, V), both 1 or more: got {tuple(logits.shape)}")
    if not (top := logits.amax(-1)).isfinite().all():
        raise ValueError(f"the largest logit of every row must be finite: got {top.tolist()}")
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _check_prompt(config, ids, max_new_tokens, mask, held):
    if not isinstance(ids, torch.Tensor) or ids.ndim != 2 or 0 in ids.shape:
        got = tuple(ids.shape) if isinstance(ids, torch.Tensor) else type(ids).__name__
        raise ValueError(f"ids must be a tensor (B, T), a prompt of 1 token or more: got {got}")
    whole = isinstance(max_new_tokens, Integral) and not isinstance(max_new_tokens, bool)
    if not whole or max_new_tokens < 0:
        raise ValueError(f"max_new_tokens must be an integer, 0 or more: got {max_new_tokens!r}")
    if not config.causal:
        raise ValueError("generate needs a model with causal=True: this one sees what comes after")
    (B, T), most = ids.shape, config.max_seq_len
    if held + T + max_new_tokens > most:
        got = f"{T} of the prompt and {max_new_tokens} new" + f", {held} cached" * (held > 0)
        raise ValueError(f"a sequence may hold max_seq_len = {most} tokens: got {got}")
    if mask is None:
        return
    if mask.dtype != torch.bool or mask.shape != (B, held + T):
        need, got = (B, held + T), f"{tuple(mask.shape)} of {mask.dtype}"
        what = "as the prompt" if held == 0 else "cover what is cached and the prompt"
        raise ValueError(f"mask must be boolean and {what}, {need}: got {got}")
    if not mask[:, -1].all():
        raise ValueError("a prompt must end with a real token: pad on the left")
    if config.position in ("learned", "sinusoidal") and not mask.all():
        got = f"{config.position!r} positions"
        raise ValueError(f"padding shifts {got}: give prompts of one length, or one at a time")
