"""From a source that the user names to a checkpoint: a folder, a GGUF file, a repository, the sample."""
