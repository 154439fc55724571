"""Everything known about each family of models, and nowhere else."""
