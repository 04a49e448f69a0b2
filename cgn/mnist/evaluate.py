"""mnist evaluate: the cell that fills in what evaluate needs."""

from cgn.config.mnist.evaluate import Evaluate
from cgn.mnist.arms import ARMS
from cgn.mnist.constants import CLASSES
from cgn.mnist.examination import Examiner
from cgn.nets.classifiers import Cnn
from cgn.stages.evaluate import Parts

CONDITIONS = ("train", "test_iid", "test_random")
COMPARED = ("accuracy/*/test_random",)
"""Of the final values, those that go to metrics.json; the others are in accuracy.json."""


def parts(params: Evaluate, *, seed: int, variant: str) -> Parts:
    """Parameters of a variant -> what the stage needs. Nothing is drawn at random: the seed goes unused."""
    del seed
    examiner = Examiner(
        track="mnist",
        variant=variant,
        classes=CLASSES,
        arms=ARMS,
        conditions=CONDITIONS,
        pictured="test_random",
        batch_size=params.batch_size,
        build=lambda: Cnn(classes=CLASSES),
    )
    return Parts(track="mnist", suites=(), examine=examiner)
