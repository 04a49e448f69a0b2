"""What all cells of the MNIST track share."""

CLASSES = 10
CPU_THREADS = 1
"""Nets this small gain nothing from a second thread, and lose by three where another process wants its core; with one,
the weights are the same on any number of cores."""
