"""The reference pages in docs/ say what the code does: exit codes, keys of bundle.json, keys of --json."""

import dataclasses
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest

from edgeseg import errors, reference, schema
from edgeseg.backends.base import Probe
from edgeseg.backends.fake import FakeBackend
from edgeseg.bundle import Bundle
from edgeseg.bundle.summary import summary
from edgeseg.cli import run, verify
from edgeseg.environment import environment
from edgeseg.selection import Plan
from tests.edgeseg.small_bundle import add_engine, engine, make

DOCS = Path(__file__).resolve().parents[1] / "docs"
NOUNS = [kind for kind in vars(schema).values() if isinstance(kind, type) and dataclasses.is_dataclass(kind)]


def cells(text):
    """First cell of every row of the tables in a text, split into the names in backquotes, and the second cell."""
    rows = re.findall(r"^\| (.*?) \|(.*?)(?=\|)", text, re.MULTILINE)
    return [(re.findall(r"`(\w+)`", first) or [first], second.strip()) for first, second in rows]


def section(page, title):
    """The text under a heading, up to the next heading."""
    return re.split(rf"^#+ {title}\n", (DOCS / page).read_text(), maxsplit=1, flags=re.MULTILINE)[1].split("\n#")[0]


def keys(text):
    return [name for names, _ in cells(text) for name in names if name != "key"]


def test_exit_codes_are_those_of_the_errors():
    table = {first: second.strip("`") for (first,), second in cells((DOCS / "exit-codes.md").read_text())}
    kinds: list[type[errors.EdgesegError]] = [errors.EdgesegError, *errors.EdgesegError.__subclasses__()]
    expected = {str(kind.exit_code): kind.__name__ for kind in kinds}
    assert table == {"code": "exception", "0": "", "2": "", str(errors.INTERRUPTED): "", **expected}


@pytest.mark.parametrize("noun", NOUNS, ids=lambda noun: noun.__name__)
def test_every_key_of_the_manifest_is_documented(noun):
    assert keys(section("bundle.md", noun.__name__)) == [field.name for field in dataclasses.fields(noun)]


@pytest.mark.parametrize("noun", NOUNS, ids=lambda noun: noun.__name__)
def test_documented_defaults_are_those_of_the_code(noun):
    documented = {
        name for names, text in cells(section("bundle.md", noun.__name__)) for name in names if "default" in text
    }
    missing = dataclasses.MISSING
    assert documented == {
        field.name for field in dataclasses.fields(noun) if (field.default, field.default_factory) != (missing, missing)
    }


def test_every_key_of_the_environment_is_documented():
    assert keys(section("json.md", "environment")) == list(environment())


def test_every_key_of_inspect_is_documented(tmp_path):
    bundle = make(tmp_path / "a.bundle")
    with bundle.edit() as edit:
        add_engine(edit, engine(bundle.graph("sam", "fp16", (64, 64))))
        edit.stage("reports/auto.json").write_text("{}")
        edit.update(
            selections=(schema.Selection("fake", "fake", {}, (), schema.Gate(True, 1.0), {}, "reports/auto.json"),)
        )
    body = summary(Bundle.open(bundle.path))
    text = section("json.md", "edgeseg inspect")
    top, graph, built, selected = re.split(r"^A graph:|^An engine:|^A selection:", text, flags=re.MULTILINE)
    assert keys(top) == list(body)
    assert keys(graph) == list(body["graphs"][0])
    assert keys(built) == list(body["engines"][0])
    assert keys(selected) == list(body["selections"][0])


PLAN = Plan(FakeBackend(), 0, "fake", "fp32", (), {})


def printed(capsys):
    """The verb's own keys of what was printed."""
    return set(json.loads(capsys.readouterr().out)) - {"schema", "command", "date", "environment"}


def test_every_key_of_run_is_documented(capsys):
    job: Any = SimpleNamespace(segmenter=SimpleNamespace(plan=PLAN), done=[], failed=[])
    run._report(job, (), as_json=True)
    assert set(keys(section("json.md", "edgeseg run"))) == printed(capsys)


def test_every_key_of_verify_is_documented():
    top, tensor = section("json.md", "edgeseg verify").split("\nA tensor:\n")
    body = verify._body(PLAN, reference.Report(reference.Limits(0.9, 0.9), (), ()))
    assert set(keys(top)) == set(body)
    assert set(keys(tensor)) == {field.name for field in dataclasses.fields(reference.TensorCheck)}
    for noun in (reference.Limits, reference.LabelCheck):
        assert all(f"`{field.name}`" in top for field in dataclasses.fields(noun))


def test_every_key_of_doctor_is_documented():
    top, backend = section("json.md", "edgeseg doctor").split("\nA backend:\n")
    assert keys(top) == ["backends"]
    assert set(keys(backend)) == {"backend", *(field.name for field in dataclasses.fields(Probe))}


def test_every_option_of_run_is_documented():
    documented = set(re.findall(r"`(--?[a-z0-9-]+)", section("outputs.md", "What `edgeseg run` writes")))
    options = [param for param in run.run.params if isinstance(param, click.Option)]
    assert all(documented & {*param.opts, *param.secondary_opts} for param in options)
    assert documented <= {name for param in options for name in (*param.opts, *param.secondary_opts)}


def test_schema_history_ends_with_the_schema():
    rows = cells(section("bundle.md", "Schema history"))
    assert rows[-1][0] == [str(schema.SCHEMA)]
    assert re.findall(r"^    (\d+)   ", schema.__doc__ or "", re.MULTILINE)[-1] == str(schema.SCHEMA)
