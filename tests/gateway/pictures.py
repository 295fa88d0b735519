"""Encoded images for uploads."""

import io

from PIL import Image


def encoded(kind="PNG", size=(40, 30), colour=(200, 30, 60), **options):
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, kind, **options)
    return out.getvalue()


def part(content, filename="photo.png", media_type="image/png"):
    return {"file": (filename, content, media_type)}
