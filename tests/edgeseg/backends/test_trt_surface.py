"""The names of TensorRT that the session and its stand-in use, against the lists of the real bindings."""

import re
from pathlib import Path

import pytest

from edgeseg.backends import trt_backend, trt_session
from tests.edgeseg.backends import trt_stub

CLASSES = {"trt": None, "engine": "ICudaEngine", "context": "IExecutionContext", "runtime": "Runtime"}


def names_of(listing: Path) -> dict[str, set[str]]:
    """The lists of one version: class or enum → its public names."""
    rows = (re.fullmatch(r"(?:ENUM|CLASS) (\w+) : (.*)", line) for line in listing.read_text().splitlines())
    return {row[1]: set(row[2].split()) for row in rows if row}


def listings(shared: Path) -> list[Path]:
    found = sorted((shared / "reference" / "tensorrt_api").glob("tensorrt*.txt"))
    assert len(found) >= 9
    return found


def missing(names: dict[str, set[str]], kind: str | None, dotted: str) -> bool:
    """`dotted` ("DataType", "TensorIOMode.INPUT") is not in the listing; without a class it starts at the module."""
    parts = dotted.split(".") if kind is None else [kind, dotted.split(".")[0]]
    return parts[0] not in names or (len(parts) > 1 and parts[1] not in names[parts[0]])


def test_every_name_that_the_session_uses_exists_in_every_version(shared):
    source = Path(trt_session.__file__).read_text() + Path(trt_backend.__file__).read_text()
    for receiver, kind in CLASSES.items():
        used = set(re.findall(rf"\b_?{receiver}\.(?!__)([A-Za-z]\w*(?:\.[A-Z]\w*)?)", source))
        assert used, f"nothing found of {receiver}"
        for listing in listings(shared):
            names = names_of(listing)
            gone = [name for name in used if missing(names, kind, name)]
            assert not gone, f"{listing.name} has no {gone} of {kind or 'its module'}"


@pytest.mark.parametrize("kind", ["ICudaEngine", "IExecutionContext", "DataType", "TensorIOMode", "TensorLocation"])
def test_the_stand_in_has_no_name_that_a_real_version_lacks(shared, kind):
    used = {name for name in vars(getattr(trt_stub, kind)) if not name.startswith("_")}
    for listing in listings(shared):
        assert used <= names_of(listing)[kind], listing.name
