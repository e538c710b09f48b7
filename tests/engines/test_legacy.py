"""TensorRT 8.6 has no wheel for this Python: stand-ins have its names, which test_trt_api.py holds to its list."""

import sys
from types import SimpleNamespace

import pytest

from edgeseg.backends.base import Probe
from edgeseg.engines import legacy
from edgeseg.engines.tensorrt import TensorRTCompiler
from edgeseg.errors import BuildError
from edgeseg.schema import GraphSpec

OLD = SimpleNamespace(
    NetworkDefinitionCreationFlag=SimpleNamespace(EXPLICIT_BATCH=0),
    BuilderFlag=SimpleNamespace(FP16="fp16", INT8="int8", OBEY_PRECISION_CONSTRAINTS="obey"),
    float32="float32",
)
NEW = SimpleNamespace(NetworkDefinitionCreationFlag=SimpleNamespace(EXPLICIT_BATCH=0, STRONGLY_TYPED=1))


class Layer:
    def __init__(self, name: str, dtype: str = "float32") -> None:
        self.name, self.dtype = name, dtype
        self.pinned: list[object] = []

    def get_output(self, _index: int) -> SimpleNamespace:
        return SimpleNamespace(dtype=self.dtype)

    def set_output_type(self, index: int, dtype: object) -> None:
        self.pinned.append((index, dtype))


@pytest.mark.parametrize(("trt", "expected"), [(OLD, True), (NEW, False)])
def test_legacy_is_what_cannot_be_strongly_typed(trt, expected):
    assert legacy.is_legacy(trt) == expected


def test_half_is_allowed_except_in_floating_point_layers_of_an_fp32_scope():
    layers = [Layer("/sam/MatMul"), Layer("/head/fp32_pool/Div"), Layer("/head/fp32_pool/Shape", "int32")]
    flags: list[str] = []
    network = SimpleNamespace(num_layers=len(layers), get_layer=layers.__getitem__)
    legacy.allow_reduced(OLD, network, SimpleNamespace(set_flag=flags.append), "fp16")
    assert flags == ["fp16", "obey"]
    assert [layer.pinned for layer in layers] == [[], [(0, "float32")], []]
    assert [getattr(layer, "precision", None) for layer in layers] == [None, "float32", None]


def test_int8_is_allowed_beside_fp16():
    flags: list[str] = []
    legacy.allow_reduced(OLD, SimpleNamespace(num_layers=0), SimpleNamespace(set_flag=flags.append), "int8")
    assert flags == ["fp16", "int8", "obey"]


def graph(precision, form="typed", file="graphs/int8/sam.onnx"):
    return GraphSpec("sam", precision, (32, 32), file, (), (), (), form=form)


@pytest.fixture
def compiler(monkeypatch):
    """The compiler of TensorRT 8.6, which is not installed here."""
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__="8.6.1", **vars(OLD)))
    return TensorRTCompiler(Probe(True, "sm87-trt8.6.1", "a test"))


def test_int8_is_made_from_the_plain_form(compiler):
    assert compiler.form == "plain"
    spec = graph("int8", "plain")
    assert compiler.source((spec,), spec) is spec


def test_fp16_is_made_from_the_master(compiler):
    master, half = graph("fp32", file="graphs/fp32/sam.onnx"), graph("fp16", file="graphs/fp16/sam.onnx")
    assert compiler.source((master, half), half) is master
    with pytest.raises(BuildError, match="the bundle has none"):
        compiler.source((half,), half)


def test_int8_of_a_graph_that_is_not_quantised_is_made_from_the_master_it_is(compiler):
    master, same = graph("fp32", file="graphs/fp32/score.onnx"), graph("int8", file="graphs/fp32/score.onnx")
    assert compiler.source((master, same), same) is master


@pytest.mark.parametrize("precision", ["int8", "fp8", "mixed"])
def test_typed_graph_whose_scales_it_would_misread_is_refused(compiler, precision):
    master, typed = graph("fp32", file="graphs/fp32/sam.onnx"), graph(precision)
    with pytest.raises(BuildError, match="reads only int8 graphs of the plain form"):
        compiler.source((master, typed), typed)
