"""The command line: the table of verbs, one line per error, exit codes, and nothing imported before it is needed."""

import errno
import subprocess
import sys

import click
import pytest

import edgeseg
from edgeseg import cli, errors
from edgeseg.cli import VERBS, main

TOO_HEAVY = ("numpy", "rich", "PIL", "torch", "onnx", "onnxruntime", "tensorrt")


@pytest.fixture
def verb(monkeypatch):
    """Gives the verb `inspect` a body: a function without arguments."""

    def install(body):
        command = click.Command("inspect", callback=body)
        monkeypatch.setattr(cli.VerbGroup, "get_command", lambda self, context, name: command)

    return install


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_help_lists_every_verb_with_a_line(capsys):
    assert main(["--help"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    for name, (_, text) in VERBS.items():
        assert [name, *text.split()] in lines


def test_help_fits_into_eighty_columns(capsys):
    main(["--help"])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


@pytest.mark.parametrize("words", [["--help"], ["--version"], [], ["no-such-verb"]])
def test_no_verb_is_imported_before_it_is_invoked(words):
    code = f"import sys; from edgeseg.cli import main; main({words!r}); print('loaded', "
    code += f"[name for name in sys.modules if name.startswith('edgeseg.cli.') or name in {TOO_HEAVY}])"
    assert python(code).stdout.splitlines()[-1] == "loaded []"


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"edgeseg {edgeseg.__version__}\n"


def test_python_dash_m_is_the_same_command():
    process = subprocess.run([sys.executable, "-m", "edgeseg", "nothing"], capture_output=True, text=True, check=False)
    assert process.returncode == 2
    assert "there is no command 'nothing'; there are export, quantize" in process.stderr


@pytest.mark.parametrize("name", ["inspect", "pack"])
def test_help_of_a_verb(name, capsys):
    assert main([name, "--help"]) == 0
    assert "BUNDLE" in capsys.readouterr().out


@pytest.mark.parametrize("name", VERBS)
def test_verb_table_names_functions_in_modules_of_the_package(name):
    module, _, attribute = VERBS[name][0].partition(":")
    assert module.startswith("edgeseg.")
    assert attribute == name


@pytest.mark.parametrize("kind", [errors.EdgesegError, *errors.EdgesegError.__subclasses__()])
def test_an_error_is_one_line_and_its_exit_code(verb, kind, capsys):
    def fail():
        raise kind("read a\nb", "it is \x1b[2Jbroken", "mend it")

    verb(fail)
    assert main(["inspect"]) == kind.exit_code
    assert capsys.readouterr().err == "edgeseg: cannot read a b: it is ?[2Jbroken; mend it\n"


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(errno.ENOSPC, "x", "/out/a.png"), 9, "the disk is full (/out/a.png); free some space"),
        (OSError(errno.EACCES, "x", "/out/a.png"), 9, "permission is denied (/out/a.png)"),
        (click.UsageError("no such option"), 2, "no such option"),
        (ZeroDivisionError("x"), 1, "internal error: ZeroDivisionError: x; this is a fault of edgeseg"),
        (ModuleNotFoundError("x", name="torch.nn"), 1, 'torch is not installed; pip install "edgeseg[host]"'),
        (ModuleNotFoundError("x", name="onnxruntime"), 1, 'pip install "edgeseg[onnxruntime]"'),
        (ModuleNotFoundError("x", name="edgeseg.export"), 1, 'is not installed; pip install "edgeseg[host]"'),
        (ModuleNotFoundError("x", name="edgeseg.no"), 1, "internal error"),
    ],
)
def test_other_errors_are_one_line_too(verb, error, code, text, capsys):
    def fail():
        raise error

    verb(fail)
    assert main(["inspect"]) == code
    captured = capsys.readouterr()
    assert text in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_debug_shows_the_traceback(verb, capsys):
    def fail():
        raise errors.BundleError("a", "b", "c")

    verb(fail)
    assert main(["--debug", "inspect"]) == 5
    assert "Traceback" in capsys.readouterr().err


def test_a_verb_that_ends_well_exits_with_0(verb, capsys):
    verb(lambda: click.echo("done"))
    assert main(["inspect"]) == 0
    assert capsys.readouterr().out == "done\n"


def test_a_pipe_whose_reader_has_gone_gives_no_traceback():
    command = f"(sleep 0.3; {sys.executable} -m edgeseg --help) | true"
    process = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert process.stderr == ""


def test_public_names_are_those_of_the_package():
    assert set(edgeseg.__all__) <= set(dir(edgeseg))
    assert edgeseg.Bundle.__module__ == "edgeseg.bundle.bundle"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = edgeseg.nothing


@pytest.mark.parametrize("name", edgeseg.__all__)
def test_public_name_is_there(name):
    assert getattr(edgeseg, name)
