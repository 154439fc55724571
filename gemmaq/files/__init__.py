"""Bytes of files, without what they mean: GGUF, safetensors, SentencePiece, atomic writing."""
