import re
import sys

import numpy as np
import pytest

from edgeseg.backends import cuda
from edgeseg.backends.cuda import base, cuda_python, fake, pycuda
from edgeseg.errors import BackendError
from tests.conftest import HAS_GPU, gpu_count

LAYERS = (cuda_python.CudaPython, pycuda.PyCuda, fake.FakeCuda)
without_gpu = pytest.mark.skipif(gpu_count() > 0, reason=HAS_GPU)


def public(kind):
    return {name for name in vars(kind) if not name.startswith("_")} | set(getattr(kind, "__annotations__", {}))


@pytest.mark.parametrize("layer", LAYERS)
def test_every_layer_has_the_whole_protocol(layer):
    set_by_init = {"device", "properties"}
    assert public(base.Cuda) - set_by_init <= public(layer)


@pytest.mark.parametrize("module", [cuda_python, pycuda, fake])
def test_streams_of_every_layer_have_the_whole_protocol(module):
    stream = getattr(module, "_Stream", None) or module.FakeStream
    assert public(base.CudaStream) - {"handle"} <= public(stream)


@without_gpu
def test_a_machine_without_a_device_gives_the_reason_of_every_layer():
    with pytest.raises(BackendError, match=r"cannot use CUDA device 0: cuda-python: .*, pycuda: .*; install"):
        cuda.open_device(0)


@without_gpu
@pytest.mark.cuda
def test_cuda_python_says_that_the_driver_is_missing():
    with pytest.raises(BackendError, match=r"there is no NVIDIA driver|CUDA says"):
        cuda_python.CudaPython(0)


@pytest.mark.parametrize(("layer", "module"), [(LAYERS[0], "cuda.bindings"), (LAYERS[1], "pycuda.driver")])
def test_a_missing_package_names_its_extra(layer, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BackendError, match=r"pip install 'edgeseg\[(cuda|pycuda)\]'"):
        layer(0)


def test_the_first_layer_that_opens_is_taken(monkeypatch):
    monkeypatch.setattr(cuda, "LAYERS", (pycuda.PyCuda, lambda index: fake.FakeCuda()))
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    assert cuda.open_device(0).layer == "fake"


def test_a_device_is_opened_once(monkeypatch):
    monkeypatch.setattr(cuda, "LAYERS", (lambda index: fake.FakeCuda(),))
    devices = cuda.Devices()
    assert devices.pool(0) is devices.pool(0)


@pytest.mark.cuda
def test_cuda_python_has_every_function_and_name_that_the_layer_uses():
    from cuda.bindings import runtime

    with open(cuda_python.__file__, encoding="utf-8") as file:
        source = file.read()
    functions = set(re.findall(r'"(cuda[A-Z]\w+)"', source))
    names = set(re.findall(r"module\.(cuda\w+(?:\.\w+)?)", source))
    assert len(functions) > 15
    assert len(names) >= 5
    for name in functions | names:
        found = runtime
        for part in name.split("."):
            found = getattr(found, part)


@pytest.mark.gpu
@pytest.mark.parametrize(("layer", "package"), [(cuda_python.CudaPython, "cuda"), (pycuda.PyCuda, "pycuda")])
def test_a_real_device_gives_back_what_it_was_given(layer, package):
    pytest.importorskip(package)  # on a machine with a GPU, an installed layer that does not open is a failure
    device = layer(0)
    from edgeseg.backends.cuda.memory import Pool

    pool = Pool(device)
    with device.current():
        other = device.stream()
        arrays = [np.random.default_rng(seed).normal(size=(3, 1000)) for seed in range(8)]
        tensors = [pool.upload(array, pool.stream) for array in arrays]
        for array, tensor in zip(arrays, tensors, strict=True):
            np.testing.assert_array_equal(pool.download(tensor, other), array)
        assert 0 < device.free_bytes() <= device.properties.memory_bytes
