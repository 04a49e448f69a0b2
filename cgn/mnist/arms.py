"""The arms of the MNIST track: what a classifier was trained on, by name, in the order tables list them."""

ARMS = {
    "original": "original",
    "gan": "factual",
    "counterfactual": "counterfactual",
    "original_counterfactual": "original + counterfactual",
}
"""Arm -> how tables call its training images. `gan` is the paper's name for samples that keep every correlation."""
