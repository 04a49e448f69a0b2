"""The whole of params.yaml as records: active variants, then track, variant, verb."""

from dataclasses import dataclass

from cgn.config.imagenet import evaluate, fetch, generate, prepare, report, train_cgn, train_classifier
from cgn.config.mnist.evaluate import Evaluate
from cgn.config.mnist.fetch import Fetch
from cgn.config.mnist.generate import Generate
from cgn.config.mnist.prepare import Prepare
from cgn.config.mnist.report import Report
from cgn.config.mnist.train_cgn import TrainCgn
from cgn.config.mnist.train_classifier import TrainClassifier
from cgn.config.record import require


@dataclass(frozen=True, kw_only=True)
class Mnist:
    """One variant of the MNIST track: the seed of all its randomness, and a record for each verb."""

    seed: int
    fetch: Fetch
    prepare: Prepare
    train_cgn: TrainCgn
    generate: Generate
    train_classifier: TrainClassifier
    evaluate: Evaluate
    report: Report

    def __post_init__(self) -> None:
        require(self.seed >= 0, "seed", self.seed, "0 or more")
        size, look = self.prepare.image_size, self.prepare.look
        features, conv = self.train_cgn.losses.perceptual.features, self.train_cgn.discriminator.conv
        if features == "squeezenet" or conv:
            why = "32 or more with squeezenet features or a conv discriminator"
            require(size >= 32, "prepare.image_size", size, why)
        require(size <= 156 or look != "wildlife", "prepare.image_size", size, "up to 156 for wildlife")

    def shared(self, verb: str) -> dict[str, str]:
        """What `verb` reads of other verbs' parameters: fetch brings what prepare and train_cgn will need."""
        if verb != "fetch":
            return {}
        features = self.train_cgn.losses.perceptual.features
        return {"digits": self.prepare.digits, "look": self.prepare.look, "features": features}


@dataclass(frozen=True, kw_only=True)
class ImageNet:
    """One variant of the ImageNet track: the seed of all its randomness, and a record for each verb."""

    seed: int
    fetch: fetch.Fetch
    prepare: prepare.Prepare
    train_cgn: train_cgn.TrainCgn
    generate: generate.Generate
    train_classifier: train_classifier.TrainClassifier
    evaluate: evaluate.Evaluate
    report: report.Report

    def __post_init__(self) -> None:
        require(self.seed >= 0, "seed", self.seed, "0 or more")
        nets, world = self.train_cgn.nets, self.prepare.world
        whole = (nets == "miniature") == (world is not None)
        require(whole, "train_cgn.nets", nets, "miniature with prepare.world, published with prepare.folders")
        weights, extras = self.generate.weights, self.fetch.extras
        fetched = weights == "trained" or (nets == "published" and "authors_cgn" in extras)
        why = "trained; authors only with train_cgn.nets published and authors_cgn in fetch.extras"
        require(fetched, "generate.weights", weights, why)

    def shared(self, verb: str) -> dict[str, str]:
        """What `verb` reads of other verbs' parameters: fetch brings what the others will need."""
        if verb != "fetch":
            return {}
        return {"nets": self.train_cgn.nets, "pretrained": self.train_classifier.pretrained}


Variant = Mnist | ImageNet
TRACKS: dict[str, type[Variant]] = {"mnist": Mnist, "imagenet": ImageNet}
