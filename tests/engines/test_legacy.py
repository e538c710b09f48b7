"""TensorRT 8.6 has no wheel for this Python: stand-ins have its names, which test_trt_api.py holds to its list."""

from types import SimpleNamespace

import pytest

from edgeseg.engines import legacy

OLD = SimpleNamespace(
    NetworkDefinitionCreationFlag=SimpleNamespace(EXPLICIT_BATCH=0),
    BuilderFlag=SimpleNamespace(FP16="fp16", OBEY_PRECISION_CONSTRAINTS="obey"),
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
    legacy.allow_half(OLD, network, SimpleNamespace(set_flag=flags.append))
    assert flags == ["fp16", "obey"]
    assert [layer.pinned for layer in layers] == [[], [(0, "float32")], []]
    assert [getattr(layer, "precision", None) for layer in layers] == [None, "float32", None]
