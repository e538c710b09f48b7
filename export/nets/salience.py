"""Salience dropout (PnP-OVSS, Luo et al. 2024): maps add up over rounds; each round leaves out what was seen best.

One step of it, as a graph, so that the rounds stay where the engines run. What is carried from one round to the next
are the patches that are kept and the sum of the maps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .fixed import Fixed


class Salience(Fixed):
    """One round's result.

    cam (B, T, L), pieces (B, C, T), which tokens a class's map is made of and with what weight, keep (1, 1, h, w) of 0
    and 1, weight (1,) of this round, patches (1,) to leave out, class_maps (C, L) so far → keep for the next round,
    class_maps with this round's, from which what is left out is missing.

    The patches that are left out next are those with the largest sum over all tokens of classes. Of equals the later
    ones go first; what is zero stays.
    """

    def forward(
        self, cam: Tensor, pieces: Tensor, keep: Tensor, weight: Tensor, patches: Tensor, class_maps: Tensor
    ) -> tuple[Tensor, Tensor]:
        kept = keep.flatten(1)
        maps = (pieces @ cam).sum(dim=0) * kept
        words = (pieces.sum(dim=1, keepdim=True) > 0).to(cam.dtype)
        salience = (words @ cam).sum(dim=0) * kept  # (1, L)
        later = self.derive("later", lambda: torch.ones(cam.shape[-1], cam.shape[-1]).triu(1) > 0)
        one, other = salience.transpose(0, 1), salience
        above = (other > one) | ((other == one) & later)  # [i, j]: patch j goes before patch i
        chosen = (above.to(cam.dtype).sum(dim=1) < patches) & (salience[0] > 0)
        left = kept * (1 - chosen.to(cam.dtype))
        return left.reshape(keep.shape), class_maps + maps * weight
