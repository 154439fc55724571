"""Small artifacts of every kind."""

from artifact_fixtures import made, other, seeing, source, sources

__all__ = ["made", "other", "seeing", "source", "sources"]
