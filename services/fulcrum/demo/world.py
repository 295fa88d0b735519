"""The demo world: seeded drawings of objects with planted, known failure modes.

A `Scene` is a frozen description, `sample_scene` draws one, `render` paints it. Painting depends on the scene
alone, so twins that differ in their sticker alone are identical pixel for pixel outside the sticker's mask.

Planted cues: a sticker with a written word, a gold frame which training images of `FRAME_CLASS` mostly carry, and
a background of waves which training images of `WAVES_CLASS` mostly carry.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fulcrum.demo.world_objects import CLASS_NAMES, SHAPES
from fulcrum.demo.world_paint import BACKGROUNDS, TEXTURES, Rgb, background, shades, texture_mask

__all__ = [
    "BACKGROUNDS", "CLASS_NAMES", "COLOURS", "FRAME_CLASS", "IMAGE_SIZE", "NEUTRAL_WORDS", "TEMPLATES", "TEXTURES",
    "WAVES_CLASS", "WORDS", "Rendered", "Scene", "Sticker", "place_sticker", "render", "sample_scene", "with_sticker",
]  # fmt: skip

IMAGE_SIZE: Final = 96
FRAME_WIDTH: Final = 4
FRAME_CLASS: Final = "key"
WAVES_CLASS: Final = "boat"
TEXT_PX: Final = 15
STICKER_GRID: Final = 8

COLOURS: dict[str, Rgb] = {
    "red": (205, 45, 45), "green": (45, 150, 65), "blue": (50, 85, 205), "yellow": (228, 195, 45),
    "purple": (140, 60, 175), "orange": (232, 128, 35), "brown": (130, 82, 45), "grey": (125, 128, 132),
}  # fmt: skip
NEUTRAL_WORDS: tuple[str, ...] = (
    "sale", "open", "stop", "free", "exit", "milk", "paper", "seven", "hello", "music", "bread", "river", "light",
    "stone", "sugar", "train", "phone", "lemon", "lamp", "wolf", "rope", "snow", "gold", "ice", "box", "map", "jam",
    "zoo", "window", "garden", "rabbit", "violin",
)  # fmt: skip
WORDS: tuple[str, ...] = CLASS_NAMES + NEUTRAL_WORDS
TEMPLATES: tuple[str, ...] = (
    "a photo of a {}.", "a drawing of a {}.", "a picture of a {}.", "an image of a {}.", "a {}.",
)  # fmt: skip

_SUPERSAMPLE: Final = 2


@dataclass(frozen=True)
class Sticker:
    """A pale label with a dark word; `x`, `y` is its top left corner in pixels, `text_px` the size of the type."""

    word: str
    x: int
    y: int
    text_px: int
    paper: Rgb = (250, 248, 238)


@dataclass(frozen=True)
class Scene:
    """Everything that determines an image.

    `label` is None for a picture without an object. `x`, `y` (centre) and `radius` are pixels, `angle` degrees
    clockwise. `detail_seed` fixes clutter, texture phase and noise.
    """

    label: str | None
    x: float
    y: float
    radius: float
    angle: float
    colour: str
    texture: str
    background: str
    frame: bool
    detail_seed: int
    sticker: Sticker | None = None


@dataclass(frozen=True)
class Rendered:
    """`image` (96, 96, 3) uint8; the masks (96, 96) bool. The object mask is what stays visible of the object."""

    image: NDArray[np.uint8]
    object_mask: NDArray[np.bool_]
    sticker_mask: NDArray[np.bool_]


def sample_scene(
    rng: np.random.Generator,
    label: str | None,
    *,
    frame: bool = False,
    waves: bool = False,
) -> Scene:
    """A random scene of `label` without a sticker; the cues are the caller's choice."""
    plain = [name for name in BACKGROUNDS if name != "waves"]
    return Scene(
        label=label,
        x=float(rng.integers(34, 63)),
        y=float(rng.integers(34, 63)),
        radius=float(rng.integers(19, 28)),
        angle=float(rng.integers(-25, 26)),
        colour=list(COLOURS)[int(rng.integers(len(COLOURS)))],
        texture=TEXTURES[int(rng.integers(len(TEXTURES)))],
        background="waves" if waves else plain[int(rng.integers(len(plain)))],
        frame=frame,
        detail_seed=int(rng.integers(2**31)),
    )


def place_sticker(rng: np.random.Generator, scene: Scene, word: str) -> Sticker:
    """A sticker on the free side of the object: above it when the object sits low, else below it.

    It overlaps the object's bounding circle by six pixels at most, so that the object stays recognisable. Corners
    lie on a grid of `STICKER_GRID` pixels: with free corners the small model would need ten times the pictures
    to learn to read.
    """
    width, height = sticker_size(word, TEXT_PX)
    x = STICKER_GRID * int(rng.integers((IMAGE_SIZE - width) // STICKER_GRID + 1))
    lowest = (IMAGE_SIZE - height) // STICKER_GRID
    if scene.label is None:
        first, last = 0, lowest
    elif scene.y >= IMAGE_SIZE / 2:
        first, last = 0, (int(scene.y - scene.radius) + 6 - height) // STICKER_GRID
    else:
        first, last = -((6 - int(scene.y + scene.radius)) // STICKER_GRID), lowest
    y = STICKER_GRID * int(rng.integers(min(first, lowest), max(last, 0) + 1))
    paper = (int(rng.integers(238, 256)), int(rng.integers(236, 252)), int(rng.integers(215, 245)))
    return Sticker(word, x, y, TEXT_PX, paper)


def with_sticker(rng: np.random.Generator, scene: Scene, word: str) -> Scene:
    """The scene's twin: the same picture with one sticker more."""
    return replace(scene, sticker=place_sticker(rng, scene, word))


def render(scene: Scene) -> Rendered:
    """Paint a scene. Equal scenes give equal pixels."""
    # A generator per layer: a twin with one layer more draws the same numbers for every other layer.
    rng = np.random.default_rng([scene.detail_seed, 0])
    size = IMAGE_SIZE * _SUPERSAMPLE
    canvas = background(rng, scene.background, size)
    draw = ImageDraw.Draw(canvas)
    _clutter(rng, draw, size)
    object_mask = Image.new("1", (IMAGE_SIZE, IMAGE_SIZE))
    if scene.label is not None:
        object_mask = _object(rng, canvas, scene)
    image = np.asarray(canvas.reduce(_SUPERSAMPLE), dtype=np.int16)
    if scene.frame:
        image = _frame(image)
    noise = rng.integers(-9, 10, size=image.shape, dtype=np.int16)
    pixels = np.clip(image + noise, 0, 255).astype(np.uint8)
    sticker_mask = np.zeros((IMAGE_SIZE, IMAGE_SIZE), dtype=np.bool_)
    if scene.sticker is not None:
        sticker_mask = _stick(pixels, scene.sticker, np.random.default_rng([scene.detail_seed, 1]))
    return Rendered(pixels, np.asarray(object_mask, dtype=np.bool_) & ~sticker_mask, sticker_mask)


def _clutter(rng: np.random.Generator, draw: ImageDraw.ImageDraw, size: int) -> None:
    """Small discs, squares and strokes that belong to no class."""
    for _ in range(int(rng.integers(2, 8))):
        x, y = (int(v) for v in rng.integers(0, size, 2))
        r = int(rng.integers(3, 13))
        fill = tuple(int(v) for v in rng.integers(30, 226, 3))
        kind = int(rng.integers(3))
        if kind == 0:
            draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)
        elif kind == 1:
            draw.rectangle((x - r, y - r, x + r, y + r), fill=fill)
        else:
            dx, dy = (int(v) for v in rng.integers(-24, 25, 2))
            draw.line((x, y, x + dx, y + dy), fill=fill, width=4)


def _object(rng: np.random.Generator, canvas: Image.Image, scene: Scene) -> Image.Image:
    """Paint the object into the canvas; returns its mask at image size."""
    assert scene.label is not None
    palette = shades(COLOURS[scene.colour])
    cos, sin = math.cos(math.radians(scene.angle)), math.sin(math.radians(scene.angle))
    scale, cx, cy = scene.radius * _SUPERSAMPLE, scene.x * _SUPERSAMPLE, scene.y * _SUPERSAMPLE
    draw = ImageDraw.Draw(canvas)
    mask, textured = Image.new("1", canvas.size), Image.new("1", canvas.size)
    mask_draw, textured_draw = ImageDraw.Draw(mask), ImageDraw.Draw(textured)
    for part in SHAPES[scene.label]:
        outline = [
            (cx + scale * (u * cos - v * sin), cy + scale * (u * sin + v * cos)) for u, v in part.outline
        ]
        draw.polygon(outline, fill=palette[part.role])
        mask_draw.polygon(outline, fill=1)
        textured_draw.polygon(outline, fill=int(part.textured))
    pattern = texture_mask(rng, scene.texture, canvas.size[0])
    if pattern is not None:
        where = Image.fromarray(np.asarray(textured) & pattern)
        canvas.paste(palette["weave"], mask=where)
    return mask.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.NEAREST)


def _frame(image: NDArray[np.int16]) -> NDArray[np.int16]:
    """A gold border with a dark inner line."""
    framed = image.copy()
    edge = np.ones(image.shape[:2], dtype=np.bool_)
    edge[FRAME_WIDTH:-FRAME_WIDTH, FRAME_WIDTH:-FRAME_WIDTH] = False
    framed[edge] = (196, 158, 60)
    line = np.ones_like(edge)
    line[FRAME_WIDTH + 1 : -FRAME_WIDTH - 1, FRAME_WIDTH + 1 : -FRAME_WIDTH - 1] = False
    framed[line & ~edge] = (92, 66, 20)
    return framed


@lru_cache(maxsize=512)
def _word_ink(word: str, text_px: int) -> NDArray[np.float32]:
    """Ink coverage (h, w) in [0, 1] of a word, set at twice its size and reduced."""
    font = ImageFont.load_default(size=text_px * _SUPERSAMPLE)
    left, _, right, _ = font.getbbox(word, stroke_width=1)
    # Height from all letters, so that every word of a size has the same baseline and label height.
    _, top, _, bottom = font.getbbox("bdfghjklpqty", stroke_width=1)
    size = (2 * math.ceil((right - left) / 2), 2 * math.ceil((bottom - top) / 2))
    ink = Image.new("L", size)
    ImageDraw.Draw(ink).text((-left, -top), word, fill=255, font=font, stroke_width=1, stroke_fill=255)
    return np.asarray(ink.reduce(_SUPERSAMPLE), dtype=np.float32) / np.float32(255)


def sticker_size(word: str, text_px: int) -> tuple[int, int]:
    """Width and height in pixels of a sticker with this word."""
    height, width = _word_ink(word, text_px).shape
    return width + 6, height + 4


def _stick(pixels: NDArray[np.uint8], sticker: Sticker, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Paste the sticker into `pixels` in place; returns its mask."""
    ink = _word_ink(sticker.word, sticker.text_px)
    width, height = sticker_size(sticker.word, sticker.text_px)
    label = np.empty((height, width, 3), dtype=np.float32)
    label[:] = sticker.paper
    inside = label[2:-2, 3:-3]
    inside += ink[..., None] * (np.array([25, 25, 35], dtype=np.float32) - inside)
    label += rng.integers(-6, 7, size=label.shape)
    mask = np.zeros(pixels.shape[:2], dtype=np.bool_)
    mask[sticker.y : sticker.y + height, sticker.x : sticker.x + width] = True
    pixels[mask] = np.clip(np.rint(label), 0, 255).astype(np.uint8).reshape(-1, 3)
    return mask
