"""Blocks by the scopes of their nodes, and what they cost."""

import pytest

from edgeseg.calibration.sensitivity.blocks import all_blocks, block_key, graph_of, macs, quantized_blocks
from edgeseg.calibration.sites import find_sites
from edgeseg.calibration.tap import load_net
from tests.calibration.sensitivity.toy import CANVAS, make
from tests.nets import Net

pytestmark = pytest.mark.onnx


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    bundle = make(tmp_path_factory.mktemp("blocks") / "toy.bundle")
    return load_net(bundle, bundle.graph("sam", "fp32", CANVAS))


@pytest.mark.parametrize(
    ("node", "block"),
    [
        ("/blocks.3/attn/q/MatMul", "blocks.3"),
        ("/blocks/blocks.11/mlp/Add_1", "blocks/blocks.11"),
        ("/head/pixel_decoder/layers.0/linear1/MatMul", "head/pixel_decoder/layers.0"),
        ("/tail/mlp/c_fc/MatMul", "tail"),
        ("/tail/layers.0_1/MatMul", "tail"),
        ("/MatMul_3", "rest"),
        ("MatMul_at_3", "rest"),
        ("", "rest"),
    ],
)
def test_block_is_the_scope_up_to_its_first_number(node, block):
    assert block_key("sam", node) == f"sam/{block}"
    assert graph_of(block_key("sam", node)) == "sam"


def test_blocks_to_quantize_are_those_with_layers(net):
    found = quantized_blocks(net, find_sites(net.model))
    assert [block.key for block in found] == ["sam/blocks.0", "sam/blocks.1", "sam/blocks.2"]
    assert {(block.layers, block.macs) for block in found} == {(2, 2 * 16 * 64 * 64)}


def test_all_blocks_hold_every_node(net):
    found = {block.key: block.layers for block in all_blocks(net, find_sites(net.model))}
    assert found == {"sam/patch_embed": 0, "sam/blocks.0": 2, "sam/blocks.1": 2, "sam/blocks.2": 2, "sam/rest": 0}


def test_a_convolution_multiplies_its_window_at_every_place():
    net = Net()
    net.op("Conv", "x", net.weight(32, 16, 3, 3), strides=[2, 2])
    model = net.model({"x": [1, 16, 9, 9]}, {"y": [1, 32, 4, 4]}, {"y": "/Conv_0_out"})
    assert macs(model, find_sites(model)) == {"/Conv_0": 4 * 4 * 32 * 16 * 9}
