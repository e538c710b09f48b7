"""docs/benchmarks.md and docs/json.md say what `edgeseg bench accuracy` does and prints."""

import json
import re
from pathlib import Path

import click
import pytest

from edgeseg.benches.cli import COMMANDS, BenchGroup, bench
from edgeseg.benches.datasets import DATASETS
from edgeseg.benches.datasets.table import ROWS
from edgeseg.cli import main
from tests.test_docs import cells, keys, section

PAGE = (Path(__file__).resolve().parents[2] / "docs/benchmarks.md").read_text()


def test_every_data_set_is_documented_with_its_layouts():
    rows = re.findall(r"^\| (`[^|]*`) \| (\w+) \|", section("benchmarks.md", "Data sets"), re.MULTILINE)
    found = [(name, layout) for names, layout in rows for name in re.findall(r"`(\w[\w-]*)`", names)]
    assert sorted(found) == sorted((name, layout.name) for name in DATASETS for layout in ROWS[name]().layouts)


def test_every_option_that_the_page_names_exists():
    commands = [BenchGroup("bench").get_command(click.Context(bench), name) for name in COMMANDS]
    options = {name for command in commands if command for option in command.params for name in option.opts}
    assert set(re.findall(r"(--[a-z][a-z-]*)", PAGE)) <= options | {"--no-overlay"}


@pytest.mark.onnx
def test_every_key_of_the_result_is_documented(tiny_path, folder, capsys):
    words = [
        "bench",
        "accuracy",
        str(tiny_path),
        "--dataset",
        "folder",
        "--root",
        str(folder),
        "--limit",
        "1",
        "--json",
    ]
    text = section("json.md", "edgeseg bench accuracy")
    assert main(words) == 0
    body = json.loads(capsys.readouterr().out)
    top, rest = text.split("A class:")
    class_table = rest.split("With `--against`")[0]
    assert keys(top) == [key for key in body if key not in ("schema", "command", "date", "environment")]
    assert keys(class_table) == list(body["classes"][0])
    row = dict((tuple(names), second) for names, second in cells(top))
    assert re.findall(r"`(\w+)`", row[("dataset",)]) == list(body["dataset"])
    assert re.findall(r"`(\w+)`", row[("scores",)]) == list(body["scores"]["mmseg"])
    assert re.findall(r"`(\w+)`", row[("worst_image",)]) == list(body["worst_image"])
    assert main([*words, "--against", "precision=fp32"]) == 0
    other, against = json.loads(capsys.readouterr().out), rest.split("With `--against`")[1]
    assert set(re.findall(r"`(\w+)`", against)) >= {*other["against"], *other["classes"][0], *other} - set(body)
