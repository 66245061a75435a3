"""A box out of one photograph: what was printed where, and corners that no camera sees so."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pose_node.core.errors import PoseNodeError
from pose_node.core.geometry import exp_so3, make_pose
from training.objects.photographed_box import box_mesh, main
from training.synth.mesh import load_mesh

SIZE_M = np.array((0.25, 0.18, 0.07))
K = np.array([[900.0, 0, 359.5], [0, 900.0, 239.5], [0, 0, 1]])
UNIT = np.array([(0, 0, 1), (1, 0, 1), (1, 1, 1), (0, 1, 1), (0, 0, 0), (1, 0, 0), (1, 1, 0)])
TOP, FRONT, RIGHT = (200, 40, 40), (40, 180, 40), (40, 40, 220)


@pytest.fixture
def scene() -> tuple[np.ndarray, np.ndarray]:
    """A photograph of a box with plain faces, each with a white stripe at one end, and its
    corners.
    """
    R = exp_so3(np.array((np.radians(125.0), 0, 0))) @ exp_so3(np.array((0, 0, -0.7)))
    T = make_pose(R, np.array((-0.02, 0.03, 1.0)) - R @ (SIZE_M / 2))
    points = (UNIT * SIZE_M) @ T[:3, :3].T + T[:3, 3]
    corners = (points @ K.T)[:, :2] / points[:, 2:]
    photo = np.full((480, 720, 3), 90, np.uint8)
    for color, which in ((TOP, (0, 1, 2, 3)), (FRONT, (4, 5, 1, 0)), (RIGHT, (5, 6, 2, 1))):
        face = np.full((200, 200, 3), color, np.uint8)
        face[:, :40] = 255  # the first fifth along u
        warp = cv2.getPerspectiveTransform(
            np.array([(0, 0), (199, 0), (199, 199), (0, 199)], np.float32),
            corners[list(which)].astype(np.float32),
        )
        cv2.warpPerspective(face, warp, (720, 480), photo, borderMode=cv2.BORDER_TRANSPARENT)
    return photo, corners


def nearest(mesh, point) -> np.ndarray:
    at = np.linalg.norm(mesh.vertices_m - np.array(point) * SIZE_M, axis=1).argmin()
    return np.asarray(mesh.colors[at] * 255)


def test_faces_have_the_print_that_was_photographed(scene):
    """Stripes show that none is turned or mirrored; sides across have the same print."""
    mesh = box_mesh(*scene, SIZE_M)
    np.testing.assert_allclose(mesh.bounds_m, np.stack((np.zeros(3), SIZE_M)), atol=1e-12)
    assert mesh.is_closed
    for point, color in {
        (0.6, 0.5, 1.0): TOP, (0.1, 0.5, 1.0): (255, 255, 255),
        (0.6, 0.0, 0.5): FRONT, (0.1, 0.0, 0.5): (255, 255, 255),
        (1.0, 0.6, 0.5): RIGHT, (1.0, 0.1, 0.5): (255, 255, 255),
        (0.4, 1.0, 0.5): FRONT, (0.9, 1.0, 0.5): (255, 255, 255),
        (0.0, 0.4, 0.5): RIGHT, (0.0, 0.9, 0.5): (255, 255, 255),
    }.items():  # fmt: skip
        np.testing.assert_allclose(nearest(mesh, point), color, atol=3)
    outwards = mesh.vertices_m - SIZE_M / 2
    assert (np.einsum('ij,ij->i', mesh.normals, outwards) > 0).all()


def test_corners_in_another_order_are_refused(scene):
    photo, corners = scene
    with pytest.raises(PoseNodeError, match='look at their order'):
        box_mesh(photo, corners, SIZE_M[[1, 0, 2]])


def test_the_command_writes_a_mesh_in_metres(scene, tmp_path, capsys):
    photo, corners = scene
    cv2.imwrite(str(tmp_path / 'photo.png'), photo[..., ::-1])
    sizes = [str(size) for size in SIZE_M]
    out = tmp_path / 'box.ply'
    told = ['--size-m', *sizes, '--corners=' + ' '.join(f'{x:.2f},{y:.2f}' for x, y in corners)]
    assert main([str(tmp_path / 'photo.png'), str(out), *told]) == 0
    mesh = load_mesh(out)
    np.testing.assert_allclose(mesh.bounds_m[1], SIZE_M, atol=1e-6)
    np.testing.assert_allclose(nearest(mesh, (0.6, 0.5, 1.0)), TOP, atol=3)
    assert main([str(tmp_path / 'none.png'), str(out), *told]) == 1
    assert 'is no picture' in capsys.readouterr().err
    told[-1] = '--corners=1,2 3'
    assert main([str(tmp_path / 'photo.png'), str(out), *told]) == 1
    assert 'give seven' in capsys.readouterr().err
