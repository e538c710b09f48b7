"""Reads one Python file's source text and reports what breaks the house rules: who imports what, how long things are.

The table is the one in CONTRIBUTING.md: the tree is the pipeline, and the stages do not know each other.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import PurePosixPath

CORE = {"numpy", "PIL", "click", "rich", "tokenizers"}
GRAPHS = {"onnx", "onnx_graphsurgeon", "onnxruntime"}
STAGES = ("export", "calibration", "engines", "benches")
MAY_IMPORT = {
    "edgeseg": CORE,
    "export": CORE | GRAPHS | {"torch", "safetensors", "huggingface_hub", "open_clip", "segment_anything", "tomli"},
    "calibration": CORE | GRAPHS,
    "engines": CORE | GRAPHS | {"tensorrt", "tensorrt_rtx", "polygraphy"},
    "benches": CORE | {"onnx", "ray"},
    "training": CORE | {"torch", "safetensors"},
}
ALSO_STAGE = {"training": {"export", "benches"}}  # the one folder that may use stages by name; it is not in the wheel
SDK_FILES = {
    "edgeseg/backends/onnxruntime": "onnxruntime",
    "edgeseg/backends/tensorrt": "tensorrt",
    "edgeseg/backends/tensorrt_rtx": "tensorrt_rtx",
    "edgeseg/backends/cuda/cuda_python": "cuda",
    "edgeseg/backends/cuda/pycuda": "pycuda",
}
FREE = "benches/peers/"  # scripts that run other projects' code; not in the wheel
STAGE_NAME = re.compile(rf"edgeseg\.({'|'.join(STAGES)})(\.\w+)*(:\w+)?")
VERB_TABLE = "edgeseg/cli/__init__.py"  # the one place that names the stages, as strings
STANDARD = sys.stdlib_module_names | {"tomllib"}  # tomllib: from 3.11; on 3.10 tomli stands in

FILE_LINES, FUNCTION_LINES, POSITIONAL = 299, 60, 5


def findings(source: str, path: str) -> list[str]:
    """What is wrong with the file `path` (posix, relative to the repository's root), one sentence each."""
    tree = ast.parse(source)
    found = [f"{path}: {len(source.splitlines())} lines"] if len(source.splitlines()) > FILE_LINES else []
    found += [
        f"{path}:{getattr(node, 'lineno', 0)}: {text}" for node in ast.walk(tree) for text in _function(node, path)
    ]
    top = path.split("/")[0]
    if top in MAY_IMPORT and not path.startswith(FREE):
        found += [f"{path}:{line}: {text}" for line, text in _imports(tree, path, top)]
    return list(dict.fromkeys(found))  # a literal in import_module("...") is met twice


def _function(node: ast.AST, path: str) -> Iterator[str]:
    if isinstance(node, ast.ExceptHandler):
        broad = node.type is None or (
            isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException")
        )
        if broad and all(isinstance(statement, ast.Pass) for statement in node.body):
            yield "swallows every error"
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return
    length = (node.end_lineno or node.lineno) - node.lineno + 1
    if length > FUNCTION_LINES:
        yield f"{node.name} has {length} lines, at most {FUNCTION_LINES} are allowed"
    # `forward` takes a graph's inputs, however many those are; a test takes its fixtures.
    names = [a.arg for a in (*node.args.posonlyargs, *node.args.args) if a.arg not in ("self", "cls")]
    if len(names) > POSITIONAL and node.name != "forward" and not path.startswith("tests/"):
        yield f"{node.name} has {len(names)} positional parameters, at most {POSITIONAL} are allowed"


def _imports(tree: ast.Module, path: str, top: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        for name, relative in _named(node, path):
            problem = _problem(name, relative, path, top)
            if problem:
                yield getattr(node, "lineno", 0), problem


def _named(node: ast.AST, path: str) -> Iterator[tuple[str, bool]]:
    """(full module name, written as a relative import) of everything that a node imports; a name is resolved."""
    if isinstance(node, ast.Import):
        yield from ((alias.name, False) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = _resolve(node, path)
        yield base, node.level > 0
        yield from ((f"{base}.{alias.name}", node.level > 0) for alias in node.names if base == "edgeseg")
    elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
        literal = node.args[0] if node.args else None
        if isinstance(literal, ast.Constant) and isinstance(literal.value, str):
            yield literal.value, False
    elif isinstance(node, ast.Constant) and path != VERB_TABLE and STAGE_NAME.fullmatch(str(node.value)):
        yield str(node.value).split(":")[0], True  # its own name is a stage's to say, for its data files


def _resolve(node: ast.ImportFrom, path: str) -> str:
    if node.level == 0:
        return node.module or ""
    folder = PurePosixPath(path).parent.parts
    package = folder if folder[0] == "edgeseg" else ("edgeseg", *folder)
    kept = package[: max(len(package) - node.level + 1, 0)]
    return ".".join((*kept, node.module) if node.module else kept)


def _problem(name: str, relative: bool, path: str, top: str) -> str | None:
    first, _, rest = name.partition(".")
    second = rest.split(".")[0]
    if first == "edgeseg":
        if second == top:
            return None if relative else f"imports {name}; inside a stage imports are relative"
        if second not in STAGES:
            return f"reaches {name} by a relative import, say edgeseg.*" if relative and top != "edgeseg" else None
        return None if second in ALSO_STAGE.get(top, ()) else f"imports {name}, another stage"
    if first in STAGES:
        return f"imports {name}, a stage by its folder's name"
    if first in STANDARD or first in MAY_IMPORT[top] or SDK_FILES.get(_backend(path)) == first:
        return None
    return f"imports {name}, which {top}/ may not"


def _backend(path: str) -> str:
    """`edgeseg/backends/tensorrt.py` and `edgeseg/backends/tensorrt/engine.py` as `edgeseg/backends/tensorrt`."""
    bare = path.removesuffix(".py")
    return next((key for key in SDK_FILES if bare == key or bare.startswith(f"{key}/")), bare)
