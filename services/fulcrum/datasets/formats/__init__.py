"""Layouts on disk to data sets. One module for each; `registry.FORMATS` lists them."""

from fulcrum.datasets.formats.registry import FORMATS, Format, detect_format, load_dataset

__all__ = ["FORMATS", "Format", "detect_format", "load_dataset"]
