"""Sparse autoencoders: variants, storage and training."""
