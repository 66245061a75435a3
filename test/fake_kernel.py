"""CUDA's driver as far as kernels need it: the crops' own source, compiled for this processor."""

from __future__ import annotations

import atexit
import ctypes
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

from pose_node.core.errors import PoseNodeError
from pose_node.runtime.backends.tensorrt import crops

_AROUND_THE_KERNEL = """
#include <cmath>
#include <cstddef>
#define __global__
#define __device__ static
struct Three { int x, y, z; };
static Three blockIdx, blockDim, threadIdx;
%s
extern "C" void launch(Three grid, Three block, const unsigned char* picture, const Crop* crops,
                       float* out, int width, int height) {
    blockDim = block;
    for (int z = 0; z < grid.z; ++z) for (int y = 0; y < grid.y; ++y)
    for (int x = 0; x < grid.x; ++x) for (int j = 0; j < block.y; ++j)
    for (int i = 0; i < block.x; ++i) {
        blockIdx = {x, y, z}; threadIdx = {i, j, 0};
        crop(picture, crops, out, width, height);
    }
}
"""


@lru_cache(maxsize=1)
def kernel_for_this_processor(source: str = crops.SOURCE) -> bytes:
    """The path of a library, as `compiled` gives machine code; needs g++ (PoseNodeError)."""
    if shutil.which('g++') is None:
        raise PoseNodeError('no g++ is installed')
    folder = Path(tempfile.mkdtemp(prefix='pose_node-kernel-'))
    (folder / 'crop.cpp').write_text(_AROUND_THE_KERNEL % source)
    command = ['g++', '-O1', '-ffp-contract=off', '-shared', '-fPIC', '-o', 'crop.so', 'crop.cpp']
    subprocess.run(command, cwd=folder, check=True)
    atexit.register(shutil.rmtree, folder)
    return str(folder / 'crop.so').encode()


class FakeDriver:
    """cuda.bindings.driver, as far as kernels need it."""

    class Three(ctypes.Structure):
        _fields_ = [(name, ctypes.c_int) for name in 'xyz']

    def __init__(self, gpu: Any) -> None:
        self.gpu = gpu
        self.modules: set[int] = set()

    def cuModuleLoadData(self, code: bytes) -> tuple[int, Any]:
        library = ctypes.CDLL(code.decode())
        self.modules.add(id(library))
        return 0, library

    def cuModuleGetFunction(self, module: Any, name: bytes) -> tuple[int, Any]:
        assert name == b'crop' and id(module) in self.modules
        return 0, module.launch

    def cuModuleUnload(self, module: Any) -> tuple[int]:
        self.modules.remove(id(module))
        return (0,)

    def cuLaunchKernel(self, function: Any, *arguments: Any) -> tuple[int]:
        *sizes, shared, stream, (values, types), extra = arguments
        grid, block = self.Three(*sizes[:3]), self.Three(*sizes[3:])
        assert (shared, extra) == (0, 0) and block.x * block.y * block.z <= 1024
        assert all(value in self.gpu.memory for value in values[:3])
        given = [kind(value) for kind, value in zip(types, values)]
        self.gpu.calls.append('cuLaunchKernel')
        self.gpu.do(stream, lambda: function(grid, block, *given))
        return (0,)
