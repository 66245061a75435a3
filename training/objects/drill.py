"""A cordless drill, 22 cm tall: python -m training.objects.drill OUT.ply

Frame: z up, chuck towards +x, y to its left; the origin is the centre of the bounding box. While
it is being built the origin lies on the motor's axis and lengths are millimetres. Left and right
differ on purpose: label, screws, clip, switch, spare bit.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from training.synth.mesh import Mesh

from .ply import write_ply
from .solid import Paint, Ring, Workpiece, block, lathe, loft, prism, rod, twist

Polygon = list[tuple[float, float]]
TEAL, YELLOW, RED = (14, 128, 138), (240, 186, 22), (196, 32, 30)
RUBBER, BLACK, DARK = (46, 47, 50), (20, 20, 22), (70, 72, 76)
STEEL, BRIGHT, WHITE, GREEN = (138, 140, 144), (188, 189, 192), (235, 235, 230), (70, 200, 80)

HOUSING = [
    Ring(-72, 13, 14),
    Ring(-70, 20, 21),
    Ring(-66, 25, 26),
    Ring(-58, 28, 29, power=2.2),
    Ring(-46, 29.5, 31, power=2.3),
    Ring(-10, 30, 32, power=2.4),
    Ring(18, 30, 32, power=2.4),
    Ring(34, 28, 29.5, power=2.2),
    Ring(41, 26, 27),
]
GRIP = [
    Ring(-8, 34, 22, u=-16),
    Ring(-26, 29, 21, u=-20),
    Ring(-38, 24, 19, u=-24),
    Ring(-55, 21, 17.5, u=-28),
    Ring(-85, 19.5, 17, u=-32),
    Ring(-112, 20, 17.5, u=-36),
    Ring(-130, 23, 19, u=-37),
    Ring(-138, 28, 22, u=-35, power=2.3),
]
FOOT = [
    Ring(-130, 23, 19, u=-37),
    Ring(-140, 40, 27, u=-28, power=2.6),
    Ring(-147, 52, 34, u=-19, power=3.5),
    Ring(-158, 56, 36.5, u=-16, power=4.5),
]
BATTERY = [
    Ring(-159, 56, 37, u=-16, power=5),
    Ring(-162, 58, 38.5, u=-16, power=5),
    Ring(-183, 58, 38.5, u=-16, power=5),
    Ring(-187, 55, 36, u=-16, power=5),
    Ring(-188, 53, 34.5, u=-16, power=5),
]
TRIGGER = [
    Ring(-34, 10, 8, u=4),
    Ring(-38, 13, 9, u=4),
    Ring(-60, 12, 9, u=0),
    Ring(-74, 11, 8.5, u=-4),
    Ring(-77, 8, 6, u=-7),
]
DIGITS = {'1': 'bc', '8': 'abcdefg'}
SEGMENTS = {
    'a': (0, 2, 1, 2), 'b': (1, 1, 1, 2), 'c': (1, 0, 1, 1), 'd': (0, 0, 1, 0),
    'e': (0, 0, 0, 1), 'f': (0, 1, 0, 2), 'g': (0, 1, 1, 1),
}  # fmt: skip


def drill() -> Mesh:
    """The whole drill; metres, colours at the vertices."""
    piece = Workpiece()
    _shell(piece)
    _chuck(piece)
    _grip(piece)
    _foot(piece)
    _left_side(piece)
    _right_side(piece)
    return piece.mesh()


def _box(x0: float, z0: float, x1: float, z1: float, lean: float = 0.0) -> Polygon:
    """Corners (x, z) of a rectangle whose top is shifted by `lean` (mm)."""
    return [(x0, z0), (x1, z0), (x1 + lean, z1), (x0 + lean, z1)]


def _housing_label(
    piece: Workpiece, polygon: Polygon, paint: Paint, side: int, proud: float
) -> None:
    """A patch of `polygon` (x, z), `proud` of the housing (mm), on the left (+1) or right (-1)."""
    band = prism(polygon, *sorted((side * 8.0, side * 60.0)))
    piece.join(band ^ loft('x', HOUSING, grow=proud), paint)


def _battery_label(
    piece: Workpiece, polygon: Polygon, paint: Paint, side: int, proud: float
) -> None:
    band = prism(polygon, *sorted((side * 20.0, side * 60.0)))
    piece.join(band ^ loft('z', BATTERY, grow=proud), paint)


def _shell(piece: Workpiece) -> None:
    piece.join(loft('x', HOUSING, count=36), TEAL)
    piece.inlay(
        loft('x', HOUSING, grow=0.8, count=36) ^ block((-80, -50, -50), (-50, 50, 50)), RUBBER
    )
    piece.join(
        loft('x', HOUSING, grow=0.6, count=36) ^ block((26, -50, -50), (31, 50, 50)), YELLOW
    )
    for side in (1, -1):
        for k in range(5):
            x = -44 + 5.5 * k
            cutter = prism(
                _box(x, -13, x + 2.6, 11, lean=4.0), *sorted((side * 24.0, side * 60.0))
            )
            piece.cut(cutter, BLACK)
    for k in range(4):  # slots of the rear cap
        piece.cut(block((-80, -16, -13.5 + 7.5 * k), (-67, 16, -10 + 7.5 * k)), BLACK)
    badge = block((-80, -13, 15.5), (-60, 5, 20.5))
    piece.join(loft('x', HOUSING, grow=1.2, count=36) ^ badge, YELLOW)
    piece.join(block((-26, -8, 26), (6, 8, 34.4), chamfer=1.5), RUBBER)
    piece.join(block((-20, -5.5, 30), (-8, 5.5, 37), chamfer=1.2), YELLOW)
    piece.join(block((-3, -4, 30), (-1, 4, 34.9)), WHITE)
    piece.join(block((1, -4, 30), (3, -1, 34.9)), WHITE)
    piece.join(block((1, 1, 30), (3, 4, 34.9)), WHITE)
    # Lamp under the nose.
    piece.join(rod((36, 0, -28), 8.5, 16, axis='x'), RUBBER)
    piece.join(rod((40, 0, -28), 5.5, 11, axis='x'), (250, 246, 214))


def _chuck(piece: Workpiece) -> None:
    piece.join(lathe([(36, 26), (50, 25.5), (56, 24)]), DARK)
    piece.join(lathe([(44, 27), (47, 27)]), RUBBER)
    piece.join(lathe([(55, 24), (57, 26.5), (69, 26), (71, 24)], flutes=18, depth=0.06), RUBBER)
    for k in range(18):
        # Every third number of the torque ring is a long mark.
        length, paint = (
            (9.0, YELLOW) if k % 6 == 0 else (6.0, WHITE) if k % 3 == 0 else (3.0, WHITE)
        )
        mark = block((69.0 - length, -1.1, 20), (69.0, 1.1, 26.6)).rotate((20.0 * k, 0.0, 0.0))
        piece.join(mark, paint)
    piece.join(prism([(49, -4.0), (54.5, 0.0), (49, 4.0)], 20, 27, axis='z'), YELLOW)
    piece.join(lathe([(70, 20), (72, 21.8), (89, 21.8)], flutes=12, depth=0.05), RUBBER)
    piece.join(lathe([(88, 20.2), (98, 20.2), (101, 19), (111, 10.5), (113, 10)]), STEEL)
    piece.cut(lathe([(92, 30), (94, 30)]) - lathe([(90, 19.2), (96, 19.2)]), DARK)
    for k in range(3):
        jaw = prism([(-2.2, -1.0), (2.2, -1.0), (3.2, 7.0), (-3.2, 7.0)], 108, 118, axis='x')
        piece.join(jaw.rotate((120.0 * k, 0.0, 0.0)), BRIGHT)
        piece.cut(block((99, -1.6, 8), (114, 1.6, 30)).rotate((120.0 * k + 60, 0.0, 0.0)), BLACK)
    angles = 2 * np.pi * np.arange(16) / 16
    radii = 3.6 - 1.7 * np.abs(np.sin(angles)) ** 2
    piece.join(
        twist([(r * np.cos(a), r * np.sin(a)) for r, a in zip(radii, angles)], 105, 137, 420, 24),
        BRIGHT,
    )
    piece.join(lathe([(136, 2.6), (142, 0.4)], count=12), BRIGHT)


def _grip(piece: Workpiece) -> None:
    piece.join(loft('z', GRIP, count=32), TEAL)
    back = [(-80, -22), (-42, -22), (-34, -40), (-34, -70), (-40, -100), (-42, -137), (-80, -137)]
    piece.join(loft('z', GRIP, grow=0.9, count=32) ^ prism(back, -40, 40), RUBBER)
    front = [(-18, -84), (10, -84), (10, -126), (-24, -126)]
    piece.join(loft('z', GRIP, grow=0.9, count=32) ^ prism(front, -40, 40), RUBBER)
    for k in range(7):
        z = -60.0 - 10.0 * k
        for side in (1, -1):
            ridge = prism(
                _box(-70, z, -40 - 0.5 * k, z + 3.5, lean=3.0), *sorted((side * 6.0, side * 40.0))
            )
            piece.join(ridge ^ loft('z', GRIP, grow=1.8, count=32), BLACK)
    trigger = loft('z', TRIGGER, count=24)
    piece.join(trigger - rod((26, 0, -56), 15, 40, axis='y', count=32), RED)
    # The direction switch is pushed in from the left: it stands out more on the right.
    piece.join(block((-6, -25, -34), (6, 22, -27), chamfer=1.5), BLACK)
    piece.join(prism([(-3, -32.5), (3, -30.5), (-3, -28.5)], -25.6, -20), RED)
    piece.join(prism([(3, -32.5), (-3, -30.5), (3, -28.5)], 18, 22.6), GREEN)


def _foot(piece: Workpiece) -> None:
    piece.join(loft('z', FOOT, count=36), TEAL)
    piece.join(loft('z', BATTERY, count=36), RUBBER)
    seam = loft('z', [Ring(-166.2, 70, 70), Ring(-164.6, 70, 70)]) - loft(
        'z', BATTERY, grow=-1.2, count=36
    )
    piece.cut(seam, BLACK)
    band = loft('z', BATTERY, grow=0.5, count=36) ^ block((8, -60, -182), (26, 60, -168))
    piece.join(band, YELLOW)
    for side in (1, -1):
        low, high = sorted((side * 30.0, side * 42.0))
        piece.join(block((-34, low, -163), (-16, high, -153), chamfer=2.0), RED)
        low, high = sorted((side * 41.2, side * 50.0))
        for k in range(3):
            x = -31.0 + 5.0 * k
            piece.cut(block((x, low, -161), (x + 2, high, -155)), BLACK)
    # Charge display on the front of the battery: three green lamps, one red, and its button.
    piece.join(block((38, -20, -180), (42.6, 12, -171), chamfer=0.6), BLACK)
    for k in range(4):
        piece.join(
            block((40, -18 + 6.5 * k, -177), (43.1, -14 + 6.5 * k, -174)), RED if k == 0 else GREEN
        )
    piece.join(rod((41, 16, -175.5), 3.0, 4, axis='x', count=16), WHITE)
    # Plate on the back of the foot.
    piece.join(block((-75, -14, -182), (-73.4, 14, -169)), WHITE)
    piece.join(block((-75.5, -11, -178), (-73.4, 4, -175.5)), BLACK)
    piece.join(block((-75.5, -11, -173.5), (-73.4, 11, -171.5)), BLACK)


def _digits(
    text: str, x: float, z: float, width: float, height: float, bar: float
) -> list[Polygon]:
    """Seven-segment strokes as rectangles (x, z) that read from the right side."""
    strokes = []
    for index, letter in enumerate(text):
        left = x + index * (width + 2.3 * bar)
        for name in DIGITS[letter]:
            x0, z0, x1, z1 = SEGMENTS[name]
            strokes.append(_box(
                left + x0 * width - bar / 2, z + z0 * height / 2 - bar / 2,
                left + x1 * width + bar / 2, z + z1 * height / 2 + bar / 2,
            ))  # fmt: skip
    return strokes


def _left_side(piece: Workpiece) -> None:
    """y > 0: a slanted stripe with blocks, a bar code, a spare bit."""
    _housing_label(piece, _box(-14, 12, 22, 19, lean=6), YELLOW, 1, 0.5)
    _housing_label(piece, _box(-14, -12, 24, 9, lean=3), WHITE, 1, 0.5)
    for k, height in enumerate((17.0, 13.0, 9.0, 5.0)):
        _housing_label(
            piece,
            _box(-10 + 8 * k, -9, -5 + 8 * k, -9 + height, lean=1),
            BLACK if k % 2 else RED,
            1,
            0.9,
        )
    _battery_label(piece, _box(-56, -183, 2, -169), WHITE, 1, 0.4)
    for k, width in enumerate((1.2, 3.0, 1.2, 2.2, 4.0, 1.2, 2.8, 1.2, 3.4)):
        x = -52 + 5.4 * k
        _battery_label(piece, _box(x, -181, x + width, -171), BLACK, 1, 0.8)
    piece.join(block((-2, 28, -152), (22, 40, -143), chamfer=1.5), RUBBER)
    piece.join(rod((12, 38, -147.5), 3.4, 36, axis='x', count=6), BRIGHT)


def _right_side(piece: Workpiece) -> None:
    """y < 0: a number on a dark plate, screws, a belt clip, a warning sign."""
    _housing_label(piece, _box(-18, -17, 24, 17), BLACK, -1, 0.5)
    for stroke in _digits('18', -21.5, -10.5, 10, 21, 3.4):
        _housing_label(piece, stroke, YELLOW, -1, 0.9)
    _housing_label(
        piece,
        [(10, 12), (14.5, -12), (17.5, -12), (22, 12), (18.8, 12), (16, -4), (13.2, 12)],
        WHITE,
        -1,
        0.9,
    )
    for x, z, y in ((-34, 20, 22.5), (-34, -21, 21.5), (21, -23, 18.5)):
        piece.join(rod((x, -y, z), 3.2, 8, axis='y', count=14), STEEL)
    for x, z, depth in ((-25, -62, 17.0), (-34, -132, 20.5)):
        piece.join(rod((x, -depth + 2, z), 3.2, 8, axis='y', count=14), STEEL)
    _battery_label(piece, _box(-58, -183, 2, -169), YELLOW, -1, 0.4)
    _battery_label(piece, [(-55, -181), (-41, -181), (-48, -170)], BLACK, -1, 0.8)
    for k, length in enumerate((34.0, 22.0, 28.0)):
        _battery_label(
            piece, _box(-36, -173.4 - 3.6 * k, -36 + length, -171.6 - 3.6 * k), BLACK, -1, 0.8
        )
    # The belt clip stands off the foot.
    piece.join(block((-6, -42, -157), (16, -28, -149), chamfer=1.5), STEEL)
    piece.join(block((-6, -44.5, -156), (16, -42, -124), chamfer=0.8), STEEL)
    piece.join(
        prism(
            [(-44.5, -126.0), (-42.0, -126.0), (-45.0, -117.0), (-47.5, -117.0)], -6, 16, axis='x'
        ),
        STEEL,
    )
    piece.cut(block((1, -60, -149), (9, -41, -131)), DARK)


def main() -> None:
    """Write the mesh to the file named on the command line."""
    if len(sys.argv) != 2:
        sys.exit('usage: python -m training.objects.drill OUT.ply')
    mesh = drill()
    write_ply(Path(sys.argv[1]), mesh)
    print(
        f'{sys.argv[1]}: {len(mesh.faces)} triangles, {len(mesh.vertices_m)} vertices, '
        f'diameter {mesh.diameter_m:.4f} m'
    )


if __name__ == '__main__':
    main()
