import io

import numpy as np
import pytest
from PIL import Image

from fulcrum.client import pictures
from fulcrum.client.pictures import picture_part
from fulcrum.domain.errors import ImageTooLarge, InvalidRequest, MissingDependency, UnreadableImage

PIXELS = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)


def encoded(kind):
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, format=kind)
    return buffer.getvalue()


def decoded(part):
    return np.asarray(Image.open(io.BytesIO(part.content)))


@pytest.mark.parametrize(
    ("kind", "media_type", "name"),
    [
        ("PNG", "image/png", "image.png"),
        ("JPEG", "image/jpeg", "image.jpg"),
        ("WEBP", "image/webp", "image.webp"),
    ],
)
def test_bytes_go_as_they_are_under_a_name_of_their_kind(kind, media_type, name):
    part = picture_part(encoded(kind))
    assert (part.content, part.media_type, part.filename, part.field) == (
        encoded(kind),
        media_type,
        name,
        "file",
    )


def test_a_file_keeps_its_name_and_bytes(tmp_path):
    path = tmp_path / "dog photo.png"
    path.write_bytes(encoded("PNG"))
    with path.open("rb") as file:
        for picture in (path, str(path), file):
            part = picture_part(picture)
            assert (part.filename, part.content) == ("dog photo.png", encoded("PNG"))
    assert picture_part(path, "other.png").filename == "other.png"


def test_arrays_and_pil_images_lose_nothing():
    np.testing.assert_array_equal(decoded(picture_part(PIXELS)), PIXELS)
    np.testing.assert_array_equal(decoded(picture_part(Image.fromarray(PIXELS))), PIXELS)
    np.testing.assert_array_equal(decoded(picture_part(PIXELS[..., 0])), PIXELS[..., 0])
    np.testing.assert_array_equal(decoded(picture_part(PIXELS[::-1, ::-1])), PIXELS[::-1, ::-1])


@pytest.mark.parametrize(
    "array", [PIXELS.astype(float), PIXELS[None], PIXELS[..., :2], np.zeros(4, np.uint8)]
)
def test_an_array_that_is_no_picture_is_refused_with_its_shape(array):
    with pytest.raises(UnreadableImage, match=r"shape \("):
        picture_part(array)


@pytest.mark.parametrize("content", [b"", b"GIF89a...", b"<svg/>"])
def test_other_kinds_of_file_are_refused_before_they_are_sent(content):
    with pytest.raises(UnreadableImage, match="neither PNG, JPEG nor WebP"):
        picture_part(content)


def test_a_missing_file_and_one_open_as_text_are_named(tmp_path):
    with pytest.raises(UnreadableImage, match=r"nothing\.png.*No such file"):
        picture_part(tmp_path / "nothing.png")
    with pytest.raises(UnreadableImage, match="'rb'"):
        picture_part(io.StringIO("text"))


def test_too_many_bytes_are_refused_before_they_are_read_or_sent(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "MAX_BYTES", 100)
    path = tmp_path / "large.png"
    path.write_bytes(encoded("PNG") + b"\0" * 100)
    for picture in (path, path.read_bytes()):
        with pytest.raises(ImageTooLarge, match="100"):
            picture_part(picture)


def test_something_else_is_no_image():
    with pytest.raises(InvalidRequest, match="got int"):
        picture_part(3)


def test_an_array_without_pillow_names_the_package(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(MissingDependency, match="pillow"):
        picture_part(PIXELS)
