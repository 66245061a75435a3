"""Crops of a picture on the GPU: upload, reduce, sample and normalise, all regions in one kernel.

The numbers are those of preprocess.sample, which is OpenCV's INTER_AREA and warpAffine: places are
known to a 32nd of a pixel, and everything up to the normalisation is whole numbers. Compiled by
NVRTC when the backend opens; whether it is right is tried out there and then, on the GPU at hand.
"""

from __future__ import annotations

import ctypes
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from pose_node.core.errors import PoseNodeError

from ...preprocess import FILL, Crops, window_of

if TYPE_CHECKING:
    from .cuda import Cuda

# One crop, as struct Crop of the kernel has it.
_CROP = np.dtype(
    [('map', 'f8', 6), ('window', 'i4', 7), ('pitch', 'i4'), ('mean', 'f4', 3), ('std', 'f4', 3)]
)
_BLOCK = (32, 8)  # pixels
_FIRST_BYTES = 1 << 16  # the first picture makes room for itself

SOURCE = """
struct Crop {
    double map[6];  // pixels of the crop to pixels of the reduced window
    int x0, y0, n, columns, rows, last_x, last_y;  // columns 0: it does not touch the picture
    int pitch;  // bytes of a row of the picture
    float mean[3], std[3];
};

// A pixel of the window that was reduced by n, as cv::resize averages and rounds it.
__device__ void tap(const unsigned char* picture, const Crop& crop, int x, int y, int weight,
                    int* sums) {
    if (x < 0 || y < 0 || x >= crop.columns || y >= crop.rows) {
        for (int c = 0; c < 3; ++c) sums[c] += weight * FILL;
        return;
    }
    const int n = crop.n;
    int total[3] = {0, 0, 0};
    for (int j = 0; j < n; ++j) {
        int v = crop.y0 + y * n + j;
        v = v < crop.last_y ? v : crop.last_y;
        for (int i = 0; i < n; ++i) {
            int u = crop.x0 + x * n + i;
            u = u < crop.last_x ? u : crop.last_x;
            const unsigned char* pixel = picture + (size_t)v * crop.pitch + 3 * u;
            for (int c = 0; c < 3; ++c) total[c] += pixel[c];
        }
    }
    for (int c = 0; c < 3; ++c) {
        int mean = total[c];
        if (n == 2) mean = (mean + 2) >> 2;
        else if (n > 2) mean = (int)rintf(mean * (1.0f / (n * n)));
        sums[c] += weight * mean;
    }
}

// Crop blockIdx.z of a batch: (3, height, width) float, as cv::warpAffine samples it.
extern "C" __global__ void crop(const unsigned char* picture, const Crop* crops, float* out,
                                int width, int height) {
    const int x = blockIdx.x * blockDim.x + threadIdx.x;
    const int y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= width || y >= height) return;
    const Crop& crop = crops[blockIdx.z];
    const double* m = crop.map;
    const int u = ((int)rint((m[1] * y + m[2]) * 1024) + 16 + (int)rint(m[0] * x * 1024)) >> 5;
    const int v = ((int)rint((m[4] * y + m[5]) * 1024) + 16 + (int)rint(m[3] * x * 1024)) >> 5;
    const int fx = u & 31, fy = v & 31;
    int sums[3] = {0, 0, 0};
    tap(picture, crop, u >> 5, v >> 5, (32 - fx) * (32 - fy), sums);
    if (fx) tap(picture, crop, (u >> 5) + 1, v >> 5, fx * (32 - fy), sums);
    if (fy) tap(picture, crop, u >> 5, (v >> 5) + 1, (32 - fx) * fy, sums);
    if (fx && fy) tap(picture, crop, (u >> 5) + 1, (v >> 5) + 1, fx * fy, sums);
    const size_t area = (size_t)width * height;
    for (int c = 0; c < 3; ++c) {
        const float value = (float)((sums[c] + 512) >> 10);
        out[(blockIdx.z * 3 + c) * area + (size_t)y * width + x] =
            (value - crop.mean[c]) / crop.std[c];
    }
}
""".replace('FILL', str(FILL))


def compiled(architecture: str) -> bytes:
    """The kernel's machine code for 'sm86'; raises PoseNodeError. Needs NVRTC, but no GPU."""
    try:
        nvrtc = import_module('cuda.bindings.nvrtc')
        program = _nvrtc(nvrtc, 'nvrtcCreateProgram', SOURCE.encode(), b'crop.cu', 0, [], [])
        # Fused products would be rounded once instead of twice, and not as on the CPU.
        options = [f'--gpu-architecture=sm_{architecture[2:]}'.encode(), b'--fmad=false']
        code, *_ = nvrtc.nvrtcCompileProgram(program, len(options), options)
        if int(code) != 0:
            log = bytearray(_nvrtc(nvrtc, 'nvrtcGetProgramLogSize', program))
            _nvrtc(nvrtc, 'nvrtcGetProgramLog', program, log)
            words = ' '.join(log.decode(errors='replace').strip('\0').split())
            raise PoseNodeError(f'NVRTC does not compile the crops: {words[:300]}')
        cubin = bytearray(_nvrtc(nvrtc, 'nvrtcGetCUBINSize', program))
        _nvrtc(nvrtc, 'nvrtcGetCUBIN', program, cubin)
    except (AttributeError, ImportError, OSError, RuntimeError) as error:
        words = str(error).strip() or type(error).__name__
        raise PoseNodeError(f'NVRTC cannot be had ({words.splitlines()[0][:200]})') from None
    return bytes(cubin)


def _nvrtc(nvrtc: Any, function: str, *arguments: Any) -> Any:
    code, *values = getattr(nvrtc, function)(*arguments)
    if int(code) != 0:
        raise PoseNodeError(f'{function} fails: {getattr(code, "name", code)}')
    return values[0] if values else None


class Cropper:
    """Holds the kernel, a picture and what to cut out of it, on both sides. For one thread."""

    def __init__(self, cuda: Cuda, architecture: str, size: tuple[int, int], max_batch: int):
        """size: width, height of the crops. Raises PoseNodeError; nothing is left behind then."""
        self._cuda, self._size = cuda, size
        self._module: Any = None
        self._blocks: list[_Block] = []
        try:
            self._module = cuda.driver('cuModuleLoadData', compiled(architecture))
            self._kernel = cuda.driver('cuModuleGetFunction', self._module, b'crop')
            self._crops = self._block(max_batch * _CROP.itemsize)
            self._picture = self._block(_FIRST_BYTES)
        except BaseException:
            self.close()
            raise

    def fits(self, crops: Crops) -> bool:
        """Whether the picture has room; addresses stay as they are then."""
        return crops.picture.nbytes <= len(self._picture.host)

    def make_room(self, crops: Crops) -> None:
        """For larger pictures: `enqueue` copies to and from other places afterwards."""
        small, self._picture = self._picture, self._block(crops.picture.nbytes)
        self._blocks.remove(small)
        small.free()

    def stage(self, crops: Crops, start: int, stop: int) -> None:
        """Put these crops, and at the first of them the picture, where `enqueue` takes them."""
        picture = crops.picture
        if start == 0:
            self._picture.host[: picture.nbytes].reshape(picture.shape)[...] = picture
        rows = np.zeros(stop - start, _CROP)
        rows['pitch'], rows['mean'], rows['std'] = 3 * picture.shape[1], crops.mean, crops.std
        for row, A in zip(rows, crops.affines[start:stop]):
            window = window_of(picture.shape, A, crops.size)
            if window is not None:
                last = window.x1 - 1, window.y1 - 1
                row['window'] = window.x0, window.y0, window.n, *window.size, *last
                row['map'] = window.map(A).ravel()
        self._crops.host[: rows.nbytes] = rows.view(np.uint8)

    def enqueue(self, count: int, target: int, stream: Any) -> None:
        """Copies and kernel; target: address of (count, 3, h, w) float32 on the GPU."""
        for block in (self._picture, self._crops):
            block.upload(stream)
        width, height = self._size
        grid = (-(-width // _BLOCK[0]), -(-height // _BLOCK[1]), count)
        pointers = (self._picture.device, self._crops.device, target)
        values = (*pointers, width, height)
        types = (*[ctypes.c_void_p] * 3, ctypes.c_int, ctypes.c_int)
        self._cuda.driver(
            'cuLaunchKernel', self._kernel, *grid, *_BLOCK, 1, 0, int(stream), (values, types), 0
        )

    def close(self) -> None:
        """Give everything back."""
        for block in self._blocks:
            block.free()
        self._blocks = []
        module, self._module = self._module, None
        if module is not None:
            self._cuda.driver('cuModuleUnload', module)

    def _block(self, size: int) -> _Block:
        block = _Block(self._cuda, size)
        self._blocks.append(block)
        return block


class _Block:
    """Bytes that exist pinned and on the device."""

    def __init__(self, cuda: Cuda, size: int) -> None:
        self._cuda = cuda
        self._address = int(cuda('cudaHostAlloc', size, cuda.rt.cudaHostAllocDefault))
        try:
            self.device = int(cuda('cudaMalloc', size))
        except BaseException:
            cuda('cudaFreeHost', self._address)
            raise
        self.host = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(self._address))

    def upload(self, stream: Any) -> None:
        up = self._cuda.rt.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._cuda('cudaMemcpyAsync', self.device, self._address, len(self.host), up, stream)

    def free(self) -> None:
        self._cuda('cudaFree', self.device)
        self._cuda('cudaFreeHost', self._address)


__all__ = ['SOURCE', 'Cropper', 'compiled']
