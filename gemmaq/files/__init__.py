"""File formats without what their content means: GGUF, safetensors, SentencePiece, JSON; and atomic writing."""
