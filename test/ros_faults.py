"""What can be wrong with a picture and its CameraInfo, and what the node promises then."""

from __future__ import annotations

import array
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ros_peer import CAMERA
from ros_robot import EMPTY, PICTURE

K = [float(value) for value in CAMERA.K.ravel()]
WIDTH, HEIGHT = CAMERA.size

# What the node promises:
REFUSED = 'answered with nothing; one log line and a bad status say why'
NOTHING = 'answered with nothing found'
POSE = 'answered with the right pose'
SANE = 'answered, with finite numbers if with a pose'


@dataclass(frozen=True)
class Fault:
    """One fault: the picture that is sent with its fields changed, and the promise."""

    promise: str
    picture: np.ndarray = field(default_factory=lambda: PICTURE)
    changes: dict[str, Any] = field(default_factory=dict)  # of the Image
    info: dict[str, Any] = field(default_factory=dict)  # of the CameraInfo
    task: str = ''  # whose status is bad
    words: str = ''  # of its sentence


def picture(words: str, **changes: Any) -> Fault:
    """An Image that cannot be used."""
    return Fault(REFUSED, changes=changes, task='pictures', words=words)


def calibration(words: str, **info: Any) -> Fault:
    """A CameraInfo that cannot be used."""
    return Fault(REFUSED, info=info, task='camera_info', words=words)


def with_k(index: int, value: float) -> dict[str, Any]:
    """K with one entry changed."""
    return {'k': [value if i == index else each for i, each in enumerate(K)]}


def of_size(width: int, height: int) -> dict[str, Any]:
    """A CameraInfo of another size."""
    return {'width': width, 'height': height}


def noise(level: float) -> np.ndarray:
    """A picture of noise alone."""
    rng = np.random.default_rng(5)
    return np.clip(rng.normal(128.0, level, (HEIGHT, WIDTH, 3)), 0, 255).astype(np.uint8)


DATA = array.array('B', PICTURE.tobytes())
FAULTS: dict[str, Fault] = {
    'encoding unknown': picture("'cmyk'", encoding='cmyk'),
    'encoding empty': picture("''", encoding=''),
    'encoding of more channels than the data': picture('step', encoding='rgba8'),
    'encoding of odd size in 4:2:2': picture('even size', encoding='yuv422', width=WIDTH - 1),
    'step 0': picture('step', step=0),
    'step one too small': picture('step', step=3 * WIDTH - 1),
    'step beyond the data': picture('cut off', step=3 * WIDTH + 64),
    'step of 4 GB': picture('cut off', step=2**32 - 1),
    'data empty': picture('cut off', data=array.array('B')),
    'data one byte short': picture('cut off', data=DATA[:-1]),
    'data longer than the picture': Fault(POSE, changes={'data': DATA + DATA[:999]}),
    'height 0': picture('nothing in it', height=0),
    'width 0': picture('nothing in it', width=0),
    'height of 4 billion': picture('cut off', height=2**32 - 1),
    'width of 4 billion': picture('step', width=2**32 - 1),
    'big-endian flag on bytes': Fault(POSE, changes={'is_bigendian': 1}),
    'big-endian flag of 255': Fault(POSE, changes={'is_bigendian': 255}),
    '1x1 pixel': Fault(NOTHING, picture=PICTURE[:1, :1], info=of_size(1, 1)),
    '1 pixel high': Fault(NOTHING, picture=PICTURE[:1], info=of_size(WIDTH, 1)),
    'black': Fault(NOTHING, picture=np.zeros_like(PICTURE)),
    'white': Fault(NOTHING, picture=np.full_like(PICTURE, 255)),
    'noise': Fault(SANE, picture=noise(60.0)),
    'no object': Fault(NOTHING, picture=EMPTY),
    'upside down colours (bgr as rgb)': Fault(SANE, picture=PICTURE[..., ::-1].copy()),
    'half a picture under the old CameraInfo': Fault(
        REFUSED, picture=PICTURE[: HEIGHT // 2], task='camera_info', words='describes'
    ),
    'frame_id of nobody': Fault(
        REFUSED,
        changes={'frame_id': 'rear'},
        info={'header': None},
        task='camera_info',
        words='rear',
    ),
    'frame_id of 10,000 letters': Fault(POSE, changes={'frame_id': 'x' * 10_000}),
    'frame_id in Unicode': Fault(POSE, changes={'frame_id': 'кам\u00e9ra \U0001f916/\n'}),
    'K zero': calibration('not calibrated', k=[0.0] * 9),
    'K with NaN': calibration('nan', **with_k(0, math.nan)),
    'K with infinity': calibration('inf', **with_k(2, math.inf)),
    'focal length negative': calibration('', **with_k(0, -K[0])),
    'focal length of 1e300': Fault(SANE, info=with_k(0, 1e300)),
    'focal length of 1e-300': Fault(SANE, info=with_k(0, 1e-300)),
    'K with a wrong last row': calibration('', **with_k(8, 5.0)),
    'D with NaN': calibration('nan', d=[math.nan] * 5),
    'D with infinity': calibration('inf', d=[math.inf, 0.0, 0.0, 0.0, 0.0]),
    'D of 3 numbers': calibration('', d=[0.0] * 3),
    'D of 100 numbers': calibration('', d=[0.1] * 100),
    'D of 100 zeros': Fault(POSE, info={'d': [0.0] * 100}),
    'D so strong that it folds': Fault(SANE, info={'d': [-50.0, 300.0, 1.0, 1.0, -900.0]}),
    'model unknown': calibration("'banana'", distortion_model='banana'),
    'CameraInfo of size 0': calibration('', **of_size(0, 0)),
    'CameraInfo of another size': calibration('333', width=333),
    'CameraInfo of 4 billion pixels': calibration('', **of_size(2**32 - 1, 2**32 - 1)),
    'binning of 4 billion': calibration('', binning_x=2**32 - 1, binning_y=2**32 - 1),
    'binning that does not fit the size': calibration('', binning_x=3, binning_y=3),
}
