"""The pen that things are drawn with, in a unit box (x right, y down), and the colours they share."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import cos, hypot, pi, sin
from typing import Literal

import numpy as np

Point = tuple[float, float]
Points = Sequence[Point]
Box = tuple[float, float, float, float]
Colour = tuple[int, ...]  # red, green, blue and, for a see-through detail, alpha
Part = Literal["rest", "telling", "detail"]

# Colours of the rest, each shared by two classes or more.
FUR: tuple[Colour, ...] = ((176, 132, 96), (150, 138, 130), (196, 164, 128), (128, 98, 80))
SCALES: tuple[Colour, ...] = ((112, 168, 190), (146, 186, 150), (206, 150, 140))
CREAM: tuple[Colour, ...] = ((250, 236, 206), (244, 222, 188), (240, 228, 216))
PAINT: tuple[Colour, ...] = ((214, 84, 76), (92, 142, 206), (104, 170, 116), (238, 176, 88))
WOOD: tuple[Colour, ...] = ((150, 104, 70), (128, 88, 62), (168, 124, 84))
LEAF: tuple[Colour, ...] = ((86, 150, 84), (104, 166, 96), (78, 138, 100))
WHITE: tuple[Colour, ...] = ((248, 248, 252), (232, 236, 244), (240, 238, 232))
STEEL: tuple[Colour, ...] = ((86, 92, 108), (70, 76, 88), (102, 104, 112))
PASTEL: tuple[Colour, ...] = ((250, 214, 140), (246, 188, 190), (190, 206, 240), (196, 228, 200))

INK: Colour = (52, 40, 48)
SNOW: Colour = (255, 255, 255)
RED: Colour = (222, 44, 48)
YELLOW: Colour = (255, 208, 44)
ROUND = tuple((cos(2 * pi * k / 32), sin(2 * pi * k / 32)) for k in range(32))
QUARTER = ROUND[:9]


@dataclass
class Pen:
    """Collects the polygons of one thing, in drawing order; ``rng`` chooses among the class's colours."""

    rng: np.random.Generator
    strokes: list[tuple[Points, Colour, Part]] = field(default_factory=list)

    def pick(self, palette: Sequence[Colour]) -> Colour:
        """A colour of ``palette``, a little lighter or darker."""
        colour = palette[int(self.rng.integers(len(palette)))]
        shade = int(self.rng.integers(-10, 11))
        return tuple(min(255, max(0, c + shade)) for c in colour)

    def poly(self, points: Points, colour: Colour, part: Part = "rest") -> None:
        """A filled polygon. A ``detail`` lies inside what is drawn already: no outline, no change of the mask."""
        self.strokes.append((points, colour, part))

    def curve(self, points: Points, colour: Colour, part: Part = "rest") -> None:
        """A filled polygon whose corners are rounded off."""
        for _ in range(2):  # each pass cuts every corner at a quarter of its sides (Chaikin)
            sides = zip(points, [*points[1:], points[0]], strict=True)
            points = [(a + (c - a) * t, b + (d - b) * t) for (a, b), (c, d) in sides for t in (0.2, 0.8)]
        self.poly(points, colour, part)

    def oval(self, x: float, y: float, rx: float, ry: float, colour: Colour, part: Part = "rest") -> None:
        """An ellipse around (x, y) with the radii rx, ry."""
        self.poly([(x + rx * c, y + ry * s) for c, s in ROUND], colour, part)

    def tilted(self, centre: Point, radii: Point, degrees: float, colour: Colour, part: Part = "rest") -> None:
        """An ellipse turned clockwise by ``degrees``."""
        (x, y), (rx, ry), turn = centre, radii, degrees * pi / 180
        c, s = cos(turn), sin(turn)
        self.poly([(x + rx * u * c - ry * v * s, y + rx * u * s + ry * v * c) for u, v in ROUND], colour, part)

    def box(self, corners: Box, colour: Colour, part: Part = "rest", r: float = 0.0) -> None:
        """A rectangle (x0, y0, x1, y1) with corners rounded by the radius ``r``."""
        x0, y0, x1, y1 = corners
        if r == 0:
            return self.poly([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour, part)
        centres = ((x1 - r, y1 - r), (x0 + r, y1 - r), (x0 + r, y0 + r), (x1 - r, y0 + r))
        turns = [(centres[q], ROUND[k % 32]) for q in range(4) for k in range(8 * q, 8 * q + 9, 2)]
        return self.poly([(x + r * c, y + r * s) for (x, y), (c, s) in turns], colour, part)

    def line(self, points: Points, width: float, colour: Colour, part: Part = "rest") -> None:
        """A line of even width through the points, as one polygon."""
        left, right = [], []
        ways = zip([points[0], *points], points, [*points[1:], points[-1]], strict=False)
        for (x0, y0), (x, y), (x1, y1) in ways:
            half = width / 2 / hypot(x1 - x0, y1 - y0)
            left.append((x - (y1 - y0) * half, y + (x1 - x0) * half))
            right.append((x + (y1 - y0) * half, y - (x1 - x0) * half))
        self.poly(left + right[::-1], colour, part)
        if part != "detail":  # a tail ends round
            self.oval(*points[-1], width / 2, width / 2, colour, part)

    def mirrored(self, half: Points, colour: Colour, part: Part = "rest") -> None:
        """A rounded shape, left and right alike; ``half`` is (distance from the middle, y), downwards."""
        self.curve([(0.5 + x, y) for x, y in half] + [(0.5 - x, y) for x, y in reversed(half)], colour, part)

    def slice(self, oval: Box, span: Point, colour: Colour, part: Part, upright: bool = False) -> None:
        """The part of an ellipse (x, y, rx, ry) between two heights, or between two widths if ``upright``.

        ``span`` is in radii: (-1, 1) is the whole ellipse.
        """
        x, y, rx, ry = oval
        steps = [span[0] + (span[1] - span[0]) * sin(k * pi / 20) for k in range(11)]  # dense where the end is round
        edge = [(max(0.0, 1 - t * t) ** 0.5, t) for t in steps]
        ring = edge + [(-c, t) for c, t in reversed(edge)]
        self.poly([(x + rx * (t if upright else c), y + ry * (c if upright else t)) for c, t in ring], colour, part)

    def face(self, x: float, y: float, size: float, colour: Colour = INK) -> None:
        """Two eyes and a smile."""
        for side in (-1, 1):
            self.oval(x + side * size * 0.5, y, size * 0.17, size * 0.22, colour, "detail")
        smile = [(x + size * 0.5 * c, y + size * (0.3 + 0.35 * s)) for c, s in ROUND[2:15:2]]
        self.line(smile, size * 0.14, colour, "detail")
