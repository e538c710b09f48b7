import io
import os
import pickle
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from edgeseg.errors import CheckpointError
from edgeseg.export.checkpoint import check_state, read_checkpoint, scalars_as

pytestmark = pytest.mark.torch

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([2.0])}


class RunsCode:
    """Makes a folder when it is unpickled by a reader that runs code."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def refused(path):
    """The error of reading `path`; it has its three parts, in one line."""
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    error = caught.value
    assert error.asked == f"read the checkpoint {path}"
    assert error.found
    assert error.todo
    assert "\n" not in str(error)
    return str(error)


def saved(path, content):
    torch.save(content, path)
    return path


def same(state):
    return state.keys() == STATE.keys() and all(torch.equal(state[name], STATE[name]) for name in STATE)


@pytest.mark.parametrize("content", [STATE, {"model": STATE}, {"model": STATE, "iteration": 7, "note": "x"}])
def test_a_torch_file_is_read_bare_or_under_model(tmp_path, content):
    assert same(read_checkpoint(saved(tmp_path / "a.pth", content)))


def test_a_torch_file_of_the_old_format_is_read(tmp_path):
    torch.save({"model": STATE}, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    assert same(read_checkpoint(tmp_path / "a.pth"))


@pytest.mark.parametrize("name", ["a.safetensors", "a.bin"])
def test_a_safetensors_file_is_known_by_its_first_bytes(tmp_path, name):
    save_file(STATE, tmp_path / name)
    assert same(read_checkpoint(tmp_path / name))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_become_float32(tmp_path, dtype):
    state = read_checkpoint(saved(tmp_path / "a.pth", {name: value.to(dtype) for name, value in STATE.items()}))
    assert same(state)
    assert {value.dtype for value in state.values()} == {torch.float32}


@pytest.mark.parametrize("shape", [(1,), ()])
def test_a_vector_of_one_element_stands_for_a_scalar(shape):
    model = torch.nn.Module()
    model.scale = torch.nn.Parameter(torch.zeros(()))
    assert scalars_as(model, {"scale": torch.ones(shape)})["scale"].shape == ()


def test_a_vector_stays_one_where_the_model_has_a_vector():
    model = torch.nn.Module()
    model.scale = torch.nn.Parameter(torch.zeros(1))
    assert scalars_as(model, {"scale": torch.ones(1)})["scale"].shape == (1,)


@pytest.mark.parametrize("kept", [0.3, 0.9, 0.999])
@pytest.mark.parametrize("kind", ["torch", "safetensors"])
def test_a_truncated_file_is_refused(tmp_path, kind, kept):
    path = tmp_path / "a.pth"
    state = {"a": torch.randn(64, 64), "b": torch.randn(64)}
    torch.save(state, path) if kind == "torch" else save_file(state, path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    assert "download or save it again" in refused(path)


def legacy_pickle(path, item):
    path.write_bytes(pickle.dumps({"model": {"a": item}}, protocol=2))


def legacy_torch(path, item):
    torch.save({"model": {"a": item}}, path, _use_new_zipfile_serialization=False)


def zip_torch(path, item):
    torch.save({"model": {"a": item}}, path)


@pytest.mark.parametrize("write", [legacy_pickle, legacy_torch, zip_torch])
def test_a_file_with_code_in_it_is_refused_and_the_code_does_not_run(tmp_path, write):
    write(tmp_path / "a.pth", RunsCode(tmp_path / "ran"))
    message = refused(tmp_path / "a.pth")
    assert not (tmp_path / "ran").exists()
    assert "safetensors" in message
    torch.load(tmp_path / "a.pth", weights_only=False) if write is not legacy_pickle else pickle.loads(
        (tmp_path / "a.pth").read_bytes()
    )
    assert (tmp_path / "ran").exists()  # it would have run


def test_a_torchscript_program_is_refused_with_the_line_that_converts_it(tmp_path):
    path = tmp_path / "clip.pt"
    with zipfile.ZipFile(path, "w") as archive:  # what torch.jit.save writes, as far as a reader sees before it loads
        for name in ("clip/data.pkl", "clip/code/__torch__.py", "clip/constants.pkl"):
            archive.writestr(name, b"")
    assert 'torch.save(torch.jit.load("clip.pt").state_dict(), "clip-state.pth")' in refused(path)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_a_program_that_torch_itself_saved_is_refused_too(tmp_path):
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), tmp_path / "a.pt")
    assert "TorchScript" in refused(tmp_path / "a.pt")


def overlapping():
    """An exabyte that takes four bytes in the file: looking at its values would fill the memory."""
    return torch.zeros(1).expand(1 << 50)


ODD = {
    "nan": (lambda: torch.tensor([1.0, float("nan")]), "NaN"),
    "infinity": (lambda: torch.tensor([float("inf")]), "infinity"),
    "sparse": (lambda: torch.eye(3).to_sparse(), "not a dense tensor"),
    "complex": (lambda: torch.ones(2, dtype=torch.complex64), "not a dense tensor"),
    "number": (lambda: 3.0, "'a' is float"),
    "nested": (lambda: {"weight": torch.ones(2)}, "'a' is dict"),
    "meta": (lambda: torch.ones(2, device="meta"), "not a dense tensor"),
    "overlapping": (overlapping, "not a dense tensor"),
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_no_dense_finite_tensor_is_refused(tmp_path, name):
    make, expected = ODD[name]
    assert expected in refused(saved(tmp_path / "a.pth", {"model": {"a": make()}}))


@pytest.mark.parametrize("content", [[torch.ones(2)], {}, {"model": {}}, {"model": [1]}, torch.ones(2), 5, None])
def test_what_is_no_state_dict_is_refused(tmp_path, content):
    assert "no state dict" in refused(saved(tmp_path / "a.pth", content))


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors", "a.bin", "a"])
@pytest.mark.parametrize("content", [b"", b"hello\n", b"\x80", b"PK\x03\x04", b"{}", bytes(64), b"\x80\x02]q\x00."])
def test_files_of_other_kinds_are_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name)


def test_a_zip_file_of_something_else_is_refused(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("readme.txt", "hello")
    (tmp_path / "a.pth").write_bytes(buffer.getvalue())
    assert "not a whole torch file" in refused(tmp_path / "a.pth")


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path):
    assert "no such file" in refused(tmp_path / "a.pth")
    assert "folder" in refused(tmp_path)


def test_a_safetensors_header_cannot_ask_for_memory_that_the_file_does_not_have(tmp_path):
    header = b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'
    (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    assert "not a whole safetensors file" in refused(tmp_path / "a.safetensors")


def test_missing_unexpected_and_mis_shaped_keys_are_each_listed(tmp_path):
    model = torch.nn.ModuleDict({"a": torch.nn.Linear(2, 3), "b": torch.nn.Linear(3, 4)})
    state = {**model.state_dict(), "a.weight": torch.ones(5, 2), "c.weight": torch.ones(1)}
    del state["b.bias"]
    with pytest.raises(CheckpointError) as caught:
        check_state(tmp_path / "a.pth", model, state)
    listed = ["1 missing: b.bias", "1 unexpected: c.weight", "1 mis-shaped: a.weight (5, 2) instead of (3, 2)"]
    assert caught.value.found == "; ".join(listed)


def test_a_long_list_of_keys_is_cut(tmp_path):
    state = {f"x{i:02}": torch.ones(1) for i in range(20)}
    with pytest.raises(CheckpointError, match=r"20 unexpected: x00, .* x07 and 12 more;"):
        check_state(tmp_path / "a.pth", torch.nn.Module(), state)


def test_weights_that_are_whole_numbers_are_refused(tmp_path):
    model = torch.nn.Linear(2, 3)
    state = {**model.state_dict(), "weight": torch.ones(3, 2, dtype=torch.int64)}
    with pytest.raises(CheckpointError, match=r"1 not of floats: weight int64"):
        check_state(tmp_path / "a.pth", model, state)
