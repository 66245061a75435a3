"""A bundle that works without training, and pictures of its object: the end-to-end tests' ground.

The object is a ball of twelve vivid dots, each of its own hue, round a white one in the middle.
Its pose network is a real ONNX file whose weights are written down, not learned: a 1x1 convolution
matches each hue, pooling and a blur make that a heatmap, and a division makes it sum to one, as
the softmax of a trained network does. Its locator finds the white dot the same way. `draw_scene`
paints the object exactly, to a fraction of a pixel, so what the estimator answers can be held to
millimetres.

    from known_bundle import draw_scene, make_bundle
    bundle = make_bundle(tmp_path / 'dots')
    picture = draw_scene(camera, T_cam_obj)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pose_node.core.bundle import Bundle, write_bundle
from pose_node.core.geometry import apply

if TYPE_CHECKING:
    from pathlib import Path

    from pose_node.core.camera import Camera

OBJECT = 'dots'
DOT_RADIUS_M = 0.007
HUB_RADIUS_M = 0.016
BALL_RADIUS_M = 0.09
GREY = 96  # the background

INPUT_SIZE, STRIDE = (128, 128), 4
LOCATOR_SIZE, LOCATOR_STRIDE = (320, 240), 8

# Vividness: how far a dot's colour is from the grey of the same brightness.
_VIVID = 150.0
# Hues are 30 degrees apart; a matcher answers within 15 of its own.
_WEDGE = 1.0 / np.tan(np.radians(15.0))
_HUB_WINDOW = 40  # px of the locator's input in which it weighs white


def _keypoints() -> np.ndarray:
    """(12, 3) points on a ball, evenly spread; the middle ring is shifted so that no turn fits."""
    i = np.arange(12)
    z = 1.0 - (2 * i + 1) / 12
    turn = np.pi * (3.0 - np.sqrt(5.0)) * i + 0.4 * np.sin(2.0 * i)
    ring = np.sqrt(1.0 - z**2)
    return BALL_RADIUS_M * np.stack((ring * np.cos(turn), ring * np.sin(turn), z), axis=1)


def _hues() -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors (12, 3) in RGB of every hue, and those across it, both without brightness."""
    a = np.array([2.0, -1.0, -1.0]) / np.sqrt(6.0)
    b = np.array([0.0, 1.0, -1.0]) / np.sqrt(2.0)
    # Neighbours in space get hues far apart: 5 and 12 have no common divisor.
    angles = np.radians(30.0) * (5 * np.arange(12) % 12)[:, None]
    return np.cos(angles) * a + np.sin(angles) * b, np.cos(angles) * b - np.sin(angles) * a


KEYPOINTS_OBJ_M = _keypoints()
COLORS = np.round(128.0 + _VIVID * _hues()[0])  # (12, 3) RGB


def make_bundle(folder: str | Path, *, locator: bool = True, name: str = OBJECT) -> Bundle:
    """Write the known bundle into `folder` and load it."""
    files = {
        'pose.onnx': _pose_network().SerializeToString(),
        f'{name}.ply': _mesh().encode(),
    }
    if locator:
        files['locator.onnx'] = _locator_network().SerializeToString()
    return write_bundle(folder, manifest(locator=locator, name=name), files)


def manifest(*, locator: bool = True, name: str = OBJECT) -> dict:
    """bundle.json of the known bundle, without `schema` and `files`."""
    points = _mesh_points().reshape(-1, 3)
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    return {
        'name': name,
        'description': 'Twelve coloured dots round a white one; networks without training.',
        'licence': 'Apache-2.0',
        'objects': [
            {
                'name': name,
                'diameter_m': distances.max(),
                'bounds_obj_m': np.stack((points.min(axis=0), points.max(axis=0))),
                'keypoints_obj_m': KEYPOINTS_OBJ_M,
                'symmetries': {},
                'mesh': f'{name}.ply',
            }
        ],
        'pose_network': {
            'kind': 'heatmap',
            'file': 'pose.onnx',
            'objects': [name],
            'object_input': None,
            'input': 'picture',
            'output': 'heatmaps',
            'input_size': list(INPUT_SIZE),
            'mean': [128.0, 128.0, 128.0],
            'std': [64.0, 64.0, 64.0],
            'stride': STRIDE,
            'sigma_px': 1.0,
            'region_scale': 1.3,
            'threshold': 0.2,
            'min_variance_px2': 0.002,
            'calibration': {
                name: {
                    'covariance_scale': 1.0,
                    'score': {
                        'bias': 6.0,
                        'weights': {'confidence': 3.0, 'inlier_share': 5.0, 'rms': -0.5},
                    },
                }
            },
        },
        'locator': {
            'file': 'locator.onnx',
            'input': 'picture',
            'outputs': {'centers': 'centers', 'boxes': 'boxes'},
            'input_size': list(LOCATOR_SIZE),
            'mean': [128.0, 128.0, 128.0],
            'std': [64.0, 64.0, 64.0],
            'stride': LOCATOR_STRIDE,
            'objects': [name],
            'threshold': 0.3,
        }
        if locator
        else None,
        'training': None,
    }


def draw_scene(
    camera: Camera,
    T_cam_obj: np.ndarray | None,
    *,
    noise: float = 0.0,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """The picture (H, W, 3) RGB uint8 that `camera` takes of one object, several (N, 4, 4), or
    none.

    A dot is a disc round the projection of its centre. One that a nearer dot would touch is left
    out whole: half a disc has another centre, and what is drawn must be exact. The white one lies
    below all others, lest it hide one. noise: standard deviation per channel, drawn from `rng`.
    """
    width, height = camera.size
    picture = np.full((height, width, 3), float(GREY))
    for T in () if T_cam_obj is None else np.asarray(T_cam_obj).reshape(-1, 4, 4):
        centers = apply(T, np.concatenate((np.zeros((1, 3)), KEYPOINTS_OBJ_M)))
        colors = np.concatenate((np.full((1, 3), 255.0), COLORS))
        radii = np.array([HUB_RADIUS_M] + [DOT_RADIUS_M] * len(COLORS))
        focal = 0.5 * (camera.K[0, 0] + camera.K[1, 1])
        places = camera.project(centers)
        drawn: list[int] = []
        for i in (0, *(1 + np.argsort(centers[1:, 2]))):  # the nearest first
            if centers[i, 2] < 0.01 or not np.isfinite(places[i]).all():
                continue
            apart = np.linalg.norm(places[drawn] - places[i], axis=1)
            touch = focal * 2.0 * DOT_RADIUS_M / centers[i, 2] + 3.0
            if 0 in drawn and (apart[1:] < touch).any():
                continue
            _disc(picture, places[i], focal * radii[i] / centers[i, 2], colors[i])
            drawn.append(i)
    if noise:
        picture += noise * (rng or np.random.default_rng(0)).standard_normal(picture.shape)
    return np.clip(np.round(picture), 0, 255).astype(np.uint8)


def _disc(picture: np.ndarray, center: np.ndarray, radius: float, color: np.ndarray) -> None:
    """Blend a disc into the picture; its edge covers pixels by the share that lies inside."""
    height, width = picture.shape[:2]
    x0, y0 = np.maximum(np.floor(center - radius - 1), 0).astype(int)
    x1 = int(min(np.ceil(center[0] + radius + 1), width - 1)) + 1
    y1 = int(min(np.ceil(center[1] + radius + 1), height - 1)) + 1
    if x0 >= x1 or y0 >= y1:
        return
    x, y = np.arange(x0, x1) - center[0], np.arange(y0, y1) - center[1]
    distance = np.hypot(x[None, :], y[:, None])
    share = np.clip(radius - distance + 0.5, 0.0, 1.0)[..., None]
    picture[y0:y1, x0:x1] += share * (color - picture[y0:y1, x0:x1])


def _pose_network() -> onnx.ModelProto:
    """Hue matching, 4x4 mean, 5x5 Gaussian, then each map divided by its sum."""
    along, across = _hues()
    scale = 64.0 / _VIVID  # undoes `std`: a full dot answers 1
    match = np.concatenate((along * scale, across * scale * _WEDGE))[:, :, None, None]
    taps = np.exp(-0.5 * (np.arange(5) - 2.0) ** 2 / 0.6)
    blur = np.outer(taps, taps) / taps.sum() ** 2
    nodes = [
        helper.make_node('Conv', ['picture', 'match'], ['matched']),
        helper.make_node('Split', ['matched', 'halves'], ['own', 'other'], axis=1),
        helper.make_node('Abs', ['other'], ['off']),
        helper.make_node('Sub', ['own', 'off'], ['wedge']),
        helper.make_node('Sub', ['wedge', 'dark'], ['vivid']),
        helper.make_node('Relu', ['vivid'], ['seen']),
        helper.make_node(
            'AveragePool', ['seen'], ['cells'], kernel_shape=[STRIDE] * 2, strides=[STRIDE] * 2
        ),
        helper.make_node('Conv', ['cells', 'blur'], ['blurred'], group=12, pads=[2] * 4),
        helper.make_node('Add', ['blurred', 'little'], ['raised']),
        helper.make_node('ReduceSum', ['raised', 'plane'], ['sums'], keepdims=1),
        helper.make_node('Div', ['raised', 'sums'], ['heatmaps']),
    ]
    constants = {
        'match': match.astype(np.float32),
        'halves': np.array([12, 12], np.int64),
        'dark': np.float32(0.15),
        'blur': np.tile(blur.astype(np.float32), (12, 1, 1, 1)),
        'little': np.float32(1e-5),
        'plane': np.array([2, 3], np.int64),
    }
    size = (INPUT_SIZE[0] // STRIDE, INPUT_SIZE[1] // STRIDE)
    return _model(nodes, constants, INPUT_SIZE, {'heatmaps': (12, size[1], size[0])})


def _locator_network() -> onnx.ModelProto:
    """White's mass and centre in a window round every cell; the box follows from the mass.

    The white dot's area tells its radius, and the object is about as many times larger everywhere.
    """
    window, stride = _HUB_WINDOW, LOCATOR_STRIDE
    pad = (window - stride) // 2
    ramp = (np.arange(window) - (window - 1) / 2.0) / stride  # in cells, as dx and dy are
    ones = np.ones(window)
    weigh = np.stack((np.outer(ones, ones), np.outer(ones, ramp), np.outer(ramp, ones)))[:, None]
    # Brightness 510 and up is white: the dots reach 384, and so does the grey beside them.
    whiten = np.full((1, 3, 1, 1), 64.0 / 255.0)
    # The dots in front of it take some of that area away, and cut dots would be worse than small.
    times_larger = 1.15 * 2.0 * (BALL_RADIUS_M + DOT_RADIUS_M) / HUB_RADIUS_M
    nodes = [
        helper.make_node('Conv', ['picture', 'whiten', 'dark'], ['brightness']),
        helper.make_node('Clip', ['brightness', 'zero', 'one'], ['white']),
        helper.make_node(
            'Conv', ['white', 'weigh'], ['moments'], strides=[stride] * 2, pads=[pad] * 4
        ),
        helper.make_node('Split', ['moments', 'thirds'], ['mass', 'mx', 'my'], axis=1),
        helper.make_node('Add', ['mass', 'little'], ['some']),
        helper.make_node('Div', ['mx', 'some'], ['dx']),
        helper.make_node('Div', ['my', 'some'], ['dy']),
        helper.make_node('Mul', ['dx', 'dx'], ['dx2']),
        helper.make_node('Mul', ['dy', 'dy'], ['dy2']),
        helper.make_node('Add', ['dx2', 'dy2'], ['far']),
        helper.make_node('Neg', ['far'], ['near']),
        helper.make_node('Exp', ['near'], ['peak']),
        helper.make_node('Mul', ['mass', 'per_dot'], ['dots']),
        helper.make_node('Clip', ['dots', 'zero', 'one'], ['sure']),
        helper.make_node('Mul', ['peak', 'sure'], ['centers']),
        # radius = sqrt(mass / pi), as a logarithm
        helper.make_node('Log', ['some'], ['log_mass']),
        helper.make_node('Mul', ['log_mass', 'half'], ['log_radius']),
        helper.make_node('Add', ['log_radius', 'larger'], ['log_size']),
        helper.make_node('Concat', ['dx', 'dy', 'log_size', 'log_size'], ['boxes'], axis=1),
    ]
    constants = {
        'whiten': whiten.astype(np.float32),
        'dark': np.array([(3 * 128.0 - 510.0) / 255.0], np.float32),
        'zero': np.float32(0.0),
        'one': np.float32(1.0),
        'weigh': weigh.astype(np.float32),
        'thirds': np.array([1, 1, 1], np.int64),
        'little': np.float32(1e-3),
        'per_dot': np.float32(0.5),
        'half': np.float32(0.5),
        'larger': np.float32(np.log(times_larger / np.sqrt(np.pi))),
    }
    rows, columns = LOCATOR_SIZE[1] // stride, LOCATOR_SIZE[0] // stride
    outputs = {'centers': (1, rows, columns), 'boxes': (4, rows, columns)}
    return _model(nodes, constants, LOCATOR_SIZE, outputs)


def _model(
    nodes: list, constants: dict, input_size: tuple[int, int], outputs: dict[str, tuple]
) -> onnx.ModelProto:
    width, height = input_size
    graph = helper.make_graph(
        nodes,
        'known',
        [helper.make_tensor_value_info('picture', TensorProto.FLOAT, ['n', 3, height, width])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ['n', *shape])
            for name, shape in outputs.items()
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    # An old operator set and file version, which every runtime of the last years reads.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 13)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def _mesh_points() -> np.ndarray:
    """(13, 6, 3) corners of an octahedron for every dot, the white one first."""
    corners = np.concatenate((np.eye(3), -np.eye(3)))
    centers = np.concatenate((np.zeros((1, 3)), KEYPOINTS_OBJ_M))
    radii = np.array([HUB_RADIUS_M] + [DOT_RADIUS_M] * len(COLORS))
    return centers[:, None] + radii[:, None, None] * corners


def _mesh() -> str:
    """The object as a coloured PLY file."""
    points = _mesh_points()
    colors = np.concatenate((np.full((1, 3), 255), COLORS)).astype(int)
    lines = [
        'ply\nformat ascii 1.0',
        f'element vertex {6 * len(points)}',
        *(f'property float {axis}' for axis in 'xyz'),
        *(f'property uchar {channel}' for channel in ('red', 'green', 'blue')),
        f'element face {8 * len(points)}',
        'property list uchar int vertex_indices\nend_header',
    ]
    for corners, (r, g, b) in zip(points, colors):
        lines += [f'{x:.6f} {y:.6f} {z:.6f} {r} {g} {b}' for x, y, z in corners]
    faces = [(x, y, z) for x in (0, 3) for y in (1, 4) for z in (2, 5)]
    for i in range(len(points)):
        for x, y, z in faces:
            # Seen from outside the corners run counter-clockwise.
            x, y = (x, y) if ((x == 3) + (y == 4) + (z == 5)) % 2 == 0 else (y, x)
            lines.append(f'3 {6 * i + x} {6 * i + y} {6 * i + z}')
    return '\n'.join(lines) + '\n'


def weights_elsewhere(model: bytes) -> bytes:
    """The same model, one of whose weights is said to be in a file outside."""
    proto = onnx.load_from_string(model)
    weight = next(each for each in proto.graph.initializer if each.name == 'match')
    weight.ClearField('raw_data')
    weight.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {'location': '../match.bin', 'offset': '0', 'length': '288'}.items():
        weight.external_data.add(key=key, value=value)
    return proto.SerializeToString()
