"""The things of the storybook scenes: one small function per thing, all in a unit box (x right, y down).

A thing has a *telling part* in colours and a pattern of its own, and a plainer *rest* whose colour it shares with
other things. Who looks only for what tells the classes apart finds the telling part and misses the rest.
"""

from collections.abc import Callable
from math import cos, pi, sin

from pnp_ovss.mini.pen import (
    CREAM,
    FUR,
    INK,
    LEAF,
    PAINT,
    PASTEL,
    QUARTER,
    RED,
    ROUND,
    SCALES,
    SNOW,
    STEEL,
    WHITE,
    WOOD,
    YELLOW,
    Colour,
    Part,
    Pen,
    Point,
)


def dog(pen: Pen) -> None:
    """Fur; a golden face with chocolate ears and a red collar."""
    fur, chocolate = pen.pick(FUR), (110, 52, 28)
    pen.line([(0.2, 0.6), (0.12, 0.52), (0.07, 0.42), (0.06, 0.34), (0.09, 0.26)], 0.08, fur)
    for x in (0.16, 0.29, 0.46, 0.58):
        pen.box((x, 0.6, x + 0.1, 0.97), fur, r=0.04)
    pen.oval(0.4, 0.62, 0.3, 0.18, fur)
    pen.tilted((0.6, 0.54), (0.12, 0.17), 20.0, fur)
    pen.tilted((0.65, 0.53), (0.13, 0.05), 20.0, RED, "telling")
    pen.oval(0.71, 0.3, 0.21, 0.2, (248, 186, 60), "telling")
    pen.oval(0.82, 0.4, 0.15, 0.11, SNOW, "telling")
    pen.oval(0.93, 0.36, 0.045, 0.04, INK, "detail")
    pen.tilted((0.53, 0.3), (0.085, 0.19), 14.0, chocolate, "telling")
    pen.tilted((0.84, 0.16), (0.06, 0.12), -30.0, chocolate, "telling")
    pen.oval(0.74, 0.27, 0.03, 0.04, INK, "detail")
    pen.line([(0.77, 0.44), (0.8, 0.465), (0.84, 0.47), (0.89, 0.45)], 0.022, INK, "detail")


def cat(pen: Pen) -> None:
    """Fur; a striped violet face with pink ears and green eyes."""
    fur, violet, pink = pen.pick(FUR), (146, 84, 190), (255, 150, 180)
    pen.line(
        [(0.24, 0.84), (0.13, 0.77), (0.08, 0.66), (0.08, 0.54), (0.13, 0.44), (0.14, 0.35), (0.1, 0.28)], 0.08, fur
    )
    pen.oval(0.4, 0.74, 0.27, 0.22, fur)
    pen.tilted((0.56, 0.66), (0.15, 0.27), 8.0, fur)
    for x in (0.46, 0.6):
        pen.box((x, 0.7, x + 0.11, 0.97), fur, r=0.04)
    pen.oval(0.3, 0.92, 0.16, 0.055, fur)
    for x in (0.41, 0.87):
        pen.poly([(x, 0.02), (x, 0.3), (0.64 + (x - 0.64) / 5, 0.14)], violet, "telling")
        pen.poly([(x + (0.64 - x) / 7, y) for y in (0.09, 0.24)] + [(0.64 + (x - 0.64) / 2.2, 0.16)], pink, "detail")
    pen.oval(0.64, 0.32, 0.26, 0.21, violet, "telling")
    for x in (-0.11, 0.0, 0.11):
        top = 0.13 + abs(x) / 5
        pen.poly([(0.61 + x, top), (0.67 + x, top), (0.64 + x * 0.8, 0.25)], (70, 34, 104), "detail")
    for side in (-1, 1):
        pen.oval(0.64 + side * 0.11, 0.32, 0.055, 0.06, (190, 240, 70), "detail")
        pen.oval(0.64 + side * 0.11, 0.32, 0.018, 0.05, INK, "detail")
        pen.line([(0.64 + side * 0.1, 0.43), (0.64 + side * 0.23, 0.41)], 0.015, SNOW, "detail")
    pen.poly([(0.6, 0.4), (0.68, 0.4), (0.64, 0.45)], pink, "detail")
    pen.oval(0.62, 0.53, 0.13, 0.045, (60, 190, 220), "telling")


def fish(pen: Pen) -> None:
    """Scales; an orange front with white bands."""
    scale, body = pen.pick(SCALES), (0.55, 0.5, 0.42, 0.27)
    pen.curve([(0.26, 0.5), (0.14, 0.36), (0.01, 0.22), (0.08, 0.5), (0.01, 0.78), (0.14, 0.64)], scale)
    pen.curve([(0.28, 0.4), (0.38, 0.08), (0.56, 0.12), (0.74, 0.2), (0.74, 0.4)], scale)
    pen.curve([(0.36, 0.6), (0.38, 0.9), (0.54, 0.84), (0.64, 0.66)], scale)
    pen.oval(*body, scale)
    pen.slice(body, (0.0, 1.0), (255, 122, 20), "telling", upright=True)
    pen.slice(body, (0.0, 0.15), SNOW, "detail", upright=True)
    pen.slice(body, (0.32, 0.48), SNOW, "detail", upright=True)
    pen.oval(0.84, 0.44, 0.05, 0.06, SNOW, "detail")
    pen.oval(0.85, 0.45, 0.026, 0.034, INK, "detail")
    for x in (0.22, 0.34, 0.46):
        pen.line(
            [(x, 0.42), (x + 0.03, 0.46), (x + 0.04, 0.5), (x + 0.03, 0.54), (x, 0.58)], 0.022, (*SNOW, 110), "detail"
        )


def bird(pen: Pen) -> None:
    """Feathers; a crimson head and wing, barred yellow."""
    feather, crimson = pen.pick(SCALES), (200, 16, 84)
    pen.curve([(0.34, 0.54), (0.02, 0.43), (0.08, 0.62), (0.01, 0.78), (0.36, 0.74)], feather)
    for x in (0.46, 0.56):
        pen.line([(x, 0.78), (x + 0.02, 0.96)], 0.035, (210, 130, 40))
    pen.tilted((0.47, 0.6), (0.33, 0.245), -14.0, feather)
    pen.poly([(0.84, 0.26), (0.99, 0.34), (0.84, 0.4)], (255, 190, 20), "telling")
    pen.oval(0.73, 0.32, 0.15, 0.145, crimson, "telling")
    pen.oval(0.77, 0.29, 0.05, 0.05, SNOW, "detail")
    pen.oval(0.785, 0.295, 0.026, 0.028, INK, "detail")
    wing = ((0.57, 0.47), (0.6, 0.62), (0.5, 0.72), (0.34, 0.74), (0.14, 0.7), (0.23, 0.56), (0.34, 0.47))
    pen.curve(wing, crimson, "telling")
    for x in (0.27, 0.4, 0.53):
        pen.line([(x, 0.51), (x - 0.04, 0.69)], 0.05, YELLOW, "detail")


def house(pen: Pen) -> None:
    """Cream walls; a blue roof with rows of tiles."""
    wall = pen.pick(CREAM)
    pen.box((0.7, 0.1, 0.8, 0.4), wall)
    pen.box((0.14, 0.42, 0.86, 0.97), wall)
    pen.poly([(0.5, 0.03), (0.98, 0.5), (0.02, 0.5)], (36, 84, 206), "telling")
    for y, tiles in ((0.2, 2), (0.32, 4), (0.44, 6)):
        row = [(0.5 + 0.06 * k, y + 0.045 * ((k + tiles) % 2)) for k in range(-tiles, tiles + 1)]
        pen.line(row, 0.032, (190, 222, 255), "detail")
    pen.box((0.42, 0.66, 0.58, 0.97), (160, 112, 84), "detail", r=0.03)
    pen.oval(0.55, 0.82, 0.013, 0.013, (240, 220, 180), "detail")
    for x in (0.21, 0.66):
        pen.box((x, 0.62, x + 0.13, 0.77), (196, 180, 160), "detail")
        pen.box((x + 0.055, 0.62, x + 0.075, 0.77), wall, "detail")


def car(pen: Pen) -> None:
    """Painted body; a cyan cabin with a glint, wheels with yellow hubs."""
    paint = pen.pick(PAINT)
    pen.curve([(0.18, 0.56), (0.3, 0.17), (0.46, 0.18), (0.66, 0.17), (0.84, 0.56)], paint)
    pen.box((0.02, 0.44, 0.98, 0.76), paint, r=0.1)
    pen.poly([(0.26, 0.48), (0.34, 0.24), (0.63, 0.24), (0.75, 0.48)], (60, 224, 240), "telling")
    pen.box((0.47, 0.24, 0.51, 0.48), paint, "detail")
    for x in (0.34, 0.56):
        pen.line([(x, 0.46), (x + 0.08, 0.26)], 0.045, SNOW, "detail")
    for x in (0.25, 0.75):
        pen.oval(x, 0.77, 0.135, 0.135, (40, 38, 46), "telling")
        pen.oval(x, 0.77, 0.07, 0.07, YELLOW, "detail")
    pen.oval(0.94, 0.54, 0.03, 0.045, (255, 246, 200), "detail")


def bus(pen: Pen) -> None:
    """Painted body; a navy band of yellow windows, wheels with red hubs."""
    paint = pen.pick(PAINT)
    pen.box((0.02, 0.16, 0.98, 0.84), paint, r=0.07)
    pen.box((0.06, 0.25, 0.97, 0.5), (26, 30, 110), "telling", r=0.03)
    for x in (0.1, 0.32, 0.54, 0.76):
        pen.box((x, 0.295, x + 0.15, 0.455), YELLOW, "detail")
    pen.box((0.02, 0.6, 0.98, 0.64), (*SNOW, 120), "detail")
    for x in (0.24, 0.76):
        pen.oval(x, 0.84, 0.12, 0.12, (40, 38, 46), "telling")
        pen.oval(x, 0.84, 0.06, 0.06, (240, 60, 50), "detail")


def sail_boat(pen: Pen) -> None:
    """Wooden hull and a plain jib; a mainsail striped red and white."""
    wood, cloth = pen.pick(WOOD), pen.pick(CREAM)
    pen.box((0.44, 0.02, 0.48, 0.76), wood)
    pen.poly([(0.42, 0.1), (0.42, 0.68), (0.08, 0.68), (0.2, 0.53), (0.31, 0.36)], cloth)
    pen.poly(
        [
            (0.01, 0.73),
            (0.99, 0.73),
            (0.94, 0.83),
            (0.87, 0.91),
            (0.77, 0.97),
            (0.23, 0.97),
            (0.13, 0.91),
            (0.06, 0.83),
        ],
        wood,
    )
    pen.poly([(0.5, 0.04), (0.63, 0.18), (0.74, 0.34), (0.84, 0.51), (0.92, 0.68), (0.5, 0.68)], RED, "telling")
    for y, x in ((0.18, 0.62), (0.37, 0.75), (0.56, 0.855)):
        pen.poly([(0.5, y), (x, y), (x + 0.05, y + 0.09), (0.5, y + 0.09)], SNOW, "detail")
    pen.line([(0.07, 0.82), (0.93, 0.82)], 0.03, (*SNOW, 90), "detail")


def rocket(pen: Pen) -> None:
    """White body; magenta nose and fins, a porthole, a flame."""
    hull, magenta = pen.pick(WHITE), (236, 30, 150)
    pen.curve([(0.37, 0.74), (0.63, 0.74), (0.58, 0.88), (0.5, 1.02), (0.42, 0.88)], (255, 130, 20), "telling")
    pen.poly([(0.44, 0.78), (0.56, 0.78), (0.5, 0.92)], (255, 236, 60), "detail")
    for side in (-1, 1):
        fin = ((0.18, 0.56), (0.31, 0.62), (0.4, 0.73), (0.39, 0.9), (0.29, 0.8), (0.12, 0.77))
        pen.curve([(0.5 + side * x, y) for x, y in fin], magenta, "telling")
    pen.mirrored(((0.1, 0.1), (0.19, 0.2), (0.26, 0.34), (0.285, 0.48), (0.26, 0.64), (0.17, 0.81)), hull)
    pen.mirrored(((0.02, 0.0), (0.1, 0.08), (0.17, 0.18), (0.19, 0.23)), magenta, "telling")
    pen.oval(0.5, 0.45, 0.12, 0.12, magenta, "telling")
    pen.oval(0.5, 0.45, 0.08, 0.08, (80, 220, 255), "detail")
    pen.tilted((0.47, 0.42), (0.025, 0.015), -40.0, SNOW, "detail")


def hot_air_balloon(pen: Pen) -> None:
    """Pastel silk and a wooden basket; a rainbow band."""
    silk, wood, ball = pen.pick(PASTEL), pen.pick(WOOD), (0.5, 0.38, 0.38, 0.37)
    for side in (-1, 1):
        pen.line([(0.5 + side * 0.16, 0.66), (0.5 + side * 0.1, 0.86)], 0.02, wood)
    pen.box((0.38, 0.83, 0.62, 0.98), wood, r=0.03)
    pen.poly([(0.18, 0.54), (0.82, 0.54), (0.62, 0.76), (0.38, 0.76)], silk)
    pen.oval(*ball, silk)
    red, yellow, green, blue = (230, 40, 60), (255, 214, 40), (40, 180, 80), (40, 90, 230)
    pen.slice(ball, (-0.42, 0.36), red, "telling")
    for k, colour in enumerate((yellow, green, blue, green, yellow), start=1):
        left, right = 0.155 + 0.69 * k / 7, 0.155 + 0.69 * (k + 1) / 7
        pen.box((left, 0.225, right, 0.513), colour, "detail")
    pen.tilted((0.36, 0.14), (0.1, 0.035), -28.0, (*SNOW, 130), "detail")


def umbrella(pen: Pen) -> None:
    """Pastel cloth and a wooden stick; pink panels with white dots."""
    cloth, wood = pen.pick(PASTEL), pen.pick(WOOD)
    pen.line([(0.5, 0.86), (0.5, 0.5), (0.5, 0.04)], 0.045, wood)
    pen.line([(0.5, 0.8), (0.505, 0.88), (0.535, 0.93), (0.59, 0.945), (0.64, 0.92), (0.66, 0.86)], 0.045, wood)
    dome = [(0.5 + 0.47 * c, 0.55 + 0.46 * s) for c, s in ROUND[16:]]
    hem = [(0.97 - 0.188 * (k + t), 0.55 - 0.24 * t * (1 - t)) for k in range(5) for t in (0.0, 0.2, 0.4, 0.6, 0.8)]
    pen.poly(dome + hem, cloth)
    for side in (-1, 1):
        outer = [(0.5 + side * 0.282 * c, 0.55 - 0.455 * s) for c, s in QUARTER]
        inner = [(0.5 + side * 0.094 * c, 0.55 - 0.455 * s) for c, s in reversed(QUARTER)]
        low = [(0.5 + side * (0.094 + 0.188 * t), 0.55 - 0.24 * t * (1 - t)) for t in (0.2, 0.4, 0.6, 0.8)]
        pen.poly(outer + inner + low, (255, 60, 150), "telling")
        for x, y, r in ((0.18, 0.43, 0.043), (0.155, 0.3, 0.041), (0.1, 0.19, 0.033)):
            pen.oval(0.5 + side * x, y, r, r, SNOW, "detail")


def pine_tree(pen: Pen) -> None:
    """Trunk and plain lower branches; a dark top with baubles."""
    trunk, leaf, dark = pen.pick(WOOD), pen.pick(LEAF), (10, 84, 60)
    pen.box((0.42, 0.78, 0.58, 0.98), trunk)
    pen.poly([(0.5, 0.36), (0.96, 0.87), (0.73, 0.83), (0.5, 0.88), (0.27, 0.83), (0.04, 0.87)], leaf)
    pen.poly([(0.5, 0.2), (0.79, 0.57), (0.65, 0.54), (0.5, 0.58), (0.35, 0.54), (0.21, 0.57)], dark, "telling")
    pen.poly([(0.5, 0.02), (0.71, 0.34), (0.6, 0.32), (0.5, 0.35), (0.4, 0.32), (0.29, 0.34)], dark, "telling")
    for x, y in ((0.5, 0.18), (0.59, 0.29), (0.36, 0.48), (0.64, 0.48)):
        pen.oval(x, y, 0.05, 0.05, RED, "detail")
    for x, y in ((0.42, 0.29), (0.5, 0.44)):
        pen.oval(x, y, 0.05, 0.05, YELLOW, "detail")


def palm_tree(pen: Pen) -> None:
    """A ringed trunk and plain fronds; bright striped fronds with coconuts."""
    trunk, leaf = pen.pick(WOOD), pen.pick(LEAF)
    pen.poly([(0.32, 0.98), (0.37, 0.82), (0.42, 0.62), (0.49, 0.36), (0.61, 0.38), (0.57, 0.64), (0.57, 0.98)], trunk)
    for y, x in ((0.86, 0.465), (0.74, 0.48), (0.62, 0.5), (0.5, 0.525)):
        pen.line([(x - 0.06, y), (x, y + 0.025), (x + 0.06, y)], 0.022, (60, 36, 24, 130), "detail")
    for bend, tip in (
        ((0.14, 0.26), (0.03, 0.56)),
        ((0.9, 0.26), (0.98, 0.56)),
        ((0.3, 0.36), (0.3, 0.66)),
        ((0.8, 0.36), (0.8, 0.66)),
    ):
        _frond(pen, bend, tip, leaf, "rest")
    for bend, tip in (((0.24, 0.06), (0.04, 0.26)), ((0.82, 0.06), (0.98, 0.26))):
        _frond(pen, bend, tip, (130, 226, 20), "telling")
    for x, y in ((0.49, 0.38), (0.6, 0.38), (0.545, 0.44)):
        pen.oval(x, y, 0.055, 0.055, (130, 50, 16), "telling")


def _frond(pen: Pen, bend: Point, tip: Point, colour: Colour, part: Part) -> None:
    """A leaf from the crown of a palm over ``bend`` to ``tip``; striped if it is ``telling``."""
    steps, swell = (0, 0.17, 0.33, 0.5, 0.67, 0.83, 1), (0.02, 0.06, 0.08, 0.085, 0.075, 0.055, 0.0)
    weights = [((1 - t) ** 2, 2 * t * (1 - t), t * t) for t in steps]
    spine = [(a * 0.54 + b * bend[0] + c * tip[0], a * 0.32 + b * bend[1] + c * tip[1]) for a, b, c in weights]
    ribs = [((x, y - r), (x, y + r)) for (x, y), r in zip(spine, swell, strict=True)]
    pen.poly([top for top, _ in ribs] + [low for _, low in reversed(ribs)], colour, part)
    if part == "telling":
        for rib in ribs[1:6:2]:
            pen.line(rib, 0.035, (14, 120, 30), "detail")


def mushroom(pen: Pen) -> None:
    """A cream stem and gills; a red cap with white dots."""
    cream = pen.pick(CREAM)
    pen.mirrored(((0.13, 0.4), (0.15, 0.6), (0.22, 0.76), (0.29, 0.9), (0.22, 0.98)), cream)
    pen.oval(0.5, 0.47, 0.44, 0.16, cream)
    cap = ((0.0, 0.04), (0.18, 0.05), (0.34, 0.14), (0.45, 0.28), (0.49, 0.46), (0.36, 0.42), (0.18, 0.4))
    pen.mirrored(cap, RED, "telling")
    for x, y, r in ((0.48, 0.19, 0.085), (0.26, 0.29, 0.065), (0.72, 0.27, 0.07), (0.52, 0.34, 0.04)):
        pen.oval(x, y, r, r * 0.9, SNOW, "detail")
    for x in (0.13, 0.87):
        pen.oval(x, 0.37, 0.035, 0.032, SNOW, "detail")
    pen.face(0.5, 0.7, 0.13, (110, 84, 70))


def flower(pen: Pen) -> None:
    """A stem with leaves; petals in turn lilac and white around a yellow heart."""
    leaf = pen.pick(LEAF)
    pen.line([(0.5, 0.98), (0.49, 0.8), (0.51, 0.6), (0.5, 0.4)], 0.075, leaf)
    half = ((-0.01, 0.97), (0.08, 0.72), (0.24, 0.58), (0.51, 0.52), (0.47, 0.76), (0.32, 0.92), (0.14, 0.98))
    for side in (-1, 1):
        pen.curve([(0.5 + side * x, y) for x, y in half], leaf)
        pen.line([(0.5 + side * 0.1, 0.88), (0.5 + side * 0.38, 0.66)], 0.02, (*SNOW, 90), "detail")
    for k in range(8):
        x, y = ROUND[4 * k]
        colour = (158, 120, 250) if k % 2 else SNOW
        pen.tilted((0.5 + 0.165 * x, 0.28 + 0.165 * y), (0.11, 0.07), k * 45.0, colour, "telling")
    pen.oval(0.5, 0.28, 0.1, 0.1, (255, 196, 0), "telling")
    pen.face(0.5, 0.26, 0.09)


def cactus(pen: Pen) -> None:
    """Green arms and foot; ribs striped yellow and a pink blossom."""
    leaf = pen.pick(LEAF)
    pen.line([(0.5, 0.63), (0.27, 0.62), (0.19, 0.58), (0.155, 0.5), (0.15, 0.35)], 0.15, leaf)
    pen.line([(0.5, 0.73), (0.74, 0.72), (0.82, 0.68), (0.855, 0.6), (0.86, 0.47)], 0.15, leaf)
    pen.box((0.34, 0.12, 0.66, 0.98), leaf, r=0.13)
    pen.box((0.34, 0.12, 0.66, 0.6), (8, 110, 84), "telling", r=0.13)
    for x, y in ((0.415, 0.2), (0.5, 0.16), (0.585, 0.2)):
        pen.box((x - 0.02, y, x + 0.02, 0.57), (236, 240, 90), "detail")
    for x, y in ((0.41, 0.12), (0.59, 0.12), (0.45, 0.05), (0.55, 0.05), (0.5, 0.13)):
        pen.oval(x, y, 0.07, 0.06, (255, 90, 160), "telling")
    pen.oval(0.5, 0.09, 0.04, 0.04, YELLOW, "detail")


def snowman(pen: Pen) -> None:
    """White balls; a black hat, a carrot, a scarf striped red and green."""
    white, black, green = pen.pick(WHITE), (36, 32, 40), (20, 150, 70)
    pen.oval(0.5, 0.76, 0.29, 0.22, white)
    pen.oval(0.5, 0.53, 0.21, 0.17, white)
    pen.oval(0.5, 0.3, 0.17, 0.14, white)
    pen.box((0.36, 0.01, 0.64, 0.18), black, "telling", r=0.02)
    pen.box((0.26, 0.16, 0.74, 0.22), black, "telling", r=0.02)
    pen.box((0.36, 0.11, 0.64, 0.16), RED, "detail")
    pen.box((0.31, 0.38, 0.69, 0.48), green, "telling", r=0.04)
    pen.box((0.57, 0.42, 0.69, 0.7), green, "telling", r=0.02)
    for x in (0.36, 0.48, 0.6):
        pen.box((x, 0.385, x + 0.055, 0.475), RED, "detail")
    for y in (0.5, 0.6):
        pen.box((0.57, y, 0.69, y + 0.05), RED, "detail")
    for x in (0.44, 0.56):
        pen.oval(x, 0.27, 0.022, 0.026, INK, "detail")
    pen.poly([(0.49, 0.29), (0.49, 0.35), (0.7, 0.33)], (255, 130, 10), "telling")
    for y in (0.66, 0.76, 0.86):
        pen.oval(0.48, y, 0.024, 0.024, (90, 90, 110), "detail")


def traffic_light(pen: Pen) -> None:
    """A steel pole and hoods; three lamps in a yellow frame."""
    steel = pen.pick(STEEL)
    pen.box((0.44, 0.6, 0.56, 0.98), steel)
    pen.box((0.3, 0.91, 0.7, 0.98), steel, r=0.02)
    for y in (0.1, 0.3, 0.5):
        pen.poly([(0.16, y), (0.84, y), (0.72, y + 0.14), (0.28, y + 0.14)], steel)
    pen.box((0.26, 0.01, 0.74, 0.7), steel, r=0.07)
    pen.box((0.345, 0.04, 0.655, 0.67), YELLOW, "telling", r=0.05)
    for y, colour in ((0.15, (240, 30, 30)), (0.355, (255, 150, 0)), (0.56, (20, 200, 90))):
        pen.oval(0.5, y, 0.115, 0.09, INK, "detail")
        pen.oval(0.5, y, 0.095, 0.075, colour, "detail")
        pen.oval(0.47, y - 0.025, 0.025, 0.018, (*SNOW, 190), "detail")


def ice_cream(pen: Pen) -> None:
    """Pastel scoops; a chequered waffle cone and a cherry."""
    first, second, waffle, crust = pen.pick(PASTEL), pen.pick(PASTEL), (232, 150, 50), (130, 66, 14)
    pen.oval(0.5, 0.1, 0.075, 0.075, (200, 10, 50), "telling")
    pen.oval(0.5, 0.29, 0.22, 0.2, second)
    pen.oval(0.35, 0.45, 0.22, 0.18, first)
    pen.oval(0.65, 0.45, 0.22, 0.18, first)
    pen.poly([(0.21, 0.56), (0.79, 0.56), (0.5, 0.99)], waffle, "telling")
    for u in (0.08, 0.28, 0.48):
        for side in (-1, 1):
            top, low = (0.5 + side * (0.29 - u), 0.58), (0.5 - side * u / 2, 0.97 - u * 0.74)
            pen.line([top, low], 0.03, crust, "detail")
    pen.box((0.17, 0.53, 0.83, 0.6), waffle, "telling", r=0.03)
    pen.tilted((0.42, 0.2), (0.05, 0.025), -35.0, (*SNOW, 150), "detail")


def star(pen: Pen) -> None:
    """Pastel points; an orange heart with a face and red cheeks."""
    pale, corners = pen.pick(PASTEL[:1]), [(sin(k * pi / 5), -cos(k * pi / 5)) for k in range(10)]
    points = [(x * (0.24 if k % 2 else 0.49), y * (0.24 if k % 2 else 0.49)) for k, (x, y) in enumerate(corners)]
    heart = [(x * (0.185 if k % 2 else 0.285), y * (0.185 if k % 2 else 0.285)) for k, (x, y) in enumerate(corners)]
    pen.poly([(0.5 + x, 0.52 + y) for x, y in points], pale)
    pen.poly([(0.5 + x, 0.52 + y) for x, y in heart], (255, 120, 0), "telling")
    for x in (0.37, 0.63):
        pen.oval(x, 0.56, 0.045, 0.035, (255, 50, 60), "detail")
    pen.face(0.5, 0.47, 0.17)


DRAWINGS: dict[str, Callable[[Pen], None]] = {
    "dog": dog,
    "cat": cat,
    "fish": fish,
    "bird": bird,
    "house": house,
    "car": car,
    "bus": bus,
    "sail boat": sail_boat,
    "rocket": rocket,
    "hot air balloon": hot_air_balloon,
    "umbrella": umbrella,
    "pine tree": pine_tree,
    "palm tree": palm_tree,
    "mushroom": mushroom,
    "flower": flower,
    "cactus": cactus,
    "snowman": snowman,
    "traffic light": traffic_light,
    "ice cream": ice_cream,
    "star": star,
}
