"""SAM's two graphs run apart: the encoder once an image, the decoder once a batch of prompts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgeseg.backends.base import Array, Session, Tensor
from edgeseg.chain import Chain
from edgeseg.errors import BackendError, BundleError
from edgeseg.placement import Placement, place
from edgeseg.preprocess import preprocess, resize_rgb
from edgeseg.segments.prompts import box_prompts, on_canvas, point_prompts
from edgeseg.segments.scaling import MaskScaler

if TYPE_CHECKING:
    from edgeseg.schema import GraphSpec, Manifest
    from edgeseg.segments.segments import Segments

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

    Attributes:
        placement: of the photo that was embedded last.
        batch, points: prompts per run of the decoder, and points per prompt. `cells`: (c, c), the size of small masks.
    """

    placement: Placement

    def __init__(self, chain: Chain, manifest: Manifest) -> None:
        links = {link.graph.name: link for link in chain.order}
        if not {ENCODER, DECODER} <= set(links):
            raise BundleError("make masks", "the bundle has no SAM", "export a checkpoint of SAM, or one with --sam")
        self._encoder, self._decoder = links[ENCODER], links[DECODER]
        self._manifest = manifest
        self._embedding: Tensor | None = None
        shape = next(spec.shape for spec in self._decoder.graph.inputs if spec.name == "points")
        self.batch, self.points = int(shape[0]), int(shape[1])
        masks = next(spec.shape for spec in self._decoder.graph.outputs if spec.name == "prompt_masks")
        self.cells = int(masks[2]), int(masks[3])

    def embed(self, rgb: npt.NDArray[np.uint8]) -> Placement:
        """Run the encoder on an (H, W, 3) photo; the embedding stays where the engines run."""
        height, width = rgb.shape[:2]
        self.placement = place((height, width), self._manifest.canvases, self._manifest.recipe)
        small, canvas = resize_rgb(rgb, self.placement.valid), self.placement.canvas
        feed = preprocess(small, self.placement.valid, self._manifest.images[IMAGE], canvas)
        self._embedding = run_graph(self._encoder.session, self._encoder.graph, {IMAGE: feed})[EMBEDDING]
        return self.placement

    def at_points(self, points: npt.NDArray[np.floating]) -> Iterator[Prompted]:
        """Masks at points (N, 2), (x, y) in pixels of the photo, one prompt each, batch by batch."""
        return self._decode(*point_prompts(on_canvas(points, self.placement), self.points))

    def in_boxes(self, boxes: npt.NDArray[np.floating]) -> Iterator[Prompted]:
        """Masks in boxes (N, 4), left, top, right, bottom in pixels of the photo, batch by batch."""
        return self._decode(*box_prompts(boxes, self.placement, self.points))

    def scaler(self, prompted: Prompted) -> MaskScaler:
        """What brings these masks to the photo's size."""
        return MaskScaler(self.placement, prompted.masks.shape[-1])

    def _decode(self, points: Float32, labels: Float32) -> Iterator[Prompted]:
        assert self._embedding is not None, "embed a photo first"
        session, graph = self._decoder.session, self._decoder.graph
        for start in range(0, len(points), self.batch):
            part = slice(start, start + self.batch)
            count = len(points[part])
            fill = np.minimum(np.arange(self.batch), count - 1)  # the batch's size is fixed: its last prompt repeats
            feed = {"points": points[part][fill], "point_labels": labels[part][fill]}
            feed["valid"] = np.array(self.placement.valid, np.float32)
            outputs = run_graph(session, graph, feed, {EMBEDDING: self._embedding})
            names = ("prompt_masks", "prompt_iou", "prompt_stability", "prompt_boxes")
            arrays = [session.download(outputs[name])[:count] for name in names]
            if not all(np.isfinite(array).all() for array in arrays[1:]):
                found = "its masks' scores are not finite numbers"
                raise BackendError("make masks", found, "check the engine with `edgeseg verify`")
            yield Prompted(*arrays)


def run_graph(
    session: Session, graph: GraphSpec, arrays: dict[str, Array], tensors: dict[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Run one graph on arrays of the host and tensors that are where it runs; its outputs stay there."""
    inputs = {name: session.upload(array) for name, array in arrays.items()} | (tensors or {})
    return session.run({spec.name: inputs[spec.name] for spec in graph.inputs})


def small_masks(runner: SamRunner, segments: Segments) -> Float32:
    """(N, c, c) logits over the canvas of automatic masks of the photo embedded last, each asked for again."""
    made = [np.zeros((0, 1, 1), np.float32)]
    start = 0
    for prompted in runner.at_points(segments.points):
        count = len(prompted.masks)
        made.append(prompted.masks[np.arange(count), segments.answer[start : start + count]])
        start += count
    return np.concatenate(made[1:]) if len(segments) else np.zeros((0, *runner.cells), np.float32)
