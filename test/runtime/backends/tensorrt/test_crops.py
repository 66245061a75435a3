"""Crops made on the GPU: the kernel's own source, run on this processor, gives the CPU's numbers;
NVRTC compiles it; where it cannot be had or is wrong, crops are made as before.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from fake_gpu import FakeCuda, SoftwareGpu, cudaError_t
from fake_kernel import FakeDriver, kernel_for_this_processor
from known_bundle import make_bundle
from known_scenes import draw_scene

from pose_node.core.camera import Camera
from pose_node.core.errors import PoseNodeError
from pose_node.runtime.backends import open_backend
from pose_node.runtime.backends.onnx import OnnxBackend
from pose_node.runtime.backends.tensorrt import crops as module
from pose_node.runtime.backends.tensorrt.crops import SOURCE, Cropper, compiled
from pose_node.runtime.backends.tensorrt.cuda import Cuda
from pose_node.runtime.estimator import EstimatorOptions, PoseEstimator
from pose_node.runtime.preprocess import Crops, Region, crop_map, letterbox_map

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


@pytest.fixture(autouse=True)
def _compiler():
    try:
        kernel_for_this_processor()
    except PoseNodeError as error:
        pytest.skip(f'the kernel cannot be run here: {error}')


@pytest.fixture
def gpu(tmp_path, monkeypatch):
    return SoftwareGpu(tmp_path, monkeypatch)


def on_the_gpu(gpu: SoftwareGpu, crops: Crops) -> np.ndarray:
    """(N, 3, h, w), of a cropper that is opened and closed."""
    cuda = Cuda(gpu.cuda, gpu.driver)
    stream = cuda('cudaStreamCreateWithFlags', 1)
    cropper = Cropper(cuda, 'sm86', crops.size, len(crops))
    width, height = crops.size
    shape = (len(crops), 3, height, width)
    target = cuda('cudaMalloc', 4 * int(np.prod(shape)))
    if not cropper.fits(crops):
        cropper.make_room(crops)
    cropper.stage(crops, 0, len(crops))
    cropper.enqueue(len(crops), target, stream)
    result = np.frombuffer(gpu.cuda.memory[target], np.float32).reshape(shape).copy()
    cropper.close()
    cuda('cudaFree', target)
    cuda('cudaStreamDestroy', stream)
    assert gpu.cuda.open == 0 and not gpu.driver.modules
    return result


@pytest.mark.parametrize('size', [(128, 128), (192, 192), (160, 128)])
def test_the_same_numbers_as_on_the_cpu(rng, gpu, size):
    picture = rng.integers(0, 256, (301, 403, 3), dtype=np.uint8)
    affines = [
        crop_map(Region('x', tuple(rng.uniform((-50, -50), (450, 350))), (side, side)), size, 1.2)
        for side in np.geomspace(12.0, 1400.0, 40)
    ]
    affines.append(crop_map(Region('x', (900.0, -700.0), (50.0, 50.0)), size, 1.2))  # outside
    affines.append(letterbox_map((403, 301), size))
    crops = Crops(picture, np.array(affines), size, MEAN, STD)
    got, wanted = on_the_gpu(gpu, crops), crops.tensor()
    np.testing.assert_allclose(got, wanted, atol=1e-6)  # one of 255 would be 0.017
    assert np.ptp(wanted[-2]) < np.ptp(wanted[-1])  # grey, and what is none


def test_large_pictures_reduced_by_whole_numbers(rng, gpu):
    picture = rng.integers(0, 256, (1080, 1920, 3), dtype=np.uint8)
    for size in ((160, 120), (448, 336), (960, 540)):
        crops = Crops(picture, letterbox_map((1920, 1080), size)[None], size, MEAN, STD)
        np.testing.assert_allclose(on_the_gpu(gpu, crops), crops.tensor(), atol=1e-6)


@pytest.fixture(scope='module')
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp('b') / 'dots')


def camera_of(size: tuple[int, int]) -> Camera:
    focal = 1.1 * size[0]
    return Camera(np.array([[focal, 0, size[0] / 2], [0, focal, size[1] / 2], [0, 0, 1.0]]), size)


def test_poses_in_pictures_that_grow(gpu, bundle):
    """Larger ones need other room, and graphs that were captured are of no use then."""
    T = np.eye(4)
    T[:3, 3] = 0.02, -0.01, 0.6
    options = EstimatorOptions(engines=gpu.options)
    with PoseEstimator(bundle) as one, PoseEstimator(bundle, 'tensorrt', options) as two:
        assert two._network.makes_crops and two.locator.backend.makes_crops
        for size in ((320, 240), (640, 480), (800, 600), (320, 240), (800, 600)):
            camera = camera_of(size)
            picture = draw_scene(camera, T)
            for _ in range(3):  # plainly, then by the graph
                wanted, got = (each(picture, camera).poses[0] for each in (one, two))
                np.testing.assert_allclose(got.T_cam_obj, wanted.T_cam_obj, atol=1e-4)
        assert gpu.cuda.calls.count('cudaGraphLaunch') > 10
    assert gpu.cuda.open == 0 and not gpu.driver.modules


def test_more_regions_than_the_engine_takes(rng, gpu, bundle):
    model = bundle.read('pose.onnx')
    picture = rng.integers(0, 256, (240, 320, 3), dtype=np.uint8)
    affines = np.stack([letterbox_map((320, 240), (128, 128))] * 9)
    affines[:, 0, 2] += np.arange(9)
    crops = Crops(picture, affines, (128, 128), MEAN, STD)
    network = open_backend('tensorrt', model, 0, gpu.options)  # four at once
    got = network({'picture': crops})['heatmaps']
    wanted = OnnxBackend(model)({'picture': crops})['heatmaps']
    np.testing.assert_allclose(got, wanted, atol=1e-6)
    other = Crops(picture, affines, (64, 128), MEAN, STD)
    with pytest.raises(PoseNodeError, match=r"'picture' is float32 \(9, 3, 128, 64\), wanted"):
        network({'picture': other})
    network.close()


@pytest.mark.parametrize('found', ['no NVRTC', 'wrong', 'no memory'])
def test_otherwise_crops_are_made_as_before(rng, gpu, bundle, monkeypatch, found):
    def missing(_: str) -> bytes:
        raise PoseNodeError('NVRTC cannot be had (no such file)')

    if found == 'no NVRTC':
        monkeypatch.setattr(module, 'compiled', missing)
    elif found == 'wrong':
        source = SOURCE.replace('* 1024)', '* 1000)')
        assert source != SOURCE
        wrong = kernel_for_this_processor.__wrapped__(source)
        monkeypatch.setattr(module, 'compiled', lambda _: wrong)
    else:
        monkeypatch.setattr(gpu.driver, 'cuModuleGetFunction', lambda *_: (2, None))
    network = open_backend('tensorrt', bundle.read('pose.onnx'), 0, gpu.options)
    assert not network.makes_crops
    (said,) = (line for line in gpu.said if 'cropped on the CPU' in line)
    words = {
        'no NVRTC': 'NVRTC cannot be had',
        'wrong': 'of 255 off on this GPU',
        'no memory': 'cuModuleGetFunction of CUDA fails: 2',
    }
    assert words[found] in said
    network.close()
    assert gpu.cuda.open == 0 and not gpu.driver.modules


def test_they_can_be_left_to_the_cpu(gpu, bundle):
    options = dataclasses.replace(gpu.options, gpu_crops=False)
    network = open_backend('tensorrt', bundle.read('pose.onnx'), 0, options)
    assert not network.makes_crops and 'cuLaunchKernel' not in gpu.cuda.calls
    network.close()


@pytest.fixture
def nvrtc():
    bindings = pytest.importorskip('cuda.bindings.nvrtc', reason='cuda-python is not installed')
    try:
        bindings.nvrtcVersion()
    except RuntimeError as error:
        pytest.skip(f'NVRTC is not installed: {error}')


@pytest.mark.usefixtures('nvrtc')
@pytest.mark.parametrize('architecture', ['sm75', 'sm86', 'sm87', 'sm89', 'sm120'])
def test_nvrtc_compiles_it(architecture):
    code = compiled(architecture)
    assert code[:4] == b'\x7fELF' and b'crop' in code


@pytest.mark.usefixtures('nvrtc')
def test_what_nvrtc_does_not_compile(monkeypatch):
    monkeypatch.setattr(module, 'SOURCE', 'not C')
    with pytest.raises(PoseNodeError, match=r'does not compile the crops: .*crop\.cu'):
        compiled('sm86')


def test_without_nvrtc(monkeypatch):
    def absent(name: str) -> None:
        raise ImportError(f'no {name}')

    monkeypatch.setattr(module, 'import_module', absent)
    with pytest.raises(PoseNodeError, match='NVRTC cannot be had'):
        compiled('sm86')


def test_what_fails_leaves_nothing(gpu):
    """A cropper that cannot be had gives back what it has taken."""
    assert isinstance(gpu.cuda, FakeCuda) and isinstance(gpu.driver, FakeDriver)
    cuda = Cuda(gpu.cuda, gpu.driver)
    for number in (1, 2):
        gpu.cuda.calls.clear()
        gpu.cuda.fail = {('cudaMalloc', number): 2}
        with pytest.raises(PoseNodeError):
            Cropper(cuda, 'sm86', (64, 64), 2)
        assert gpu.cuda.open == 0 and not gpu.driver.modules


def test_without_memory_for_a_larger_picture_the_old_room_stays(rng, gpu):
    cuda = Cuda(gpu.cuda, gpu.driver)
    cropper = Cropper(cuda, 'sm86', (64, 64), 1)
    sides = [(100, 100), (400, 300)]
    small, large = (
        Crops(rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
              letterbox_map((width, height), (64, 64))[None], (64, 64), MEAN, STD)
        for width, height in sides
    )  # fmt: skip
    gpu.cuda.fail = {'cudaMalloc': cudaError_t.cudaErrorMemoryAllocation}
    with pytest.raises(PoseNodeError, match='memory does not suffice'):
        cropper.make_room(large)
    gpu.cuda.fail = {}
    assert cropper.fits(small) and not cropper.fits(large)
    cropper.stage(small, 0, 1)
    cropper.close()
    assert gpu.cuda.open == 0 and not gpu.driver.modules
