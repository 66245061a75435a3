"""Decoding of every encoding: hand-computed pictures, padding, byte order, cv_bridge as a twin."""

from __future__ import annotations

import array
import sys
import zlib
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from pose_node.core.errors import PoseNodeError
from pose_node.ros import pictures
from pose_node.ros.picture_files import claimed_size, is_cut_off
from pose_node.ros.pictures import ENCODINGS, decode_compressed, decode_image, encode_image

RED, GREEN, BLUE, GREY = (255, 0, 0), (0, 255, 0), (0, 0, 255), (80, 80, 80)


def image(pixels: np.ndarray, encoding: str, *, padding: int = 0, big: bool = False):
    """A sensor_msgs/Image by its fields; pixels (H, W) or (H, W, C) of uint8 or uint16."""
    height, width = pixels.shape[:2]
    samples = pixels.astype(pixels.dtype.newbyteorder('>' if big else '<'))
    rows = samples.reshape(height, -1).view(np.uint8)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=171)
    return SimpleNamespace(
        width=width,
        height=height,
        encoding=encoding,
        step=rows.shape[1],
        is_bigendian=int(big),
        data=array.array('B', rows.tobytes()),
    )


def compressed(picture: np.ndarray, suffix: str, form: str):
    """A sensor_msgs/CompressedImage of what OpenCV takes for a picture (BGR)."""
    ok, data = cv2.imencode(suffix, picture)
    assert ok
    return SimpleNamespace(format=form, data=array.array('B', data.tobytes()))


def scene(rng: np.random.Generator, height: int = 6, width: int = 8) -> np.ndarray:
    """Any RGB picture."""
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


CHANNEL_ORDERS = {
    'rgb8': (0, 1, 2),
    'bgr8': (2, 1, 0),
    '8UC3': (2, 1, 0),
    'rgba8': (0, 1, 2, None),
    'bgra8': (2, 1, 0, None),
    '8UC4': (2, 1, 0, None),
}


@pytest.mark.parametrize('padding', [0, 1, 5])
@pytest.mark.parametrize('encoding', CHANNEL_ORDERS)
def test_colours_come_back_in_rgb(encoding, padding, rng):
    picture = scene(rng)
    alpha = rng.integers(0, 256, picture.shape[:2], dtype=np.uint8)
    order = CHANNEL_ORDERS[encoding]
    pixels = np.stack([alpha if c is None else picture[..., c] for c in order], axis=-1)
    np.testing.assert_array_equal(decode_image(image(pixels, encoding, padding=padding)), picture)


@pytest.mark.parametrize('big', [False, True])
@pytest.mark.parametrize('padding', [0, 3])
@pytest.mark.parametrize('encoding', ['rgb16', 'bgr16', 'rgba16', 'bgra16'])
def test_deep_colours_are_scaled_to_8_bit(encoding, padding, big, rng):
    picture = scene(rng)
    order = CHANNEL_ORDERS[encoding.replace('16', '8')]
    zeros = np.zeros(picture.shape[:2], np.uint8)
    pixels = np.stack([zeros if c is None else picture[..., c] for c in order], axis=-1)
    deep = pixels.astype(np.uint16) * 257  # 0..255 -> 0..65535
    decoded = decode_image(image(deep, encoding, padding=padding, big=big))
    np.testing.assert_array_equal(decoded, picture)


@pytest.mark.parametrize('encoding', ['mono8', '8UC1'])
def test_grey_has_three_equal_channels(encoding, rng):
    grey = scene(rng)[..., 0]
    decoded = decode_image(image(grey, encoding, padding=2))
    np.testing.assert_array_equal(decoded, np.repeat(grey[..., None], 3, axis=2))


@pytest.mark.parametrize('big', [False, True])
def test_mono16_is_rounded_to_the_nearest(big):
    values = np.array([[0, 128, 129, 257, 385, 386, 32767, 65535]], np.uint16)
    expected = np.round(values / 257.0)
    decoded = decode_image(image(values, 'mono16', big=big))
    np.testing.assert_array_equal(decoded[..., 0], expected)


@pytest.mark.parametrize('depth', [8, 16])
@pytest.mark.parametrize('color', [RED, GREEN, BLUE, GREY])
@pytest.mark.parametrize('pattern', ['rggb', 'bggr', 'gbrg', 'grbg'])
def test_bayer_shows_the_colour_that_the_mosaic_was_made_of(pattern, color, depth):
    channel = {'r': color[0], 'g': color[1], 'b': color[2]}
    cell = np.array([channel[c] for c in pattern]).reshape(2, 2)
    mosaic = np.tile(cell, (4, 5))
    pixels = mosaic.astype(np.uint8) if depth == 8 else (mosaic * 257).astype(np.uint16)
    decoded = decode_image(image(pixels, f'bayer_{pattern}{depth}', padding=2))
    np.testing.assert_array_equal(decoded, np.broadcast_to(color, decoded.shape))


def yuv(rgb: tuple[int, int, int]) -> tuple[int, int, int]:
    """BT.601, video range: the equations of the recommendation, in floats."""
    r, g, b = (value / 255.0 for value in rgb)
    luma = 0.299 * r + 0.587 * g + 0.114 * b
    u, v = (b - luma) / 1.772, (r - luma) / 1.402
    return round(16 + 219 * luma), round(128 + 224 * u), round(128 + 224 * v)


@pytest.mark.parametrize('padding', [0, 4])
@pytest.mark.parametrize('encoding', ['uyvy', 'yuv422', 'yuyv', 'yuv422_yuy2'])
def test_packed_yuv(encoding, padding):
    colors = np.array([RED, GREEN, BLUE, GREY, (255, 255, 255), (0, 0, 0)])
    picture = np.repeat(np.repeat(colors[None], 2, axis=1), 4, axis=0)  # pairs of equal pixels
    y, u, v = np.moveaxis(np.apply_along_axis(lambda c: yuv(tuple(c)), 2, picture), 2, 0)
    chroma = np.where(np.arange(y.shape[1]) % 2 == 0, u, v)
    pair = (chroma, y) if encoding in ('uyvy', 'yuv422') else (y, chroma)
    message = image(np.stack(pair, axis=-1).astype(np.uint8), encoding, padding=padding)
    decoded = decode_image(message)
    assert decoded.shape == picture.shape
    assert np.abs(decoded.astype(int) - picture).max() <= 2


@pytest.mark.parametrize('padding', [0, 6])
@pytest.mark.parametrize('encoding', ['nv12', 'nv21'])
def test_semi_planar_yuv(encoding, padding):
    colors = np.array([[RED, GREEN, BLUE], [GREY, (255, 255, 255), (0, 0, 0)]])
    picture = colors.repeat(2, axis=0).repeat(2, axis=1)  # (4, 6, 3): blocks of 2 x 2
    y, u, v = np.moveaxis(np.apply_along_axis(lambda c: yuv(tuple(c)), 2, picture), 2, 0)
    chroma = np.stack((u, v) if encoding == 'nv12' else (v, u), axis=-1)[::2, ::2]
    planes = np.concatenate((y, chroma.reshape(2, 6))).astype(np.uint8)
    message = image(planes, encoding, padding=padding)
    message.height = 4
    decoded = decode_image(message)
    assert decoded.shape == picture.shape
    assert np.abs(decoded.astype(int) - picture).max() <= 2


def test_rgb8_without_padding_is_not_copied(rng):
    message = image(scene(rng), 'rgb8')
    decoded = decode_image(message)
    message.data[0] ^= 255
    assert decoded[0, 0, 0] == message.data[0]


def test_last_row_may_lack_its_padding(rng):
    picture = scene(rng)
    message = image(picture, 'rgb8', padding=7)
    del message.data[-7:]
    np.testing.assert_array_equal(decode_image(message), picture)


@pytest.mark.parametrize('encoding', ENCODINGS)
def test_cut_off_data_is_refused(encoding):
    message = SimpleNamespace(
        width=8, height=6, encoding=encoding, step=80, is_bigendian=0, data=bytes(479 - 80)
    )
    with pytest.raises(PoseNodeError, match='cut off'):
        decode_image(message)


@pytest.mark.parametrize(
    ('fields', 'words'),
    [
        ({'width': 0}, 'nothing in it'),
        ({'height': 0}, 'nothing in it'),
        ({'step': 23}, 'step of 23 bytes'),
        ({'encoding': 'yuyv', 'width': 7}, 'even size'),
        ({'encoding': 'nv12', 'height': 5}, 'even size'),
        ({'data': array.array('B')}, 'cut off'),
    ],
)
def test_wrong_fields_are_refused_with_a_sentence(fields, words, rng):
    message = image(scene(rng), 'rgb8')
    vars(message).update(fields)
    with pytest.raises(PoseNodeError, match=words):
        decode_image(message)


def test_unknown_encoding_without_cv_bridge(monkeypatch, rng):
    monkeypatch.setitem(sys.modules, 'cv_bridge', None)
    with pytest.raises(PoseNodeError, match=r"'32FC1'.*cv_bridge is not installed.*rgb8"):
        decode_image(image(scene(rng)[..., 0], '32FC1'))


def test_unknown_encoding_goes_through_cv_bridge(monkeypatch, rng):
    picture = scene(rng)

    class Bridge:
        def imgmsg_to_cv2(self, message, desired_encoding):
            assert desired_encoding == 'rgb8'
            if message.encoding == '32FC1':
                raise RuntimeError('[32FC1] is not a color format')
            return picture

    monkeypatch.setitem(sys.modules, 'cv_bridge', SimpleNamespace(CvBridge=Bridge))
    message = image(picture, 'nv24')
    np.testing.assert_array_equal(decode_image(message), picture)
    message.encoding = '32FC1'
    with pytest.raises(PoseNodeError, match='not a color format'):
        decode_image(message)


@pytest.mark.parametrize('encoding', ['rgb8', 'bgr8', 'mono8', 'bayer_rggb8', 'bayer_gbrg8'])
def test_equal_to_cv_bridge(encoding, rng):
    # The port on PyPI is right for these; the real one for more, where ROS is installed.
    cv_bridge = pytest.importorskip('cv_bridge', reason='cv_bridge is not installed here')
    from sensor_msgs.msg import Image

    gray = encoding.startswith(('mono', 'bayer'))
    made = image(scene(rng)[..., 0] if gray else scene(rng), encoding)
    message = Image(**{**vars(made), 'data': made.data})
    desired = 'passthrough' if encoding.startswith('bayer') else 'rgb8'
    theirs = cv_bridge.CvBridge().imgmsg_to_cv2(message, desired)
    if encoding.startswith('bayer'):
        codes = {'bayer_rggb8': cv2.COLOR_BayerBG2RGB, 'bayer_gbrg8': cv2.COLOR_BayerGR2RGB}
        theirs = cv2.cvtColor(np.asarray(theirs), codes[encoding])
    np.testing.assert_array_equal(decode_image(message), theirs)


def test_png_is_exact(rng):
    picture = scene(rng)
    message = compressed(picture[..., ::-1], '.png', 'rgb8; png compressed bgr8')
    np.testing.assert_array_equal(decode_compressed(message), picture)


def test_jpeg_keeps_the_colours():
    picture = np.full((16, 16, 3), (200, 60, 20), np.uint8)
    decoded = decode_compressed(
        compressed(picture[..., ::-1], '.jpg', 'bgr8; jpeg compressed bgr8')
    )
    assert np.abs(decoded.astype(int) - picture).max() <= 3


@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
def test_compressed_grey_has_three_channels(suffix):
    grey = np.full((16, 16), 77, np.uint8)
    decoded = decode_compressed(compressed(grey, suffix, 'mono8; jpeg compressed'))
    assert decoded.shape == (16, 16, 3)
    assert np.abs(decoded.astype(int) - 77).max() <= 1


def test_compressed_deep_alpha_and_mosaic(rng):
    picture = scene(rng)
    deep = compressed(picture[..., ::-1].astype(np.uint16) * 257, '.png', 'rgb16; png compressed')
    np.testing.assert_array_equal(decode_compressed(deep), picture)
    alpha = np.dstack((picture[..., ::-1], picture[..., 0]))
    np.testing.assert_array_equal(
        decode_compressed(compressed(alpha, '.png', 'bgra8; png compressed bgra8')), picture
    )
    mosaic = np.tile(np.array([[255, 0], [0, 0]], np.uint8), (4, 4))
    red = decode_compressed(compressed(mosaic, '.png', 'bayer_rggb8; png compressed '))
    np.testing.assert_array_equal(red, np.broadcast_to(RED, red.shape))


def test_exif_orientation_does_not_turn_the_picture(rng):
    picture = scene(rng, 16, 24)
    message = compressed(picture[..., ::-1], '.jpg', 'jpeg')
    plain = decode_compressed(message)
    # APP1: Exif, one tag, 0x0112 orientation = 6 (turned by 90 degrees)
    tiff = b'II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0'
    body = b'Exif\0\0' + tiff
    app1 = b'\xff\xe1' + (len(body) + 2).to_bytes(2, 'big') + body
    data = message.data.tobytes()
    turned = SimpleNamespace(format='jpeg', data=array.array('B', data[:2] + app1 + data[2:]))
    assert cv2.imdecode(np.frombuffer(turned.data, np.uint8), cv2.IMREAD_COLOR).shape[0] == 24
    np.testing.assert_array_equal(decode_compressed(turned), plain)


@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
@pytest.mark.parametrize('share', [0.2, 0.5, 0.95])
def test_cut_off_compressed_data_is_refused(suffix, share, rng):
    message = compressed(scene(rng, 120, 160), suffix, 'rgb8; compressed')
    del message.data[int(share * len(message.data)) :]
    with pytest.raises(PoseNodeError, match='cut off'):
        decode_compressed(message)


@pytest.mark.parametrize(
    ('form', 'data', 'words'),
    [
        ('rgb8; jpeg compressed bgr8', b'', 'no JPEG or PNG'),
        ('rgb8; jpeg compressed bgr8', b'no picture at all', 'no JPEG or PNG'),
        ('16UC1; compressedDepth png', b'\x89PNG', 'depth image'),
    ],
)
def test_unreadable_compressed_data_is_refused(form, data, words):
    with pytest.raises(PoseNodeError, match=words):
        decode_compressed(SimpleNamespace(format=form, data=array.array('B', data)))


def test_encode_image_is_the_inverse(rng):
    picture = scene(rng)[:, ::2]  # not contiguous
    message = SimpleNamespace(data=array.array('B', b'old'))
    encode_image(picture, message)
    np.testing.assert_array_equal(decode_image(message), picture)


@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
@pytest.mark.parametrize('size', [(1, 1), (7, 300), (640, 480)])
def test_files_say_how_large_they_are(suffix, size):
    width, height = size
    _, data = cv2.imencode(suffix, np.zeros((height, width, 3), np.uint8))
    assert claimed_size(data.tobytes()) == size
    assert not is_cut_off(data.tobytes()) and is_cut_off(data.tobytes()[:-13])
    for length in range(30):
        assert claimed_size(data.tobytes()[:length]) in (None, size)


def test_what_is_no_jpeg_or_png_has_no_size():
    for data in (b'', b'BM' + bytes(50), b'\xff\xd8' + bytes(50), b'\xff\xd8' + b'\xff' * 50):
        assert claimed_size(data) is None


@pytest.mark.parametrize('at', ['jpeg', 'png'])
def test_a_claim_of_more_pixels_than_memory_holds_is_refused(at):
    """Before anything is allocated for it."""
    if at == 'png':
        data = bytearray(cv2.imencode('.png', np.zeros((8, 8, 3), np.uint8))[1].tobytes())
        data[16:24] = (30000).to_bytes(4, 'big') * 2
        assert claimed_size(bytes(data)) is None  # damaged
        data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, 'big')
    else:
        data = bytearray(cv2.imencode('.jpg', np.zeros((8, 8, 3), np.uint8))[1].tobytes())
        frame = data.find(b'\xff\xc0')
        data[frame + 5 : frame + 9] = (30000).to_bytes(2, 'big') * 2
    message = SimpleNamespace(format=at, data=array.array('B', bytes(data)))
    with pytest.raises(PoseNodeError, match='claims 30000 x 30000 pixels'):
        decode_compressed(message)


def test_a_png_whose_part_claims_4_gb_is_cut_off():
    """Found by the fuzzer: OpenCV would allocate them."""
    data = bytearray(cv2.imencode('.png', np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    at = data.find(b'IDAT') - 4
    data[at : at + 4] = b'\xff\xff\xff\xf0'
    assert claimed_size(bytes(data)) == (8, 8) and is_cut_off(bytes(data))


def test_sixteen_bits_become_eight_as_they_are_rounded_by_hand():
    every = np.arange(65536, dtype=np.uint32)
    picture = np.repeat(every.astype(np.uint16).reshape(256, 256, 1), 3, axis=2)
    wanted = ((every + 128) // 257).reshape(256, 256)
    np.testing.assert_array_equal(decode_image(image(picture, 'rgb16'))[..., 1], wanted)


def test_a_jpeg_straight_to_rgb_is_the_same_picture(monkeypatch, rng):
    """As by way of BGR, turned by no EXIF; a grey one has no short way."""
    soft = cv2.GaussianBlur(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8), (0, 0), 2)
    file = cv2.imencode('.jpg', soft)[1].tobytes()
    turned = b'Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0'
    exif = b'\xff\xe1' + (len(turned) + 2).to_bytes(2, 'big') + turned
    grey = cv2.imencode('.jpg', soft[:, :, 0])[1].tobytes()
    for data in (file, file[:2] + exif + file[2:], grey):
        message = SimpleNamespace(format='jpeg', data=array.array('B', data))
        straight = decode_compressed(message)
        with monkeypatch.context() as old:
            old.setattr(pictures, '_READ_RGB', None)
            np.testing.assert_array_equal(straight, decode_compressed(message))
