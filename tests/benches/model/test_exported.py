"""What the exporter really writes against formulas: a small EBSeg, and SAM in its official and its shipped form."""

import warnings

import onnx
import pytest

from edgeseg.benches.model.cost import count_shapes
from edgeseg.benches.model.job import Job, count_bundle
from edgeseg.benches.model.shapes import infer

pytestmark = [pytest.mark.torch, pytest.mark.onnx]

CANVAS = (96, 160)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The bundle of a small EBSeg, and its rows by graph."""
    import torch

    from edgeseg.export.bundle import export_bundle
    from tests.export.small import write_small

    folder, threads = tmp_path_factory.mktemp("small"), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        bundle = export_bundle(write_small(folder), [CANVAS], folder / "small.bundle")
    finally:
        torch.set_num_threads(threads)
    return bundle, {row["graph"]: row for row in count_bundle(bundle, "fp32", Job(CANVAS, 20))["graphs"]}


@pytest.mark.slow
def test_sam_follows_the_formulas(small):
    """12·N·w² per block with a hidden width of 4·w; here the hidden width is 2·w, so 8·N·w²."""
    width, tokens, blocks, windows = 64, 6 * 10, 6, 2
    macs = small[1]["sam"]["macs"]
    assert macs["weights"] == blocks * 8 * tokens * width**2 + tokens * 3 * 256 * width
    attention = 2 * width * ((blocks - windows) * tokens**2 + windows * 196**2)
    assert macs["activations"] == attention
    assert macs["positions"] == width * ((blocks - windows) * tokens * (6 + 10) + windows * 196 * (14 + 14))


@pytest.mark.slow
def test_clip_follows_the_formulas_with_the_surgery_apart(small):
    width, tokens, blocks, surgery = 64, 1 + 3 * 5, 3, 2
    macs = small[1]["clip_trunk"]["macs"]
    patches = (tokens - 1) * 3 * 256 * width
    assert macs["weights"] == tokens * width**2 * (8 * blocks + surgery) + patches
    assert macs["activations"] == 2 * tokens**2 * width * (blocks + surgery)


@pytest.mark.slow
def test_every_operator_of_every_graph_is_known(small):
    bundle, rows = small
    assert len(rows) == 6
    for name, row in rows.items():
        assert row["uncounted"] == {}
        assert row["macs"]["total"] > 0
        spec = next(graph for graph in bundle.manifest.graphs if graph.name == name)
        assert row["parameters"] == spec.parameters


def exported(network, example, path):
    """The cost of a network as torch exports it, untouched."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network.eval(), (example,), path, opset_version=17, dynamo=False)
    return count_shapes(infer(onnx.load(path), {}))


def test_shipped_sam_saves_the_products_of_padded_windows(tmp_path):
    import torch
    from segment_anything.modeling import ImageEncoderViT

    from edgeseg.export.nets.sam import SamConfig, SamEncoder

    width, side, blocks = 32, 16 * 16, 3
    sizes = {"embed_dim": width, "depth": blocks, "num_heads": 2, "window_size": 14, "global_attn_indexes": (2,)}
    official = ImageEncoderViT(side, 16, out_chans=8, use_rel_pos=True, **sizes)
    shipped = SamEncoder(SamConfig(width, blocks, 2, 16, 16, 14, (2,), 4 * width))
    example = torch.zeros(1, 3, side, side)
    theirs, ours = (exported(network, example, tmp_path / "sam.onnx") for network in (official, shipped))
    tokens, padded, windowed = 16 * 16, 28 * 28, blocks - 1
    neck = tokens * (width * 8 + 9 * 8 * 8)
    assert theirs.macs["weights"] - ours.macs["weights"] == windowed * (padded - tokens) * 4 * width**2 + neck
    assert theirs.macs["activations"] == ours.macs["activations"]
    assert theirs.macs["positions"] == ours.macs["positions"]
    assert ours.macs["positions"] == width * (tokens * 32 + windowed * padded * 28)
    assert theirs.uncounted == ours.uncounted == {}
