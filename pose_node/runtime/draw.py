"""Poses drawn into the picture they came from: box, axes, keypoints, score and spread."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from pose_node.core.geometry import apply

if TYPE_CHECKING:
    from pose_node.core.bundle import Bundle
    from pose_node.core.camera import Camera

    from .results import FrameResult, ObjectPose

Color = tuple[int, int, int]

BOX: Color = (64, 224, 96)
AXES: tuple[Color, Color, Color] = ((240, 48, 48), (48, 208, 48), (64, 96, 255))

# A straight edge is a curve under lens distortion: it is drawn in this many pieces.
_PIECES = 8
# Behind this depth nothing projects to a picture, m.
_NEAREST_M = 0.01
# Far outside the field of view a distortion polynomial may turn back into the picture.
_WIDEST_TANGENT = 4.0
_SUBPIXEL_BITS = 3
# The twelve edges of a box, by the numbers of their corners: a corner's bits are x, y, z.
_EDGES = [(a, a | bit) for bit in (1, 2, 4) for a in range(8) if not a & bit]


def draw(picture: np.ndarray, camera: Camera, result: FrameResult, bundle: Bundle) -> np.ndarray:
    """A copy of the picture (H, W, 3) RGB uint8 with what was found in it."""
    canvas = np.ascontiguousarray(picture).copy()
    for pose in result.poses:
        spec = bundle.object(pose.object)
        _segments(canvas, camera, apply(pose.T_cam_obj, box_edges(spec.bounds_obj_m)), BOX, 1)
        length = 0.5 * spec.diameter_m
        for axis, color in zip(np.eye(3), AXES):
            segment = apply(pose.T_cam_obj, np.stack((np.zeros(3), length * axis)))
            _segments(canvas, camera, segment[None], color, 2)
        _keypoints(canvas, pose)
        _label(canvas, pose)
    return canvas


def box_edges(bounds: np.ndarray) -> np.ndarray:
    """(12, 2, 3) both ends of every edge of the box between two corners (2, 3)."""
    corners = np.array([[bounds[i >> axis & 1, axis] for axis in range(3)] for i in range(8)])
    return corners[np.array(_EDGES)]


def sigma_text(pose: ObjectPose) -> str:
    """The position's standard deviation across and along the line of sight, in millimetres."""
    place = pose.T_cam_obj[:3, 3]
    sight = place / max(float(np.linalg.norm(place)), 1e-9)
    spread = pose.covariance[:3, :3]
    along = float(sight @ spread @ sight)
    across = 0.5 * (float(np.trace(spread)) - along)
    along_mm, across_mm = (1000.0 * max(value, 0.0) ** 0.5 for value in (along, across))
    return f'+-{across_mm:.1f} mm across, {along_mm:.1f} mm deep'


def _segments(
    canvas: np.ndarray, camera: Camera, segments: np.ndarray, color: Color, thickness: int
) -> None:
    """Draw segments (S, 2, 3) of the camera frame, in pieces, as far as the camera sees them."""
    share = np.linspace(0.0, 1.0, _PIECES + 1)[:, None]
    points = segments[:, None, 0] * (1.0 - share) + segments[:, None, 1] * share
    depth = points[..., 2]
    with np.errstate(divide='ignore', invalid='ignore'):
        seen = (depth > _NEAREST_M) & (
            np.hypot(points[..., 0], points[..., 1]) < _WIDEST_TANGENT * depth
        )
    pixels = camera.project(points.reshape(-1, 3)).reshape(*points.shape[:2], 2)
    # Far beyond the picture there is nothing to see, and integers end somewhere.
    seen &= np.isfinite(pixels).all(axis=-1) & (np.abs(pixels) < 4000.0).all(axis=-1)
    fixed = np.round(np.where(seen[..., None], pixels, 0.0) * (1 << _SUBPIXEL_BITS)).astype(int)
    for line, visible in zip(fixed, seen):
        for i in np.flatnonzero(visible[:-1] & visible[1:]):
            a, b = tuple(line[i].tolist()), tuple(line[i + 1].tolist())
            cv2.line(canvas, a, b, color, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)


def _keypoints(canvas: np.ndarray, pose: ObjectPose) -> None:
    """A dot for every keypoint, red for the faintest to yellow-white for the surest."""
    best = max(float(np.max(pose.confidences)), 1e-9)
    for place, confidence in zip(pose.keypoints_px, pose.confidences):
        if np.isfinite(place).all() and (np.abs(place) < 4000.0).all():
            share = float(np.clip(confidence / best, 0.0, 1.0))
            color = (255, int(255 * share), int(160 * share**2))
            center = tuple(np.round(place * (1 << _SUBPIXEL_BITS)).astype(int).tolist())
            cv2.circle(canvas, center, 2 << _SUBPIXEL_BITS, color, -1, cv2.LINE_AA, _SUBPIXEL_BITS)


def _label(canvas: np.ndarray, pose: ObjectPose) -> None:
    """Name, score and spread above the region, moved into the picture where it would leave it."""
    lines = (f'{pose.object} {pose.score:.2f}', sigma_text(pose))
    height, width = canvas.shape[:2]
    font, size, step = cv2.FONT_HERSHEY_SIMPLEX, 0.4, 14
    longest = max(cv2.getTextSize(line, font, size, 1)[0][0] for line in lines)
    corner = np.subtract(pose.region.center_px, np.multiply(0.5, pose.region.size_px))
    x, y = np.nan_to_num(corner)
    left = int(np.clip(x, 2, max(2, width - longest - 2)))
    top = int(np.clip(y - step * len(lines), 2, max(2, height - step * len(lines) - 2)))
    for i, line in enumerate(lines):
        at = (left, top + step * (i + 1) - 4)
        cv2.putText(canvas, line, at, font, size, (0, 0, 0), 3, cv2.LINE_AA)
        cv2.putText(canvas, line, at, font, size, (255, 255, 255), 1, cv2.LINE_AA)
