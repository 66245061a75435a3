"""A printed cuboid from one photograph that shows three of its faces:

python -m training.objects.photographed_box PHOTO OUT.ply --size-m 0.258 0.189 0.075 \\
    --corners "118,176 341,322 550,209 317,83 130,262 350,414 549,297"

The corners are those of the top, counter-clockwise as seen from above, then those below the first
three. x runs from the first to the second, y from the second to the third, z up; the origin is
below the first. Sides that are not seen get the print of those across, the bottom one colour.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

from pose_node.core.errors import PoseNodeError

from ..synth.mesh import Mesh
from .ply import write_ply

# Corners in the unit cube (x, y, z), in the order in which they are given.
_CORNERS = np.array(
    [(0, 0, 1), (1, 0, 1), (1, 1, 1), (0, 1, 1), (0, 0, 0), (1, 0, 0), (1, 1, 0)], float
)
_PITCH_M = 0.0025
_FOCALS = np.geomspace(0.5, 6.0, 60)  # of the photograph, in units of its width
_WORST = 0.02  # of the box's length in the photograph: corners are not told better than that


def box_mesh(photo: np.ndarray, corners_px: np.ndarray, size_m: np.ndarray) -> Mesh:
    """The mesh of a box of `size_m` (3,), with the colours of photo (H, W, 3) uint8 RGB at its
    vertices; corners_px (7, 2). Raises PoseNodeError where no camera would see the corners there.
    """
    _check(corners_px, size_m, photo.shape[:2])
    seen = {
        'top': _warp(corners_px, (0, 1, 2, 3)),
        'front': _warp(corners_px, (4, 5, 1, 0)),
        'right': _warp(corners_px, (5, 6, 2, 1)),
    }
    x, y, z = np.asarray(size_m, float)
    faces = [
        # origin, along u, along v, what is printed there
        ((0, 0, z), (x, 0, 0), (0, y, 0), 'top'),
        ((0, 0, 0), (x, 0, 0), (0, 0, z), 'front'),
        ((x, 0, 0), (0, y, 0), (0, 0, z), 'right'),
        ((x, y, 0), (-x, 0, 0), (0, 0, z), 'front'),
        ((0, y, 0), (0, -y, 0), (0, 0, z), 'right'),
        ((0, y, 0), (x, 0, 0), (0, -y, 0), ''),
    ]
    plain = _colors(photo, seen['top'], *np.meshgrid(*2 * [np.linspace(0.1, 0.9, 9)]))
    parts = []
    for origin, along_u, along_v, name in faces:
        u, v = (
            np.linspace(0.0, 1.0, max(2, 1 + round(np.linalg.norm(side) / _PITCH_M)))
            for side in (along_u, along_v)
        )
        gu, gv = np.meshgrid(u, v)
        points = np.array(origin) + gu[..., None] * along_u + gv[..., None] * along_v
        points = np.round(points, 9)  # faces meet in the very same places
        painted = _colors(photo, seen[name], gu, gv) if name else plain.mean(axis=0)
        normal = np.cross(along_u, along_v) / np.linalg.norm(np.cross(along_u, along_v))
        colors = np.broadcast_to(painted, (points.reshape(-1, 3)).shape)
        parts.append((points.reshape(-1, 3), normal, colors, _grid(len(v), len(u))))
    starts = np.cumsum([0, *(len(part[0]) for part in parts)])
    return Mesh(
        np.concatenate([part[0] for part in parts]),
        np.concatenate([np.tile(part[1], (len(part[0]), 1)) for part in parts]),
        np.concatenate([part[2] for part in parts]),
        np.concatenate([part[3] + start for part, start in zip(parts, starts[:-1], strict=True)]),
    )


def _warp(corners_px: np.ndarray, which: tuple[int, ...]) -> np.ndarray:
    """(3, 3) from the unit square to the photograph."""
    unit = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], np.float32)
    found = corners_px[list(which)].astype(np.float32)
    return np.asarray(cv2.getPerspectiveTransform(unit, found))


def _colors(photo: np.ndarray, warp: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """(N, 3) in 0..1 at places of the unit square, just inside of it."""
    places = 0.5 + 0.985 * (np.stack((u, v), axis=-1).reshape(1, -1, 2) - 0.5)
    pixels = cv2.perspectiveTransform(places, warp).astype(np.float32)
    taken = cv2.remap(photo, pixels[..., 0], pixels[..., 1], cv2.INTER_LINEAR)
    return taken.reshape(-1, 3) / 255.0


def _grid(rows: int, columns: int) -> np.ndarray:
    """(F, 3) triangles over a grid of vertices, counter-clockwise."""
    at = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = (part.ravel() for part in (at[:-1, :-1], at[:-1, 1:], at[1:, 1:], at[1:, :-1]))
    return np.concatenate((np.stack((a, b, c), axis=1), np.stack((a, c, d), axis=1)))


def _check(corners_px: np.ndarray, size_m: np.ndarray, shape: tuple[int, ...]) -> None:
    """Whether some camera, with its middle in that of the photograph, sees such a box so."""
    corners_obj = _CORNERS * size_m
    worst, (height, width) = np.inf, shape
    for focal in _FOCALS * width:
        K = np.array(((focal, 0.0, (width - 1) / 2), (0.0, focal, (height - 1) / 2), (0.0, 0, 1)))
        ok, turn, place = cv2.solvePnP(corners_obj, corners_px, K, None)
        if ok:
            told, _ = cv2.projectPoints(corners_obj, turn, place, K, None)
            worst = min(worst, float(np.linalg.norm(told[:, 0] - corners_px, axis=1).max()))
    allowed = _WORST * float(np.ptp(corners_px, axis=0).max())
    if not worst <= allowed:
        raise PoseNodeError(
            f'No camera sees a box of {" x ".join(f"{s:g}" for s in size_m)} m with these '
            f'corners: they are {worst:.0f} px off, wanted at most {allowed:.0f}; look at their '
            'order and at that of the sizes (first to second corner, second to third, height).'
        )


def _read_corners(text: str) -> np.ndarray:
    try:
        corners_px = np.array([[float(x) for x in each.split(',')] for each in text.split()])
    except ValueError:
        corners_px = np.empty(0)
    if corners_px.shape != _CORNERS[:, :2].shape:
        raise PoseNodeError(f'The corners are {text!r}; give seven of X,Y between blanks.')
    return corners_px


def main(arguments: list[str] | None = None) -> int:
    """Read the photograph, write the mesh in metres."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('photo', type=Path)
    parser.add_argument('out', type=Path)
    parser.add_argument('--size-m', type=float, nargs=3, required=True, metavar=('X', 'Y', 'Z'))
    parser.add_argument(
        '--corners', required=True, help='seven of X,Y in pixels, between blanks, as one argument'
    )
    options = parser.parse_args(arguments)
    picture = cv2.imread(str(options.photo), cv2.IMREAD_COLOR_RGB)
    try:
        if picture is None:
            raise PoseNodeError(f'{options.photo} is no picture; give a JPEG or PNG.')
        mesh = box_mesh(picture, _read_corners(options.corners), np.array(options.size_m))
    except PoseNodeError as error:
        print(error, file=sys.stderr)
        return 1
    write_ply(options.out, mesh)
    print(f'{options.out}: {len(mesh.vertices_m)} vertices, {len(mesh.faces)} triangles')
    return 0


if __name__ == '__main__':
    sys.exit(main())
