"""One ONNX graph through the compiler of TensorRT (8.6 to 11) or TensorRT-RTX.

The module is an argument, and what it can do is asked of it by name: never its version, never an enum's integer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeseg.errors import BuildError
from edgeseg.schema import GraphSpec, TensorSpec

from . import layers, legacy
from .progress import Advance, deferred_interrupt, monitor


@dataclass(frozen=True)
class Options:
    """How to compile.

    Attributes:
        memory_limit_bytes: most scratch memory an engine may use; None leaves it to the SDK.
        adjust: what one SDK alone does to the builder's configuration (TensorRT-RTX: its targets).
        timing_cache: measurements of earlier builds, b"" to start some, None where the SDK keeps none (RTX).
        inspect: read the finished engine on this machine's GPU for its layers.
    """

    memory_limit_bytes: int | None = None
    adjust: Callable[[Any], None] | None = None
    timing_cache: bytes | None = None
    inspect: bool = False


@dataclass(frozen=True)
class Compiled:
    """An engine as bytes (`plan`, a buffer), its layers, and the timing cache to keep (None: nothing to keep)."""

    plan: Any
    layers: list[layers.Layer]
    timing_cache: bytes | None


def compile_graph(trt: Any, graph: Path, spec: GraphSpec, options: Options, advance: Advance) -> Compiled:
    """Compile one graph file, whose weights lie beside it.

    Raises:
        BuildError: the parser or the compiler refuses it, with all they said.
        KeyboardInterrupt: Ctrl-C was pressed; raised when the compiler has stopped.
    """
    log = _log(trt)
    builder = trt.Builder(log)
    network = builder.create_network(network_flags(trt))
    parser = parse(trt, network, graph, log)
    config = configure(trt, builder, network, spec, options)
    with deferred_interrupt() as interrupt:
        watcher = monitor(trt, advance, interrupt)
        if watcher is not None and hasattr(config, "progress_monitor"):
            config.progress_monitor = watcher
        plan = builder.build_serialized_network(network, config)
    del parser  # it owns the weights, which the network only refers to, until the engine is built
    if plan is None:
        raise BuildError(
            f"compile {graph.name}",
            _complaints(log),
            "report this with the name of the bundle, or use --backend onnxruntime",
        )
    cache = None if options.timing_cache is None else bytes(config.get_timing_cache().serialize())
    return Compiled(plan, read_layers(trt, plan, log, options.inspect), cache)


def network_flags(trt: Any) -> int:
    """Bits for `create_network`: precision is in the graph, and the batch is a dimension, where that is a choice."""
    kinds = trt.NetworkDefinitionCreationFlag
    wanted = [getattr(kinds, name, None) for name in ("EXPLICIT_BATCH", "STRONGLY_TYPED")]
    return sum(1 << int(flag) for flag in wanted if flag is not None)


def parse(trt: Any, network: Any, graph: Path, log: Any) -> Any:
    """Read an ONNX file into a network; returns the parser, which must outlive the build."""
    parser = trt.OnnxParser(network, log)
    if parser.parse_from_file(str(graph)):
        return parser
    errors = [_error_text(parser.get_error(index)) for index in range(parser.num_errors)]
    raise BuildError(f"parse {graph.name}", "; ".join(errors), "export again, or report the nodes that are named")


def _error_text(error: Any) -> str:
    name = getattr(error, "node_name", None)  # since TensorRT 10
    node = f"{getattr(error, 'node_operator', lambda: '')()} {name()}" if name else f"node {error.node()}"
    return f"{node.strip()}: {error.desc()}"


def configure(trt: Any, builder: Any, network: Any, spec: GraphSpec, options: Options) -> Any:
    """The builder's configuration for one graph."""
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.clear_flag(trt.BuilderFlag.TF32)  # fp32 in a graph is there because ten bits of mantissa are too few
    if options.memory_limit_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.memory_limit_bytes)
    if options.adjust is not None:
        options.adjust(config)
    if options.timing_cache is not None:
        _set_timing_cache(config, options.timing_cache)
    if spec.axes:
        config.add_optimization_profile(_profile(builder, spec))
    if spec.precision in legacy.REDUCED and legacy.is_legacy(trt):
        legacy.allow_reduced(trt, network, config, spec.precision)
    return config


def _set_timing_cache(config: Any, earlier: bytes) -> None:
    if not config.set_timing_cache(config.create_timing_cache(earlier), False):  # made on another model of GPU
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _profile(builder: Any, spec: GraphSpec) -> Any:
    profile = builder.create_optimization_profile()
    for tensor in spec.inputs:
        if any(isinstance(axis, str) for axis in tensor.shape):
            profile.set_shape(tensor.name, *(_extent(tensor, spec, which) for which in range(3)))
    return profile


def _extent(tensor: TensorSpec, spec: GraphSpec, which: int) -> tuple[int, ...]:
    """The shape with each dynamic axis at its smallest (0), usual (1) or largest (2) extent."""
    return tuple(spec.axes[axis][which] if isinstance(axis, str) else axis for axis in tensor.shape)


def read_layers(trt: Any, plan: Any, log: Any, inspect: bool) -> list[layers.Layer]:
    """The engine's layers, from the build log if it lists them, else from the engine itself if `inspect`."""
    dumps = [text for _, text in log.messages if text.startswith(layers.DUMP_START)]
    if dumps:
        return layers.parse_dump(dumps[-1])
    if not inspect:
        return []
    engine = trt.Runtime(log).deserialize_cuda_engine(plan)
    if engine is None:
        raise BuildError("read the engine just built", _complaints(log), "run `edgeseg doctor`")
    inspector = engine.create_engine_inspector()
    return layers.parse_inspector(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def _log(trt: Any) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc]  # the SDK's class is known only at run time
        """Keeps what the compiler says, verbose part included: it ends with the list of layers."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.messages: list[tuple[str, str]] = []

        def log(self, severity: Any, text: str) -> None:
            name = str(severity).rpartition(".")[2]
            if name != "VERBOSE" or text.startswith(layers.DUMP_START):
                self.messages.append((name, text))

    return Log()


def _complaints(log: Any) -> str:
    errors = [text for severity, text in log.messages if severity in ("ERROR", "INTERNAL_ERROR")]
    return "; ".join(errors) or "the compiler gave no reason"
