"""The MNIST track: coloured digits of ten classes."""
