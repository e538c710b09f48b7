import numpy as np
import onnx
import pytest

from edgeseg.calibration.weights import WeightReader, WeightWriter
from edgeseg.errors import BundleError

pytestmark = pytest.mark.onnx


def external(name="w", location="w.bin", offset=0, count=1000):
    tensor = onnx.TensorProto(name=name, data_type=1, dims=[count], data_location=onnx.TensorProto.EXTERNAL)
    for key, value in {"location": location, "offset": offset, "length": 4 * count}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def test_what_is_written_is_read_back(tmp_path):
    values = np.random.default_rng(0).standard_normal((40, 50)).astype(np.float32)
    with WeightWriter(tmp_path / "w.bin") as writer:
        whole, half = writer.tensor("a", values), writer.tensor("b", values, np.float16)
    reader = WeightReader([tmp_path / "w.bin"])
    assert np.array_equal(reader.read(whole), values)
    assert np.array_equal(reader.read(half), values.astype(np.float16))


def test_equal_contents_are_stored_once(tmp_path):
    values = np.arange(1000, dtype=np.float32)
    with WeightWriter(tmp_path / "w.bin") as writer:
        places = [writer.tensor(name, values.copy(), np.float16).external_data for name in "ab"]
    assert places[0] == places[1]
    assert (tmp_path / "w.bin").stat().st_size == 2000


def test_small_tensor_stays_in_the_graph(tmp_path):
    with WeightWriter(tmp_path / "w.bin") as writer:
        assert writer.tensor("a", np.zeros(8, np.float32)).data_location == onnx.TensorProto.DEFAULT
    assert (tmp_path / "w.bin").stat().st_size == 0


def test_a_scalar_stays_a_scalar(tmp_path):
    """As an index it would otherwise give its result one axis more."""
    with WeightWriter(tmp_path / "w.bin") as writer:
        assert list(writer.tensor("a", np.array(2)).dims) == []


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "other.bin"])
def test_weight_outside_the_listed_files_is_refused(tmp_path, location):
    (tmp_path / "w.bin").write_bytes(bytes(4000))
    with pytest.raises(BundleError, match="not this graph's weight file"):
        WeightReader([tmp_path / "w.bin"]).read(external(location=location))


@pytest.mark.parametrize(("offset", "count"), [(4, 1000), (0, 2000), (-4, 10)])
def test_weight_beyond_its_file_is_refused(tmp_path, offset, count):
    (tmp_path / "w.bin").write_bytes(bytes(4000))
    with pytest.raises(BundleError, match="too short"):
        WeightReader([tmp_path / "w.bin"]).read(external(offset=offset, count=count))
