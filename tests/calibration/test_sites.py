import numpy as np
import pytest

from edgeseg.calibration.graph import name_nodes
from edgeseg.calibration.sites import find_sites, require_sites
from edgeseg.errors import BuildError
from tests.nets import Net, attention, vit

pytestmark = pytest.mark.onnx


def sites_of(net, inputs, outputs, results):
    return find_sites(net.model(inputs, outputs, results))


def layers(sites):
    return [layer.node for site in sites.layers for layer in site.layers]


def test_a_transformer_has_six_layers_per_block_on_four_tensors():
    sites = find_sites(vit(blocks=3))
    assert len(layers(sites)) == 3 * 6
    assert len(sites.layers) == 3 * 4
    assert sum(site.norm is not None for site in sites.layers) == 3 * 2


def test_q_k_and_v_share_the_site_of_the_norm_they_read():
    first = find_sites(vit()).layers[0]
    assert len(first.layers) == 3
    assert first.norm is not None
    assert first.name == min(layer.node for layer in first.layers)


@pytest.mark.parametrize("scopes", ["abc", "cba", "bac"])
def test_site_has_the_first_name_in_alphabetical_order(scopes):
    net = Net()
    parts = [net.op("MatMul", "x", net.weight(16, 16), scope=f"/{scope}") for scope in scopes]
    sites = sites_of(net, {"x": [4, 16]}, {"y": [4, 16]}, {"y": net.op("Sum", *parts)})
    assert [site.name[:3] for site in sites.layers] == ["/a/"]


def test_position_tables_are_no_layers():
    model = vit()
    batched = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) > 2}
    assert batched
    assert not {layer.weight for site in find_sites(model).layers for layer in site.layers} & batched


def test_a_batch_of_wide_matrices_is_no_layer():
    net = Net()
    y = net.op("MatMul", "x", net.weight(16, 32, 32))
    assert sites_of(net, {"x": [16, 8, 32]}, {"y": [16, 8, 32]}, {"y": y}).layers == ()


@pytest.mark.parametrize(("inner", "outer", "found"), [(16, 16, 1), (15, 16, 0), (16, 15, 0), (3, 64, 0), (64, 64, 1)])
def test_convolutions_with_few_channels_are_left_out(inner, outer, found):
    net = Net()
    y = net.op("Conv", "x", net.weight(outer, inner, 3, 3))
    sites = sites_of(net, {"x": [1, inner, 8, 8]}, {"y": [1, outer, 6, 6]}, {"y": y})
    assert len(sites.layers) == found
    assert all(layer.axis == 0 for site in sites.layers for layer in site.layers)


@pytest.mark.parametrize(
    ("rows", "inner", "outer", "found"), [(9, 16, 16, 1), (1, 64, 64, 0), (9, 15, 64, 0), (9, 64, 15, 0)]
)
def test_products_of_one_row_or_narrow_ones_are_left_out(rows, inner, outer, found):
    net = Net()
    y = net.op("MatMul", "x", net.weight(inner, outer))
    sites = sites_of(net, {"x": [1, rows, inner]}, {"y": [1, rows, outer]}, {"y": y})
    assert len(sites.layers) == found


@pytest.mark.parametrize(("scope", "found"), [("/fp32_pool", 0), ("/pool", 1)])
def test_nodes_of_an_fp32_scope_are_left_out(scope, found):
    net = Net()
    y = net.op("MatMul", "x", net.weight(16, 16), scope=scope)
    assert len(sites_of(net, {"x": [4, 16]}, {"y": [4, 16]}, {"y": y}).layers) == found


def test_product_of_two_tensors_is_no_layer():
    net = Net()
    y = net.op("MatMul", "x", "z")
    assert sites_of(net, {"x": [16, 16], "z": [16, 16]}, {"y": [16, 16]}, {"y": y}).layers == ()


def normed(read_again):
    net = Net()
    x = net.norm("x", 32)
    y = net.op("MatMul", x, net.weight(32, 32))
    y = net.op("Add", x, y) if read_again else y
    return sites_of(net, {"x": [4, 32]}, {"y": [4, 32]}, {"y": y})


def test_norm_that_something_else_reads_too_takes_no_factors():
    assert normed(False).layers[0].norm is not None
    assert normed(True).layers[0].norm is None


@pytest.mark.parametrize(("perm", "found"), [((1, 0, 2), True), ((0, 2, 1), False)])
def test_norm_is_seen_through_a_transpose_that_keeps_the_channels(perm, found):
    net = Net()
    x = net.op("Transpose", net.norm("x", 32), perm=perm)
    y = net.op("MatMul", x, net.weight(32, 32))
    sites = sites_of(net, {"x": [32, 32, 32]}, {"y": [32, 32, 32]}, {"y": y})
    assert (sites.layers[0].norm is not None) == found


def test_both_products_of_an_attention_are_found_and_those_of_its_bias_are_not():
    sites = find_sites(vit(blocks=2))
    assert [product.shares for product in sites.attentions] == [False, True] * 2
    assert len(sites.operands()) == 2 * 3


def test_softmax_that_is_read_twice_is_no_attention():
    net = Net()
    shares = net.op("Softmax", net.op("MatMul", "x", "x"), axis=-1)
    y = net.op("Add", net.op("MatMul", shares, "x"), shares)
    assert sites_of(net, {"x": [8, 8]}, {"y": [8, 8]}, {"y": y}).attentions == ()


def test_peaks_hold_the_residual_stream_and_what_is_added_to_it():
    model = vit(blocks=2)
    sites = find_sites(model)
    stream = set(sites.peaks.values()) - set(sites.operands())
    norms = {node.input[0] for node in model.graph.node if node.op_type == "LayerNormalization"}
    sums = {name for node in model.graph.node if node.op_type == "Add" for name in (*node.input, *node.output)}
    assert norms & sums <= stream <= sums | norms


def test_names_of_sites_do_not_depend_on_the_grid():
    def model(grid):
        net = Net()
        count = grid[0] * grid[1]
        x = net.op("Add", "x", attention(net, net.norm("x", 32), grid, 2, 32))
        return net.model({"x": [1, count, 32]}, {"y": [1, count, 32]}, {"y": x})

    small, large = find_sites(model((2, 3))), find_sites(model((4, 4)))
    assert [site.name for site in small.layers] == [site.name for site in large.layers]
    assert list(small.peaks) == list(large.peaks)


def test_graph_without_layers_is_refused():
    net = Net()
    model = net.model({"x": [4]}, {"y": [4]}, {"y": net.op("Sigmoid", "x")})
    with pytest.raises(BuildError, match=r"quantize the graph toy: it has no MatMul.*vision transformer"):
        require_sites(find_sites(model), "toy")


def test_nodes_without_names_get_different_ones():
    model = vit()
    for node in model.graph.node:
        node.name = ""
    name_nodes(model.graph)
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    assert np.all([bool(name) for name in names])
