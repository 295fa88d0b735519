"""Backgrounds, textures and shades of the demo world."""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Rgb = tuple[int, int, int]

BACKGROUNDS: Final = ("plain", "gradient", "stripes", "checks", "dots", "waves")
TEXTURES: Final = ("none", "stripes", "dots", "checks")


def shades(colour: Rgb) -> dict[str, Rgb]:
    """Colours of an object's parts: by role, and `weave` for its texture."""

    def mix(other: Rgb, share: float) -> Rgb:
        r, g, b = (round(a + share * (c - a)) for a, c in zip(colour, other, strict=True))
        return r, g, b

    return {
        "main": colour,
        "shade": mix((0, 0, 0), 0.3),
        "light": mix((255, 255, 255), 0.7),
        "ink": mix((20, 15, 15), 0.8),
        "weave": mix((255, 255, 255), 0.3),
    }


def texture_mask(rng: np.random.Generator, texture: str, size: int) -> NDArray[np.bool_] | None:
    """Where a texture's second colour shows, (size, size); None for an untextured object."""
    phase = int(rng.integers(0, 16))
    period = int(rng.integers(12, 20))
    y, x = np.ogrid[:size, :size]
    if texture == "none":
        return None
    if texture == "stripes":
        return np.asarray((x + y + phase) % period < period // 3)
    if texture == "dots":
        half = period / 2
        return np.asarray(((x + phase) % period - half) ** 2 + (y % period - half) ** 2 < (period / 3.5) ** 2)
    return np.asarray(((x + phase) // period + y // period) % 2 == 0)


def background(rng: np.random.Generator, kind: str, size: int) -> Image.Image:
    """A background canvas (size, size). `waves` has fixed colours, because it is the planted cue."""
    first = rng.integers(95, 236, 3).astype(np.float32)
    second = np.clip(first + rng.integers(-45, 46, 3), 40, 250).astype(np.float32)
    phase = int(rng.integers(0, 32))
    period = int(rng.integers(24, 44))
    y, x = np.mgrid[:size, :size].astype(np.float32)
    if kind == "plain":
        share = np.zeros((size, size), dtype=np.float32)
    elif kind == "gradient":
        share = (x if phase % 2 else y) / size
    elif kind == "stripes":
        share = ((x * (phase % 3) + y + phase) % period < period / 2).astype(np.float32)
    elif kind == "checks":
        share = (((x + phase) // period + y // period) % 2).astype(np.float32)
    elif kind == "dots":
        half = period / 2
        share = (((x + phase) % period - half) ** 2 + (y % period - half) ** 2 < (period / 4) ** 2).astype(
            np.float32
        )
    elif kind == "waves":
        first, second = np.array([88, 152, 205], np.float32), np.array([196, 226, 240], np.float32)
        # Triangle waves: no transcendental function, so the pixels do not depend on the platform's libm.
        crest = np.abs((x + phase * 2) % 48 - 24) / 2
        share = ((y + crest + phase) % 26 < 9).astype(np.float32)
    else:
        raise ValueError(f"unknown background {kind!r}; allowed: {', '.join(BACKGROUNDS)}")
    pixels = first + share[..., None] * (second - first)
    return Image.fromarray(np.rint(pixels).astype(np.uint8))
