"""The fake Hub of each test, and small artifacts of every kind."""

from artifact_fixtures import made, other, seeing, source, sources
from hub_fixtures import here, hub, python, settle

__all__ = ["here", "hub", "made", "other", "python", "seeing", "settle", "source", "sources"]
