"""Evaluation: what a quantization costs in quality, against a reference on the same text."""
