"""imagenet evaluate_network: a published network, or your own of the same architecture, on the suites.

    python -m cgn evaluate_network imagenet/mini --network resnet50 --weights resnet50-0676ba61.pth \
        --data DATA --decisions OUT       # DATA holds cue_conflict/, imagenet9/, val/, stylized/ or imagenet_c/

The network is NAME or NAME@PREPARATION: one of torchvision's classification networks, and how pictures are prepared for
it (`cgn.imagenet.data.preprocessing`), which may be left out for files that torchvision publishes. The file holds a
state dict, torchvision's own or one with the same keys, as timm's ResNets have: .pth, .pt, .bin of plain tensors, or
.safetensors.
A network is called after its file. The parameters are those of evaluate. What is written is the same, and
figures besides, because no report follows: shape_bias-*.png and corruptions-*.png.

In Python, `evaluate_models` does the same with any torch module.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cgn.config.imagenet import Evaluate, Suite
from cgn.core.devices import limit_threads, resolve_device
from cgn.core.errors import ArtifactError, ConfigError
from cgn.core.fan_out import choose_workers
from cgn.core.files import sha256
from cgn.core.metrics import MetricSink
from cgn.core.parameters import Cluster, Input, Inputs, OptionalInput, Output, Speed
from cgn.core.validation import build
from cgn.evaluation.predictions import Predictions
from cgn.evaluation.suites import Numbers, numbers
from cgn.imagenet.classifiers import Classifier, by_name
from cgn.imagenet.data.prepared_sets import PreparedSets
from cgn.imagenet.data.preprocessing import Preparation, weights_preparation
from cgn.imagenet.evaluation.predict import predict_suites, write_evaluation
from cgn.imagenet.evaluation.suites import ALL, COMPARED_VALUES, check_options, open_data
from cgn.nets.classifiers import BASELINE, SingleHead, load_network, refuse_unknown
from cgn.report.figures import pictures

COMPARED = COMPARED_VALUES
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
    workers: Speed = 0,
    ray: Cluster = "",
) -> None:
    """Evaluate a network, with the weights of one file or of several, each a classifier of its own.

    `network`: NAME or NAME@PREPARATION; `weights`: files, or folders that hold one file each; `suite`, `assets`,
    `workers`, `ray`: as in evaluate. Raises ConfigError for an unknown suite, corruption, network or preparation,
    ArtifactError for data or weights that are broken or do not fit each other.
    """
    limit_threads()
    check_options(suite, corruptions=config.corruptions, variant=variant)
    chosen = choose_workers(config.accelerator, workers=workers, ray=ray, here=1)
    device = chosen.devices[0] if chosen.in_this_process else torch.device("cpu")
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
        workers=chosen,
        sink=sink,
    )
    for name, figure in pictures(predictions).items():
        figure.save(decisions / name)
        sink.picture(decisions / name)
    write_evaluation(predictions, networks, decisions, sink=sink)


def evaluate_models(
    models: nn.Module | Mapping[str, nn.Module],
    *,
    preparation: Preparation,
    data: Path,
    suites: Sequence[Suite] = ("clean", "in9", "cue_conflict", "stylized", "imagenet_c"),
    corruptions: Sequence[str] = (),
    corruption_images: int | None = None,
    assets: Path | None = None,
    batch_size: int = 64,
    workers: int = 0,
    accelerator: str = "auto",
    seed: int = 0,
) -> tuple[Predictions, Numbers]:
    """Evaluate any network on ImageNet's suites: its predictions, and their numbers by model, head and suite.

    `models`: one in eval mode, called "model", or several by name: images (B,3,crop,crop) as `preparation` makes them
    -> logits (B,K), or a mapping of heads to them. `data`: a folder that `prepare` wrote, or one that holds imagenet9/,
    cue_conflict/, val/, stylized/ or imagenet_c/ as their authors lay them out; suites that it lacks are left out.
    `corruptions`, `corruption_images`, `batch_size`, `workers`: as in params.yaml; `assets`: photographs of frost,
    where `data` has none; `seed`: of the corruptions. Raises ConfigError for a suite, a corruption or a model that
    cannot be evaluated, ArtifactError for broken or missing data.
    """
    collection = open_data(data)
    variant = str(collection.facts.get("variant", "benchmarks"))
    for suite in suites:
        check_options(suite, corruptions=corruptions, variant=variant)
    options = {"suites": list(suites), "corruptions": list(corruptions), "corruption_images": corruption_images}
    options |= {"batch_size": batch_size, "workers": workers, "accelerator": accelerator}
    config = build(Evaluate, options, key="evaluate_models")
    device = torch.device(resolve_device(accelerator))
    named = {"model": models} if isinstance(models, nn.Module) else models
    classifiers = {
        name: Classifier(name=name, module=module, preparation=preparation).to(device) for name, module in named.items()
    }
    for classifier in classifiers.values():
        _refuse_unfit(classifier, classes=collection.classes, device=device)
    predictions = predict_suites(classifiers, collection, config=config, variant=variant, seed=seed, assets=assets)
    return predictions, numbers(predictions)


def _refuse_unfit(classifier: Classifier, *, classes: int, device: torch.device) -> None:
    """Raise ConfigError for a module in training mode, or a head that does not answer with `classes` logits."""
    if classifier.module.training:
        raise ConfigError(f"{classifier.name} is in training mode: call eval() before it is evaluated")
    crop = classifier.preparation.crop
    with torch.inference_mode():
        answers = classifier(torch.zeros(1, 3, crop, crop, device=device))
    for head, logits in answers.items():
        if logits.shape != (1, classes):
            raise ConfigError(
                f"the head {head} of {classifier.name} answers an image with {tuple(logits.shape)}: expected "
                f"(1, {classes}), a logit for each class of the data"
            )


def open_networks(
    paths: Sequence[Path], *, network: str, collection: PreparedSets, device: torch.device
) -> dict[str, Classifier]:
    """File name -> network. Raises ArtifactError for two of a name, a broken file, or another number of classes."""
    return by_name([(path, _open(path, network, collection).to(device)) for path in paths])


def _open(path: Path, network: str, collection: PreparedSets) -> Classifier:
    file = _weights_in(path)
    if not file.is_file():
        raise ArtifactError(f"{file} is missing: give the file of weights, or the folder that holds it alone")
    digest, (name, _, asked) = sha256(file), network.partition("@")
    refuse_unknown(name)
    chosen = weights_preparation(name, asked=asked, digest=digest, file=file.name)
    net = load_network(name, file, classes=collection.classes, image_size=chosen.preparation.crop)
    if chosen.transform_input:
        net.transform_input = True  # type: ignore[assignment]
    if asked:
        _refuse_size(net, chosen.preparation.crop, network=network)
    return Classifier(
        name=file.stem,
        module=SingleHead(net, head=BASELINE[0]).eval(),
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
