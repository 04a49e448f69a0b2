"""python -m cgn export TRACK/VARIANT: a classifier or a generator as one ONNX file, which is compared with torch first.

    python -m cgn export imagenet/miniature --classifier DIR --data DIR --onnx FILE
    python -m cgn export mnist/digits --model DIR --onnx FILE

The batch is dynamic, the opset fixed. What the inputs and outputs are, the classes and the SHA-256 of the weights are
in the file's metadata. Equal weights give equal bytes for one version of torch. ONNX Runtime answers for real test
images, or for random causes of a generator, what torch answers, or the file is refused.
"""

import argparse
import io
import logging
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from cgn.core.devices import limit_threads
from cgn.core.errors import ArtifactError, ConfigError
from cgn.core.files import replacing

OPSET = 18
PREFIX = "cgn."
"""Of this project's keys in a file's metadata."""
TRACED, COMPARED = 2, 64
"""Images with which the graph is traced, and the most with which it is compared."""
LIMIT = 1e-3
"""The largest difference from torch of an output, relative to the largest output (at least 1)."""
INSTALL = "run the command by `uv run --group publish`"


def export(argv: Sequence[str]) -> None:
    """Write one network as ONNX. Raises ConfigError and ArtifactError for what a user can fix."""
    parser = argparse.ArgumentParser(prog="python -m cgn export", description=export.__doc__)
    parser.add_argument("target", metavar="TRACK/VARIANT", help="for example imagenet/miniature")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--classifier", type=Path, metavar="DIR", help="a folder that train_classifier wrote")
    source.add_argument("--model", type=Path, metavar="DIR", help="the folder that train_cgn wrote: its generator")
    parser.add_argument("--data", type=Path, metavar="DIR", help="the folder that prepare wrote, for --classifier")
    parser.add_argument("--onnx", type=Path, metavar="FILE", required=True, help="the file to write")
    given = parser.parse_args(argv)
    track, _, variant = given.target.partition("/")
    if track not in ("mnist", "imagenet") or not variant:
        raise ConfigError(f"{given.target} is not TRACK/VARIANT, such as imagenet/miniature; tracks: mnist, imagenet")
    if given.classifier and not given.data:
        raise ConfigError("--classifier needs --data, the folder that prepare wrote: its test images are compared")
    require_installed()
    refuse_foreign_file(given.onnx)
    limit_threads()
    from cgn.publish import graphs

    named: dict[str, Any] = {"track": track, "variant": variant, "count": COMPARED}
    if given.classifier:
        graph = graphs.classifier_graph(given.classifier, data=given.data, **named)
    else:
        graph = graphs.generator_graph(given.model, **named)
    content = to_onnx(graph)
    compare(content, graph)
    with replacing(given.onnx) as temporary:
        temporary.write_bytes(content)
    print(f"{given.onnx}: {len(content):,} bytes, opset {OPSET}, inputs {', '.join(graph.inputs)}", flush=True)


def require_installed() -> None:
    """Raise ConfigError with the command where ONNX or its runtime are not installed."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"{error.name} is not installed here; {INSTALL}") from None


def refuse_foreign_file(path: Path) -> None:
    """Raise ArtifactError for what exists and is no file that this command wrote."""
    import onnx

    if not path.exists():
        return
    try:
        ours = any(entry.key == f"{PREFIX}kind" for entry in onnx.load(path, load_external_data=False).metadata_props)
    except Exception:  # a folder, a text, half a file: onnx has no error of its own
        ours = False
    if not ours:
        raise ArtifactError(f"{path} exists and is no file that this command wrote: nothing was touched; move it")


def to_onnx(graph: Any) -> bytes:
    """A `cgn.publish.graphs.Graph` as the bytes of an ONNX file."""
    import torch

    traced = tuple(tensor[:TRACED] for tensor in graph.inputs.values())
    if (graph.metadata["track"], graph.metadata["kind"]) == ("imagenet", "generator"):
        return _cleaned(_traced(graph, traced), graph)
    sizes: Any = tuple({0: torch.export.Dim.DYNAMIC} for _ in traced)
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")  # torch's own exporter uses what torch has deprecated
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        try:
            program = torch.onnx.export(
                graph.module,
                traced,
                dynamo=True,
                opset_version=OPSET,
                input_names=list(graph.inputs),
                output_names=graph.outputs,
                dynamic_shapes=sizes if graph.inputs.keys() == {"images"} else (sizes,),
                external_data=False,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            reason = [line for line in str(error).splitlines() if line][-2:]
            raise ArtifactError(f"torch cannot write this network as ONNX with a dynamic batch: {reason}") from None
    assert program is not None
    return _cleaned(program.model_proto, graph)


def _traced(graph: Any, inputs: tuple[Any, ...]) -> Any:
    """By torch's older exporter: the newer one takes minutes for three BigGANs and a saliency net.

    A size that became a constant in tracing shows in `compare`, which runs another batch than the traced one.
    """
    import onnx
    import torch

    buffer: Any = io.BytesIO()  # typed as a path, and takes a file
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # torch calls it deprecated, and warns of each size that is read as a number
        torch.onnx.export(
            graph.module,
            inputs,
            buffer,
            dynamo=False,
            opset_version=OPSET,
            input_names=list(graph.inputs),
            output_names=graph.outputs,
            dynamic_axes={name: {0: "batch"} for name in (*graph.inputs, *graph.outputs)},
        )
    return onnx.load_from_string(buffer.getvalue())


def _cleaned(proto: Any, graph: Any) -> bytes:
    """The file's bytes: without what torch notes of this machine, with the graph's metadata."""
    for entry in (*proto.graph.node, *proto.graph.value_info, *proto.graph.input, *proto.graph.output):
        del entry.metadata_props[:]  # stack traces with the paths of this machine
    del proto.metadata_props[:], proto.graph.metadata_props[:]
    proto.producer_name, proto.graph.name = "cgn", graph.metadata["kind"]
    for key, value in sorted(graph.metadata.items()):
        proto.metadata_props.add(key=f"{PREFIX}{key}", value=value)
    content: bytes = proto.SerializeToString(deterministic=True)
    return content


def compare(content: bytes, graph: Any) -> None:
    """Print the largest difference between ONNX Runtime and torch. Raises ArtifactError above LIMIT."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    try:
        answers = session.run(graph.outputs, {name: tensor.numpy() for name, tensor in graph.inputs.items()})
    except onnxruntime.capi.onnxruntime_pybind11_state.Fail as error:
        reason = str(error).strip().splitlines()[0]
        raise ArtifactError(f"ONNX Runtime cannot run the network: {reason}: the file was not written") from None
    count, worst = len(next(iter(graph.inputs.values()))), 0.0
    for name, answer in zip(graph.outputs, answers, strict=True):
        expected = graph.expected[name].numpy()
        difference = float(np.abs(answer - expected).max()) / max(1.0, float(np.abs(expected).max()))
        worst = max(worst, difference) if np.isfinite(difference) else float("inf")
    said = f"largest relative difference from torch on {count} inputs: {worst:.1e} (limit {LIMIT:.0e})"
    if not worst <= LIMIT:
        raise ArtifactError(f"ONNX Runtime answers otherwise, {said}: the file was not written")
    print(said, flush=True)
