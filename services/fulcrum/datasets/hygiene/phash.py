"""64-bit perceptual hash: the signs of an image's low frequencies.

pHash after Zauner 2010 in the form that the ImageHash package made common: grey, 32 x 32 (Lanczos), DCT-II in
both directions, the 8 x 8 lowest coefficients compared with their median; row by row, first bit highest.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SIDE: Final = 32
_KEPT: Final = 8
THUMBNAIL_SIDE: Final = 16
_DCT: Final = 2 * np.cos(
    np.pi * np.arange(_KEPT)[:, None] * (2 * np.arange(_SIDE)[None, :] + 1) / (2 * _SIDE)
)  # (8, 32)
# Below this a coefficient of 8-bit pixels is rounding error: flat images must not hash to noise.
_NOISE: Final = 1e-6


def phash(pixels: NDArray[np.uint8]) -> int:
    """Hash of RGB pixels (height, width, 3), 0 .. 2**64-1."""
    grey = Image.fromarray(pixels).convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    low = _DCT @ np.asarray(grey, dtype=np.float64) @ _DCT.T
    low[np.abs(low) < _NOISE] = 0.0
    bits = (low > np.median(low)).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(16, 16) grey: enough to turn down pairs that only their 64 bits make look alike."""
    grey = Image.fromarray(pixels).convert("L")
    return np.asarray(grey.resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX))


def thumbnails_agree(
    thumbnails: NDArray[np.uint8], a: NDArray[np.int64], b: NDArray[np.int64], min_correlation: float = 0.9
) -> NDArray[np.bool_]:
    """Whether thumbnails (n, 16, 16) of a[i] and b[i] correlate; flat ones agree with flat ones only.

    Origin of 0.9: on the demo world copies (half size, JPEG quality 30, brightness +-25 %) keep .93 and more,
    while different scenes whose hashes differ in 4 to 8 bits reach .6.
    """
    agrees = np.zeros(a.size, dtype=bool)
    for start in range(0, a.size, 65536):
        part = slice(start, start + 65536)
        one, other = _centred(thumbnails[a[part]]), _centred(thumbnails[b[part]])
        product = (one * other).sum(axis=1)
        norms = np.sqrt((one * one).sum(axis=1) * (other * other).sum(axis=1))
        flat = ~one.any(axis=1) & ~other.any(axis=1)
        agrees[part] = flat | ((norms > 0) & (product >= min_correlation * norms))
    return agrees


def _centred(thumbnails: NDArray[np.uint8]) -> NDArray[np.float64]:
    rows = thumbnails.reshape(len(thumbnails), -1).astype(np.float64)
    centred: NDArray[np.float64] = rows - rows.mean(axis=1, keepdims=True)
    return centred


def hamming(a: NDArray[np.uint64], b: NDArray[np.uint64] | np.uint64) -> NDArray[np.int64]:
    """Number of differing bits, elementwise."""
    return popcount(np.bitwise_xor(a, b))


def popcount(words: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Number of set bits (Warren, Hacker's Delight, counting 1-bits); numpy 1.26 has none of its own."""
    u: Any = np.uint64
    x: NDArray[np.uint64] = words.astype(np.uint64)
    x = x - ((x >> u(1)) & u(0x5555555555555555))
    x = (x & u(0x3333333333333333)) + ((x >> u(2)) & u(0x3333333333333333))
    x = (x + (x >> u(4))) & u(0x0F0F0F0F0F0F0F0F)
    with np.errstate(over="ignore"):
        count: NDArray[np.int64] = ((x * u(0x0101010101010101)) >> u(56)).astype(np.int64)
    return count
