import json

import click.testing
import numpy as np
import onnx
import pytest

from edgeseg.bundle import Bundle
from edgeseg.calibration import quantize as module
from edgeseg.calibration.cli import quantize
from edgeseg.calibration.quantize import quantize_bundle
from edgeseg.chains import Chains
from edgeseg.errors import BuildError
from edgeseg.pipelines import get_pipeline
from edgeseg.reference import check_chains
from edgeseg.selection import Request, choose
from tests.tiny_bundle import CANVASES, make_bundle

pytestmark = pytest.mark.onnx


def quiet(_done, _total):
    pass


@pytest.fixture
def bundle(tmp_path):
    return make_bundle(tmp_path / "toy.bundle")


def run(*words):
    return click.testing.CliRunner().invoke(quantize, [str(word) for word in words])


def test_every_graph_exists_in_fp16_afterwards(bundle):
    before = {(graph.name, graph.canvas) for graph in bundle.manifest.graphs}
    quantize_bundle(bundle, quiet)
    bundle = Bundle.open(bundle.path)
    assert {(g.name, g.canvas) for g in bundle.manifest.graphs if g.precision == "fp16"} == before
    assert bundle.precisions() == ("fp32", "fp16")
    bundle.verify()


def test_fp16_chain_gives_the_reference_results_but_not_its_bits(bundle):
    quantize_bundle(bundle, quiet)
    pipeline = get_pipeline(bundle.manifest)
    chains = Chains(bundle, choose(bundle, pipeline.graphs, Request("onnxruntime", "fp16")), pipeline.graphs)
    report = check_chains(bundle, pipeline, chains.chain, CANVASES, "fp16")
    chains.close()
    assert report.failures == []
    assert 0 < max(check.max_abs for check in report.tensors if check.graph == "sam") < 0.05


def test_canvases_of_one_graph_share_one_weight_file(bundle):
    quantize_bundle(bundle, quiet)
    graphs = [g for g in bundle.manifest.graphs if (g.name, g.precision) == ("sam", "fp16")]
    assert [g.data for g in graphs] == [("graphs/fp16/sam.bin",)] * len(CANVASES)
    halves = sum(w.size for w in half_weights(bundle.graph_files(graphs[0])))
    shared = bundle.file("graphs/fp16/sam.bin").stat().st_size
    assert 2 * halves <= shared < 1.5 * 2 * halves  # the tables of positions differ, the rest is there once


def half_weights(path):
    weights = [onnx.numpy_helper.to_array(w) for w in onnx.load(path).graph.initializer]
    return [weight for weight in weights if weight.dtype == np.float16 and weight.size > 512]


@pytest.mark.parametrize("name", ["score", "text"])
def test_graph_that_stays_fp32_is_not_copied(bundle, name):
    quantize_bundle(bundle, quiet)
    assert bundle.graph(name, "fp16", None).file == bundle.graph(name, "fp32", None).file


def test_interrupt_changes_nothing(bundle):
    before = sorted(path for path in bundle.path.rglob("*") if path.name != ".lock")

    def press(done, _total):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize_bundle(bundle, press)
    assert Bundle.open(bundle.path).precisions() == ("fp32",)
    assert {path for path in bundle.path.rglob("*") if path.is_file()} - set(before) <= lock_files(bundle)


def lock_files(bundle):
    return {path for path in bundle.path.iterdir() if "lock" in path.name}


def test_doing_it_twice_gives_the_same_bundle(bundle):
    quantize_bundle(bundle, quiet)
    first = Bundle.open(bundle.path).manifest.files
    quantize_bundle(bundle, quiet)
    assert Bundle.open(bundle.path).manifest.files == first


def test_bundle_without_fp32_graphs_is_refused(bundle):
    quantize_bundle(bundle, quiet)
    with bundle.edit() as edit:
        edit.remove_graphs(lambda graph: graph.precision == "fp32")
    with pytest.raises(BuildError, match="only fp16"):
        module.masters(Bundle.open(bundle.path))


def test_progress_goes_from_nothing_to_all(bundle):
    seen: list[tuple[int, int]] = []
    quantize_bundle(bundle, lambda *counts: seen.append(counts))
    assert seen == [(done, 10) for done in range(11)]


def test_verb_reports_each_graph_as_json(bundle):
    result = run(bundle.path, "--precision", "fp16", "--json")
    body = json.loads(result.stdout)
    assert (body["command"], body["precision"], len(body["graphs"])) == ("quantize", "fp16", 4 * 2 + 2)
    sam = next(item for item in body["graphs"] if item["graph"] == "sam")
    assert sam["conversion"]["half_nodes"] > 10
    assert sam["conversion"]["unfit_weights"] == []


def test_verb_prints_one_line(bundle):
    result = run(bundle.path, "--precision", "fp16")
    assert result.stdout.strip().endswith("8 graphs in fp16; score, text stay fp32")
