"""What a JPEG or PNG says of itself, read before a decoder believes it. Free of ROS and OpenCV."""

from __future__ import annotations

import zlib

_PNG, _JPEG = b'\x89PNG\r\n\x1a\n', b'\xff\xd8'
# JPEG markers that begin a frame and so hold its size: SOF0..15 without DHT, JPG and DAC.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def claimed_size(data: bytes) -> tuple[int, int] | None:
    """Width and height as the header has them; None when this is no JPEG or PNG, or one without a
    header.
    """
    if data.startswith(_PNG):
        # OpenCV believes a header whose checksum says that it is damaged.
        sound = len(data) >= 33 and zlib.crc32(data[12:29]) == int.from_bytes(data[29:33], 'big')
        if not sound:
            return None
        return int.from_bytes(data[16:20], 'big'), int.from_bytes(data[20:24], 'big')
    frame = _jpeg_frame(data) if data.startswith(_JPEG) else None
    return None if frame is None else frame[:2]


def is_colour_jpeg(data: bytes) -> bool:
    """Whether this is a JPEG of three channels."""
    frame = _jpeg_frame(data) if data.startswith(_JPEG) else None
    return frame is not None and frame[2] == 3


def is_cut_off(data: bytes) -> bool:
    """Whether the end is missing: a JPEG ends with EOI and a PNG with IEND, perhaps followed by
    some padding. Decoders fill the lost part with grey and say nothing, and a pose would believe
    it; and OpenCV allocates what a PNG's chunk says it is long, be it 4 GB.
    """
    if not data.startswith(_PNG):
        return b'\xff\xd9' not in data[-4096:]
    at = len(_PNG)
    while at + 12 <= len(data):  # length, name, what it holds, checksum
        if data[at + 4 : at + 8] == b'IEND':
            return False
        at += 12 + int.from_bytes(data[at : at + 4], 'big')
    return True


def _jpeg_frame(data: bytes) -> tuple[int, int, int] | None:
    """Width, height and channels."""
    at = 2
    while at + 10 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
        elif marker in _FRAMES:
            height, width = data[at + 5 : at + 7], data[at + 7 : at + 9]
            return int.from_bytes(width, 'big'), int.from_bytes(height, 'big'), data[at + 9]
        else:
            at += 2 + max(2, int.from_bytes(data[at + 2 : at + 4], 'big'))
    return None


__all__ = ['claimed_size', 'is_colour_jpeg', 'is_cut_off']
