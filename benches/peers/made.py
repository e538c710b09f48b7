"""The files in the work folder, each made at the first call: checkpoints of random weights, bundles, peers' exports.

The weights mean nothing and cost what published ones cost. Each function is called in a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgeseg.bundle import Bundle
from edgeseg.errors import EdgesegError

from .inputs import EBSEG_SIZE, SAM_SIZE
from .side import ROOT, AbsentError

CHECKPOINT, BUNDLE = "stand-in.pth", "stand-in.bundle"
SAM_CHECKPOINT = "sam_vit_b.pth"
PLAIN, PLAIN_HALF = "sam-plain.onnx", "sam-plain-half.onnx"
SAMEXPORTER = "samexporter==0.5.0"
SAMEXPORTER_FILE, SAMEXPORTER_INT8 = "samexporter.onnx", "samexporter-int8.onnx"
BLIP_CHECKPOINT, BLIP_BUNDLE, BLIP_WORDS = "blip-large.pth", "blip-large.bundle", "blip-vocabulary"
BLIP_GAINS = {
    "attn.qkv": 2.25,
    "attn.proj": 0.3,
    "mlp.fc2": 0.5,
    "crossattention.self.query": 4.0,
    "attention.self.query": 3.0,
    "attention.output": 0.6,
    "itm_head": 2.0,
}
"""Sharp attentions that add little: words and patches stay distinct, so labels depend on more than rounding."""
OPSET = 17
NECK_SEED = 0


def checkpoint(work: Path) -> None:
    """EBSeg-B."""
    if not (work / CHECKPOINT).exists():
        with whole(work / CHECKPOINT) as folder:
            command([str(ROOT / "scripts/stand-in"), str(folder)])


def bundle(work: Path) -> None:
    """EBSeg-B at its own size, with fp32 engines for the CPU, and at SAM's, without: see `ungated`."""
    path = str(work / BUNDLE)
    if not (work / BUNDLE).exists():
        checkpoint(work)
        sizes = [word for size in (EBSEG_SIZE, SAM_SIZE) for word in ("--size", f"{size}x{size}")]
        command(["-m", "edgeseg", "export", str(work / CHECKPOINT), *sizes, "-o", path])
    chosen = ["--backend", "onnxruntime", "--precision", "fp32", "--canvas", f"{EBSEG_SIZE}x{EBSEG_SIZE}"]
    command(["-m", "edgeseg", "build", path, *chosen])  # keeps what is there


def int8(work: Path) -> None:
    """The same bundle's int8 graphs, calibrated on its own reference inputs: noise goes with noise. See `ungated`."""
    bundle(work)
    if "int8" not in Bundle.open(work / BUNDLE).precisions():
        command(["-m", "edgeseg", "quantize", str(work / BUNDLE), "--precision", "int8"])


def blip_checkpoint(work: Path) -> None:
    """BLIP-large in the layout of its retrieval file, 384 pixels, and a vocabulary of made-up words."""
    if (work / BLIP_CHECKPOINT).exists():
        return
    import torch

    from edgeseg.export.nets.blip_itm import ItmConfig
    from edgeseg.export.nets.blip_vit import VitConfig
    from edgeseg.export.pnp_ovss import Blip

    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in Blip(VitConfig(), ItmConfig()).state_dict().items()}
    random = torch.Generator().manual_seed(0)
    state = {name: blip_tensor(name, torch.randn(shape, generator=random)) for name, shape in shapes.items()}
    (work / BLIP_WORDS).mkdir(exist_ok=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "picture", "of", *(f"word{i}" for i in range(30522 - 7))]
    (work / BLIP_WORDS / "vocab.txt").write_text("\n".join(words) + "\n", "utf-8")
    torch.save({"model": state}, work / BLIP_CHECKPOINT)


def blip_tensor(name: str, drawn: Any) -> Any:
    """A tensor of BLIP's by its name, made of as many normal numbers."""
    if drawn.ndim < 2:
        return drawn * 0.02 + float("norm" in name.lower() and name.endswith("weight"))
    if "embed" in name and "patch" not in name:
        return drawn * (0.3 if "position" in name else 1.0)
    gain = next((gain for part, gain in BLIP_GAINS.items() if part in name), 1.0)
    return drawn * (gain / drawn[0].numel() ** 0.5)


def blip_bundle(work: Path) -> None:
    """PnP-OVSS on it, fp32, with engines for the CPU."""
    if (work / BLIP_BUNDLE).exists():
        return
    blip_checkpoint(work)
    path, words = str(work / BLIP_BUNDLE), str(work / BLIP_WORDS)
    command(["-m", "edgeseg", "export", str(work / BLIP_CHECKPOINT), "--text-encoder", words, "-o", path])
    command(["-m", "edgeseg", "build", path, "--backend", "onnxruntime", "--precision", "fp32"])


def sam_checkpoint(work: Path) -> None:
    """SAM ViT-B in the published form, with the encoder weights of the EBSeg checkpoint."""
    if (work / SAM_CHECKPOINT).exists():
        return
    checkpoint(work)
    import torch
    from segment_anything import sam_model_registry

    torch.manual_seed(NECK_SEED)  # of what EBSeg has no weights for: the neck and the decoder
    sam = sam_model_registry["vit_b"]()
    state = torch.load(work / CHECKPOINT, weights_only=True, mmap=True)["model"]
    prefix = "backbone."
    encoder = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    wrong = sam.image_encoder.load_state_dict(encoder, strict=False)
    assert not wrong.unexpected_keys
    assert all(name.startswith("neck.") for name in wrong.missing_keys), wrong.missing_keys
    with whole(work / SAM_CHECKPOINT) as folder:
        torch.save(sam.state_dict(), folder / SAM_CHECKPOINT)


def plain(work: Path) -> None:
    """The image encoder without its neck as torch.onnx writes it; segment-anything's own script exports the decoder."""
    from .sam import trace

    sam_checkpoint(work)
    if not (work / PLAIN).exists():
        with whole(work / PLAIN) as folder:
            trace(work, folder / PLAIN, half=False)


def plain_half(work: Path) -> None:
    """The same with fp16 weights and values, for compilers that take types from the graph."""
    from .sam import trace

    sam_checkpoint(work)
    if not (work / PLAIN_HALF).exists():
        with whole(work / PLAIN_HALF) as folder:
            trace(work, folder / PLAIN_HALF, half=True)


def samexporter(work: Path) -> None:
    """The image encoder, fp32 and int8, by samexporter's own command; into a folder of its own without what it pins.

    Raises:
        AbsentError: it cannot be installed, or its command fails.
    """
    sam_checkpoint(work)
    if (work / SAMEXPORTER_INT8).exists():
        return
    folder = work / "samexporter"
    export = ["-m", "samexporter.export_encoder", "--model-type", "vit_b", "--checkpoint", str(work / SAM_CHECKPOINT)]
    with failures_as_absence("samexporter"):
        install(folder, SAMEXPORTER)
        paths = {"PYTHONPATH": os.pathsep.join((str(folder), os.environ.get("PYTHONPATH", "")))}
        with whole(work / SAMEXPORTER_FILE, work / SAMEXPORTER_INT8) as new:
            places = ["--output", str(new / SAMEXPORTER_FILE), "--quantize-out", str(new / SAMEXPORTER_INT8)]
            command([*export, *places], paths)


def install(folder: Path, *packages: str) -> None:
    """A folder of these packages without what they require, unless it is there. Raises CalledProcessError."""
    if not folder.exists():
        with whole(folder) as new:
            command(["-m", "pip", "install", "--quiet", "--no-deps", "--target", str(new / folder.name), *packages])


def command(words: list[str], environment: dict[str, str] | None = None) -> None:
    """Run this interpreter with further words. Raises CalledProcessError; what it prints goes into the log."""
    subprocess.run([sys.executable, *words], check=True, env={**os.environ, **(environment or {})})


@contextmanager
def whole(*places: Path) -> Iterator[Path]:
    """An empty folder to make files of these names in. They take their places at the end: none is there half made."""
    with tempfile.TemporaryDirectory(dir=places[0].parent) as folder:
        yield Path(folder)
        for place in places:
            os.replace(Path(folder) / place.name, place)


@contextmanager
def failures_as_absence(what: str) -> Iterator[None]:
    """A command that fails leaves a peer out instead of stopping the rest."""
    try:
        yield
    except subprocess.CalledProcessError as error:
        short = " ".join(Path(word).name for word in error.cmd[1:6])
        raise AbsentError(f"{what} cannot be had here: `{short} ...` ended with {error.returncode}") from None


@contextmanager
def refusals_as_absence() -> Iterator[None]:
    """What edgeseg refuses (no graphs of a precision, engines that failed their gate) leaves the side out."""
    try:
        yield
    except EdgesegError as error:
        raise AbsentError(str(error)) from None
