"""imagenet evaluate_network: a published network, or your own of the same architecture, on the suites.

    python -m cgn evaluate_network imagenet/mini --network resnet50 --weights resnet50-0676ba61.pth \
        --data DATA --decisions OUT       # DATA holds cue_conflict/, imagenet9/, val/, stylized/ or imagenet_c/

The network is NAME or NAME@PREPARATION: one of torchvision's classification networks, and how pictures are prepared for
it (`cgn.data.recipes`), which may be left out for files that torchvision publishes. The file holds a state dict,
torchvision's own or one with the same keys, as timm's ResNets have: .pth, .pt, .bin of plain tensors, or .safetensors.
A network is called after its file. The parameters are those of evaluate, and what is written is the same.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cgn.config.imagenet.evaluate import Evaluate
from cgn.core.arguments import Input, Inputs, OptionalInput, Output
from cgn.core.devices import resolve_device
from cgn.core.errors import ArtifactError, ConfigError
from cgn.core.files import sha256
from cgn.core.machine import limit_threads
from cgn.core.metrics import MetricSink
from cgn.data.collection import Collection
from cgn.data.recipes import recipe
from cgn.imagenet.classifiers import Classifier, by_name
from cgn.imagenet.predict import predict_suites, write_evaluation
from cgn.imagenet.suites import ALL, HEADLINES, check_options, open_data
from cgn.nets.backbones import Plain, load_network, refuse_unknown
from cgn.nets.ensemble import BASELINE

COMPARED = HEADLINES
SECTION = "evaluate"
"""The section of params.yaml that it reads."""
SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")


def check(config: Evaluate, *, variant: str, suite: str, network: str, **_: Any) -> None:
    """Raise ConfigError for a suite, a corruption or a network that does not exist, before anything is written."""
    check_options(suite, corruptions=config.corruptions, variant=variant)
    refuse_unknown(network.partition("@")[0])


def evaluate_network(
    config: Evaluate,
    *,
    seed: int,
    variant: str,
    sink: MetricSink,
    network: str,
    weights: Inputs,
    data: Input,
    decisions: Output,
    assets: OptionalInput = None,
    suite: str = ALL,
) -> None:
    """Evaluate a network, with the weights of one file or of several, each a classifier of its own.

    `network`: NAME or NAME@PREPARATION; `weights`: files, or folders that hold one file each; `suite`, `assets` as in
    evaluate. Raises ConfigError for an unknown suite, corruption, network or preparation, ArtifactError for data or
    weights that are broken or do not fit each other.
    """
    limit_threads()
    check_options(suite, corruptions=config.corruptions, variant=variant)
    device = torch.device(resolve_device(config.accelerator))
    collection = open_data(data, variant=variant)
    networks = open_networks(weights, network=network, collection=collection, device=device)
    predictions = predict_suites(
        networks,
        collection,
        config=config,
        variant=variant,
        seed=seed,
        suite=suite,
        assets=assets,
        folder=decisions,
        sink=sink,
    )
    write_evaluation(predictions, networks, decisions, sink=sink)


def open_networks(
    paths: Sequence[Path], *, network: str, collection: Collection, device: torch.device
) -> dict[str, Classifier]:
    """File name -> network. Raises ArtifactError for two of a name, a broken file, or another number of classes."""
    return by_name([(path, _open(path, network, collection).to(device)) for path in paths])


def _open(path: Path, network: str, collection: Collection) -> Classifier:
    file = _weights_in(path)
    if not file.is_file():
        raise ArtifactError(f"{file} is missing: give the file of weights, or the folder that holds it alone")
    digest, (name, _, asked) = sha256(file), network.partition("@")
    refuse_unknown(name)
    chosen = recipe(name, asked=asked, digest=digest, file=file.name)
    net = load_network(name, file, classes=collection.classes, image_size=chosen.preparation.crop)
    if chosen.transform_input:
        net.transform_input = True  # type: ignore[assignment]
    if asked:
        _refuse_size(net, chosen.preparation.crop, network=network)
    return Classifier(
        name=file.stem,
        module=Plain(net, head=BASELINE[0]).eval(),
        preparation=chosen.preparation,
        metadata={
            "network": name,
            "recipe": chosen.name,
            "recipe_from": chosen.source,
            "preparation": chosen.preparation.facts | {"transform_input": chosen.transform_input},
            "file": file.name,
            "sha256": digest,
        },
    )


def _refuse_size(net: nn.Module, crop: int, *, network: str) -> None:
    """Raise ConfigError where the network cannot take pictures of the size that is asked for."""
    try:
        with torch.inference_mode():
            net(torch.zeros(1, 3, crop, crop))
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"--network {network}: it takes no pictures of {crop} pixels ({reason})") from None


def _weights_in(path: Path) -> Path:
    """The file itself, or the only file of weights in a folder."""
    if not path.is_dir():
        return path
    files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
    if len(files) != 1:
        raise ArtifactError(
            f"{path} holds {len(files)} files of weights ({', '.join(SUFFIXES)}): give one file, not the folder"
        )
    return files[0]
