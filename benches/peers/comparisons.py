"""The table of what is measured. A side's "module:function" is a string, so that reading this imports no peer."""

from __future__ import annotations

from .made import PLAIN, SAMEXPORTER_FILE, SAMEXPORTER_INT8
from .side import Comparison, Side

MADE, EBSEG, SAM, GPU, UNGATED, PNP = (
    f"benches.peers.{name}" for name in ("made", "ebseg", "sam", "gpu", "ungated", "pnp")
)
OURS = ("onnxruntime", "numpy")
NECKLESS = "without the neck"
CALIBRATED = "calibrated on noise like the weights, in the form that `edgeseg build` gives them, without its gate"
FEATURES = "normalised float image in memory to the encoder's features in memory; no preprocessing"

_EBSEG = Comparison(
    name="ebseg",
    title="EBSeg-B, a 640x640 image to its label map, 20 classes, random weights",
    included="uint8 image in memory to label map in memory: normalisation, networks, scores at full size, arg-max; the "
    "text embeddings are given; no file is read",
    sides=(
        Side(
            name="ebseg/edgeseg",
            title="edgeseg fp32",
            opens=f"{EBSEG}:ours",
            included="edgeseg.open(...)(image) on onnxruntime",
            needs=(f"{MADE}:bundle",),
            packages=OURS,
            options={"precision": "fp32"},
            ours=True,
        ),
        Side(
            name="ebseg/torch",
            title="authors' formulation, torch eager",
            opens=f"{EBSEG}:original",
            included="tests/reference/ebseg_original.py: CLIP's tail ten times, the attention bias at full size; "
            "denormal numbers flushed",
            needs=(f"{MADE}:checkpoint",),
            packages=("torch",),
            options={"compiled": False},
        ),
        Side(
            name="ebseg/compile",
            title="the same, torch.compile",
            opens=f"{EBSEG}:original",
            included="the same function through torch.compile (inductor, C++), defaults; its first run holds the "
            "compilation, with empty caches",
            needs=(f"{MADE}:checkpoint",),
            packages=("torch",),
            options={"compiled": True},
        ),
        Side(
            name="ebseg/edgeseg-int8",
            title="edgeseg int8",
            opens=f"{UNGATED}:chain",
            included=f"the same bundle's int8 graphs, {CALIBRATED}",
            needs=(f"{MADE}:int8",),
            packages=OURS,
            options={"precision": "int8"},
            ours=True,
        ),
    ),
)

_SAM = Comparison(
    name="sam",
    title="SAM ViT-B image encoder, 1024x1024, random weights",
    included=FEATURES,
    sides=(
        Side(
            name="sam/edgeseg",
            title="edgeseg fp32",
            opens=f"{UNGATED}:sam_encoder",
            included=f"EBSeg-B's sam graph, {NECKLESS}; all four global blocks are outputs; onnxruntime",
            needs=(f"{MADE}:bundle",),
            packages=OURS,
            options={"precision": "fp32"},
            ours=True,
        ),
        Side(
            name="sam/torch",
            title="segment-anything, torch eager",
            opens=f"{SAM}:in_torch",
            included=f"its ImageEncoderViT, {NECKLESS}, inference mode",
            needs=(f"{MADE}:sam_checkpoint",),
            packages=("torch", "segment-anything"),
        ),
        Side(
            name="sam/onnx",
            title="segment-anything, plain ONNX",
            opens=f"{SAM}:in_onnxruntime",
            included=f"the same module through torch.onnx, {NECKLESS}, on onnxruntime with its defaults; the official "
            "script exports the decoder alone",
            needs=(f"{MADE}:plain",),
            packages=("onnxruntime", "torch", "segment-anything"),
            options={"file": PLAIN},
        ),
        Side(
            name="sam/samexporter",
            title="samexporter fp32",
            opens=f"{SAM}:in_onnxruntime",
            included="what samexporter.export_encoder writes, with the neck (under 1 % of the products), with this "
            "torch instead of the one it pins; onnxruntime with its defaults",
            needs=(f"{MADE}:samexporter",),
            packages=("onnxruntime", "torch", "segment-anything"),
            options={"file": SAMEXPORTER_FILE},
        ),
    ),
)

_SAM_INT8 = Comparison(
    name="sam-int8",
    title="SAM ViT-B image encoder in int8, 1024x1024, random weights",
    included=FEATURES,
    sides=(
        Side(
            name="sam-int8/edgeseg",
            title="edgeseg int8",
            opens=f"{UNGATED}:sam_encoder",
            included=f"EBSeg-B's sam graph, {NECKLESS}, {CALIBRATED}; onnxruntime",
            needs=(f"{MADE}:int8",),
            packages=OURS,
            options={"precision": "int8"},
            ours=True,
        ),
        Side(
            name="sam-int8/samexporter",
            title="samexporter int8",
            opens=f"{SAM}:in_onnxruntime",
            included="what its --quantize-out writes (onnxruntime's dynamic quantization), with the neck",
            needs=(f"{MADE}:samexporter",),
            packages=("onnxruntime", "torch", "segment-anything"),
            options={"file": SAMEXPORTER_INT8},
        ),
        Side(
            name="sam-int8/edgeseg-fp32",
            title="edgeseg fp32",
            opens=f"{UNGATED}:sam_encoder",
            included="the same graph in fp32: what int8 gains",
            needs=(f"{MADE}:bundle",),
            packages=OURS,
            options={"precision": "fp32"},
            ours=True,
        ),
    ),
)

_GPU = Comparison(
    name="sam-gpu",
    title="SAM ViT-B image encoder on a GPU, 1024x1024, fp16, random weights",
    included="normalised float image in host memory to the last block's features in host memory, copies both ways "
    "included; mean of 20 runs",
    sides=(
        Side(
            name="sam-gpu/edgeseg",
            title="edgeseg fp16",
            opens=f"{GPU}:ours",
            included=f"EBSeg-B's sam graph, {NECKLESS}; all four global blocks are outputs",
            needs=(f"{GPU}:check", f"{GPU}:fp16_engines"),
            packages=("tensorrt", "tensorrt-rtx", "cuda-python"),
            ours=True,
            repeats=20,
        ),
        Side(
            name="sam-gpu/plain",
            title="plain TensorRT build",
            opens=f"{GPU}:plain",
            included=f"segment-anything's module through torch.onnx, {NECKLESS}, built as by trtexec --fp16 (or "
            "--stronglyTyped with an fp16 export)",
            needs=(f"{GPU}:check", f"{GPU}:plain_engine"),
            packages=("tensorrt", "tensorrt-rtx", "cuda-python", "segment-anything"),
            repeats=20,
        ),
    ),
)

_PNP = Comparison(
    name="pnp",
    title="PnP-OVSS on BLIP-large, a 480x640 photo to its label map, 5 classes, four rounds, random weights",
    included="uint8 image in memory to label map in memory: resize, normalisation, networks, gradient, rounds, blur, "
    "arg-max; the caption's tokens are given; no random field; no file is read",
    sides=(
        Side(
            name="pnp/edgeseg",
            title="edgeseg fp32",
            opens=f"{PNP}:ours",
            included="edgeseg.open(...)(image) on onnxruntime, without a filter of classes",
            needs=(f"{MADE}:blip_bundle",),
            packages=OURS,
            ours=True,
        ),
        Side(
            name="pnp/torch",
            title="authors' formulation, torch autograd",
            opens=f"{PNP}:original",
            included="tests/reference/blip_original.py: every parameter asks for its gradient, as published; denormal "
            "numbers flushed; the label map by this project's code",
            needs=(f"{MADE}:blip_checkpoint",),
            packages=("torch",),
        ),
    ),
)

COMPARISONS = (_EBSEG, _SAM, _SAM_INT8, _GPU, _PNP)
