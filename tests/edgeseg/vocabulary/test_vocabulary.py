import io
import zipfile

import numpy as np
import pytest

from edgeseg.bundle import arrays
from edgeseg.errors import InputError
from edgeseg.vocabulary.vocabulary import Vocabulary

ROWS = np.array([[0.6, 0.8], [1, 0]], np.float32)
FLAGS = np.array([1, 0], np.float32)


@pytest.fixture
def made() -> Vocabulary:
    return Vocabulary(("cat", "road, route"), ROWS, FLAGS, "e" * 64)


def test_a_saved_vocabulary_is_read_back_as_it_was(made, tmp_path):
    made.save(tmp_path / "names.npz")
    read = Vocabulary.load(tmp_path / "names.npz")
    assert (read.names, read.encoder) == (made.names, made.encoder)
    np.testing.assert_array_equal(read.embeddings, ROWS)
    np.testing.assert_array_equal(read.overlap, FLAGS)


def test_the_arrays_cannot_be_written_to_and_are_not_the_callers(made):
    with pytest.raises(ValueError, match="read-only"):
        made.embeddings[0, 0] = 1
    assert ROWS.flags.writeable


def test_an_override_makes_a_new_vocabulary(made):
    assert made.with_overlap({"road, route": True}).overlap.tolist() == [1, 1]
    assert made.overlap.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("names", "embeddings", "overlap", "found"),
    [
        ((), ROWS[:0], FLAGS[:0], "empty"),
        (("cat", "Cat"), ROWS, FLAGS, "same prompt"),
        (("cat",), ROWS, FLAGS, "shape"),
        (("cat", "dog"), ROWS, FLAGS[:1], "shape"),
        (("cat", "dog"), ROWS[0], FLAGS, "shape"),
        (("cat", "dog"), ROWS.astype(np.float64), FLAGS, "float32"),
        (("cat", "dog"), ROWS, FLAGS / 2, "0 and 1"),
        (("cat", "dog"), ROWS * 2, FLAGS, "length 1"),
        (("cat", "dog"), ROWS * np.float32(np.nan), FLAGS, "length 1"),
        (("cat", "dog"), ROWS * np.float32(1e38), FLAGS, "length 1"),
    ],
)
def test_values_that_do_not_fit_are_refused(names, embeddings, overlap, found):
    with pytest.raises(InputError, match=found):
        Vocabulary(names, embeddings, overlap)


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def archive(**members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def npy(header):
    text = repr(header).encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


GOOD = {"names": np.array(["cat", "dog"]), "embeddings": ROWS, "overlap": FLAGS, "encoder": np.array("")}
HUGE = npy({"descr": "<f4", "fortran_order": False, "shape": (10**9, 10**9)})


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "no npz file"),
        (b"PK\x03\x04" + b"\0" * 50, "no npz file"),
        (npz(**GOOD)[:-60], "no npz file"),
        (npz(**GOOD).replace(ROWS.tobytes(), (-ROWS).tobytes()), "Bad CRC"),
        (npz(names=GOOD["names"]), "it holds"),
        (npz(**GOOD, more=ROWS), "it holds"),
        (npz(**GOOD | {"names": np.array(["cat", None])}), "Object arrays"),
        (npz(**GOOD | {"overlap": np.array([1, 0])}), "int64"),
        (npz(**GOOD | {"names": np.array("cat")}), "0 axes"),
        (npz(**GOOD | {"encoder": np.array(["a", "b"])}), "1 axes"),
        (npz(**GOOD | {"encoder": np.array("ff")}), "64 hex digits"),
        (npz(**GOOD | {"embeddings": ROWS * 3}), "length 1"),
        (npz(**GOOD | {"names": np.array(["cat", "a\nb"])}), "U[+]000A"),
        (archive(names=HUGE, embeddings=HUGE, overlap=HUGE, encoder=HUGE), "shorter than its header"),
        (archive(names=b"x" * (1 << 20), embeddings=b"", overlap=b"", encoder=b""), "more than"),
    ],
)
def test_any_other_file_is_refused_by_its_path(tmp_path, monkeypatch, content, found):
    monkeypatch.setattr(arrays, "LIMIT_BYTES", 1 << 19)
    path = tmp_path / "names.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=found) as caught:
        Vocabulary.load(path)
    assert "names.npz" in caught.value.asked


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        Vocabulary.load(tmp_path / "none.npz")
