"""Holds every name of TensorRT that the code uses against the list of each version that the code is for.

A name behind `getattr(x, "name", default)` or `hasattr(x, "name")` in the same function is a feature test, and free.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LISTS = {
    "8.6": "tensorrt-8.6.1",
    "10.0": "tensorrt-10.0.1",
    "10.3": "tensorrt-10.3.0",
    "10.7": "tensorrt-10.7.0",
    "10.13": "tensorrt-10.13.3.9",
    "10.16": "tensorrt-10.16.1.11",
    "11.0": "tensorrt-11.0.0.114",
    "11.4": "tensorrt-11.4.0.106",
    "rtx": "tensorrt_rtx-1.7.1",
}
FULL = tuple(version for version in LISTS if version != "rtx")
CODE = {
    "engines/trt_network.py": tuple(LISTS),
    "engines/progress.py": tuple(LISTS),
    "engines/legacy.py": ("8.6",),
    "engines/tensorrt.py": FULL,
    "engines/tensorrt_rtx.py": ("rtx",),
    "edgeseg/backends/trt_session.py": tuple(LISTS),
    "edgeseg/backends/trt_backend.py": tuple(LISTS),
    "edgeseg/backends/trt_compile.py": tuple(LISTS),
    "edgeseg/backends/tensorrt.py": FULL,
    "edgeseg/backends/tensorrt_rtx.py": ("rtx",),
}
CLASSES = {  # what a variable or attribute of this name holds in these files
    "builder": "Builder",
    "config": "IBuilderConfig",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "profile": "IOptimizationProfile",
    "layer": "ILayer",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "inspector": "EngineInspector",
}
UNLISTED = {"__version__", "float32"}  # the lists hold classes and enums; these are in every version
FUNCTIONS = (ast.FunctionDef, ast.Lambda)

Use = tuple[int, str, str]  # line, class or enum ("" for the module), name


def read_list(path: Path) -> dict[str, set[str]]:
    """Class or enum → its public names."""
    result = {}
    for line in path.read_text().splitlines():
        kind, _, rest = line.partition(" ")
        if kind in ("CLASS", "ENUM"):
            name, _, members = rest.partition(" :")
            result[name.strip()] = set(members.split())
    return result


def holder(node: ast.expr) -> str | None:
    """What an expression is by its last name: "" for the module `trt`, a class's name, or None for anything else."""
    if isinstance(node, ast.Attribute) and holder(node.value) == "" and node.attr[:1].isupper():
        return node.attr
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    name = name.removeprefix("_")
    return "" if name in ("trt", "tensorrt", "tensorrt_rtx") else CLASSES.get(name)


def feature_tests(tree: ast.AST) -> set[str]:
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    tests = [call for call in calls if ast.unparse(call.func) in ("getattr", "hasattr") and len(call.args) > 1]
    return {str(call.args[1].value) for call in tests if isinstance(call.args[1], ast.Constant)}


def uses(source: str) -> Iterator[Use]:
    """Every use of a name of TensorRT that is not behind a feature test in the same function."""
    tree = ast.parse(source)
    tested: dict[int, set[str]] = {}
    for function in ast.walk(tree):
        if isinstance(function, FUNCTIONS):
            tested |= dict.fromkeys(map(id, ast.walk(function)), feature_tests(function))
    for node in ast.walk(tree):
        owner = holder(node.value) if isinstance(node, ast.Attribute) else None
        if isinstance(node, ast.Attribute) and owner is not None and node.attr not in tested.get(id(node), ()):
            yield node.lineno, owner, node.attr


def missing(source: str, names: dict[str, set[str]]) -> list[Use]:
    def exists(owner: str, name: str) -> bool:
        known = names if owner == "" else names.get(owner, set())
        return name in known or name.startswith("__") or (owner == "" and name in UNLISTED)

    return [use for use in uses(source) if not exists(use[1], use[2])]


@pytest.fixture
def api(shared):
    return lambda version: read_list(shared / "reference" / "tensorrt_api" / f"{LISTS[version]}.txt")


@pytest.mark.parametrize(
    ("file", "version"), [(file, version) for file, versions in CODE.items() for version in versions]
)
def test_every_name_used_exists(api, file, version):
    assert missing((ROOT / file).read_text(), api(version)) == []


def test_the_code_is_read():
    found = {use[1:] for file in CODE for use in uses((ROOT / file).read_text())}
    assert {("Builder", "build_serialized_network"), ("BuilderFlag", "TF32"), ("", "OnnxParser")} <= found
    assert {("ICudaEngine", "get_tensor_name"), ("IExecutionContext", "execute_async_v3")} <= found


def test_every_file_that_uses_the_module_is_held():
    folders = [ROOT / "engines", ROOT / "edgeseg" / "backends"]
    files = [path for folder in folders for path in folder.rglob("*.py")]
    users = {str(path.relative_to(ROOT)) for path in files if uses_module(path)}
    assert users <= set(CODE)


def uses_module(path: Path) -> bool:
    return any(owner == "" for _, owner, _ in uses(path.read_text()))


@pytest.mark.parametrize(
    ("source", "version"),
    [
        ("def f(trt): return trt.BuilderFlag.FP16", "11.0"),
        ("def f(trt): return trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH", "rtx"),
        ("def f(trt): return trt.IProgressMonitor", "8.6"),
        ("def f(config): config.progress_monitor = None", "8.6"),
        ("def f(self): return self._engine.device_memory_size", "11.4"),
        ("def f(context): context.execute_async_v2(0)", "10.3"),
        ("def f(self): return self._sdk.trt.ComputeCapability", "10.3"),
    ],
)
def test_a_name_that_a_version_lacks_is_found(api, source, version):
    assert len(missing(source, api(version))) == 1


def test_a_feature_test_frees_its_name_in_its_function_only(api):
    free = "def f(config):\n if hasattr(config, 'progress_monitor'): config.progress_monitor = 1"
    other = "def g(config): config.progress_monitor = 1"
    assert missing(free, api("8.6")) == []
    assert missing(f"{free}\n{other}", api("8.6")) != []
