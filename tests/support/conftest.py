"""The fake Hub of each test."""

from hub_fixtures import hub

__all__ = ["hub"]
