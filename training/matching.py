"""Mask classification: each class of an image is one query's to find (Cheng et al. 2022, as EBSeg trains).

Queries are matched greedily, the cheapest pair first: with at most a dozen classes an image that is nearly the best
assignment, and it needs no solver.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

LEAST_CELLS = 4.0  # of a class, to be matched
NOTHING = 0.1  # weight of a query without a class
CLASS, MASK, DICE = 1.0, 2.0, 2.0


class Predicted(Protocol):
    """What matching reads of a prediction; shapes as in `ebseg.Prediction`."""

    @property
    def masks(self) -> Tensor: ...
    @property
    def logits_a(self) -> Tensor: ...
    @property
    def logits_b(self) -> Tensor: ...
    @property
    def logits_d(self) -> Tensor: ...


def matching_loss(made: Predicted, shares: Tensor) -> Tensor:
    """Mean over the batch; `shares` (B, C, h, w): how much of each cell of the masks a class covers."""
    losses = [_image_loss(made, row, shares[row].flatten(1)) for row in range(len(shares))]
    return torch.stack(losses).mean()


def _image_loss(made: Predicted, row: int, shares: Tensor) -> Tensor:
    classes = (shares.sum(dim=1) >= LEAST_CELLS).nonzero()[:, 0]
    logits_a, known = made.logits_a[row], shares.sum(dim=0)
    nothing = shares.shape[0]
    targets = torch.full((len(logits_a),), nothing, device=shares.device)
    if len(classes) == 0:
        return NOTHING * F.cross_entropy(logits_a, targets)
    masks, wanted = made.masks[row].flatten(1), shares[classes]
    with torch.no_grad():
        likely = logits_a.log_softmax(dim=-1)[:, classes]
        cost = DICE * (1 - dice(masks.sigmoid(), wanted, known)) - CLASS * likely
        queries = assign(cost)
    targets[queries] = classes
    weights = torch.ones(nothing + 1, device=shares.device)
    weights[nothing] = NOTHING
    loss = CLASS * F.cross_entropy(logits_a, targets, weights)
    for logits in (made.logits_b[row], made.logits_d[row]):
        loss = loss + CLASS / 2 * F.cross_entropy(logits[queries], classes)
    chosen = masks[queries]
    pixels = F.binary_cross_entropy_with_logits(chosen, wanted, known.expand_as(chosen), reduction="sum")
    overlap = dice(chosen.sigmoid(), wanted, known).diagonal()
    return loss + MASK * pixels / (known.sum() * len(classes)) + DICE * (1 - overlap).mean()


def dice(masks: Tensor, wanted: Tensor, known: Tensor) -> Tensor:
    """(Q, K) soft Dice coefficients of probabilities (Q, N) and shares (K, N), over cells that are labelled (N,)."""
    both = masks @ wanted.t()
    size = (masks @ known)[:, None] + wanted.sum(dim=1)
    return (2 * both + 1) / (size + 1)


def assign(cost: Tensor) -> Tensor:
    """(Q, K) costs → (K,) a query for each column, none twice; the cheapest pair is taken first. Needs Q >= K."""
    cost, queries = cost.clone(), torch.zeros(cost.shape[1], dtype=torch.long, device=cost.device)
    for _ in range(cost.shape[1]):
        query, column = divmod(int(cost.argmin()), cost.shape[1])
        queries[column] = query
        cost[query], cost[:, column] = torch.inf, torch.inf
    return queries
