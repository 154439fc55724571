"""What goes out with an artifact: checksums, provenance, a model card, settings for runtimes."""
