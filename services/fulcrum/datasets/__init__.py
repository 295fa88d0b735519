"""Data sets: formats to samples (`formats`), import hygiene (`hygiene`), index of sparse latents (`index`).

No torch and nothing of `fulcrum.science`: arrays in and out are numpy's.
"""
