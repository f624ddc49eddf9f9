"""The loop that trains every model of the course: AdamW, a warm-up, a cosine, clipped gradients.

    train    minimise a loss over fresh batches, and hand the losses back

Left out: epochs, evaluation, checkpoints, several devices.
"""

import math

import torch


def train(
    model, loss, steps, lr, *, warm_up=50, final=0.0, betas=(0.9, 0.95), weight_decay=0.0,
    clip=1.0, on_step=None,
):  # fmt: skip
    """`steps` steps down `loss()`, which draws a batch and returns a scalar -> list of losses.

    The learning rate rises in a line to `lr` over `warm_up` steps, then falls along half a cosine
    to `final` · lr. Only matrices decay. `on_step(step, loss)` is called after each step.

    Loshchilov & Hutter 2019 (AdamW), https://arxiv.org/abs/1711.05101
    """
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=betas)
    losses = []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * rate(step, steps, warm_up, final)
        value = loss()
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        losses.append(value.item())
        if on_step is not None:
            on_step(step, losses[-1])
    return losses


def rate(step, steps, warm_up=50, final=0.0):
    """The share of the learning rate at `step` of `steps`: a line up, then half a cosine down.

    >>> [round(rate(step, 100, warm_up=10), 2) for step in (0, 9, 10, 55, 100)]
    [0.1, 1.0, 1.0, 0.5, 0.0]
    """
    if step < warm_up:
        return (step + 1) / warm_up
    done = (step - warm_up) / max(1, steps - warm_up)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done))
