"""What all cells of the MNIST track share."""

CLASSES = 10
GENERATOR_THREADS = 1
"""On a CPU. Nets this small gain little from a second thread, and lose by three where another process wants its core;
with one, the weights are the same on any number of cores."""
