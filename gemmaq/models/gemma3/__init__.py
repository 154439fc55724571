"""Everything known about the Gemma 3 family, and nowhere else."""
