"""Quantization-aware training: weights that are already on the grid they will be stored on."""
