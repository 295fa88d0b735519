"""The sparse latent index of a data set: `LatentIndexWriter` builds it, `LatentIndex` reads it."""

from fulcrum.datasets.index.key import IndexKey, IndexLayout
from fulcrum.datasets.index.reader import LatentIndex, Postings
from fulcrum.datasets.index.statistics import LatentStatistics
from fulcrum.datasets.index.writer import LatentIndexWriter

__all__ = ["IndexKey", "IndexLayout", "LatentIndex", "LatentIndexWriter", "LatentStatistics", "Postings"]
