"""What a build prints of reports that lie in the bundle, which may be anyone's."""

import json
from dataclasses import replace

import pytest

from edgeseg.bundle import Bundle
from edgeseg.engines import tables
from edgeseg.engines.making import Built
from edgeseg.errors import BundleError
from tests.edgeseg.small_bundle import add_engine, engine, make

pytestmark = pytest.mark.onnx

TRY = {"graph": "sam", "canvas": "64x64", "change": "bf16", "outcome": "fails", "found": "cosine 0.5"}
FILE = "reports/repair.json"


def reports(path, content):
    bundle = make(path / "a.bundle")
    spec = replace(engine(bundle.graph("sam", "fp16", (64, 64))), report=FILE)
    with bundle.edit() as edit:
        edit.stage(FILE).write_bytes(content)
        add_engine(edit, spec)
    return tables.reports(Bundle.open(bundle.path).path, [Built(spec, 1, kept=True)])


def test_report_of_a_repair_is_shown(tmp_path):
    (found,) = reports(tmp_path, json.dumps({"kind": "repair", "tried": [TRY]}).encode())
    assert tables.repair_table(found).row_count == 1


@pytest.mark.parametrize(
    "content",
    [
        b"hello",
        b"[" * 100_000,
        b'{"kind": "repair", "tried": [1e999]}',
        b"[]",
        b'{"tried": []}',
        b'{"kind": "repair"}',
        b'{"kind": "repair", "tried": 5}',
        b'{"kind": "repair", "tried": [{}]}',
    ],
)
def test_file_that_is_no_report_is_refused_in_one_line(tmp_path, content):
    with pytest.raises(BundleError, match=r"cannot read the report reports/repair\.json"):
        reports(tmp_path, content)
