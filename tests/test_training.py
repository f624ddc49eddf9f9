"""lib/training.py: the loop against one written out with torch's own parts."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

from lib.training import rate, train


def line(seed=0):
    """A small model, and a function that draws a batch of a noisy task and returns the loss."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 1)).double()
    g = torch.Generator().manual_seed(seed)

    def loss():
        x = torch.randn(8, 3, generator=g, dtype=torch.float64)
        return 100 * (model(x) - x.sum(1, keepdim=True)).square().mean()

    return model, loss


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_it_is_adamw_with_clipping_and_a_scheduled_rate(decay):
    model, loss = line()
    losses = train(model, loss, 12, 0.05, warm_up=4, final=0.1, weight_decay=decay, clip=0.7)

    theirs, their_loss = line()
    matrices = [p for p in theirs.parameters() if p.ndim == 2]
    vectors = [p for p in theirs.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=0.05, betas=(0.9, 0.95),
    )  # fmt: skip
    expected = []
    for step in range(12):
        optimizer.zero_grad()
        value = their_loss()
        value.backward()
        nn.utils.clip_grad_norm_(theirs.parameters(), 0.7)
        for group in optimizer.param_groups:
            share = 0.1 + 0.9 * (1 + math.cos(math.pi * (step - 4) / 8)) / 2
            group["lr"] = 0.05 * ((step + 1) / 4 if step < 4 else share)
        optimizer.step()
        expected.append(value.item())
    assert losses == pytest.approx(expected, rel=1e-12)
    for p, q in zip(model.parameters(), theirs.parameters()):
        assert torch.allclose(p, q, rtol=1e-12, atol=0)


def test_the_rate_is_that_of_torch_schedulers():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    up = LinearLR(optimizer, 1 / 10, 1.0, total_iters=9)
    down = CosineAnnealingLR(optimizer, 40, eta_min=0.05)
    schedule = SequentialLR(optimizer, [up, down], milestones=[10])
    for step in range(50):
        assert rate(step, 50, 10, 0.05) == pytest.approx(schedule.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize(("steps", "warm_up"), [(5, 50), (5, 0), (5, 5), (1, 1)])
def test_a_run_may_be_shorter_than_its_warm_up_or_have_none(steps, warm_up):
    model, loss = line()
    assert len(train(model, loss, steps, 1e-3, warm_up=warm_up)) == steps
    assert all(0 < rate(s, steps, warm_up) <= 1 for s in range(steps))


def test_no_steps_change_nothing():
    model, loss = line()
    before = [p.clone() for p in model.parameters()]
    assert train(model, loss, 0, 1.0) == []
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before))


def test_on_step_is_told_every_step_and_its_loss_after_the_weights_have_moved():
    model, loss = line()
    weight, told, seen = model[0].weight, [], [model[0].weight.detach().clone()]

    def on_step(step, value):
        told.append((step, value))
        seen.append(weight.detach().clone())

    losses = train(model, loss, 3, 0.1, on_step=on_step)
    assert told == list(enumerate(losses)) and all(isinstance(value, float) for value in losses)
    assert not any(torch.equal(a, b) for a, b in pairwise(seen))


def test_the_loss_falls():
    model, loss = line()
    losses = train(model, loss, 200, 0.05)
    assert sum(losses[-10:]) < 0.1 * sum(losses[:10])


def test_a_loss_can_be_drawn_by_a_model_that_holds_frozen_weights():
    model, loss = line()
    model[0].weight.requires_grad_(False)
    before = model[0].weight.clone()
    train(model, loss, 3, 0.1, weight_decay=0.5)
    assert torch.equal(model[0].weight, before)
