"""What goes out with an artifact: checksums, a model card, settings for the runtimes."""
