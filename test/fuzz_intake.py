"""Random and mutated messages through decoder, camera, boxes and the node's processor.

python test/fuzz_intake.py 2> /dev/null              # 100,000, of seeded random bytes
python test/fuzz_intake.py --atheris -runs=100000    # led by coverage; pip install atheris

Every picture must be answered exactly once, and what is wrong with it must be a sentence: an
exception of any other kind is a finding, and so is a traceback in the log.
"""

from __future__ import annotations

import argparse
import array
import sys
import time
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

from pose_node.core.symmetry import Symmetries
from pose_node.ros.cameras import Cameras
from pose_node.ros.frames import TargetFrame
from pose_node.ros.health import Health
from pose_node.ros.intake import Frame
from pose_node.ros.messages import camera_of, stamp_ns
from pose_node.ros.parameters import Parameters
from pose_node.ros.pictures import ENCODINGS
from pose_node.ros.processing import Processor
from pose_node.runtime.results import FrameResult

SIZES = (0, 1, 2, 3, 4, 7, 8, 16, 31, 32, 640, 2**16, 2**31, 2**32 - 1)
NUMBERS = (0.0, -0.0, 1.0, -1.0, 0.5, 300.0, 1e-300, 1e300, 5e-324, np.nan, np.inf, -np.inf, 1e9)
MODELS = ('plumb_bob', 'rational_polynomial', 'equidistant', 'fisheye', '', 'plumb_bob\0')
NAMES = ('', 'mug', 'camera', 'elephant', 'x' * 300, '\N{ROBOT FACE}')
FORMATS = ('jpeg', 'rgb8; jpeg compressed bgr8', 'bayer_rggb8; png', '16UC1; compressedDepth', '')
RNG = np.random.default_rng(0)
PLAIN = RNG.integers(0, 256, (16, 16, 3), np.uint8)
FILES = [
    cv2.imencode(kind, picture)[1].tobytes()
    for kind in ('.jpg', '.png', '.bmp', '.tiff')
    for picture in (PLAIN, PLAIN[..., 0], PLAIN.astype(np.uint16) * 257)
    if kind in ('.png', '.tiff') or picture.dtype == np.uint8
]


class Source:
    """Takes decisions out of bytes; when they are used up all decisions are 0."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def below(self, count: int) -> int:
        chunk = self.data[self.at : self.at + 2]
        self.at += 2
        return int.from_bytes(chunk, 'little') % count

    def one_of(self, values: Any) -> Any:
        return values[self.below(len(values))]

    def number(self) -> float:
        if self.below(3):
            return float(self.one_of(NUMBERS))
        chunk = self.data[self.at : self.at + 8].ljust(8, b'\0')
        self.at += 8
        return float(np.frombuffer(chunk, np.float64)[0])

    def size(self) -> int:
        return int(self.one_of(SIZES)) if self.below(2) else self.below(64)

    def bytes(self, count: int) -> bytes:
        chunk = self.data[self.at : self.at + count]
        self.at += count
        return chunk.ljust(count, b'\x5a')


class Outputs:
    """Counts answers."""

    answers = 0

    def publish(self, header, poses, parameters, tracks=()) -> str:
        self.answers += 1
        return ''

    def publish_stats(self, header, values) -> None:
        pass

    def publish_overlay(self, *arguments) -> None:
        pass


class Logger:
    """Keeps what must not be said."""

    def __init__(self) -> None:
        self.tracebacks: list[str] = []

    def warning(self, text: str, **_: Any) -> None:
        pass

    def error(self, text: str, **_: Any) -> None:
        if 'Traceback' in text:
            self.tracebacks.append(text)


class World:
    """A processor with an estimator that finds nothing, but looks at what it is given."""

    def __init__(self, transport: str, boxes: bool) -> None:
        self.outputs, self.logger = Outputs(), Logger()
        spec = SimpleNamespace(name='mug', symmetries=Symmetries.none())
        self.bundle = SimpleNamespace(
            objects=(spec,), pose_network=SimpleNamespace(objects=('mug',))
        )
        self.pictures = 0
        self.cameras = Cameras(
            lambda info, size: camera_of(info, size, rectified=boxes), '/camera_info', 4
        )
        self.processor = Processor(
            estimator=self, cameras=self.cameras, outputs=self.outputs,
            target=TargetFrame(None, ''), health=Health(), logger=self.logger,
            parameters=Parameters(use_detections=boxes, image_transport=transport),
            clock=SimpleNamespace(now=lambda: SimpleNamespace(nanoseconds=0)),
        )  # fmt: skip

    def __call__(self, picture, camera, stamp, regions, tracked=()) -> FrameResult:
        assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
        assert tuple(camera.size) == (picture.shape[1], picture.shape[0])
        pixels = camera.project(np.array([[0.0, 0.0, 1.0], [0.3, -0.2, 0.7], [0.0, 0.0, -1.0]]))
        assert pixels.shape == (3, 2)
        for region in regions or ():
            assert np.isfinite([*region.center_px, *region.size_px, region.score]).all()
        self.pictures += 1
        return FrameResult((), (), tuple(regions or ()), {'decode': 0.0})

    def region_at(self, name, T_cam_obj, camera):
        raise AssertionError('nothing is ever found')


def header_of(source: Source) -> Header:
    header = Header(frame_id=source.one_of(NAMES))
    header.stamp.sec = source.one_of((0, 1, -1, 2**31 - 1, -(2**31)))
    header.stamp.nanosec = source.one_of((0, 1, 999_999_999, 2**32 - 1))
    return header


def picture_of(source: Source, header: Header) -> tuple[Image, tuple[int, int]]:
    """A sound picture with some of its fields at their worst."""
    width, height = 2 + 2 * source.below(12), 2 + 2 * source.below(12)
    encoding = source.one_of((*ENCODINGS, 'cmyk', '', 'rgb8 '))
    message = Image(header=header, width=width, height=height, encoding=encoding)
    message.step = width * source.one_of((8, 8, 8, 6, 4, 3, 1))
    message.is_bigendian = source.below(3)
    for _ in range(source.below(3)):
        name = source.one_of(('width', 'height', 'step'))
        setattr(message, name, source.size())
    length = min(message.step * (message.height + message.height // 2), 20_000)
    length = source.one_of((length, length, length, max(0, length - 1), 0, length + 5))
    message.data = array.array('B', source.bytes(length))
    return message, (width, height)


def file_of(source: Source, header: Header) -> tuple[CompressedImage, tuple[int, int]]:
    data = bytearray(source.one_of(FILES))
    for _ in range(source.below(6)):
        data[source.below(len(data))] = source.below(256)
    if not source.below(6):
        data = data[: source.below(len(data))]
    message = CompressedImage(header=header, format=source.one_of(FORMATS))
    message.data = array.array('B', bytes(data))
    return message, (16, 16)


def info_of(source: Source, header: Header, size: tuple[int, int]) -> CameraInfo:
    """A sound CameraInfo, or one with some of its numbers at their worst."""
    info = CameraInfo(header=header, width=size[0], height=size[1])
    info.distortion_model = source.one_of(MODELS[:3])
    info.d = [0.1, -0.02, 0.001, -0.001, 0.05, 0.1, 0.1, 0.1]
    del info.d[{'plumb_bob': 5, 'equidistant': 4}.get(info.distortion_model, 8) :]
    info.k = np.array([300.0, 0, 8, 0, 300, 8, 0, 0, 1])
    info.p = np.array([300.0, 0, 8, 0, 0, 300, 8, 0, 0, 0, 1, 0])
    info.r = np.eye(3).ravel()
    if source.below(2):
        return info
    info.distortion_model = source.one_of(MODELS)
    info.d = [source.number() * 1e-3 for _ in range(source.one_of((0, 4, 5, 8, 12, 14, 3, 40)))]
    for _ in range(source.below(3)):
        field = getattr(info, source.one_of(('k', 'p', 'r')))
        field[source.below(len(field))] = source.number()
    if not source.below(3):
        for name in ('width', 'height', 'binning_x', 'binning_y'):
            if source.below(2):
                setattr(info, name, source.size())
    if not source.below(3):
        for name in ('x_offset', 'y_offset', 'width', 'height'):
            setattr(info.roi, name, source.size())
    return info


def boxes_of(source: Source, header: Header) -> Detection2DArray:
    message = Detection2DArray(header=header)
    for _ in range(source.below(4)):
        box = Detection2D()
        box.bbox.center.position.x, box.bbox.center.position.y = source.number(), source.number()
        box.bbox.size_x, box.bbox.size_y = source.number(), source.number()
        box.bbox.center.theta = source.number()
        for _ in range(source.below(3)):
            result = ObjectHypothesisWithPose()
            result.hypothesis.class_id = source.one_of(NAMES)
            result.hypothesis.score = source.number()
            box.results.append(result)
        message.detections.append(box)
    return message


WORLDS: dict[tuple[str, bool], World] = {}


def one(data: bytes) -> int:
    """One picture with all that comes with it; returns how many messages that were."""
    source = Source(data)
    transport, boxes = source.one_of(('raw', 'compressed')), bool(source.below(2))
    if (transport, boxes) not in WORLDS:
        WORLDS[transport, boxes] = World(transport, boxes)
    world = WORLDS[transport, boxes]
    header = header_of(source)
    message, size = (picture_of if transport == 'raw' else file_of)(source, header)
    info = info_of(source, header, size)
    world.cameras.put(stamp_ns(header.stamp), info)
    found = boxes_of(source, header) if boxes and source.below(8) else None
    before = world.outputs.answers
    world.processor(Frame(message, stamp_ns(header.stamp), boxes=found))
    assert world.outputs.answers == before + 1, 'a picture was not answered exactly once'
    assert not world.logger.tracebacks, world.logger.tracebacks[-1]
    return 2 + (found is not None)


def random_run(messages: int, seed: int) -> None:
    """That many messages out of a seeded generator; prints what became of them."""
    rng = np.random.default_rng(seed)
    sent = rounds = 0
    begin = time.monotonic()
    while sent < messages:
        sent += one(rng.bytes(int(rng.integers(20, 900))))
        rounds += 1
    looked = sum(world.pictures for world in WORLDS.values())
    print(
        f'{sent} messages in {time.monotonic() - begin:.0f} s: {rounds} pictures, each answered '
        f'once; {looked} were sound enough to be looked at, {rounds - looked} refused in a '
        'sentence; no exception, no traceback'
    )


def main() -> None:
    """Random, or led by coverage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--messages', type=int, default=100_000)
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--atheris', action='store_true', help='what follows is for libFuzzer')
    options, rest = parser.parse_known_args()
    if not options.atheris:
        random_run(options.messages, options.seed)
        return
    import atheris

    atheris.instrument_all()
    atheris.Setup([sys.argv[0], *rest], lambda data: (one(data), None)[1])
    atheris.Fuzz()


if __name__ == '__main__':
    main()
