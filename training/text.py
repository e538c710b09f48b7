"""Class names as the embeddings that an exported bundle would make of them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from edgeseg.export import text_encoders
from edgeseg.export.recipe import Recipe
from edgeseg.vocabulary.bank import PromptBank
from edgeseg.vocabulary.classes import data_lines
from edgeseg.vocabulary.maker import TOKENIZERS


def embed(recipe: Recipe, names: Sequence[str], bank: PromptBank | None = None) -> Tensor:
    """(C, D) unit embeddings of class names under the recipe's templates, and a prompt bank's phrases if there is one.

    Needs an encoder outside the checkpoint.
    """
    encoder = text_encoders.find(recipe.text_encoder, None)
    if encoder is None:
        raise SystemExit(f"the text encoder {recipe.text_encoder!r} is part of a checkpoint; there is none yet")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        path.write_text(encoder.tokenizer, "utf-8")
        tokenizer = TOKENIZERS[recipe.text_encoder](path)
    templates = data_lines(f"templates-{recipe.templates}.txt")
    rows = []
    with torch.no_grad():
        for name in names:
            phrases = [phrase for group in bank.groups(name) for phrase in group] if bank else []
            said = [name, *(f"{name} {phrase}" for phrase in phrases)]
            inputs = tokenizer.inputs(
                [tokenizer.tokenize(template.replace("{}", text)) for text in said for template in templates]
            )
            prompts = encoder.plan.network(*(torch.from_numpy(inputs[key]) for key in encoder.plan.inputs))
            rows.append(F.normalize(prompts, dim=-1).mean(dim=0))
    return F.normalize(torch.stack(rows), dim=-1)
