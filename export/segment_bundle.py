"""SAM, alone or with the encoders that USE puts behind it, becomes a bundle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import edgeseg
from edgeseg.bundle import Bundle
from edgeseg.bundle.edit import BundleEdit
from edgeseg.errors import InputError
from edgeseg.preprocess import preprocess
from edgeseg.schema import SCHEMA, ImageTransform, Manifest, Size, Source, size_text
from edgeseg.segments.prompts import fixed_prompts
from edgeseg.vocabulary.classes import dataset_classes
from edgeseg.vocabulary.maker import TOKENIZER_FILE, TOKENIZERS

from .graphs import GraphPlan
from .reference import CLASSES, IMAGES, labels, reference_image, write_case
from .text_encoders import TextEncoder
from .writer import GraphWriter, run

Progress = Callable[[str, int, int], None]

UNSTEADY = ("prompt_boxes",)
"""Tensors that one cell can change altogether: no reference is kept of them."""


@dataclass(frozen=True)
class SegmentExport:
    """What a family of segments puts into a bundle.

    Attributes:
        family, name, source, recipe: as in `Manifest`.
        images: network input → its transform. `plans`: its graphs, in the order they run.
        inputs: further inputs of the reference, by name.
        masks: how the reference's label map is made: tensors → mask logits (1, Q, h, w), class probabilities (1, Q, C).
        text: the text encoder, if the family has classes.
    """

    family: str
    name: str
    source: Source
    recipe: dict[str, Any]
    canvas: Size
    images: dict[str, ImageTransform]
    plans: list[GraphPlan]
    masks: Callable[[dict[str, Tensor]], tuple[Tensor, Tensor]]
    inputs: dict[str, Tensor] = field(default_factory=dict)
    text: TextEncoder | None = None


def write_bundle(made: SegmentExport, output: Path, overwrite: bool, progress: Progress) -> Bundle:
    """Write the bundle. Raises BundleError, StorageError: nothing is left behind."""
    manifest = Manifest(
        schema=SCHEMA,
        edgeseg=edgeseg.__version__,
        family=made.family,
        name=made.name,
        source=made.source,
        recipe=made.recipe,
        images=made.images,
        canvases=(made.canvas,),
    )
    with Bundle.create(output, manifest, overwrite) as edit, torch.no_grad(), GraphWriter(edit) as writer:
        text = _text(made, edit, writer) if made.text else torch.zeros(1, 1)
        steps = IMAGES * len(made.plans)
        for number in range(IMAGES):
            image = reference_image(made.canvas, number)
            values = _inputs(made, image, text)
            inputs = {"image": image, "text": text.numpy(), "overlap": values["overlap"].numpy()}
            for i, plan in enumerate(made.plans):
                progress(plan.name, number * len(made.plans) + i, steps)
                values |= writer.write(plan, values) if number == 0 else run(plan, values)
            name = f"reference/{size_text(made.canvas)}-{number}.npz"
            tensors = {key: value for key, value in values.items() if key not in (*inputs, *UNSTEADY)}
            write_case(edit.stage(name), inputs, tensors, labels(*made.masks(values), made.canvas))
            edit.add_reference(size_text(made.canvas), name)
    return Bundle.open(output)


def _inputs(made: SegmentExport, image: Any, text: Tensor) -> dict[str, Tensor]:
    canvas, prompts = made.canvas, made.recipe["prompts"]
    arrays = {name: preprocess(image, canvas, transform, canvas) for name, transform in made.images.items()}
    arrays |= fixed_prompts(prompts["batch"], prompts["points"], canvas)
    values = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return {**values, **made.inputs, "text": text, "overlap": torch.from_numpy(np.zeros(len(text), np.float32))}


def _text(made: SegmentExport, edit: BundleEdit, writer: GraphWriter) -> Tensor:
    """Write tokenizer, text graph and its reference; returns (C, D) embeddings for the other references."""
    assert made.text is not None
    path = edit.stage(TOKENIZER_FILE)
    path.write_text(made.text.tokenizer, "utf-8")
    tokenizer = TOKENIZERS[made.recipe["text_encoder"]](path)
    prompts = [f"a photo of a {name}." for name in dataset_classes("voc-20").names[:CLASSES]]
    inputs = tokenizer.inputs([tokenizer.tokenize(prompt) for prompt in prompts])
    outputs = writer.write(made.text.plan, {name: torch.from_numpy(array) for name, array in inputs.items()})
    reference = "reference/text-0.npz"
    write_case(edit.stage(reference), inputs, outputs)
    edit.add_reference("text", reference)
    return outputs["text_embedding"]


def check_sizes(sizes: list[Size], canvas: Size) -> None:
    """SAM runs at the size it was trained for. Raises InputError for any other."""
    if any(size != canvas for size in sizes):
        asked = f"export a canvas of {size_text(next(size for size in sizes if size != canvas))}"
        found = f"this SAM was trained for {size_text(canvas)}, and every photo is resized into that"
        raise InputError(asked, found, "leave --size out")
