"""The pictures of an examination, one of each kind for every classifier."""

from PIL import Image

from cgn.evaluation.corruption_error import corruption_errors
from cgn.evaluation.metrics import by_shape
from cgn.evaluation.predictions import CUE_CONFLICT, Predictions
from cgn.evaluation.suites import why_undecided
from cgn.report.corruption_picture import curves
from cgn.report.shape_bias_picture import bars


def pictures(examination: Predictions) -> dict[str, Image.Image]:
    """File name -> shape-bias bars and corruption curves, one of each for every classifier that has their suite."""
    found, errors = {}, corruption_errors(examination)
    for classifier in examination.classifiers:
        stimuli = {
            head: rows
            for head in examination.heads(classifier)
            if len(rows := examination.of(CUE_CONFLICT, classifier=classifier, head=head))
        }
        if stimuli:
            biases = {head: by_shape(rows, names=examination.facts["categories"]) for head, rows in stimuli.items()}
            doubtful = [head for head, rows in stimuli.items() if why_undecided(rows, examination)]
            found[f"shape_bias-{classifier}.png"] = bars(biases, undecided=doubtful)
        if corrupted := [one for one in errors if one.classifier == classifier and one.errors]:
            found[f"corruptions-{classifier}.png"] = curves(corrupted)
    return found
