"""Damaged and hostile bundles: each gives one clear line, and nothing outside the bundle is read or written."""

import contextlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edgeseg.bundle import Bundle
from edgeseg.bundle.paths import check_relative
from edgeseg.bundle.read import LIMIT_BYTES
from edgeseg.errors import BundleError, StorageError
from tests.edgeseg.small_bundle import add_engine, add_graph, engine, graph, make, rewrite, tree

ESCAPES = [
    "../outside",
    "graphs/../../outside",
    "/etc/passwd",
    "graphs//sam",
    "./tokenizer.json",
    "",
    ".",
    "..",
    "graphs/",
    "..\\outside",
    "C:\\outside",
    "C:outside",
    "tokenizer.json\0",
    "tokenizer.json\n",
    ".lock",
    ".stage-1/new/a",
    "bundle.json",
    "x" * 256,
    "graphs/\u202egnp.onnx",
]


@pytest.fixture
def bundle(tmp_path):
    return make(tmp_path / "a.bundle")


def refused(bundle, match=None):
    """The one line that opening and verifying gives."""
    with pytest.raises(BundleError, match=match) as caught:
        Bundle.open(bundle.path).verify()
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 2000
    return text


@pytest.mark.parametrize("path", ESCAPES)
def test_paths_that_leave_the_bundle_are_refused_everywhere(bundle, path):
    with pytest.raises(BundleError):
        bundle.file(path)
    with pytest.raises(BundleError), bundle.edit() as edit:
        edit.stage(path)
    rewrite(bundle.path, lambda value: value["files"].update({path: value["files"]["tokenizer.json"]}))
    refused(bundle, "no path of a file inside a bundle")


@given(st.text(st.characters(codec=None, exclude_categories=()) | st.sampled_from("./\\~:"), max_size=40))
@example("a/../b")
def test_an_allowed_path_always_lies_inside(text):
    try:
        path = check_relative(text)
    except BundleError:
        return
    root = "/a.bundle"
    assert os.path.normpath(f"{root}/{path}") == f"{root}/{path}"
    assert Path(root, path).is_relative_to(root)
    assert path.isascii()


@pytest.mark.parametrize("target", ["outside", "inside"])
def test_a_link_in_place_of_a_file_or_folder_is_refused(bundle, tmp_path, target):
    (tmp_path / "outside").write_text("{}")
    token = bundle.path / "tokenizer.json"
    token.unlink()
    token.symlink_to(tmp_path / "outside" if target == "outside" else bundle.path / "bundle.json")
    refused(bundle, r"tokenizer\.json is a link")
    token.unlink()
    token.write_text("{}")
    (bundle.path / "graphs").rename(tmp_path / "graphs")
    (bundle.path / "graphs").symlink_to(tmp_path / "graphs")
    refused(bundle, "graphs is a link")


def test_an_edit_does_not_write_through_a_link(bundle, tmp_path):
    (tmp_path / "outside").mkdir()
    (bundle.path / "engines").symlink_to(tmp_path / "outside")
    with pytest.raises(BundleError, match="engines is a link"), bundle.edit() as edit:
        add_engine(edit, engine(bundle.graph("sam", "fp16", (64, 64))))
    assert os.listdir(tmp_path / "outside") == []


def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(bundle):
    for name in ("tokenizer.json", "bundle.json"):
        (bundle.path / name).unlink()
        os.mkfifo(bundle.path / name)
        refused(bundle, "no plain file")


def test_a_changed_byte_is_found_by_the_file_that_holds_it(bundle):
    path = bundle.path / "graphs/fp16/sam.bin"
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(content)
    refused(bundle, r"graphs/fp16/sam\.bin.* changed since")


def test_a_truncated_file_is_found(bundle):
    os.truncate(bundle.path / "graphs/fp16/sam.bin", 3)
    refused(bundle, r"graphs/fp16/sam\.bin.* has 3 bytes and should have 20")


def test_swapped_files_are_found(bundle):
    bundle.verify()
    one, other = bundle.path / "graphs/fp16/sam.bin", bundle.path / "graphs/fp32/sam.bin"
    one.rename(bundle.path / "aside")
    other.rename(one)
    (bundle.path / "aside").rename(other)
    refused(bundle, "changed since")


def test_a_missing_and_an_unlisted_file_are_named(bundle):
    (bundle.path / "extra").mkdir()
    (bundle.path / "extra" / "x.onnx").write_text("x")
    refused(bundle, r"does not list 'extra/x\.onnx'")
    (bundle.path / "tokenizer.json").unlink()
    refused(bundle, r"tokenizer\.json: it is missing")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "no valid JSON"),
        (b"{", "no valid JSON"),
        (b"\xff\xfe", "no valid JSON"),
        (b"[]", "not the bundle.json of an edgeseg bundle"),
        (b'{"schema": "1"}', "not the bundle.json of an edgeseg bundle"),
        (b'{"schema": true}', "not the bundle.json of an edgeseg bundle"),
        (b'{"schema": 1, "schema": 1}', "a key is there twice"),
        (b'{"schema": 1, "recipe": NaN}', "no number of JSON"),
        (b'{"schema": 1, "recipe": 1e999}', "no finite number"),
        (b'{"schema": ' + b"9" * 5000 + b"}", "bundle.json"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"schema": 1, "recipe": ' + b"[" * 200 + b"]" * 200 + b"}", "nested too deeply"),
        (b" " * (LIMIT_BYTES + 1), "the most a bundle may need"),
    ],
)
def test_what_is_no_manifest_gives_one_line(bundle, content, found):
    (bundle.path / "bundle.json").write_bytes(content)
    assert found in refused(bundle)


@pytest.mark.parametrize(
    ("writer", "todo"), [("0.9.0", 'pip install "edgeseg>=0.9.0"'), ("1; rm -rf", "install a newer edgeseg")]
)
def test_a_newer_format_says_which_edgeseg_reads_it(bundle, writer, todo):
    rewrite(bundle.path, lambda value: value.update(schema=2, edgeseg=writer, new_key=1))
    assert refused(bundle, "format 2, and this edgeseg reads up to 1").endswith(todo)


CHANGES = {
    "graph twice": (lambda v: v["graphs"].append(v["graphs"][0]), "is there twice"),
    "canvas twice": (lambda v: v["canvases"].append([64, 64]), "is there twice"),
    "canvas of a graph": (lambda v: v["canvases"].pop(), "its canvas is not among canvases"),
    "negative canvas": (lambda v: v["canvases"].append([-1, 64]), "a side is not positive"),
    "precision": (lambda v: v["graphs"][0].update(precision="fp4"), "the precision is none of"),
    "dtype": (lambda v: v["graphs"][0]["inputs"][0].update(dtype="object"), "the dtype is none of"),
    "axis": (lambda v: v["graphs"][0]["inputs"][0].update(shape=[0]), "an axis is not positive"),
    "axis name": (lambda v: v["graphs"][0]["inputs"][0].update(shape=["C"]), "axes does not hold C"),
    "axis order": (lambda v: v["graphs"][0].update(axes={"C": [3, 2, 9]}), "do not ascend"),
    "weights elsewhere": (lambda v: v["graphs"][0].update(data=["tokenizer.json"]), "not in the folder of"),
    "graph unlisted": (lambda v: v["files"].pop("graphs/fp32/sam-64x64.onnx"), "files does not list"),
    "weights unlisted": (lambda v: v["files"].pop("graphs/fp32/sam.bin"), "files does not list"),
    "reference unlisted": (lambda v: v["files"].pop("reference/64x64-0.npz"), "files does not list"),
    "reference key": (lambda v: v["reference"].update({"1x1": []}), "there is no such canvas"),
    "sha": (lambda v: v["files"]["tokenizer.json"].update(sha256="00"), "no length and sha256"),
    "std": (lambda v: v["images"]["image_sam"].update(std=[1, 0, 1]), "std and scale must be positive"),
    "scale": (lambda v: v["images"]["image_sam"].update(scale=1e9), "std and scale must be positive"),
    "parameters": (lambda v: v["graphs"][0].update(parameters=-1), "parameters is negative"),
    "unknown key": (lambda v: v["graphs"][0].update(colour="red"), "unknown keys"),
}


@pytest.mark.parametrize(("change", "found"), CHANGES.values(), ids=CHANGES)
def test_parts_that_do_not_agree_are_refused(bundle, change, found):
    rewrite(bundle.path, change)
    assert found in refused(bundle)


def test_an_engine_of_no_graph_is_refused(bundle):
    spec = engine(graph("head"))
    value = {**vars(spec), "canvas": [64, 64], "data": [], "file": "tokenizer.json"}
    rewrite(bundle.path, lambda manifest: manifest.update(engines=[value]))
    refused(bundle, "there is no graph head, fp32, 64x64")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def places(value, path=()):
    """The path of every value inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in items for place in places(item, (*path, key)))]


def replaced(value, path, new):
    if not path:
        return new
    inner = replaced(value[path[0]], path[1:], new)
    if isinstance(value, dict):
        return {**value, path[0]: inner}
    return [inner if index == path[0] else item for index, item in enumerate(value)]


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), new=JSON)
def test_any_change_of_the_manifest_opens_or_gives_a_bundle_error(bundle, data, new):
    original = (bundle.path / "bundle.json").read_text()
    value = json.loads(original)
    changed = replaced(value, data.draw(st.sampled_from(places(value))), new)
    (bundle.path / "bundle.json").write_text(json.dumps(changed))
    with contextlib.suppress(BundleError):
        Bundle.open(bundle.path).verify()
    (bundle.path / "bundle.json").write_text(original)


@pytest.mark.parametrize("path", ["no.bundle", "file", "empty"])
def test_what_is_no_bundle_is_refused(tmp_path, path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BundleError, match="edgeseg export"):
        Bundle.open(tmp_path / path)


def test_a_hostile_interrupted_edit_touches_nothing_outside(bundle, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious").write_text("x")
    stage = bundle.path / ".stage-1"
    (stage / "new").mkdir(parents=True)
    (stage / "old").symlink_to(tmp_path / "outside")
    value = json.loads((bundle.path / "bundle.json").read_text())
    value["files"]["../outside/precious"] = value["files"]["tokenizer.json"]
    (stage / "bundle.json").write_text(json.dumps(value))
    refused(bundle, "no path of a file inside a bundle")
    del value["files"]["../outside/precious"]
    value["files"]["precious"] = value["files"]["tokenizer.json"]
    (stage / "bundle.json").write_text(json.dumps(value))
    Bundle.open(bundle.path).verify()
    assert tree(tmp_path / "outside") == {"precious": b"x"}


def test_a_folder_that_looks_like_a_stage_but_is_a_link_is_left_alone(bundle, tmp_path):
    (tmp_path / "outside" / "old").mkdir(parents=True)
    (tmp_path / "outside" / "old" / "tokenizer.json").write_text("x")
    (tmp_path / "outside" / "bundle.json").write_bytes((bundle.path / "bundle.json").read_bytes())
    (bundle.path / ".stage-1").symlink_to(tmp_path / "outside")
    before = tree(tmp_path / "outside")
    Bundle.open(bundle.path)
    with bundle.edit() as edit:
        add_graph(edit, graph("head"))
    assert tree(tmp_path / "outside") == before


def test_a_lock_that_is_a_link_is_not_followed(bundle, tmp_path):
    (bundle.path / ".lock").unlink(missing_ok=True)
    (bundle.path / ".lock").symlink_to(tmp_path / "outside")
    with pytest.raises(StorageError, match="a link is where a file should be"), bundle.edit():
        pass
    assert not (tmp_path / "outside").exists()
