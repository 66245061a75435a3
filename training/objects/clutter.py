"""Things that lie about on a workbench, each drawn from a random generator.

Some wear the drill's own colours on purpose: a detector must not live on teal and yellow alone.
"""

from __future__ import annotations

from collections.abc import Callable

import manifold3d as m3
import numpy as np

from training.synth.mesh import Mesh

from .drill import BLACK, BRIGHT, RUBBER, STEEL, TEAL, WHITE, YELLOW
from .solid import Paint, Ring, Workpiece, block, lathe, loft, prism, rod

WOOD, CARDBOARD, PAPER = (176, 132, 84), (182, 142, 98), (228, 224, 210)
_VIVID: tuple[Paint, ...] = (
    (188, 38, 34), (30, 84, 160), (52, 128, 62), (226, 118, 24), (232, 190, 50), (120, 60, 130),
    (226, 224, 218), (40, 40, 44), (96, 160, 190), (14, 128, 138), (150, 34, 70), (124, 128, 60),
)  # fmt: skip


def _paint(rng: np.random.Generator) -> Paint:
    base = np.array(_VIVID[rng.integers(len(_VIVID))]) + rng.normal(0, 10, 3)
    r, g, b = np.clip(base, 8, 240).astype(int).tolist()
    return r, g, b


def _upright(shape: m3.Manifold) -> m3.Manifold:
    """What was turned about x stands along z."""
    return shape.rotate((0.0, -90.0, 0.0))


def _turned(profile: list[tuple[float, float]], count: int = 40) -> m3.Manifold:
    return _upright(lathe(profile, count=count))


def mug(rng: np.random.Generator) -> Mesh:
    """Hollow, with a handle and a stripe."""
    height, radius = rng.uniform(80, 110), rng.uniform(36, 45)
    piece, glaze = Workpiece(), _paint(rng)
    ring = lathe([(-5, 28), (5, 28)]) - lathe([(-9, 19), (9, 19)])
    piece.join(ring.rotate((0, 0, 90)).translate((radius + 8, 0, height / 2)), glaze)
    piece.join(_turned([(0, radius - 4), (4, radius), (height, radius)]), glaze)
    low = rng.uniform(0.2, 0.5) * height
    piece.join(
        _turned([(low, radius + 0.4), (low + rng.uniform(8, 25), radius + 0.4)]), _paint(rng)
    )
    piece.cut(_turned([(5, radius - 4), (height + 5, radius - 4)]), PAPER)
    return piece.mesh()


def can(rng: np.random.Generator) -> Mesh:
    """Tin or paint can: metal rims, a printed label."""
    height, radius = rng.uniform(100, 160), rng.uniform(32, 55)
    piece, label = Workpiece(), _paint(rng)
    piece.join(_turned([(0, radius), (4, radius + 2), (7, radius), (height - 7, radius)]), STEEL)
    piece.join(
        _turned([(height - 7, radius), (height - 4, radius + 2), (height, radius + 1)]), STEEL
    )
    piece.cut(_turned([(height - 4, radius - 3), (height + 5, radius - 3)]), BRIGHT)
    piece.join(_turned([(12, radius + 0.6), (height - 12, radius + 0.6)]), label)
    skin = _turned([(13, radius + 1.0), (height - 13, radius + 1.0)])
    for k in range(int(rng.integers(3, 7))):
        z, width = rng.uniform(16, height - 40), rng.uniform(8, 30)
        patch = block((-width, 0, z), (width, 90, z + rng.uniform(5, 22)))
        piece.join(skin ^ patch.rotate((0, 0, float(rng.uniform(0, 360)))), _paint(rng))
        del k
    return piece.mesh()


def bottle(rng: np.random.Generator) -> Mesh:
    """Glue or oil: a flat bottle with a label and a spout."""
    height, a, b = rng.uniform(130, 190), rng.uniform(30, 40), rng.uniform(20, 30)
    piece, body = Workpiece(), _paint(rng)
    rings = [
        Ring(0, a - 3, b - 3, power=3), Ring(3, a, b, power=3), Ring(0.7 * height, a, b, power=3),
        Ring(0.85 * height, 0.5 * a, 0.5 * a), Ring(0.88 * height, 13, 13),
    ]  # fmt: skip
    piece.join(loft('z', rings), body)
    piece.join(
        _turned([(0.87 * height, 15), (0.95 * height, 14), (height, 6), (1.12 * height, 3)]),
        _paint(rng),
    )
    side = loft('z', rings, grow=0.6)
    piece.join(side ^ block((-80, -80, 0.12 * height), (80, 80, 0.6 * height)), _paint(rng))
    side = loft('z', rings, grow=1.0)
    for z, width in ((0.4, 22.0), (0.3, 14.0), (0.22, 18.0)):
        piece.join(
            side ^ block((-width, -80, z * height), (width, 80, (z + 0.05) * height)), _paint(rng)
        )
    return piece.mesh()


def spray(rng: np.random.Generator) -> Mesh:
    """Spray can with a cap."""
    height, radius = rng.uniform(150, 190), rng.uniform(25, 32)
    piece, body = Workpiece(), _paint(rng)
    piece.join(
        _turned([(0, radius - 2), (3, radius), (height, radius), (height + 14, 0.6 * radius)]),
        body,
    )
    piece.join(
        _turned([(height, radius - 0.5), (height + 4, radius - 1), (height + 34, radius - 3)]),
        _paint(rng),
    )
    low = rng.uniform(20, 50)
    piece.join(_turned([(low, radius + 0.4), (low + 50, radius + 0.4)]), _paint(rng))
    skin = _turned([(low, radius + 0.8), (low + 70, radius + 0.8)])
    for _ in range(3):
        z, turn = low + rng.uniform(4, 40), float(rng.uniform(0, 360))
        piece.join(skin ^ block((-14, 0, z), (14, 60, z + 8)).rotate((0, 0, turn)), _paint(rng))
    return piece.mesh()


def carton(rng: np.random.Generator) -> Mesh:
    """Cardboard box with tape and stickers, or a printed package."""
    x, y, z = rng.uniform((50, 40, 60), (120, 90, 200))
    piece = Workpiece()
    piece.join(
        block((-x / 2, -y / 2, 0), (x / 2, y / 2, z), chamfer=1.0),
        CARDBOARD if rng.random() < 0.5 else _paint(rng),
    )
    piece.join(block((-x / 2 - 0.4, -9, z / 2), (x / 2 + 0.4, 9, z + 0.4)), (206, 176, 120))
    for side in (-1, 1):
        for _ in range(3):
            u, w = rng.uniform(-0.4, 0.1) * x, rng.uniform(0.1, 0.7) * z
            low, high = sorted((side * y / 4, side * (y / 2 + 0.5 + 0.2 * rng.random())))
            piece.join(
                block((u, low, w), (u + 0.3 * x, high, w + rng.uniform(0.05, 0.25) * z)),
                _paint(rng),
            )
            v = rng.uniform(-0.4, 0.1) * y
            low, high = sorted((side * x / 4, side * (x / 2 + 0.5 + 0.2 * rng.random())))
            piece.join(
                block((low, v, w), (high, v + 0.3 * y, w + rng.uniform(0.05, 0.25) * z)),
                _paint(rng),
            )
    return piece.mesh()


def books(rng: np.random.Generator) -> Mesh:
    """One to four books, one on the other."""
    piece, z = Workpiece(), 0.0
    for _ in range(int(rng.integers(1, 5))):
        x, y, thick = rng.uniform((150, 110, 14), (220, 160, 34))
        cover, turn = _paint(rng), float(rng.normal(0, 6))
        move = (0.0, 0.0, z)
        piece.join(
            block((-x / 2, -y / 2, 0), (x / 2, y / 2, thick)).rotate((0, 0, turn)).translate(move),
            cover,
        )
        leaves = block((-x / 2 + 5, -y / 2 - 1, 2.5), (x / 2 + 1, y / 2 - 5, thick - 2.5))
        leaves -= block((-x / 2, -y / 2 + 3, 0), (x / 2 - 3, y / 2, thick))
        piece.inlay(leaves.rotate((0, 0, turn)).translate(move), PAPER)
        title = block((-0.3 * x, -0.2 * y, thick - 2), (0.3 * x, 0.1 * y, thick + 0.3))
        piece.join(title.rotate((0, 0, turn)).translate(move), _paint(rng))
        z += thick + 0.05
    return piece.mesh()


def toolbox(rng: np.random.Generator) -> Mesh:
    """A case with a lid, latches and a handle; often in the drill's colours."""
    x, y, z = rng.uniform((230, 120, 90), (330, 180, 130))
    body, trim = (TEAL, YELLOW) if rng.random() < 0.5 else (_paint(rng), BLACK)
    piece = Workpiece()
    piece.join(block((-x / 2, -y / 2, 0), (x / 2, y / 2, 0.68 * z), chamfer=5), body)
    piece.join(
        block((-x / 2 - 3, -y / 2 - 3, 0.69 * z - 2), (x / 2 + 3, y / 2 + 3, z), chamfer=6), RUBBER
    )
    for u in (-0.3, 0.3):
        for side in (-1, 1):
            low, high = sorted((side * y / 4, side * (y / 2 + 7)))
            piece.join(
                block((u * x - 15, low, 0.5 * z), (u * x + 15, high, 0.85 * z), chamfer=2), trim
            )
    grip = block((-0.2 * x, -10, z - 2), (0.2 * x, 10, z + 34), chamfer=5)
    piece.join(grip - block((-0.2 * x + 12, -20, z), (0.2 * x - 12, 20, z + 22)), trim)
    piece.join(block((-45, -y / 2 - 0.6, 0.15 * z), (45, 0, 0.42 * z)), WHITE)
    piece.join(block((-38, -y / 2 - 1.2, 0.22 * z), (12, 0, 0.34 * z)), BLACK)
    return piece.mesh()


def ball(rng: np.random.Generator) -> Mesh:
    """A ball in two colours."""
    radius = rng.uniform(18, 40)
    piece = Workpiece()
    piece.join(m3.Manifold.sphere(radius, 40), _paint(rng))
    band = m3.Manifold.sphere(radius + 0.3, 40) ^ block((-80, -80, -6), (80, 80, 6)).rotate(
        (30, 50, 0)
    )
    piece.join(band, _paint(rng))
    return piece.mesh()


def screwdriver(rng: np.random.Generator) -> Mesh:
    """Lies along x."""
    piece, grip = Workpiece(), (_paint(rng), RUBBER)
    piece.join(lathe([(-50, 9), (-46, 13), (-25, 14), (0, 12)], flutes=6, depth=0.15), grip[0])
    piece.join(lathe([(-2, 12), (14, 13), (22, 9), (30, 7)], flutes=6, depth=0.1), grip[1])
    length = rng.uniform(70, 150)
    piece.join(lathe([(28, 3), (30 + length, 3), (36 + length, 1.5)], count=16), BRIGHT)
    return piece.mesh()


def hammer(rng: np.random.Generator) -> Mesh:
    """Lies on its side, handle along x."""
    piece = Workpiece()
    length = rng.uniform(190, 260)
    piece.join(
        lathe([(0, 9), (length * 0.5, 12), (length, 14)], count=20),
        WOOD if rng.random() < 0.5 else _paint(rng),
    )
    piece.join(lathe([(length * 0.55, 14.5), (length * 0.98, 16)], flutes=7, depth=0.06), RUBBER)
    piece.join(block((-13, -38, -13), (13, 34, 13), chamfer=4), STEEL)
    piece.join(rod((0, -42, 0), 15, 16, axis='y'), BRIGHT)
    piece.join(prism([(-12, 12), (12, 12), (12, -12), (-12, -12)], 30, 55), STEEL)
    return piece.mesh()


def wrench(rng: np.random.Generator) -> Mesh:
    """An open-end wrench, flat on the table."""
    piece, length = Workpiece(), rng.uniform(110, 190)
    shape = m3.Manifold.cylinder(7, 17, 17, 24) + block((0, -7, 1), (length, 7, 6), chamfer=1.5)
    shape += m3.Manifold.cylinder(7, 15, 15, 24).translate((length, 0, 0))
    shape -= block((-20, -7, -2), (4, 7, 12)).rotate((0, 0, 15))
    shape -= m3.Manifold.cylinder(20, 9, 9, 6).translate((length, 0, -5))
    piece.join(shape, STEEL)
    return piece.mesh()


def tape_measure(rng: np.random.Generator) -> Mesh:
    """Yellow and black, like the drill's trim."""
    piece = Workpiece()
    piece.join(
        rod((0, 0, 34), 34, 34, axis='y', count=36) + block((-5, -17, 0), (36, 17, 34), chamfer=4),
        YELLOW,
    )
    piece.join(rod((0, 0, 34), 24, 36, axis='y', count=32), RUBBER)
    piece.join(rod((0, 0, 34), 15, 37, axis='y', count=28), _paint(rng))
    piece.join(block((34, -10, 1), (44, 10, 9), chamfer=1), BRIGHT)
    return piece.mesh()


def tape_roll(rng: np.random.Generator) -> Mesh:
    """A roll of tape, lying."""
    piece, radius, height = Workpiece(), rng.uniform(35, 55), rng.uniform(18, 50)
    piece.join(_turned([(0, radius), (height, radius)]), _paint(rng))
    piece.cut(_turned([(-5, 0.72 * radius), (height + 5, 0.72 * radius)]), CARDBOARD)
    return piece.mesh()


def lumber(rng: np.random.Generator) -> Mesh:
    """A piece of wood with two drilled holes."""
    x, y, z = rng.uniform((120, 40, 18), (260, 80, 60))
    piece = Workpiece()
    piece.join(block((-x / 2, -y / 2, 0), (x / 2, y / 2, z), chamfer=1.5), WOOD)
    for u in (-0.35, 0.35):
        piece.cut(rod((u * x, 0, z), 5, 2 * z - 8, axis='z'), (70, 46, 26))
    return piece.mesh()


def pencils(rng: np.random.Generator) -> Mesh:
    """A cup with pens in it."""
    piece, height = Workpiece(), rng.uniform(85, 110)
    piece.join(_turned([(0, 34), (height, 38)]), _paint(rng))
    piece.cut(_turned([(4, 32), (height + 5, 35)]), BLACK)
    for k in range(int(rng.integers(3, 7))):
        pen = lathe([(0, 4), (rng.uniform(130, 175), 4)], count=6)
        pen += lathe([(-12, 0.6), (0.2, 4)], count=6)
        tilt = (0.0, float(rng.uniform(78, 84)), 0.0)
        piece.join(pen.rotate(tilt).rotate((0, 0, 60.0 * k)).translate((0, 0, 178)), _paint(rng))
    return piece.mesh()


def level(rng: np.random.Generator) -> Mesh:
    """Spirit level: a long yellow bar."""
    piece, length = Workpiece(), rng.uniform(250, 400)
    body = YELLOW if rng.random() < 0.6 else _paint(rng)
    piece.join(block((-length / 2, -11, 0), (length / 2, 11, 48), chamfer=1.5), body)
    for u in (-0.35, 0.0, 0.35):
        piece.cut(block((u * length - 20, -30, 18), (u * length + 20, 30, 40)), BLACK)
        piece.join(rod((u * length, 0, 28), 7, 38, axis='x'), (160, 220, 60))
    piece.join(block((-length / 2 - 4, -12, -0.5), (-length / 2 + 6, 12, 49)), BLACK)
    piece.join(block((length / 2 - 6, -12, -0.5), (length / 2 + 4, 12, 49)), BLACK)
    return piece.mesh()


def torch(rng: np.random.Generator) -> Mesh:
    """A lying flashlight in the drill's teal with a yellow ring."""
    piece = Workpiece()
    body = TEAL if rng.random() < 0.6 else _paint(rng)
    piece.join(lathe([(-80, 14), (-76, 17), (30, 17), (45, 26), (70, 27)]), body)
    piece.join(lathe([(-60, 18), (0, 18)], flutes=10, depth=0.06), RUBBER)
    piece.join(lathe([(52, 28), (58, 28)]), YELLOW)
    piece.cut(lathe([(60, 21), (90, 25)]), PAPER)
    piece.join(block((14, -5, 14), (28, 5, 20), chamfer=1.5), BLACK)
    return piece.mesh()


def charger(rng: np.random.Generator) -> Mesh:
    """A battery charger: dark foot, teal top, yellow band, lamps."""
    piece = Workpiece()
    x, y = rng.uniform(55, 75), rng.uniform(40, 50)
    piece.join(
        loft(
            'z', [Ring(0, x, y, power=5), Ring(24, x, y, power=5), Ring(32, x - 6, y - 6, power=4)]
        ),
        RUBBER,
    )
    piece.join(
        loft('z', [Ring(30, x - 8, y - 8, power=4), Ring(48, x - 20, y - 14, power=3)]), TEAL
    )
    band = loft('z', [Ring(6, x + 0.5, y + 0.5, power=5), Ring(16, x + 0.5, y + 0.5, power=5)])
    piece.join(band ^ block((0, -90, 0), (25, 90, 40)), YELLOW)
    for k in range(3):
        piece.join(block((x - 3, -14 + 10 * k, 12), (x + 1.2, -9 + 10 * k, 17)), (70, 200, 80))
    return piece.mesh()


TALL: tuple[Callable[[np.random.Generator], Mesh], ...] = (bottle, spray, carton, can, pencils)
LOW: tuple[Callable[[np.random.Generator], Mesh], ...] = (
    mug, books, ball, screwdriver, hammer, wrench, tape_measure, tape_roll, lumber, level, torch,
    charger,
)  # fmt: skip
LARGE: tuple[Callable[[np.random.Generator], Mesh], ...] = (toolbox, books, carton)
