"""Running a model a layer at a time, on text."""
