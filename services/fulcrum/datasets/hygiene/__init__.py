"""Import hygiene: decoding, hashes, duplicates, leakage, duplicate-safe splits."""

from fulcrum.datasets.hygiene.decoding import DecodedImage, Limits, decode_image
from fulcrum.datasets.hygiene.inspection import HygieneReport, ImageProblem, inspect_dataset
from fulcrum.datasets.hygiene.leakage import Leak, LeakageReport, find_leakage
from fulcrum.datasets.hygiene.near_duplicates import cosine_clusters, hash_clusters, near_pairs
from fulcrum.datasets.hygiene.phash import hamming, phash
from fulcrum.datasets.hygiene.splitting import assign_splits

__all__ = [
    "DecodedImage",
    "HygieneReport",
    "ImageProblem",
    "Leak",
    "LeakageReport",
    "Limits",
    "assign_splits",
    "cosine_clusters",
    "decode_image",
    "find_leakage",
    "hamming",
    "hash_clusters",
    "inspect_dataset",
    "near_pairs",
    "phash",
]
