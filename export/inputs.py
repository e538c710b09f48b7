"""The files that an export reads: a checkpoint, and those of other models beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .checkpoint import StateDict, open_checkpoint


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk; its tensors or the user's `family` choose its recipe, `hub` says where it came from.

    `text_encoder` is where the text encoder's own weights are, for a recipe whose kind has them elsewhere; `sam` where
    the SAM is that a CLIP needs in front to make a USE, `dino` the DINOv2 that some of its recipes read beside CLIP.
    """

    path: Path
    family: str | None = None
    hub: str | None = None
    text_encoder: Path | None = None
    sam: Path | None = None
    dino: Path | None = None

    @property
    def beside(self) -> dict[str, Path]:
        """The files of other models, by the option that names them, which is what their tensors' names begin with."""
        named = {"sam": self.sam, "dino": self.dino}
        return {option: path for option, path in named.items() if path is not None}


def opened(checkpoint: Checkpoint) -> StateDict:
    """The checkpoint's tensors and those of the files beside it, with `sam.` or `dino.` before their names."""
    state = open_checkpoint(checkpoint.path)
    for option, path in checkpoint.beside.items():
        state |= {f"{option}.{name}": value for name, value in open_checkpoint(path).items()}
    return state
