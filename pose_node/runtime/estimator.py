"""One picture in, poses out: `PoseEstimator('bundles/drill')(picture, camera).poses`."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from pose_node.core.bundle import Bundle
from pose_node.core.errors import PoseNodeError
from pose_node.core.geometry import apply
from pose_node.core.pnp import PnpOptions

from .aligned import Aligner
from .backends import EngineOptions, open_backend
from .distribution import sampled
from .locate import Locator, in_turn
from .networks import check_outputs
from .preprocess import Crops, Region, crop_map, map_to_picture
from .readers import READERS, Sight
from .results import FrameResult, ObjectPose, nothing
from .score import score, score_features

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from pose_node.core.camera import Camera

# Two poses of one object nearer than this share of its diameter are the same thing seen twice.
_SAME_PLACE = 0.3
_SAME_BOX = 0.4  # share of their union that boxes of one thing have in common
_LARGEST_BATCH = 16  # more regions are run in turns
_ALIGNED = 0.02  # poses with a lower score are most likely of nothing, and stay as they are
_STAGES = ('locate', 'preprocess', 'network', 'decode', 'pnp', 'align')
# A crop this many times as long as the picture would show the object as a speck.
_LARGEST_CROP = 16.0


@dataclass(frozen=True)
class EstimatorOptions:
    """How to look at a picture."""

    min_score: float = 0.5  # poses below, more likely wrong than right, go to `rejected`
    max_objects: int = 8  # regions looked at per picture, the surest of every object first
    threads: int = 0  # of each network; 0 lets the backend decide
    # A pose with at least this score is looked at again, in a crop that fits it: boxes are rough,
    # and a crop that sits right is half the accuracy. 1 keeps to one look.
    second_look: float = 0.02
    pnp: PnpOptions = field(default_factory=PnpOptions)
    distribution: str = 'gaussian'  # or amis: poses as samples and hypotheses, too
    # Whether poses are moved to the object's outline, where the bundle has its shape. Sampled ones
    # never are: samples are of what the keypoints say.
    contour: bool = True
    # For TensorRT; how many pictures an engine takes follows from max_objects.
    engines: EngineOptions = field(default_factory=EngineOptions)


class PoseEstimator:
    """Holds the networks of one bundle, open.

    bundle: loaded, or the path of its folder. Raises BundleError or PoseNodeError when the bundle
    cannot be used: the networks are run once and their outputs held against what it promises.
    """

    def __init__(
        self,
        bundle: Bundle | str | Path,
        backend: str = 'onnx',
        options: EstimatorOptions | None = None,
    ) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
        self.options = options or EstimatorOptions()
        spec = self.spec = self.bundle.pose_network
        self.objects = {name: self.bundle.object(name) for name in spec.objects}
        self._read = READERS[spec.kind](spec, self.objects)
        self._align = Aligner(self.bundle)
        threads = self.options.threads
        batches = engine_batches(self.bundle, self.options.max_objects)
        engines = replace(self.options.engines, max_batch=batches[spec.file])
        self._network = open_backend(backend, self.bundle.read(spec.file), threads, engines)
        width, height = spec.map_size
        shape = (self._read.channels, height, width)
        check_outputs(self._network, spec, {spec.output: shape})
        self.locator: Locator | None = None
        if self.bundle.locator is not None:
            # What `auto` had to do without once it need not look for again.
            name = backend if self.backend == 'tensorrt' else self.backend
            file = self.bundle.locator.file
            engines = replace(engines, max_batch=batches[file])
            network = open_backend(name, self.bundle.read(file), threads, engines)
            self.locator = Locator(network, self.bundle.locator)

    def __call__(
        self,
        picture: np.ndarray,
        camera: Camera,
        stamp_ns: int = 0,
        regions: Sequence[Region] | None = None,
        tracked: Sequence[Region] = (),
    ) -> FrameResult:
        """Poses in one picture (H, W, 3) RGB uint8 taken by `camera`.

        regions: where to look, from another detector; None asks the locator. tracked: boxes that
        are known to fit (`region_at`): looked at first, and once. Regions of other objects are
        passed over. Nothing in the picture raises; a picture that is none, or not this camera's,
        raises PoseNodeError.
        """
        self._check(picture, camera, regions)
        stage_ms = dict.fromkeys(_STAGES, 0.0)
        with _timed(stage_ms, 'locate'):
            found, sharp = self._regions(picture, regions, tracked)
        poses = self._look(picture, camera, found, stage_ms)
        again = [
            i
            for i, pose in enumerate(poses)
            if i >= sharp and pose.score >= self.options.second_look
        ]
        fitting = [self._fitting(poses[i], camera, picture) for i in again]
        for i, pose in zip(again, self._look(picture, camera, fitting, stage_ms)):
            if pose.stands:
                poses[i] = replace(pose, region=poses[i].region)  # the one that was asked for
        sampling = self.options.distribution == 'amis'
        if self.options.contour and not sampling and self._align.objects:
            with _timed(stage_ms, 'align'):
                poses = [
                    self._align(picture, pose, camera) if pose.score >= _ALIGNED else pose
                    for pose in poses
                ]
        accepted, rejected = self._judge(poses)
        if sampling:
            stage_ms['sample'] = 0.0
            with _timed(stage_ms, 'sample'):
                accepted = tuple(self._sampled(pose, camera, stamp_ns) for pose in accepted)
        return FrameResult(accepted, rejected, tuple(found), stage_ms, stamp_ns)

    def _look(
        self,
        picture: np.ndarray,
        camera: Camera,
        regions: Sequence[Region],
        stage_ms: dict[str, float],
    ) -> list[ObjectPose]:
        """A pose for every region, in their order."""
        if not regions:
            return []
        with _timed(stage_ms, 'preprocess'):
            usable = [_usable(region, picture, self.spec.region_scale) for region in regions]
            looked_at = [region for region, good in zip(regions, usable) if good]
            crops = self._crops(picture, looked_at)
            seen = crops if self._network.makes_crops else crops.tensor()
        with _timed(stage_ms, 'network'):
            maps = self._maps(seen, looked_at)
        with _timed(stage_ms, 'decode'):
            names = [region.object for region in looked_at]
            maps_to_picture = [map_to_picture(A, self.spec.stride) for A in crops.affines]
            sights = self._read(maps, names, np.array(maps_to_picture).reshape(-1, 2, 3))
        with _timed(stage_ms, 'pnp'):
            solved = iter([self._pose(*pair, camera) for pair in zip(looked_at, sights)])
        return [
            next(solved) if good else nothing(region, self._read.points)
            for region, good in zip(regions, usable)
        ]

    @property
    def backend(self) -> str:
        """What runs the networks; never `auto`."""
        return self._network.name

    def region_at(self, name: str, T_cam_obj: np.ndarray, camera: Camera) -> Region | None:
        """The box round an object's keypoints, were it there; None where a camera cannot see it
        whole.
        """
        points_px = camera.project(apply(T_cam_obj, self.objects[name].keypoints_obj_m))
        if not np.isfinite(points_px).all():
            return None
        low, high = points_px.min(axis=0), points_px.max(axis=0)
        (x, y), (width, height) = ((low + high) / 2.0).tolist(), (high - low).tolist()
        return Region(name, (x, y), (width, height))

    def _fitting(self, pose: ObjectPose, camera: Camera, picture: np.ndarray) -> Region:
        """The box that the pose says is right; the old one where it says none."""
        region = self.region_at(pose.object, pose.T_cam_obj, camera)
        if region is None or not _usable(region, picture, self.spec.region_scale):
            return pose.region
        return replace(region, score=pose.region.score)

    def close(self) -> None:
        """Close the networks."""
        self._network.close()
        if self.locator is not None:
            self.locator.backend.close()

    def __enter__(self) -> PoseEstimator:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _check(
        self, picture: np.ndarray, camera: Camera, regions: Sequence[Region] | None
    ) -> None:
        if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8:
            kind = getattr(picture, 'dtype', type(picture).__name__)
            raise PoseNodeError(f'The picture is {kind}; give an RGB array of uint8.')
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.size == 0:
            raise PoseNodeError(
                f'The picture has shape {picture.shape}; give (height, width, 3), RGB.'
            )
        height, width = picture.shape[:2]
        if tuple(camera.size) != (width, height):
            raise PoseNodeError(
                f'The picture is {(width, height)} and the camera {tuple(camera.size)} pixels; '
                'give the camera of this picture, resized or cropped as it was.'
            )
        if regions is None and self.locator is None:
            raise PoseNodeError(
                f'Bundle {self.bundle.name!r} has no locator; give regions from another detector.'
            )

    def _regions(
        self,
        picture: np.ndarray,
        regions: Sequence[Region] | None,
        tracked: Sequence[Region],
    ) -> tuple[list[Region], int]:
        """Where to look, and how many of these are tracked; they come first."""
        if regions is None:
            regions = self.locator(picture) if self.locator else ()
        sharp = [
            region
            for region in tracked
            if region.object in self.objects and _usable(region, picture, self.spec.region_scale)
        ][: self.options.max_objects]
        known = [
            region
            for region in regions
            if region.object in self.objects and not any(_same(region, each) for each in sharp)
        ]
        return [*sharp, *in_turn(known)][: self.options.max_objects], len(sharp)

    def _crops(self, picture: np.ndarray, regions: Sequence[Region]) -> Crops:
        """What the network is to see of the picture."""
        spec = self.spec
        affines = [crop_map(region, spec.input_size, spec.region_scale) for region in regions]
        maps = np.array(affines).reshape(-1, 2, 3)
        return Crops(picture, maps, spec.input_size, spec.mean, spec.std)

    def _maps(self, seen: np.ndarray | Crops, regions: Sequence[Region]) -> np.ndarray:
        spec = self.spec
        if not regions:
            width, height = spec.map_size
            return np.zeros((0, self._read.channels, height, width), np.float32)
        inputs = {spec.input: seen}
        if spec.object_input is not None:
            inputs[spec.object_input] = np.array([spec.objects.index(r.object) for r in regions])
        return self._network(inputs)[spec.output]

    def _pose(self, region: Region, sight: Sight, camera: Camera) -> ObjectPose:
        """The pose of a region from what was seen there."""
        counts, points_px, covariances_px = sight.counts, sight.points_px, sight.covariances_px
        estimate = self._read.pose(sight, camera, self.options.pnp)
        inliers, residuals_px = np.zeros(len(counts), bool), np.full_like(points_px, np.nan)
        inliers[counts], residuals_px[counts] = estimate.inliers, estimate.residuals_px
        likelihood = None
        if estimate.ok:
            likelihood = self._read.likelihood(sight, estimate, self.options.pnp)
        features = score_features(sight.confidences, inliers, residuals_px, covariances_px)
        return ObjectPose(
            object=region.object,
            instance=0,
            score=score(features, self.spec.calibration[region.object].score)
            if estimate.ok
            else 0.0,
            T_cam_obj=estimate.T_cam_obj,
            covariance=estimate.covariance,
            reprojection_rms_px=estimate.reprojection_rms_px,
            inliers=int(inliers.sum()),
            keypoints_px=points_px,
            covariances_px=covariances_px,
            confidences=sight.confidences,
            region=region,
            status=estimate.status,
            features=features,
            likelihood=likelihood,
        )

    def _sampled(self, pose: ObjectPose, camera: Camera, stamp_ns: int) -> ObjectPose:
        return sampled(pose, camera, self.objects[pose.object].symmetries, stamp_ns)

    def _judge(
        self, poses: Sequence[ObjectPose]
    ) -> tuple[tuple[ObjectPose, ...], tuple[ObjectPose, ...]]:
        """Accepted and rejected poses, each the surest first."""
        accepted: list[ObjectPose] = []
        rejected: list[ObjectPose] = []
        for pose in sorted(poses, key=lambda pose: -pose.score):
            place = pose.T_cam_obj[:3, 3]
            nearest_m = _SAME_PLACE * self.objects[pose.object].diameter_m
            again = any(
                np.linalg.norm(place - other.T_cam_obj[:3, 3]) < nearest_m
                for other in accepted
                if other.object == pose.object
            )
            good = pose.stands and pose.score >= self.options.min_score and not again
            group = accepted if good else rejected
            kin = sum(other.object == pose.object for other in group)
            group.append(replace(pose, instance=kin))
        return tuple(accepted), tuple(rejected)


def engine_batches(bundle: Bundle, max_objects: int) -> dict[str, int]:
    """How many pictures at once the engine of each network takes, by the network's file."""
    batches = {bundle.pose_network.file: min(_LARGEST_BATCH, max_objects)}
    if bundle.locator is not None:
        # It sees one, but an engine for exactly one may have twenty times the bytes.
        batches[bundle.locator.file] = 2
    return batches


def _usable(region: Region, picture: np.ndarray, region_scale: float) -> bool:
    """Whether a crop of the region can show anything: finite, of some size, near the picture."""
    height, width = picture.shape[:2]
    numbers = (*region.center_px, *region.size_px)
    if not all(map(math.isfinite, numbers)) or min(region.size_px) <= 0.0:
        return False
    side = region_scale * max(region.size_px)
    if side > _LARGEST_CROP * max(height, width):
        return False
    reach_x, reach_y = (side + width) / 2, (side + height) / 2
    x, y = region.center_px
    return abs(x - (width - 1) / 2) < reach_x and abs(y - (height - 1) / 2) < reach_y


def _same(a: Region, b: Region) -> bool:
    """Whether two boxes are most likely of one thing: of one object, and much in common."""
    if a.object != b.object:
        return False
    overlap = 1.0
    for center_a, center_b, size_a, size_b in zip(a.center_px, b.center_px, a.size_px, b.size_px):
        low = max(center_a - size_a / 2.0, center_b - size_b / 2.0)
        high = min(center_a + size_a / 2.0, center_b + size_b / 2.0)
        overlap *= max(0.0, high - low)
    union = math.prod(a.size_px) + math.prod(b.size_px) - overlap
    return overlap > _SAME_BOX * union


@contextmanager
def _timed(stage_ms: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    stage_ms[stage] += 1000.0 * (time.perf_counter() - start)


__all__ = ['EstimatorOptions', 'FrameResult', 'ObjectPose', 'PoseEstimator', 'engine_batches']
