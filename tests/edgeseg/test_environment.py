"""The environment that results and measurements carry."""

import json
import subprocess
import sys
from datetime import datetime, timezone
from importlib import metadata

import edgeseg
from edgeseg.environment import board, cpu_model, envelope, environment, package_versions


def test_environment_is_plain_json_with_versions_and_processor():
    found = json.loads(json.dumps(environment()))
    assert found["edgeseg"] == edgeseg.__version__
    assert found["cpu"]
    assert found["cores"] >= 1
    assert found["packages"]["numpy"]


def test_envelope_holds_schema_command_environment_and_the_body():
    found = envelope("inspect", size_bytes=3)
    assert (found["schema"], found["command"], found["size_bytes"]) == (1, "inspect", 3)
    assert found["environment"] == environment()


def test_envelope_says_when_it_was_made_in_utc():
    before = datetime.now(timezone.utc).replace(microsecond=0)
    found = datetime.strptime(envelope("inspect")["date"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    assert before <= found <= datetime.now(timezone.utc)


def test_packages_are_looked_up_once(monkeypatch):
    found = package_versions()
    monkeypatch.setattr(metadata, "version", None)
    assert package_versions() == found
    package_versions().clear()
    assert package_versions() == found


def test_asking_for_versions_imports_none_of_the_packages():
    code = "import sys, edgeseg.environment as e; e.environment(); print({'numpy', 'torch'} & set(sys.modules))"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout == "set()\n"


def test_processor_and_board_are_read_where_the_system_tells_them(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Cortex-A78AE\n")
    (tmp_path / "model").write_bytes(b"NVIDIA Jetson Orin Nano\0")
    assert cpu_model(tmp_path / "cpuinfo") == "Cortex-A78AE"
    assert board(tmp_path / "model") == "NVIDIA Jetson Orin Nano"


def test_processor_and_board_of_a_system_that_tells_nothing(tmp_path):
    assert cpu_model(tmp_path / "none")
    assert board(tmp_path / "none") is None
