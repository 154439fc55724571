"""From what a user names to a checkpoint: a folder, a file, a repository, the sample."""
