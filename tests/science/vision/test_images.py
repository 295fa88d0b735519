"""Bytes to RGB images."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from fulcrum.domain.errors import ImageTooLarge, UnreadableImage
from fulcrum.science.vision.images import MAX_PIXELS, decode_image

FORMATS = ("PNG", "JPEG", "WEBP")


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(width: int = 40, height: int = 30, mode: str = "RGB") -> Image.Image:
    n_bytes = width * height * len(Image.new(mode, (1, 1)).getbands())
    return Image.frombytes(mode, (width, height), np.random.default_rng(0).bytes(n_bytes))


@pytest.mark.parametrize("kind", FORMATS)
def test_pixels_are_those_that_pillow_reads(kind: str) -> None:
    data = encoded(noise(), kind)
    decoded = decode_image(data)
    assert decoded.mode == "RGB"
    assert np.array_equal(np.asarray(decoded), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize("kind", FORMATS)
def test_an_image_of_one_pixel_is_read(kind: str) -> None:
    assert decode_image(encoded(Image.new("RGB", (1, 1), (200, 10, 30)), kind)).size == (1, 1)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(noise(), kind, exif=exif)
    decoded = decode_image(data)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert np.array_equal(np.asarray(decoded), np.asarray(expected.convert("RGB")))
    assert decoded.size == ((30, 40) if orientation >= 5 else (40, 30))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_leaves_the_picture_as_it_is() -> None:
    data = encoded(noise(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert decode_image(data).size == (40, 30)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_shown_over_white(mode: str) -> None:
    image = noise(mode=mode)
    levels = np.asarray(image.convert("RGBA")).astype(float)
    alpha = levels[..., 3:] / 255
    expected = levels[..., :3] * alpha + 255 * (1 - alpha)
    decoded = np.asarray(decode_image(encoded(image, "PNG"))).astype(float)
    assert np.abs(decoded - expected).max() <= 1


def test_a_palette_colour_marked_transparent_becomes_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    decoded = decode_image(encoded(image, "PNG", transparency=0))
    assert [decoded.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (40, 50, 60)]


def test_grey_levels_of_sixteen_bits_are_scaled_not_cut_off() -> None:
    levels = np.array([[0, 255, 256, 32768, 65535]], dtype=np.uint16)
    decoded = decode_image(encoded(Image.fromarray(levels), "PNG"))
    assert np.asarray(decoded)[0, :, 0].tolist() == [0, 0, 1, 128, 255]


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK"])
def test_other_colour_modes_become_what_pillow_shows(mode: str) -> None:
    image = noise().convert(mode)
    data = encoded(image, "JPEG" if mode == "CMYK" else "PNG")
    expected = Image.open(io.BytesIO(data)).convert("RGB")
    assert np.array_equal(np.asarray(decode_image(data)), np.asarray(expected))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("share", [0.0005, 0.05, 0.5, 0.9])
def test_a_truncated_image_is_unreadable(kind: str, share: float) -> None:
    data = encoded(noise(200, 150), kind)
    with pytest.raises(UnreadableImage):
        decode_image(data[: max(12, int(len(data) * share))])


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(FORMATS), st.integers(0, 10**6), st.integers(0, 255))
def test_a_damaged_byte_gives_an_image_or_a_domain_error(kind: str, position: int, value: int) -> None:
    data = bytearray(_DATA[kind])
    data[position % len(data)] = value
    try:
        decoded = decode_image(bytes(data), max_pixels=10_000)
    except (UnreadableImage, ImageTooLarge):
        return
    assert decoded.mode == "RGB"


_DATA = {kind: encoded(noise(16, 12), kind) for kind in FORMATS}


@pytest.mark.parametrize(
    "data", [b"", b"not an image at all", encoded(noise(), "GIF"), encoded(noise(), "BMP")]
)
def test_other_formats_are_refused_with_what_is_read(data: bytes) -> None:
    with pytest.raises(UnreadableImage, match="not a PNG, JPEG or WebP"):
        decode_image(data)


def test_a_file_of_too_many_bytes_is_refused_with_both_numbers() -> None:
    data = encoded(noise(), "PNG")
    with pytest.raises(ImageTooLarge, match=rf"{len(data)} bytes; allowed are 100"):
        decode_image(data, max_bytes=100)


def test_a_png_bomb_is_refused_by_its_header() -> None:
    """No pixel data follows, so an attempt to decode it would be another error."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    with pytest.raises(ImageTooLarge, match=rf"60000 x 60000 .* allowed are {MAX_PIXELS}"):
        decode_image(
            b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", b"") + _chunk(b"IEND", b"")
        )


def test_a_webp_bomb_is_refused_before_its_canvas_is_allocated() -> None:
    body = b"VP8X" + struct.pack("<I", 10) + bytes(4) + (16_383).to_bytes(3, "little") * 2
    data = b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body
    with pytest.raises(ImageTooLarge, match="16384 x 16384"):
        decode_image(data)


def test_a_jpeg_bomb_is_refused_by_its_header() -> None:
    data = bytearray(encoded(noise(), "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 65_000, 65_000)
    with pytest.raises(ImageTooLarge, match="65000 x 65000"):
        decode_image(bytes(data))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.sampled_from(["lossy", "lossless", "alpha"]))
def test_the_limit_on_pixels_is_exact_for_every_kind_of_webp(width: int, height: int, kind: str) -> None:
    image = noise(width, height, "RGBA" if kind == "alpha" else "RGB")
    data = encoded(image, "WEBP", lossless=kind == "lossless")
    assert decode_image(data, max_pixels=width * height).size == (width, height)
    with pytest.raises(ImageTooLarge):
        decode_image(data, max_pixels=width * height - 1)


def test_the_first_frame_of_an_animation_is_read() -> None:
    frames = [Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 255, 0))]
    for kind in ("PNG", "WEBP"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        red, green, _ = decode_image(data).getpixel((4, 4))
        assert red > 200 > green


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
