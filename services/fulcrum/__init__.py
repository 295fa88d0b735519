"""Fulcrum: from attribution to action for vision models."""

__version__ = "0.1.0"
