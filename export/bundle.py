"""A checkpoint becomes a bundle: every graph at every canvas, the tokenizer, the reference tensors."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

import edgeseg
from edgeseg.bundle import Bundle
from edgeseg.bundle.edit import BundleEdit
from edgeseg.errors import CheckpointError, InputError
from edgeseg.preprocess import preprocess
from edgeseg.schema import SCHEMA, Manifest, Size, Source, size_text
from edgeseg.vocabulary.classes import data_lines, dataset_classes
from edgeseg.vocabulary.maker import TOKENIZER_FILE, TOKENIZERS

from . import clip_file, ebseg, sam, text_encoders
from .checkpoint import file_digest, read_checkpoint
from .graphs import GraphPlan
from .nets.ebseg import EBSeg
from .onnx_file import WeightFile, export_graph, graph_file_name
from .recipe import Recipe, presets
from .reference import CLASSES, IMAGES, labels, reference_image, write_case
from .sam_bundle import export_sam
from .text_encoders import TextEncoder
from .use_bundle import export_use

FOLDER = "graphs/fp32"
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk; its tensors or the user's `family` choose its recipe, `hub` says where it came from.

    `text_encoder` is where the text encoder's own weights are, for a recipe whose kind has them elsewhere; `sam` where
    the SAM is that a CLIP needs in front to make a USE.
    """

    path: Path
    family: str | None = None
    hub: str | None = None
    text_encoder: Path | None = None
    sam: Path | None = None


def export_bundle(
    checkpoint: Checkpoint, sizes: list[Size], output: Path, overwrite: bool = False, progress: Progress | None = None
) -> Bundle:
    """Export a checkpoint of EBSeg, of SAM, or of CLIP with a SAM in front, which is USE.

    Args:
        checkpoint: the file.
        sizes: canvases (H, W), multiples of 32; empty for the preset's, which is all that SAM takes.
        output: the bundle's directory.
        overwrite: take the place of a bundle that is there.
        progress: called with what is being done, the steps done and all steps.

    Raises:
        CheckpointError, DownloadError, InputError, BundleError, StorageError: nothing is left behind.
    """
    state = read_checkpoint(checkpoint.path)
    report = progress or (lambda *_: None)
    choice: dict[str, Any] = {"wanted": checkpoint.family, "hub": checkpoint.hub, "overwrite": overwrite}
    if sam.is_sam(state):
        return export_sam(checkpoint.path, state, sizes, output, progress=report, **choice)
    if clip_file.is_clip(state):
        choice["sam"] = checkpoint.sam
        return export_use(checkpoint.path, state, sizes, output, progress=report, choice=choice)
    for size in sizes:
        ebseg.check_canvas(size)
    recipe = choose_recipe(checkpoint, state)
    model = ebseg.load(checkpoint.path, state, recipe)
    del state
    text = _text_encoder(checkpoint, recipe, model)
    canvases = tuple(dict.fromkeys(sizes or recipe.canvases))
    licence = f"{recipe.licence}; text encoder: {text.source.licence}" if text and text.source else recipe.licence
    source = Source(checkpoint.path.name, file_digest(checkpoint.path), checkpoint.hub, licence)
    manifest = Manifest(
        schema=SCHEMA,
        edgeseg=edgeseg.__version__,
        family=recipe.family,
        name=recipe.name,
        source=source,
        recipe=_resolved(recipe, model, text),
        images=ebseg.transforms(recipe),
        canvases=canvases,
    )
    with Bundle.create(output, manifest, overwrite) as edit, torch.no_grad(), _Flushed():
        _Exporter(edit, model, recipe, report).export(canvases, text)
    return Bundle.open(output)


def choose_recipe(checkpoint: Checkpoint, state: Mapping[str, Tensor]) -> Recipe:
    """The preset that fits the tensors. Raises CheckpointError if none does, or `--family` says otherwise."""
    asked = f"read the checkpoint {checkpoint.path}"
    if not ebseg.is_ebseg(state):
        some = ", ".join(sorted(state)[:3])
        keys = "its keys begin with clip_visual_extractor, sem_seg_head, backbone"
        todo = f"give an EBSeg checkpoint ({keys}), or one of SAM or CLIP"
        raise CheckpointError(asked, f"its tensors are of no family that edgeseg knows ({some}, ...)", todo)
    known = presets(Recipe)
    wanted = checkpoint.family
    if wanted is not None and wanted not in {name for recipe in known for name in (recipe.family, recipe.name)}:
        todo = f"choose from {', '.join(recipe.name for recipe in known)}"
        raise InputError(f"use --family {wanted}", "there is no such family or preset", todo)
    width, patch = ebseg.clip_sizes(state)
    fitting = [recipe for recipe in known if (recipe.clip_width, recipe.clip_patch) == (width, patch)]
    named = [recipe for recipe in known if wanted == recipe.name]
    if named and fitting and named[0] not in fitting:
        found = f"its CLIP has width {width} and patch {patch}, which is {fitting[0].name}, not {wanted}"
        raise CheckpointError(asked, found, "leave --family out")
    if named:
        return named[0]
    if not fitting:
        nearest = " or ".join(recipe.name for recipe in known)
        found = f"no preset has a CLIP of width {width} and patch {patch}"
        raise CheckpointError(asked, found, f"name the nearest preset: --family {nearest}")
    return fitting[0]


def _text_encoder(checkpoint: Checkpoint, recipe: Recipe, model: EBSeg) -> TextEncoder | None:
    """The recipe's text encoder, in whose space the model's embeddings must lie."""
    text = text_encoders.find(recipe.text_encoder, ebseg.text_tower(model), checkpoint.text_encoder)
    embedding = model.config.clip.embedding
    if text and text.width != embedding:
        found = (
            f"its CLIP makes embeddings of {embedding} values, its text encoder, {recipe.text_encoder}, {text.width}"
        )
        todo = f"give a checkpoint that was trained with {recipe.text_encoder}, or the right --family"
        raise CheckpointError(f"export the checkpoint {checkpoint.path}", found, todo)
    return text


class _Flushed:
    """Denormal numbers count as zero: a softmax over masks leaves them, and they slow a CPU down a hundredfold."""

    def __enter__(self) -> None:
        torch.set_flush_denormal(True)

    def __exit__(self, *_: object) -> None:
        torch.set_flush_denormal(False)


def _resolved(recipe: Recipe, model: EBSeg, text: TextEncoder | None) -> dict[str, Any]:
    """What the runtime reads of the recipe, as JSON."""
    config = model.config
    return {
        "resize": recipe.resize,
        "divisor": ebseg.DIVISOR,
        "mask_stride": ebseg.MASK_STRIDE,
        "queries": config.decoder.queries,
        "embedding": config.clip.embedding,
        "clip_scale": recipe.clip_scale,
        "ensemble": recipe.ensemble,
        "templates": data_lines(f"templates-{recipe.templates}.txt"),
        "training_classes": data_lines(f"training-{recipe.training_classes}.txt"),
        "text_encoder": recipe.text_encoder,
        "text_context": text.context if text else 0,
        "text_source": asdict(text.source) if text and text.source else None,
        "logit_scale": round(math.exp(float(cast(Tensor, model.ov_classifier.logit_scale))), 4),
        "gate": recipe.gate,
    }


class _Exporter:
    """Writes one bundle. It keeps no graph: each is traced, written and dropped before the next."""

    def __init__(self, edit: BundleEdit, model: EBSeg, recipe: Recipe, progress: Progress) -> None:
        self.edit, self.model, self.recipe, self.progress = edit, model, recipe, progress
        self.weights: dict[str, WeightFile] = {}
        self.done = self.steps = 0

    def export(self, canvases: tuple[Size, ...], encoder: TextEncoder | None) -> None:
        self.steps = len(canvases) * (4 + IMAGES) + 2  # and, once, the text encoder and the scoring
        try:
            text = self._text(encoder)
            for i, canvas in enumerate(canvases):
                self._canvas(canvas, text, with_score=i == 0)
        finally:
            for file in self.weights.values():
                file.close()
        self._step("files")

    def _step(self, what: str) -> None:
        self.progress(what, self.done, self.steps)
        self.done += 1

    def _text(self, encoder: TextEncoder | None) -> Tensor:
        """Write tokenizer, text graph and its reference; returns (C, D) embeddings for the other references."""
        self._step("text encoder")
        if encoder is None:
            random = torch.Generator().manual_seed(0)
            directions = torch.randn(CLASSES, self.model.config.clip.embedding, generator=random)
            return torch.nn.functional.normalize(directions, dim=-1)
        path = self.edit.stage(TOKENIZER_FILE)
        path.write_text(encoder.tokenizer, "utf-8")
        tokenizer = TOKENIZERS[self.recipe.text_encoder](path)
        prompts = [f"a photo of a {name}." for name in dataset_classes("voc-20").names[:CLASSES]]
        inputs = tokenizer.inputs([tokenizer.tokenize(prompt) for prompt in prompts])
        example = {name: torch.from_numpy(array) for name, array in inputs.items()}
        embeddings = self._write(encoder.plan, example)["text_embedding"]
        reference = "reference/text-0.npz"
        write_case(self.edit.stage(reference), inputs, {"text_embedding": embeddings})
        self.edit.add_reference("text", reference)
        return embeddings

    def _canvas(self, canvas: Size, text: Tensor, with_score: bool) -> None:
        plans = [*ebseg.graphs(self.model, self.recipe, canvas), ebseg.score_graph(self.model)]
        for number in range(IMAGES):
            image = reference_image(canvas, number)
            values = self._inputs(image, canvas, text, number)
            inputs = {"image": image, "text": values["text"].numpy(), "overlap": values["overlap"].numpy()}
            for plan in plans:
                first = number == 0 and (plan.canvas is not None or with_score)
                self._step(f"{plan.name} {size_text(plan.canvas)}") if first else None
                values.update(self._write(plan, values) if first else _run(plan, values))
            self._step(f"reference {number} {size_text(canvas)}")
            name = f"reference/{size_text(canvas)}-{number}.npz"
            tensors = {key: value for key, value in values.items() if key not in inputs}
            composed = labels(values["mask_logits"], values["class_probs"], canvas)
            write_case(self.edit.stage(name), inputs, tensors, composed)
            self.edit.add_reference(size_text(canvas), name)

    def _inputs(self, image: Any, canvas: Size, text: Tensor, number: int) -> dict[str, Tensor]:
        images = {
            name: torch.from_numpy(preprocess(image, canvas, transform, canvas))
            for name, transform in ebseg.transforms(self.recipe).items()
        }
        # Both kinds of class, trained and new, so that both branches of the scoring are checked.
        overlap = torch.from_numpy((np.arange(len(text)) % 2 == number % 2).astype(np.float32))
        return {**images, "text": text, "overlap": overlap}

    def _write(self, plan: GraphPlan, example: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Export one graph into the bundle; returns torch's outputs for the example."""
        relative = f"{FOLDER}/{graph_file_name(plan.name, plan.canvas)}"
        file = self.edit.stage(relative)
        if plan.name not in self.weights:
            self.weights[plan.name] = WeightFile(self.edit.stage(f"{FOLDER}/{plan.name}.bin"))
        spec, outputs = export_graph(plan, example, file, self.weights[plan.name], FOLDER)
        self.edit.add_graph(spec)
        gc.collect()
        return outputs


def _run(plan: GraphPlan, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    outputs = plan.network(*(values[name] for name in plan.inputs))
    return dict(zip(plan.outputs, outputs if isinstance(outputs, tuple) else (outputs,), strict=True))
