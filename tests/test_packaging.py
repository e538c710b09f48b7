"""What the wheel holds: every package and data file on disk, the licence, and one version number."""

import fnmatch
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import edgeseg

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
NOT_IN_THE_WHEEL = ["benches/peers", "training"]


def packages_on_disk(root: Path, mapping: dict[str, str]) -> set[str]:
    """Names of all folders with an `__init__.py` under the mapped root folders."""
    return {
        ".".join((name, *marker.parent.relative_to(root / folder).parts))
        for name, folder in mapping.items()
        for marker in (root / folder).rglob("__init__.py")
        if not any(marker.is_relative_to(root / outside) for outside in NOT_IN_THE_WHEEL)
    }


def folders_without_marker(root: Path, mapping: dict[str, str]) -> set[str]:
    """Folders under the mapped ones that hold Python files and would still be left out of the wheel."""
    return {
        source.parent.relative_to(root).as_posix()
        for folder in mapping.values()
        for source in (root / folder).rglob("*.py")
        if not (source.parent / "__init__.py").exists()
        and not any(source.is_relative_to(root / outside) for outside in NOT_IN_THE_WHEEL)
    }


def released_version(changelog: str) -> str:
    found = re.search(r"^## \[(\d[^\]]*)\]", changelog, re.MULTILINE)
    assert found, "CHANGELOG.md has no '## [version]' heading"
    return found[1]


def test_every_package_on_disk_is_listed():
    assert set(SETUPTOOLS["packages"]) == packages_on_disk(ROOT, SETUPTOOLS["package-dir"])


def test_every_folder_of_python_files_is_a_package():
    assert folders_without_marker(ROOT, SETUPTOOLS["package-dir"]) == set()


def test_an_unlisted_package_would_be_seen(tmp_path):
    for folder in ("export", "export/nets", "engines", "benches/peers"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "__init__.py").touch()
    (tmp_path / "engines/native").mkdir()
    (tmp_path / "engines/native/build.py").touch()
    mapping = {"edgeseg.export": "export", "edgeseg.engines": "engines"}
    assert packages_on_disk(tmp_path, mapping) == {"edgeseg.export", "edgeseg.export.nets", "edgeseg.engines"}
    assert folders_without_marker(tmp_path, mapping) == {"engines/native"}


def test_the_version_is_the_changelogs_newest():
    assert edgeseg.__version__ == released_version((ROOT / "CHANGELOG.md").read_text())


def test_the_changelogs_newest_version_is_the_first_heading():
    assert released_version("# Changelog\n\n## [0.2.0] - unreleased\n\n## [0.1.0] - 2026-01-01\n") == "0.2.0"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> list[str]:
    """Names in a wheel built from a copy of what git would carry."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(out), str(source)]
    subprocess.run(command, capture_output=True, check=True)
    (path,) = out.glob("*.whl")
    return zipfile.ZipFile(path).namelist()


def test_the_wheel_holds_every_module_under_its_installed_name(wheel):
    for name, folder in SETUPTOOLS["package-dir"].items():
        for source in (ROOT / folder).rglob("*.py"):
            if not any(source.is_relative_to(ROOT / outside) for outside in NOT_IN_THE_WHEEL):
                assert f"{name.replace('.', '/')}/{source.relative_to(ROOT / folder).as_posix()}" in wheel


def test_the_wheel_holds_the_data_files(wheel):
    data = [f"edgeseg/data/{path.name}" for path in (ROOT / "edgeseg/data").iterdir() if path.suffix not in (".py", "")]
    recipes = [f"edgeseg/export/recipes/{path.name}" for path in (ROOT / "export/recipes").glob("*.toml")]
    maps = [f"edgeseg/benches/data/{path.name}" for path in (ROOT / "benches/data").iterdir()]
    assert {"edgeseg/py.typed", *data, *recipes, *maps} <= set(wheel)
    assert fnmatch.filter(wheel, "edgeseg-*.dist-info/licenses/LICENSE")


def test_the_wheel_holds_nothing_else(wheel):
    assert [name for name in wheel if not name.startswith(("edgeseg/", "edgeseg-"))] == []
    assert not fnmatch.filter(wheel, "*tests*") + fnmatch.filter(wheel, "*peers*")
