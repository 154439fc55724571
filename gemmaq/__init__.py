"""gemmaq: quantized Gemma 3, the same int4 codes in every runtime."""

__version__ = "0.1.0"
