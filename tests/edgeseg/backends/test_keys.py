import pytest

from edgeseg.backends import keys
from edgeseg.backends.jetson import jetson_hint


@pytest.mark.parametrize(
    ("sdk", "version", "key"),
    [
        ("trt", "10.3.0", "sm87-trt10.3.0"),
        ("trt", "10.13.3.9", "sm87-trt10.13.3"),
        ("trt", "8.6.1.post1", "sm87-trt8.6.1"),
        ("rtx", "1.7.1.116", "sm87-rtx1.7.1"),
    ],
)
def test_a_key_names_the_architecture_and_three_parts_of_the_version(sdk, version, key):
    assert keys.device_key([keys.target((8, 7))], sdk, version) == key


def test_a_key_of_several_targets_joins_them():
    assert keys.device_key(["sm86", "sm89"], "rtx", "1.7.1") == "sm86+sm89-rtx1.7.1"


def test_a_version_without_a_number_is_refused():
    with pytest.raises(ValueError, match="not a version"):
        keys.device_key(["sm86"], "rtx", "unknown")


@pytest.mark.parametrize(
    ("engine", "machine", "fits"),
    [
        ("sm87-trt10.3.0", "sm87-trt10.3.0", True),
        ("sm87-trt10.3.0", "sm87-trt10.7.0", False),
        ("sm86-trt10.3.0", "sm87-trt10.3.0", False),
        ("sm87-trt1.7.1", "sm87-rtx1.7.1", False),
        ("sm86+sm89-rtx1.7.1", "sm89-rtx1.7.1", True),
        ("sm86+sm89-rtx1.7.1", "sm86-rtx1.7.1", True),
        ("sm86+sm89-rtx1.7.1", "sm8-rtx1.7.1", False),
        ("sm120-rtx1.7.1", "sm12-rtx1.7.1", False),
        ("cpu-x86_64", "cpu-x86_64", True),
        ("cpu-x86_64", "cpu-aarch64", False),
    ],
)
def test_an_engine_matches_a_machine_of_its_targets_and_version(engine, machine, fits):
    assert keys.matches(engine, machine) is fits


def test_the_rebuild_command_names_the_bundle_that_holds_the_engine(tmp_path):
    bundle = tmp_path / "my eb.bundle"
    (bundle / "engines/tensorrt-sm87-trt10.3.0/fp16").mkdir(parents=True)
    (bundle / "bundle.json").write_text("{}")
    engine = bundle / "engines/tensorrt-sm87-trt10.3.0/fp16/sam-640x640.engine"
    command = keys.rebuild_command(engine, "tensorrt", "fp16")
    assert command == f"edgeseg build '{bundle}' --backend tensorrt --precision fp16"


def test_the_rebuild_command_of_a_loose_engine_leaves_the_bundle_open(tmp_path):
    command = keys.rebuild_command(tmp_path / "a.engine", "tensorrt_rtx", "int8")
    assert command == "edgeseg build BUNDLE --backend tensorrt_rtx --precision int8"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("# R36 (release), REVISION: 4.0, GCID: 1, BOARD: generic", "36.4.0, JetPack 6: make the virtual environment"),
        ("# R35 (release), REVISION: 4.1, GCID: 1", "JetPack 5: its Python is older"),
        ("# R99 (release), REVISION: 1.0", "Jetson Linux 99.1.0: make"),
        ("something else", "Jetson Linux: make"),
    ],
)
def test_a_jetson_gets_advice_for_its_jetpack(tmp_path, text, words):
    (tmp_path / "release").write_text(text)
    assert words in str(jetson_hint(tmp_path / "release"))


def test_any_other_machine_gets_no_jetson_advice(tmp_path):
    assert jetson_hint(tmp_path / "absent") is None
