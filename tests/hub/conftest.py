"""The fake Hub of each test."""

from hub_fixtures import here, hub, python, settle

__all__ = ["here", "hub", "python", "settle"]
