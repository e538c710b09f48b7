"""Reading checkpoints that nobody vouches for.

torch files go through `weights_only=True`, which never runs code; safetensors files hold no code. Whatever is inside,
only a flat mapping of names to dense tensors comes out.
"""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from edgeseg.errors import CheckpointError

StateDict = dict[str, Tensor]
Network = TypeVar("Network", bound=torch.nn.Module)


def read_checkpoint(path: Path) -> StateDict:
    """The state dict of a detectron2 file (`{"model": ...}`), a bare one, or a safetensors file, as float32 on the CPU.

    Raises:
        CheckpointError: the file is missing, damaged, holds code, or is not a mapping of names to tensors.
    """
    return as_floats(path, open_checkpoint(path))


def open_checkpoint(path: Path) -> StateDict:
    """The tensors as the file has them. They are mapped: names and shapes are there, weights are read when used.

    Raises:
        CheckpointError: as `read_checkpoint`, which also looks at the weights.
    """
    if not path.is_file():
        found = "it is a folder" if path.is_dir() else "there is no such file"
        raise CheckpointError(f"read the checkpoint {path}", found, "give the path of a checkpoint file")
    loaded = _read_safetensors(path) if _is_safetensors(path) else _read_torch(path)
    state = loaded.get("model", loaded) if isinstance(loaded, Mapping) else loaded
    if not isinstance(state, Mapping) or not state:
        raise _refuse(path, "it holds no state dict", "give a file with the model's state dict, bare or under 'model'")
    return {str(name): _tensor(path, str(name), value) for name, value in state.items()}


def as_floats(path: Path, state: Mapping[str, Tensor]) -> StateDict:
    """What `open_checkpoint` gave, in float32. Raises CheckpointError where a number is not finite."""
    made = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    for name, value in made.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise _refuse(path, f"{name!r} holds NaN or infinity", "use a checkpoint of a run that did not diverge")
    return made


def _refuse(path: Path, found: str, todo: str) -> CheckpointError:
    return CheckpointError(f"read the checkpoint {path}", found, todo)


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(9)
    known = len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") < 1 << 27
    return known or path.suffix == ".safetensors"


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise _refuse(path, f"it is not a whole safetensors file ({error})", "download or save it again") from error


def _read_torch(path: Path) -> Any:
    _refuse_torchscript(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch remarks on sparse tensors, which are refused below
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        todo = "get a file from a source you trust, or save its tensors with safetensors"
        raise _refuse(path, f"it holds more than tensors, which could run code: {_first_line(error)}", todo) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, IndexError, TypeError) as error:
        found = f"it is not a whole torch file ({_first_line(error)})"
        raise _refuse(path, found, "download or save it again") from error


def _refuse_torchscript(path: Path) -> None:
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        script = any("/code/" in name or name.endswith("constants.pkl") for name in archive.namelist())
    if script:
        line = f'torch.save(torch.jit.load("{path.name}").state_dict(), "{path.stem}-state.pth")'
        raise _refuse(path, "it is a TorchScript program, not a state dict", f"convert it where you trust it: {line}")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _tensor(path: Path, name: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor) or not _is_dense(value):
        raise _refuse(path, f"{name!r} is {type(value).__name__}, not a dense tensor", "save the state dict alone")
    return value.detach()


def _is_dense(value: Tensor) -> bool:
    """Whether each element is a number of its own: a stride of 0 makes a few bytes as large as its shape says."""
    if value.layout is not torch.strided or value.is_complex() or value.is_quantized or value.device.type != "cpu":
        return False
    return bool(value.numel() * value.element_size() <= value.untyped_storage().nbytes())


def built(path: Path, whole: str, build: Callable[[], Network]) -> Network:
    """The network of the sizes that a file's tensors tell; its parameters take no memory until they are filled.

    Args:
        path: the file, for messages.
        whole: what the file should be, "a whole SAM checkpoint".
        build: reads the sizes and makes the network.

    Raises:
        CheckpointError: the tensors that tell the sizes are missing, or do not agree with each other.
    """
    try:
        with torch.device("meta"):
            return build()
    except (LookupError, ValueError, ArithmeticError, RuntimeError) as error:
        found = f"the tensors that tell the model's sizes are missing or odd ({error})"
        raise _refuse(path, found, f"give {whole}") from error


def fill(path: Path, network: Network, state: Mapping[str, Tensor]) -> Network:
    """Give a network a file's tensors as its weights and put it in eval mode; raises what `check_state` raises."""
    state = scalars_as(network, state)
    check_state(path, network, state)
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)


def check_state(path: Path, model: torch.nn.Module, state: Mapping[str, Tensor]) -> None:
    """Hold the file's keys and shapes against the model's; lists what is missing, unexpected, mis-shaped or no float.

    Raises:
        CheckpointError: any of the lists is not empty.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    missing = sorted(set(wanted) - set(state))
    unexpected = sorted(set(state) - set(wanted))
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {wanted[name]}"
        for name in sorted(set(wanted) & set(state))
        if tuple(state[name].shape) != wanted[name]
    ]
    whole = [f"{name} {str(state[name].dtype)[6:]}" for name in sorted(state) if not state[name].is_floating_point()]
    parts = [("missing", missing), ("unexpected", unexpected), ("mis-shaped", shapes), ("not of floats", whole)]
    found = "; ".join(f"{len(names)} {what}: {_some(names)}" for what, names in parts if names)
    if found:
        raise _refuse(path, found, "give a checkpoint of this model, or the right --family")


def scalars_as(model: torch.nn.Module, state: Mapping[str, Tensor]) -> StateDict:
    """The state with vectors of one element as scalars where the model has scalars, as torch itself loads them."""
    scalars = {name for name, tensor in model.state_dict().items() if tensor.shape == ()}
    return {name: value[0] if name in scalars and value.shape == (1,) else value for name, value in state.items()}


def _some(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
