"""The small MATLAB reader, against what scipy writes."""

import numpy as np
import pytest

from edgeseg.benches.datasets.mat import read_matrix

savemat = pytest.importorskip("scipy.io").savemat


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "int32", "uint32", "int64", "float32", "float64"]
)
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (3, 5), (40, 70)])
def test_matrix_is_read_as_scipy_wrote_it(tmp_path, compress, dtype, shape):
    values = np.random.default_rng(1).integers(0, 100, shape).astype(dtype)
    file = tmp_path / "a.mat"
    savemat(file, {"before": "text", "LabelMap": values, "after": np.ones((9, 9))}, do_compression=compress)
    assert np.array_equal(read_matrix(file, "LabelMap"), values)


def test_cells_and_structures_are_passed_over(tmp_path):
    cells = np.empty((1, 2), object)
    cells[0] = [np.ones(3), "x"]
    savemat(tmp_path / "a.mat", {"cells": cells, "record": {"a": 1}, "M": np.eye(3)})
    assert np.array_equal(read_matrix(tmp_path / "a.mat", "M"), np.eye(3))
