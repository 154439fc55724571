"""One memory model for each engine that runs a model."""
