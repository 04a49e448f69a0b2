"""mnist train_classifier: the cell that fills in what train_classifier needs."""

from cgn.classifiers.cnn import Cnn
from cgn.config.mnist.train_classifier import TrainClassifier
from cgn.stages.train_classifier import Parts, Source
from cgn.tracks.mnist.constants import CLASSES
from cgn.training.supervised import Schedule

ORIGINAL = Source(role="data", split="train")
FACTUAL = Source(role="images", split="factual")
COUNTERFACTUAL = Source(role="images", split="counterfactual")

SOURCES = {
    "original": (ORIGINAL,),
    "gan": (FACTUAL,),
    "counterfactual": (COUNTERFACTUAL,),
    "original_counterfactual": (ORIGINAL, COUNTERFACTUAL),
}
"""Arm -> its training images."""


def parts(params: TrainClassifier, *, seed: int, variant: str) -> Parts:
    """Parameters of a variant -> what the stage needs."""
    return Parts(
        track="mnist",
        variant=variant,
        seed=seed,
        classes=CLASSES,
        arms=SOURCES,
        schedule=Schedule(
            learning_rate=params.learning_rate,
            decay_per_epoch=params.decay_per_epoch,
            batch_size=params.batch_size,
            epochs=params.epochs,
            log_updates=params.log_updates,
            checkpoint_updates=params.checkpoint_updates,
        ),
        accelerator=params.accelerator,
        cpu_threads=None,
        build=lambda: Cnn(classes=CLASSES),
    )
