"""SAM's two graphs run apart: the encoder once an image, the decoder once a batch of prompts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgeseg.backends.base import Tensor
from edgeseg.chain import Chain, Observer
from edgeseg.errors import BackendError, BundleError
from edgeseg.placement import Placement, place
from edgeseg.preprocess import preprocess, resize_rgb
from edgeseg.segments.prompts import box_prompts, on_canvas, point_prompts
from edgeseg.segments.scaling import MaskScaler

if TYPE_CHECKING:
    from edgeseg.schema import Manifest

Float32 = npt.NDArray[np.float32]

ENCODER, DECODER, IMAGE, EMBEDDING = "sam_encoder", "sam_decoder", "image_sam", "image_embedding"


@dataclass(frozen=True, eq=False)
class Prompted:
    """What a batch of n prompts gave.

    Attributes:
        masks: (n, M, c, c) float32 logits over the canvas; mask 0 is the single one, the others are the several ones.
        iou: (n, M) the decoder's own estimate of each mask's quality.
        stability: (n, M), boxes (n, M, 4): of the small masks, see `docs/segments.md`.
    """

    masks: Float32
    iou: Float32
    stability: Float32
    boxes: Float32


class SamRunner:
    """One photo at a time: `embed` it, then ask for masks.

    Args:
        chain: holds the two graphs.
        manifest: of the bundle.
        observer: hears of the graphs' steps.

    Attributes:
        placement: of the photo that was embedded last. `steps`: of the chain, which knows how long the graphs took.
        batch, points: prompts per run of the decoder, and points per prompt.
    """

    placement: Placement

    def __init__(self, chain: Chain, manifest: Manifest, observer: Observer | None = None) -> None:
        if not {ENCODER, DECODER} <= {link.graph.name for link in chain.order}:
            raise BundleError("make masks", "the bundle has no SAM", "export a checkpoint of SAM, or one with --sam")
        self.steps, self._manifest = chain.steps(observer), manifest
        self._embedding: Tensor | None = None
        decoder = self.steps.graph(DECODER)
        shape = next(spec.shape for spec in decoder.inputs if spec.name == "points")
        self.batch, self.points = int(shape[0]), int(shape[1])
        self._cells = int(next(spec.shape for spec in decoder.outputs if spec.name == "prompt_masks")[-1])

    def embed(self, rgb: npt.NDArray[np.uint8]) -> Placement:
        """Run the encoder on an (H, W, 3) photo; the embedding stays where the engines run."""
        height, width = rgb.shape[:2]
        self.placement = place((height, width), self._manifest.canvases, self._manifest.recipe)
        small, canvas = resize_rgb(rgb, self.placement.valid), self.placement.canvas
        feed = preprocess(small, self.placement.valid, self._manifest.images[IMAGE], canvas)
        self._embedding = self.steps.run(ENCODER, self.steps.upload({IMAGE: feed}))[EMBEDDING]
        return self.placement

    def at_points(self, points: npt.NDArray[np.floating]) -> Iterator[Prompted]:
        """Masks at points (N, 2), (x, y) in pixels of the photo, one prompt each, batch by batch."""
        return self._decode(*point_prompts(on_canvas(points, self.placement), self.points))

    def in_boxes(self, boxes: npt.NDArray[np.floating]) -> Iterator[Prompted]:
        """Masks in boxes (N, 4), left, top, right, bottom in pixels of the photo, batch by batch."""
        return self._decode(*box_prompts(boxes, self.placement, self.points))

    def scaler(self) -> MaskScaler:
        """What brings masks of the photo that was embedded last to its size."""
        return MaskScaler(self.placement, self._cells)

    def _decode(self, points: Float32, labels: Float32) -> Iterator[Prompted]:
        assert self._embedding is not None, "embed a photo first"
        for start in range(0, len(points), self.batch):
            part = slice(start, start + self.batch)
            count = len(points[part])
            fill = np.minimum(np.arange(self.batch), count - 1)  # the batch's size is fixed: its last prompt repeats
            feed = {"points": points[part][fill], "point_labels": labels[part][fill]}
            feed["valid"] = np.array(self.placement.valid, np.float32)
            outputs = self.steps.run(DECODER, self.steps.upload(feed) | {EMBEDDING: self._embedding})
            names = ("prompt_masks", "prompt_iou", "prompt_stability", "prompt_boxes")
            arrays = [self.steps.download(outputs[name])[:count] for name in names]
            if not all(np.isfinite(array).all() for array in arrays[1:]):
                found = "its masks' scores are not finite numbers"
                raise BackendError("make masks", found, "check the engine with `edgeseg verify`")
            yield Prompted(*arrays)
