"""A checkpoint becomes a bundle: every graph at every canvas, the tokenizer, the reference tensors."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import edgeseg
from edgeseg.bundle import Bundle
from edgeseg.bundle.edit import BundleEdit
from edgeseg.errors import CheckpointError, InputError
from edgeseg.pipelines import Pipeline, get_pipeline
from edgeseg.schema import SCHEMA, Manifest, Size, Source, size_text
from edgeseg.vocabulary.classes import data_lines, dataset_classes
from edgeseg.vocabulary.maker import TOKENIZER_FILE, TOKENIZERS

from . import text_encoders
from .checkpoint import as_floats
from .digest import file_digest
from .families import FAMILIES, check_canvases
from .graphs import GraphPlan
from .inputs import Checkpoint, opened
from .onnx_file import WeightFile, export_graph, graph_file_name
from .recipe import Recipe, preset, preset_names
from .reference import CLASSES, IMAGES, Flushed, UInt8, photo_on, reference_image, write_case
from .text_encoders import TextEncoder

FOLDER = "graphs/fp32"
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Loaded:
    """A checkpoint, the recipe that fits it, and the `model` that its family made of it."""

    checkpoint: Checkpoint
    recipe: Recipe
    model: Any


def export_bundle(
    checkpoint: Checkpoint,
    sizes: list[Size],
    output: Path,
    overwrite: bool = False,
    progress: Progress | None = None,
    *,
    photos: Sequence[UInt8] = (),
) -> Bundle:
    """Export a checkpoint of any family.

    Args:
        checkpoint: the file.
        sizes: canvases (H, W); empty for the preset's.
        output: the bundle's directory.
        overwrite: take the place of a bundle that is there.
        progress: called with what is being done, the steps done and all steps.
        photos: (H, W, 3) uint8 RGB, of any size, that the reference tensors are made of; without any, made-up scenes.

    Raises:
        CheckpointError, DownloadError, InputError, BundleError, StorageError: nothing is left behind.
    """
    check_canvases(sizes, _possible(checkpoint.family))
    state = opened(checkpoint)
    recipe = choose_recipe(checkpoint, state)
    for option, path in checkpoint.beside.items() if recipe.family != "use" else ():
        found = f"a checkpoint of the family {recipe.family} embeds no masks of another's SAM"
        raise InputError(f"use --{option} {path}", found, f"leave --{option} out")
    check_canvases(sizes, [recipe.family])  # before the weights are read
    model = FAMILIES[recipe.family].load(checkpoint.path, as_floats(checkpoint.path, state), recipe)
    del state
    loaded = Loaded(checkpoint, recipe, model)
    return export_loaded(loaded, sizes, output, overwrite, progress, photos=photos)


def export_loaded(
    loaded: Loaded,
    sizes: list[Size],
    output: Path,
    overwrite: bool = False,
    progress: Progress | None = None,
    *,
    photos: Sequence[UInt8] = (),
) -> Bundle:
    """Export a model that was loaded before; see `export_bundle`, whose errors it raises."""
    checkpoint, recipe, model = loaded.checkpoint, loaded.recipe, loaded.model
    text = _text_encoder(checkpoint, recipe, model)
    manifest = Manifest(
        schema=SCHEMA,
        edgeseg=edgeseg.__version__,
        family=recipe.family,
        name=recipe.name,
        source=_source(checkpoint, recipe, text),
        recipe=_resolved(recipe, model, text),
        images=FAMILIES[recipe.family].transforms(recipe),
        canvases=tuple(dict.fromkeys(sizes or recipe.canvases)),
    )
    with Bundle.create(output, manifest, overwrite) as edit, torch.no_grad(), Flushed():
        _Exporter(edit, model, recipe, progress or (lambda *_: None), photos).export(manifest, text)
    return Bundle.open(output)


def _source(checkpoint: Checkpoint, recipe: Recipe, text: TextEncoder | None) -> Source:
    """Where the weights come from; what lies beside the checkpoint is named with its licence."""
    licence = f"{recipe.licence}; text encoder: {text.source.licence}" if text and text.source else recipe.licence
    for path in checkpoint.beside.values():
        licence += f"; {path.name}: sha256 {file_digest(path)}"
    return Source(checkpoint.path.name, file_digest(checkpoint.path), checkpoint.hub, licence)


def _possible(wanted: str | None) -> list[str]:
    """The families that a checkpoint may be of, by the name that the user gave: a family's, a preset's or none."""
    presets = [preset(name) for name in preset_names()]
    named = {recipe.family for recipe in presets if wanted in (None, recipe.family, recipe.name)}
    return [name for name in FAMILIES if name in named]


def choose_recipe(checkpoint: Checkpoint, state: Mapping[str, Tensor]) -> Recipe:
    """The preset that fits the tensors. Raises CheckpointError if none does, or `--family` says otherwise."""
    asked = f"read the checkpoint {checkpoint.path}"
    found = [name for name, family in FAMILIES.items() if family.recognises(state)]
    if not found:
        some = ", ".join(sorted(state)[:3])
        todo = "give a checkpoint of " + " or ".join(f"{name} ({family.KEYS})" for name, family in FAMILIES.items())
        raise CheckpointError(asked, f"its tensors are of no family that edgeseg knows ({some}, ...)", todo)
    family, every = FAMILIES[found[0]], [preset(name) for name in preset_names()]
    wanted = checkpoint.family
    if wanted is not None and wanted not in {name for recipe in every for name in (recipe.family, recipe.name)}:
        todo = f"choose from {', '.join(preset_names())}"
        raise InputError(f"use --family {wanted}", "there is no such family or preset", todo)
    presets = [recipe for recipe in every if recipe.family == found[0]]
    if wanted is not None and wanted not in {name for recipe in presets for name in (recipe.family, recipe.name)}:
        raise CheckpointError(asked, f"its tensors are those of the family {found[0]}", "leave --family out")
    width, patch = family.clip_sizes(state)
    alike = [one for one in presets if one.clip_width in (0, width) and one.clip_patch in (0, patch)]
    fitting = [recipe for recipe in alike if family.fits(state, recipe)]
    named = [recipe for recipe in presets if wanted == recipe.name]
    if named and fitting and named[0] not in fitting:
        problem = f"its {family.ENCODER} has width {width} and patch {patch}, which is {fitting[0].name}, not {wanted}"
        raise CheckpointError(asked, problem, "leave --family out")
    if named:
        return named[0]
    if not fitting:
        problem = f"no preset has a {family.ENCODER} of width {width} and patch {patch}"
        names = " or ".join(recipe.name for recipe in presets)
        raise CheckpointError(asked, problem, f"name the nearest preset: --family {names}")
    return fitting[0]


def _text_encoder(checkpoint: Checkpoint, recipe: Recipe, model: Any) -> TextEncoder | None:
    """The recipe's text encoder, in whose space the model's embeddings must lie."""
    family = FAMILIES[recipe.family]
    text = text_encoders.find(recipe.text_encoder, family.text_tower(model), checkpoint.text_encoder)
    embedding = family.embedding(model)
    if text and text.width != embedding:
        found = (
            f"its CLIP makes embeddings of {embedding} values, its text encoder, {recipe.text_encoder}, {text.width}"
        )
        todo = f"give a checkpoint that was trained with {recipe.text_encoder}, or the right --family"
        raise CheckpointError(f"export the checkpoint {checkpoint.path}", found, todo)
    return text


def _resolved(recipe: Recipe, model: Any, text: TextEncoder | None) -> dict[str, Any]:
    """The recipe and what the tensors told, as JSON; the runtime reads a part of it."""
    family = FAMILIES[recipe.family]
    return {
        **family.resolved(model, recipe),
        "resize": recipe.resize,
        "embedding": family.embedding(model),
        "templates": data_lines(f"templates-{recipe.templates}.txt") if recipe.templates else [],
        "training_classes": data_lines(f"training-{recipe.training_classes}.txt") if recipe.training_classes else [],
        "text_encoder": recipe.text_encoder,
        "text_context": text.context if text else 0,
        "text_source": asdict(text.source) if text and text.source else None,
        "gate": recipe.gate,
    }


class _Exporter:
    """Writes one bundle. It keeps no graph: each is traced, written and dropped before the next."""

    def __init__(
        self, edit: BundleEdit, model: Any, recipe: Recipe, progress: Progress, photos: Sequence[UInt8]
    ) -> None:
        self.edit, self.model, self.recipe, self.progress = edit, model, recipe, progress
        self.family = FAMILIES[recipe.family]
        self.weights: dict[str, WeightFile] = {}
        self.photos = photos
        self.done = self.steps = 0

    def export(self, manifest: Manifest, encoder: TextEncoder | None) -> None:
        canvases, pipeline = manifest.canvases, get_pipeline(manifest)
        plans = [plan.canvas for plan in self.family.plans(self.model, self.recipe, canvases[0])]
        shared = plans.count(None)  # those that fit any canvas, written once
        self.steps = len(canvases) * (len(plans) - shared + self._images) + shared + 1  # and, once, the text encoder
        try:
            text = self._text(encoder)
            for i, canvas in enumerate(canvases):
                self._canvas(canvas, text, pipeline, first=i == 0)
        finally:
            for file in self.weights.values():
                file.close()
        self._step("files")

    @property
    def _images(self) -> int:
        """Per canvas: a single photo counts for two, once for trained classes and once for new ones."""
        return max(IMAGES, len(self.photos))

    def _image(self, canvas: Size, number: int) -> UInt8:
        photos = self.photos
        return photo_on(canvas, photos[number % len(photos)]) if photos else reference_image(canvas, number)

    def _step(self, what: str) -> None:
        self.progress(what, self.done, self.steps)
        self.done += 1

    def _text(self, encoder: TextEncoder | None) -> Tensor:
        """Write tokenizer, text graph and its reference; returns (C, D) embeddings for the other references."""
        self._step("text encoder")
        if encoder is None:
            random = torch.Generator().manual_seed(0)
            directions = torch.randn(CLASSES, self.family.embedding(self.model), generator=random)
            return torch.nn.functional.normalize(directions, dim=-1)
        path = self.edit.stage(TOKENIZER_FILE)
        path.write_text(encoder.tokenizer, "utf-8")
        if encoder.plan is None:
            return torch.ones(CLASSES, encoder.width)
        tokenizer = TOKENIZERS[self.recipe.text_encoder](path)
        prompts = [f"a photo of a {name}." for name in dataset_classes("voc-20").names[:CLASSES]]
        inputs = tokenizer.inputs([tokenizer.tokenize(prompt) for prompt in prompts])
        example = {name: torch.from_numpy(array) for name, array in inputs.items()}
        embeddings = self._write(encoder.plan, example)["text_embedding"]
        reference = "reference/text-0.npz"
        write_case(self.edit.stage(reference), inputs, {"text_embedding": embeddings})
        self.edit.add_reference("text", reference)
        return embeddings

    def _canvas(self, canvas: Size, text: Tensor, pipeline: Pipeline, first: bool) -> None:
        plans, images = self.family.plans(self.model, self.recipe, canvas), self.family.transforms(self.recipe)
        for number in range(self._images):
            inputs = self.family.case(self.model, self._image(canvas, number), text, number)
            feed = pipeline.reference_feed(inputs, canvas)
            values = {name: torch.from_numpy(array) for name, array in feed.items()}
            for plan in plans:
                new = number == 0 and (plan.canvas is not None or first)
                self._step(f"{plan.name} {size_text(plan.canvas)}") if new else None
                values.update(self._write(plan, values) if new else plan.run(values))
            self._step(f"reference {number} {size_text(canvas)}")
            name = f"reference/{size_text(canvas)}-{number}.npz"
            left_out = {*feed, *(tensor for plan in plans for tensor in plan.unsteady)} - set(images)
            tensors = {key: value for key, value in values.items() if key not in left_out}
            composed = self.family.labels(values, canvas)
            write_case(self.edit.stage(name), inputs, tensors, composed)
            self.edit.add_reference(size_text(canvas), name)

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
