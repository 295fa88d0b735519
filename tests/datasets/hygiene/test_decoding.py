"""Upright RGB or a domain error, whatever the bytes are."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fulcrum.datasets.hygiene.decoding import Limits, decode_image
from fulcrum.domain.errors import ImageTooLarge, UnreadableImage

from ..images import encoded, picture


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_lossless_formats_give_back_the_pixels(kind):
    pixels = picture(0)
    decoded = decode_image(encoded(pixels, kind, **({"lossless": True} if kind == "WEBP" else {})))
    np.testing.assert_array_equal(decoded.pixels, pixels)
    assert (decoded.format, decoded.was_rotated, decoded.was_converted) == (kind, False, False)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_the_image_upright(orientation):
    image = Image.fromarray(picture(1))
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = image.transpose(undo[orientation]) if orientation > 1 else image
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    stored.save(buffer, "PNG", exif=exif)
    decoded = decode_image(buffer.getvalue())
    np.testing.assert_array_equal(decoded.pixels, picture(1))
    assert decoded.was_rotated == (orientation > 1)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1"])
def test_other_modes_become_rgb_and_say_so(mode):
    image = Image.fromarray(picture(2)).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **({"transparency": b"\x00\x80\xff"} if mode == "P" else {}))
    decoded = decode_image(buffer.getvalue())
    assert decoded.pixels.shape == (40, 48, 3)
    assert decoded.was_converted


def test_cmyk_jpeg_becomes_rgb():
    buffer = io.BytesIO()
    Image.fromarray(picture(2)).convert("CMYK").save(buffer, "JPEG")
    assert decode_image(buffer.getvalue()).pixels.shape == (40, 48, 3)


def test_16_bit_grey_is_scaled_and_not_clipped_to_white():
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(ramp).save(buffer, "PNG")
    decoded = decode_image(buffer.getvalue()).pixels[..., 0]
    np.testing.assert_array_equal(decoded, np.rint(ramp / 257).astype(np.uint8))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("keep", [0.0, 0.1, 0.6, 0.98])
def test_a_truncated_image_is_unreadable(kind, keep):
    content = encoded(picture(3, size=(200, 160)), kind)
    with pytest.raises(UnreadableImage):
        decode_image(content[: int(len(content) * keep)])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(["PNG", "JPEG", "WEBP"]))
def test_damaged_bytes_give_an_image_or_a_domain_error(seed, kind):
    rng = np.random.default_rng(seed)
    content = bytearray(encoded(picture(4), kind))
    for _ in range(int(rng.integers(1, 6))):
        content[int(rng.integers(len(content)))] = int(rng.integers(256))
    with contextlib.suppress(UnreadableImage, ImageTooLarge):  # any other exception fails the test
        assert decode_image(bytes(content)).pixels.ndim == 3


def test_formats_that_are_not_read_are_refused():
    buffer = io.BytesIO()
    Image.fromarray(picture(5)).save(buffer, "TIFF")
    with pytest.raises(UnreadableImage):
        decode_image(buffer.getvalue())
    with pytest.raises(UnreadableImage):
        decode_image(b"<svg xmlns='http://www.w3.org/2000/svg'/>")


def png_header(width, height):
    """A PNG that claims a size and holds next to nothing."""

    def chunk(name, data):
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0"))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(8001, 8000), (10_000, 10_000), (60_000, 60_000)])
def test_a_huge_image_is_refused_by_its_header(size):
    with pytest.raises(ImageTooLarge, match="pixels"):
        decode_image(png_header(*size))


def test_limits_are_the_callers():
    content = encoded(picture(6))
    with pytest.raises(ImageTooLarge, match="48 x 40 pixels, the limit is 1000"):
        decode_image(content, Limits(max_pixels=1000))
    with pytest.raises(ImageTooLarge, match="the limit is 10"):
        decode_image(content, Limits(max_bytes=10))
    assert decode_image(content, Limits(max_pixels=48 * 40)).pixels.shape == (40, 48, 3)
