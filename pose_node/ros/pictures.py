"""sensor_msgs/Image and CompressedImage to RGB uint8 (H, W, 3), and back.

Every encoding that cameras really send, with padded rows (`step`) and big-endian samples. Messages
are read by their fields alone, so nothing here needs ROS. An encoding that is missing below goes
through cv_bridge where that is installed. Raises PoseNodeError.

Deeper than eight bits: value * 255 / 65535, rounded, as cv_bridge does. YUV: BT.601, video range.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from pose_node.core.errors import PoseNodeError

from .picture_files import claimed_size, is_colour_jpeg, is_cut_off

# encoding: sample type, samples a pixel, OpenCV's conversion to RGB (None: it is RGB).
# OpenCV names a Bayer pattern after the second pixel of the second row, ROS after the first of the
# first: ROS "rggb" is OpenCV "BG".
_PACKED: dict[str, tuple[type, int, int | None]] = {
    'rgb8': (np.uint8, 3, None),
    'rgba8': (np.uint8, 4, cv2.COLOR_RGBA2RGB),
    'bgr8': (np.uint8, 3, cv2.COLOR_BGR2RGB),
    'bgra8': (np.uint8, 4, cv2.COLOR_BGRA2RGB),
    'mono8': (np.uint8, 1, cv2.COLOR_GRAY2RGB),
    'rgb16': (np.uint16, 3, None),
    'rgba16': (np.uint16, 4, cv2.COLOR_RGBA2RGB),
    'bgr16': (np.uint16, 3, cv2.COLOR_BGR2RGB),
    'bgra16': (np.uint16, 4, cv2.COLOR_BGRA2RGB),
    'mono16': (np.uint16, 1, cv2.COLOR_GRAY2RGB),
    # "generic" pictures: OpenCV's habit, grey or BGR
    '8UC1': (np.uint8, 1, cv2.COLOR_GRAY2RGB),
    '8UC3': (np.uint8, 3, cv2.COLOR_BGR2RGB),
    '8UC4': (np.uint8, 4, cv2.COLOR_BGRA2RGB),
    'bayer_rggb8': (np.uint8, 1, cv2.COLOR_BayerBG2RGB),
    'bayer_bggr8': (np.uint8, 1, cv2.COLOR_BayerRG2RGB),
    'bayer_gbrg8': (np.uint8, 1, cv2.COLOR_BayerGR2RGB),
    'bayer_grbg8': (np.uint8, 1, cv2.COLOR_BayerGB2RGB),
    'bayer_rggb16': (np.uint16, 1, cv2.COLOR_BayerBG2RGB),
    'bayer_bggr16': (np.uint16, 1, cv2.COLOR_BayerRG2RGB),
    'bayer_gbrg16': (np.uint16, 1, cv2.COLOR_BayerGR2RGB),
    'bayer_grbg16': (np.uint16, 1, cv2.COLOR_BayerGB2RGB),
    # two names each: the newer one, and the one that sensor_msgs calls deprecated
    'uyvy': (np.uint8, 2, cv2.COLOR_YUV2RGB_UYVY),
    'yuv422': (np.uint8, 2, cv2.COLOR_YUV2RGB_UYVY),
    'yuyv': (np.uint8, 2, cv2.COLOR_YUV2RGB_YUY2),
    'yuv422_yuy2': (np.uint8, 2, cv2.COLOR_YUV2RGB_YUY2),
}
# a plane of Y, then one of half its height with U and V (or V and U) in turn
_SEMI_PLANAR = {'nv12': cv2.COLOR_YUV2RGB_NV12, 'nv21': cv2.COLOR_YUV2RGB_NV21}
_YUV = {'uyvy', 'yuv422', 'yuyv', 'yuv422_yuy2', *_SEMI_PLANAR}

# JPEG straight to RGB, where OpenCV can (4.11).
_READ_RGB: int | None = getattr(cv2, 'IMREAD_COLOR_RGB', None)
# Of a compressed picture; a header may claim more than memory holds.
_MOST_PIXELS = 2**25
ENCODINGS = (*_PACKED, *_SEMI_PLANAR)


def decode_image(message: Any) -> np.ndarray:
    """The picture of a sensor_msgs/Image; a view of the message's own data where it is RGB."""
    encoding, width, height = message.encoding, message.width, message.height
    if width < 1 or height < 1:
        raise PoseNodeError(
            f'The picture is {width} x {height} pixels, so there is nothing in it; '
            'look at the camera driver.'
        )
    if encoding in _YUV and (width % 2 or (encoding in _SEMI_PLANAR and height % 2)):
        raise PoseNodeError(
            f'A picture in {encoding} must have an even size and this one has {width} x {height}; '
            'let the camera send rgb8.'
        )
    try:
        if encoding in _SEMI_PLANAR:
            planes = _samples(message, np.uint8, 1, height + height // 2)
            return cv2.cvtColor(planes, _SEMI_PLANAR[encoding])
        if encoding in _PACKED:
            dtype, channels, conversion = _PACKED[encoding]
            pixels = _samples(message, dtype, channels, height)
            return _to_8_bit(pixels if conversion is None else cv2.cvtColor(pixels, conversion))
    except cv2.error as error:
        raise PoseNodeError(
            f'OpenCV cannot convert a picture of {width} x {height} pixels from {encoding} '
            f'({str(error).strip()}); let the camera send rgb8.'
        ) from None
    return _through_cv_bridge(message)


def decode_compressed(message: Any) -> np.ndarray:
    """The picture of a sensor_msgs/CompressedImage: JPEG or PNG.

    The EXIF orientation is ignored: CameraInfo describes the picture as the sensor read it.
    """
    data = np.frombuffer(message.data, np.uint8)
    what = f'The compressed picture (format {message.format!r}, {data.size} bytes)'
    if 'compressedDepth' in message.format:
        raise PoseNodeError(f'{what} is a depth image; give the topic of a colour picture.')
    file = data.tobytes()
    size = claimed_size(file)
    if size is not None and is_cut_off(file):
        raise PoseNodeError(
            f'{what} was cut off before its end; look at the sender and the network.'
        )
    if size is not None and size[0] * size[1] > _MOST_PIXELS:
        raise PoseNodeError(
            f'{what} claims {size[0]} x {size[1]} pixels, at most {_MOST_PIXELS} are taken; '
            'look at the sender.'
        )
    flags, straight = cv2.IMREAD_UNCHANGED, False
    if _READ_RGB is not None and is_colour_jpeg(file):
        flags, straight = _READ_RGB | cv2.IMREAD_IGNORE_ORIENTATION, True
    try:
        picture = cv2.imdecode(data, flags) if size is not None else None
    except cv2.error:
        picture = None
    if picture is None:
        raise PoseNodeError(f'{what} is no JPEG or PNG that can be read; look at the sender.')
    return picture if straight else _to_8_bit(_decompressed_to_rgb(picture, message.format, what))


def encode_image(picture: np.ndarray, message: Any) -> Any:
    """Fill a sensor_msgs/Image with an RGB uint8 (H, W, 3) picture; its header stays.

    Through the buffer: assigning an array or bytes to `data` is checked element by element and is
    a thousand times slower.
    """
    height, width, _ = picture.shape
    message.height, message.width, message.encoding = height, width, 'rgb8'
    message.is_bigendian, message.step = 0, 3 * width
    del message.data[:]
    message.data.frombytes(np.ascontiguousarray(picture).data.cast('B'))
    return message


def _samples(message: Any, dtype: type, channels: int, rows: int) -> np.ndarray:
    """(rows, width) or (rows, width, channels) samples in machine order, contiguous.

    No copy unless rows are padded or bytes must be swapped.
    """
    kind = np.dtype(dtype)
    row_bytes = message.width * channels * kind.itemsize
    what = f'The picture ({message.width} x {message.height}, {message.encoding})'
    if message.step < row_bytes:
        raise PoseNodeError(
            f'{what} has a step of {message.step} bytes, and its rows need {row_bytes}; '
            'look at the camera driver.'
        )
    data = memoryview(message.data)
    needed = message.step * (rows - 1) + row_bytes  # the last row may come without padding
    if data.nbytes < needed:
        raise PoseNodeError(
            f'{what} has {data.nbytes} bytes of data and needs {needed}: it was cut off; '
            'look at the camera driver and the network.'
        )
    view: np.ndarray = np.ndarray(
        (rows, message.width, channels),
        kind.newbyteorder('>' if message.is_bigendian else '<'),
        buffer=data,
        strides=(message.step, channels * kind.itemsize, kind.itemsize),
    )
    samples = np.ascontiguousarray(view, dtype=kind)
    return samples[:, :, 0] if channels == 1 else samples


def _to_8_bit(picture: np.ndarray) -> np.ndarray:
    """The same picture with eight bits a sample."""
    if picture.dtype == np.uint8:
        return picture
    return cv2.convertScaleAbs(picture, alpha=1.0 / 257.0)


def _decompressed_to_rgb(picture: np.ndarray, form: str, what: str) -> np.ndarray:
    """OpenCV's grey, BGR or BGRA (or a raw Bayer mosaic in a PNG) to RGB, depth unchanged."""
    if picture.dtype not in (np.uint8, np.uint16):
        raise PoseNodeError(f'{what} has samples of type {picture.dtype}; send 8 or 16 bits.')
    if picture.ndim == 2:
        encoding = form.partition(';')[0].strip()
        _, _, mosaic = _PACKED.get(encoding, _PACKED['mono8'])
        grey = cv2.COLOR_GRAY2RGB
        return cv2.cvtColor(picture, mosaic if mosaic and encoding.startswith('bayer_') else grey)
    codes = {3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}
    return cv2.cvtColor(picture, codes[picture.shape[2]])


def _through_cv_bridge(message: Any) -> np.ndarray:
    """What cv_bridge makes of an encoding that this file does not know."""
    unknown = f'The picture has the encoding {message.encoding!r}, which is not known'
    remedy = f'let the camera send one of {", ".join(ENCODINGS)}.'
    try:
        from cv_bridge import CvBridge
    except (ImportError, AttributeError):  # AttributeError: built for another NumPy
        raise PoseNodeError(f'{unknown}, and cv_bridge is not installed; {remedy}') from None
    try:
        picture = np.asarray(CvBridge().imgmsg_to_cv2(message, 'rgb8'))
    except Exception as error:  # noqa: BLE001 - its releases raise different things
        raise PoseNodeError(f'{unknown}, not to cv_bridge either ({error}); {remedy}') from None
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise PoseNodeError(f'{unknown}, and cv_bridge made no RGB picture of it; {remedy}')
    return picture


__all__ = ['ENCODINGS', 'decode_compressed', 'decode_image', 'encode_image']
