"""SAM ViT-B's image encoder at 1024x1024: segment-anything in torch, its exports, and EBSeg-B's `sam` graph.

That graph is the same encoder with the same weights but for the neck, two convolutions that EBSeg does not have: 3.2 of
489 GMAC. It gives the four global blocks' outputs, of which the last one is compared. Peers run without the neck where
they let it be left out.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from edgeseg.backends.base import Session

from . import inputs
from .made import BUNDLE, OPSET, SAM_CHECKPOINT, refusals_as_absence
from .side import Array, Run

if TYPE_CHECKING:
    import torch

CANVAS = (inputs.SAM_SIZE, inputs.SAM_SIZE)
LAST = "sam_11"  # the edgeseg graph's output of the last block


def encoder(work: Path) -> torch.nn.Module:
    """segment-anything's image encoder without the neck: (1, 3, 1024, 1024) → (1, 768, 64, 64)."""
    import torch
    from segment_anything import sam_model_registry

    torch.set_num_threads(inputs.threads())
    made: torch.nn.Module = sam_model_registry["vit_b"](checkpoint=str(work / SAM_CHECKPOINT)).image_encoder
    made.neck = torch.nn.Identity()
    return made.eval()


def in_torch(work: Path) -> Run:
    """The encoder in torch, eager."""
    import torch

    network, image = encoder(work), torch.from_numpy(inputs.sam_image())

    def run() -> Array:
        with torch.inference_mode():
            features: Array = network(image).numpy()
        return tokens(features)

    return run


def in_onnxruntime(work: Path, *, file: str) -> Run:
    """An ONNX file as it is, with onnxruntime's own settings but for the number of threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = inputs.threads()
    session = onnxruntime.InferenceSession(str(work / file), options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: inputs.sam_image()}
    return lambda: tokens(session.run(None, feed)[0])


def ours(work: Path, *, precision: str, backend: str = "onnxruntime") -> Run:
    """The `sam` graph of the bundle, from its engine."""
    with refusals_as_absence():
        session = _session(work, precision, backend)
    return session_run(session, "image_sam", LAST)


def session_run(session: Session, name: str, output: str) -> Run:
    """Input from host memory, one run, all outputs made and one of them back in host memory."""
    image = inputs.sam_image()

    def run() -> Array:
        results = session.run({name: session.upload(image)})
        return tokens(session.download(results[output]))

    return run


def tokens(output: Array) -> Array:
    """(1, D, H, W) or (1, N, D) → (N, D): what a view costs."""
    rows: Array = output[0].reshape(output.shape[1], -1).T if output.ndim == 4 else output[0]
    return rows


def trace(work: Path, file: Path, *, half: bool) -> None:
    """Export the encoder as users of segment-anything do: torch.onnx's tracer, constants folded, nothing else.

    Inputs and outputs stay fp32 where `half` turns the rest to fp16.
    """
    import torch

    class Cast(torch.nn.Module):
        def __init__(self, dtype: torch.dtype) -> None:
            super().__init__()
            self.dtype = dtype

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.to(self.dtype)

    network: torch.nn.Module = encoder(work)
    if half:
        network = torch.nn.Sequential(Cast(torch.float16), network.half(), Cast(torch.float32))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer warns of each shape that becomes a constant
        torch.onnx.export(
            network,
            (torch.from_numpy(inputs.sam_image()),),
            str(file),
            opset_version=OPSET,
            dynamo=False,
            input_names=["image"],
            output_names=["features"],
        )


def _session(work: Path, precision: str, backend: str) -> Session:
    from edgeseg.bundle import Bundle
    from edgeseg.selection import Request, choose

    bundle = Bundle.open(work / BUNDLE)
    plan = choose(bundle, ("sam",), Request(backend, precision, threads=inputs.threads()))
    return plan.open(bundle, bundle.graph("sam", precision, CANVAS, plan.form))
