"""What all cells of the MNIST track share."""

CLASSES = 10
