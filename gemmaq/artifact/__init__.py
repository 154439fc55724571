"""Everything in an artifact apart from its weights: checksums, provenance, the model card, settings for runtimes."""
