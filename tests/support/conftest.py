"""The fake Hub of each test."""

from hub_fixtures import hub, python

__all__ = ["hub", "python"]
