"""Silhouettes of the demo world's objects, as coloured parts in unit coordinates (x right, y down, radius about 1).

A part is a closed outline with a colour role. Roles, not colours, are written here, so that any object comes in
any colour and colour never tells the class.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Point = tuple[float, float]
Role = Literal["main", "shade", "light", "ink"]


@dataclass(frozen=True)
class Part:
    """One filled outline; `textured` parts take the object's texture over their colour."""

    role: Role
    outline: tuple[Point, ...]
    textured: bool = False


def _poly(role: Role, points: Sequence[Point], textured: bool = False) -> Part:
    return Part(role, tuple(points), textured)


def _oval(
    role: Role,
    x: float,
    y: float,
    rx: float,
    ry: float,
    textured: bool = False,
    start: float = 0,
    stop: float = 360,
) -> Part:
    steps = max(6, int(28 * (stop - start) / 360))
    angles = [math.radians(start + (stop - start) * i / steps) for i in range(steps + (stop - start < 360))]
    return Part(role, tuple((x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles), textured)


def _box(role: Role, x0: float, y0: float, x1: float, y1: float, textured: bool = False) -> Part:
    return _poly(role, [(x0, y0), (x1, y0), (x1, y1), (x0, y1)], textured)


def _ring(role: Role, x: float, y: float, outer: float, inner: float) -> Part:
    """An annulus as one outline that runs round the rim and back round the hole."""
    rim = [
        (x + outer * math.cos(math.tau * i / 24), y + outer * math.sin(math.tau * i / 24)) for i in range(25)
    ]
    hole = [
        (x + inner * math.cos(math.tau * i / 24), y + inner * math.sin(math.tau * i / 24)) for i in range(25)
    ]
    return Part(role, tuple(rim + hole[::-1]))


def _crescent() -> Part:
    outside = [
        (1.0 * math.cos(math.radians(a)), -0.45 + 1.0 * math.sin(math.radians(a))) for a in range(5, 176, 10)
    ]
    inside = [
        (0.95 * math.cos(math.radians(a)), -0.62 + 0.62 * math.sin(math.radians(a)))
        for a in range(175, 4, -10)
    ]
    return Part("main", tuple(outside + inside), textured=True)


def _star() -> Part:
    radii = [1.0 if i % 2 == 0 else 0.42 for i in range(10)]
    return Part(
        "main",
        tuple((r * math.sin(math.pi * i / 5), -r * math.cos(math.pi * i / 5)) for i, r in enumerate(radii)),
        textured=True,
    )


def _petals() -> list[Part]:
    angles = [math.tau * i / 6 for i in range(6)]
    return [_oval("main", 0.6 * math.cos(a), 0.6 * math.sin(a), 0.36, 0.36, textured=True) for a in angles]


SHAPES: dict[str, tuple[Part, ...]] = {
    "apple": (
        _oval("main", -0.3, 0.15, 0.62, 0.8, textured=True),
        _oval("main", 0.3, 0.15, 0.62, 0.8, textured=True),
        _poly("ink", [(-0.06, -0.5), (0.06, -0.5), (0.2, -1.0), (0.06, -1.0)]),
        _oval("shade", 0.42, -0.78, 0.32, 0.14),
    ),
    "banana": (_crescent(), _box("ink", -1.02, -0.72, -0.88, -0.42), _box("ink", 0.88, -0.72, 1.02, -0.42)),
    "boat": (
        _poly("main", [(-1.0, 0.3), (1.0, 0.3), (0.65, 0.85), (-0.65, 0.85)], textured=True),
        _box("ink", -0.05, -0.95, 0.05, 0.3),
        _poly("light", [(0.1, -0.9), (0.1, 0.18), (0.8, 0.18)]),
        _poly("shade", [(-0.1, -0.75), (-0.1, 0.18), (-0.6, 0.18)]),
    ),
    "car": (
        _poly(
            "main",
            [
                (-1, 0.4),
                (-1, 0),
                (-0.6, -0.05),
                (-0.35, -0.5),
                (0.4, -0.5),
                (0.65, -0.05),
                (1, 0.05),
                (1, 0.4),
            ],
            True,
        ),
        _poly("light", [(-0.42, -0.05), (-0.25, -0.38), (0.0, -0.38), (0.0, -0.05)]),
        _poly("light", [(0.1, -0.05), (0.1, -0.38), (0.32, -0.38), (0.48, -0.05)]),
        _oval("ink", -0.55, 0.42, 0.25, 0.25),
        _oval("ink", 0.55, 0.42, 0.25, 0.25),
    ),
    "clock": (
        _oval("main", 0, 0, 0.95, 0.95, textured=True),
        _oval("light", 0, 0, 0.72, 0.72),
        _box("ink", -0.06, -0.58, 0.06, 0.06),
        _box("ink", -0.06, -0.06, 0.45, 0.06),
    ),
    "cup": (
        _ring("shade", 0.62, 0.05, 0.38, 0.22),
        _poly("main", [(-0.75, -0.65), (0.65, -0.65), (0.5, 0.75), (-0.6, 0.75)], textured=True),
        _oval("light", -0.05, -0.65, 0.7, 0.16),
    ),
    "fish": (
        _poly("shade", [(0.5, 0), (1.0, -0.5), (1.0, 0.5)]),
        _oval("main", -0.2, 0, 0.8, 0.48, textured=True),
        _poly("shade", [(-0.3, -0.42), (0.15, -0.75), (0.2, -0.4)]),
        _oval("light", -0.6, -0.1, 0.14, 0.14),
        _oval("ink", -0.62, -0.1, 0.07, 0.07),
    ),
    "flower": (*_petals(), _oval("light", 0, 0, 0.36, 0.36), _oval("ink", 0, 0, 0.16, 0.16)),
    "house": (
        _box("main", -0.7, -0.1, 0.7, 0.85, textured=True),
        _poly("shade", [(-0.95, -0.1), (0, -0.95), (0.95, -0.1)]),
        _box("ink", -0.15, 0.3, 0.2, 0.85),
        _box("light", -0.52, 0.1, -0.25, 0.38),
        _box("light", 0.3, 0.1, 0.56, 0.38),
    ),
    "key": (
        _ring("main", -0.55, 0, 0.45, 0.2),
        _box("main", -0.15, -0.12, 1.0, 0.12),
        _box("main", 0.55, 0.1, 0.7, 0.45),
        _box("main", 0.85, 0.1, 1.0, 0.4),
    ),
    "star": (_star(),),
    "tree": (
        _box("ink", -0.13, 0.35, 0.13, 1.0),
        _poly("main", [(0, -1.0), (0.5, -0.35), (-0.5, -0.35)], textured=True),
        _poly("main", [(0, -0.7), (0.65, 0.05), (-0.65, 0.05)], textured=True),
        _poly("shade", [(0, -0.3), (0.8, 0.5), (-0.8, 0.5)], textured=True),
    ),
}

CLASS_NAMES: tuple[str, ...] = tuple(SHAPES)
