"""Numbered samples: the same seed and number give the same picture and labels, in whatever process
they are made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path

import numpy as np

from pose_node.core.geometry import apply, make_pose

from .augment import Augmenter, AugmentOptions
from .background import Backgrounds
from .company import Body, sample_company
from .keypoints import nearest_pixels
from .mesh import PRIMITIVES, Mesh, load_mesh, primitive, simplified
from .piled import Piles, table_mesh
from .region import fill_outside, letterbox, moved, project, share_inside, square_region
from .render import Instance, Renderer
from .scene import Scene, SceneOptions, narrowed, occluder, paint, sample_scene
from .things import ObjectOptions, Thing, canonical, load_things

_PROBE_PX = 64
_PRINTS, _PRINT_PX = 80, 256


@dataclass(frozen=True)
class DatasetOptions:
    """What is rendered, and how pictures are cut."""

    distractor_meshes: tuple[Path, ...] = ()
    distractor_unit_m: float = 1.0
    object_faces: int = 12000  # triangles rendered; labels and metrics use the whole mesh
    distractor_faces: int = 800
    neighbour_faces: int = 3000  # of the recipe's other objects in a pile
    backgrounds: Path | None = None
    input_size: tuple[int, int] = (128, 128)
    region_scale: float = 1.3
    box_shift: float = 0.12  # largest shift of the region's centre, in box sizes
    box_scale: float = 0.12  # standard deviation of the region's log size
    visible_min: float = 0.15  # below this visible share the object counts as absent
    # Number of further objects of the recipe, of its own kind too, in a whole picture.
    others: tuple[int, int] = (0, 0)
    ramp: int = 0  # number of samples over which occlusion grows from nothing to its full share
    # What these two grow from, over the same samples; at 1 they are whole from the start.
    ramp_views: float = 1.0  # share of the ranges of elevation, azimuth and roll, about the middle
    ramp_blur: float = 1.0  # share of the pictures that are blurred in the end
    scene: SceneOptions = field(default_factory=SceneOptions)
    augment: AugmentOptions = field(default_factory=AugmentOptions)


@dataclass(frozen=True)
class Label:
    """One object's box in a picture; one that is hidden is there, but need not be found."""

    thing: int  # which of the data set's objects
    hidden: bool
    center_px: np.ndarray
    size_px: np.ndarray


@dataclass(frozen=True)
class View:
    """What a network is shown, and what there is to find: picture (h, w, 3) uint8, K (3, 3) of the
    camera that sees just this picture, keypoints_px (K, 2) in it; the rest as the names say.

    others: (M, 6), further objects: thing (-1 in a row that names none), 1 if it is hidden, centre
    and size of the whole object's box.
    """

    picture: np.ndarray
    K: np.ndarray
    thing: int  # which of the data set's objects
    T_cam_obj: np.ndarray  # of the labels: for symmetric objects the canonical pose
    present: bool
    keypoints_px: np.ndarray
    box_center_px: np.ndarray
    box_size_px: np.ndarray
    visible: float
    _: KW_ONLY
    # What the network is to learn (K, 2), NaN for "leave it out"; None: keypoints_px.
    labels_px: np.ndarray | None = None
    # (3, h / stride, w / stride) m, the object's own coordinates where it is seen, else NaN.
    surface_obj: np.ndarray | None = None
    others: np.ndarray = field(default_factory=lambda: np.zeros((0, 6)))

    @property
    def labels(self) -> list[Label]:
        """Every object that is in the picture, the one whose turn it is first."""
        own = [Label(self.thing, not self.present, self.box_center_px, self.box_size_px)]
        return [
            *(own if self.present or self.visible > 0 else []),
            *(
                Label(int(thing), hidden > 0, np.array(box[:2]), np.array(box[2:]))
                for thing, hidden, *box in self.others
                if thing >= 0
            ),
        ]


@dataclass(frozen=True)
class Sample(View):
    """A view that was rendered.

    T_net_px (3, 3) maps pixels of the imitated camera's whole picture to pixels of `picture`.
    """

    T_net_px: np.ndarray
    scene: Scene


class Dataset:
    """Renders samples. Holds a GL context: make one in every process that needs it."""

    def __init__(
        self,
        options: DatasetOptions,
        objects: Sequence[ObjectOptions],
        keypoints: int,
        seed: int,
        nearest_m: float | None = None,
        surface_stride: int | None = None,
    ):
        """nearest_m: labels are the nearest surface in sight, at most so far from a keypoint.
        surface_stride: views hold the surface, a pixel of it for so many of the picture.
        """
        self.nearest_m, self.surface_stride = nearest_m, surface_stride
        self.options, self.seed = options, seed
        self.things = load_things(objects, keypoints)
        self.renderer = Renderer()
        for thing in self.things:
            self.renderer.upload(thing.name, simplified(thing.mesh, options.object_faces))
            self.renderer.upload(_coarse(thing), thing.coarse)
        self.coarse = {name: _coarse(t) for t in self.things for name in (t.name, _fair(t))}
        for kind in PRIMITIVES:
            self.renderer.upload(kind, primitive(kind))
        self.extra: dict[Path, float] = {}
        extras = {}
        for path in options.distractor_meshes:
            extra = load_mesh(path, options.distractor_unit_m)
            self.renderer.upload(str(path), simplified(extra, options.distractor_faces))
            self.extra[path] = float(np.linalg.norm(np.ptp(extra.vertices_m, axis=0)))
            extras[path] = extra
        self.backgrounds = Backgrounds(seed, options.backgrounds)
        self.piles = self._piles(extras) if options.scene.piled > 0.0 else None
        self.augment = Augmenter(options.augment, seed, options.input_size)

    def _piles(self, extras: dict[Path, Mesh]) -> Piles:
        """What pictures with many things at rest are made of, and their prints."""
        self.renderer.upload('table', table_mesh())
        rng = np.random.default_rng((self.seed, 17))
        prints = [f'print {k}' for k in range(_PRINTS)]
        for name in prints:
            self.renderer.upload_print(name, self.backgrounds.sample(rng, (_PRINT_PX, _PRINT_PX)))
        for thing in self.things:
            fair = simplified(thing.mesh, self.options.neighbour_faces)
            self.renderer.upload(_fair(thing), fair)
        objects = {_fair(thing): thing.mesh for thing in self.things}
        own = {thing.path for thing in self.things}
        others = {str(path): mesh for path, mesh in extras.items() if path not in own}
        return Piles(self.seed, objects, others, prints)

    def _scene(
        self, number: int, *, whole: bool = False
    ) -> tuple[np.random.Generator, Scene, int]:
        """The generator, the scene and the object's index: all have their turn."""
        rng = np.random.default_rng((self.seed, number))
        index = number % len(self.things)
        thing = self.things[index]
        difficulty = self._grown(number, 0.0)
        # Who looks for objects may see none without a label; who is told which one it looks at
        # may see others, but not that one: nobody could tell which one is meant.
        labelled = {t.path for t in self.things} if whole else {thing.path}
        scene = sample_scene(
            rng,
            narrowed(self.options.scene, self._grown(number, self.options.ramp_views)),
            object_name=thing.name,
            bounds_m=thing.mesh.bounds_m,
            extra_meshes={str(p): m for p, m in self.extra.items() if p not in labelled},
            difficulty=difficulty,
        )
        options = self.options.scene
        if self.piles and scene.present and rng.random() < options.piled * difficulty:
            most = self.options.others[1] if whole else None
            middle_obj = thing.mesh.bounds_m.mean(axis=0)
            scene = self.piles.around(rng, scene, options, index, middle_obj, most)
        elif whole and self.options.others[1] > 0:
            scene = self._in_company(rng, scene, thing, difficulty)
        return rng, scene, index

    def _in_company(
        self, rng: np.random.Generator, scene: Scene, thing: Thing, difficulty: float
    ) -> Scene:
        """The scene with further objects of the recipe, some with an occluder of their own."""
        low, high = self.options.others
        chosen = rng.integers(len(self.things), size=rng.integers(low, high + 1)).tolist()
        bodies = [Body(self.things[i].mesh.bounds_m) for i in chosen]
        first = Body(thing.mesh.bounds_m), scene.T_cam_obj
        options, instances, company = self.options.scene, list(scene.instances), []
        places = sample_company(rng, options, scene.K, first, bodies)
        for i, body, T_cam_obj in zip(chosen, bodies, places, strict=True):
            if T_cam_obj is None:
                continue
            company.append((i, len(instances)))
            instances.append(Instance(self.things[i].name, T_cam_obj, paint(rng, options)))
            if rng.random() < 0.5 * options.occlusion * difficulty:
                T_cam_mid = T_cam_obj @ make_pose(np.eye(3), body.bounds_m.mean(axis=0))
                instances.append(occluder(rng, T_cam_mid, 2.0 * body.radius_m, {}))
        return replace(scene, instances=instances, company=tuple(company))

    def _grown(self, number: int, first: float) -> float:
        """`first` for sample 0, 1 at the ramp's end and after it, straight between."""
        ramp = self.options.ramp
        return first + (1.0 - first) * number / ramp if number < ramp else 1.0

    def crop(self, number: int) -> Sample:
        """Sample `number` as the pose network sees it: a square region round the object."""
        rng, scene, index = self._scene(number)
        options, thing = self.options, self.things[index]
        low, high = _box(thing, scene.K, scene.T_cam_obj)
        visible, visible_low, visible_high = self._probe(scene, low, high)
        if scene.present and visible > 0 and rng.random() < 0.5:
            low, high = visible_low, visible_high  # detectors often box the visible part only
        size = np.maximum(high - low, 8.0)
        center = (low + high) / 2 + rng.uniform(-1, 1, 2) * options.box_shift * size
        side = options.region_scale * size.max() * np.exp(rng.normal(0, options.box_scale))
        T_net_px = square_region(center, side, options.input_size)
        return self._sample(number, rng, scene, index, T_net_px, visible)

    def whole(self, number: int) -> Sample:
        """Sample `number` as the locator sees it: the whole picture, letterboxed."""
        rng, scene, index = self._scene(number, whole=True)
        T_net_px = letterbox(self.options.scene.picture_size, self.options.input_size)
        low, high = _box(self.things[index], scene.K, scene.T_cam_obj)
        visible, _, _ = self._probe(scene, low, high)
        return replace(
            self._sample(number, rng, scene, index, T_net_px, visible),
            others=self._others(scene, T_net_px),
        )

    def _others(self, scene: Scene, T_net_px: np.ndarray) -> np.ndarray:
        """`View.others` of a scene, one row for each that there may be."""
        rows = np.zeros((self.options.others[1], 6))
        rows[:, 0] = -1
        for row, (index, place) in zip(rows, scene.company, strict=False):
            thing = self.things[index]
            low, high = _box(thing, scene.K, scene.instances[place].T_cam_obj)
            visible, _, _ = self._probe(scene, low, high, place)
            hidden = visible < self.options.visible_min
            row[:] = index, hidden, *moved(T_net_px, (low + high) / 2), *(high - low)
            row[4:] *= T_net_px[0, 0]
        return rows

    def _sample(
        self,
        number: int,
        rng: np.random.Generator,
        scene: Scene,
        index: int,
        T_net_px: np.ndarray,
        visible: float,
    ) -> Sample:
        options, thing = self.options, self.things[index]
        K = T_net_px @ scene.K
        size = options.input_size
        rendered = self.renderer.picture(
            scene.instances, scene.lights, K, size, scene.shadow, scene.shadow_map
        )
        background = self.backgrounds.sample(rng, size)
        cover = rendered[..., 3:].astype(np.uint16)
        picture = (rendered[..., :3] + (background * (255 - cover) + 127) // 255).astype(np.uint8)
        blur = self._grown(number, options.ramp_blur)
        picture = self.augment(rng, picture, blur, T_net_px[0, 0])
        fill_outside(picture, T_net_px, options.scene.picture_size)
        low, high = _box(thing, scene.K, scene.T_cam_obj)
        T_cam_obj = canonical(scene.T_cam_obj, thing.symmetries)
        return Sample(
            picture=picture,
            K=K,
            thing=index,
            T_cam_obj=T_cam_obj,
            present=scene.present and visible >= options.visible_min,
            keypoints_px=project(K, T_cam_obj, thing.keypoints_obj),
            box_center_px=moved(T_net_px, (low + high) / 2),
            box_size_px=(high - low) * T_net_px[0, 0],
            visible=visible if scene.present else 0.0,
            T_net_px=T_net_px,
            scene=scene,
            labels_px=self._labels_px(scene, T_cam_obj, thing, T_net_px),
            surface_obj=self._surface_obj(scene, T_cam_obj, T_net_px),
        )

    def _surface_obj(
        self, scene: Scene, T_cam_obj: np.ndarray, T_net_px: np.ndarray
    ) -> np.ndarray | None:
        """`View.surface_obj`, in the frame of the pose that is told."""
        stride = self.surface_stride
        if stride is None:
            return None
        width, height = (n // stride for n in self.options.input_size)
        if not scene.present:
            return np.full((3, height, width), np.nan, np.float32)
        # Pixel centres are integers: a coarse pixel's lies between those that it stands for.
        off = 0.5 / stride - 0.5
        coarse = np.array([[1.0 / stride, 0.0, off], [0.0, 1.0 / stride, off], [0.0, 0.0, 1.0]])
        T_map_px = coarse @ T_net_px
        surface, identity = self.renderer.targets(
            scene.instances, T_map_px @ scene.K, (width, height)
        )
        shown = (identity == 1).astype(np.uint8)
        fill_outside(shown, T_map_px, self.options.scene.picture_size)
        told = apply(np.linalg.inv(T_cam_obj) @ scene.T_cam_obj, surface.reshape(-1, 3))
        seen = np.where(shown.reshape(-1, 1) == 1, told, np.nan)
        return seen.reshape(height, width, 3).transpose(2, 0, 1).astype(np.float32)

    def _labels_px(
        self, scene: Scene, T_cam_obj: np.ndarray, thing: Thing, T_net_px: np.ndarray
    ) -> np.ndarray | None:
        """(K, 2) pixels of the surface nearest to each keypoint, NaN where none seen is near."""
        if self.nearest_m is None:
            return None
        if not scene.present:
            return np.full((len(thing.keypoints_obj), 2), np.nan)
        size = self.options.input_size
        surface, identity = self.renderer.targets(scene.instances, T_net_px @ scene.K, size)
        shown = (identity == 1).astype(np.uint8)
        fill_outside(shown, T_net_px, self.options.scene.picture_size)
        # The surface is that of the pose rendered; keypoints are those of the pose that is told.
        keypoints = apply(np.linalg.inv(scene.T_cam_obj) @ T_cam_obj, thing.keypoints_obj)
        pixels, near = nearest_pixels(surface, shown == 1, keypoints, self.nearest_m)
        return np.where(near[:, None], pixels, np.nan)

    def _probe(
        self, scene: Scene, low: np.ndarray, high: np.ndarray, place: int = 0
    ) -> tuple[float, np.ndarray, np.ndarray]:
        """(visible share, lowest, highest visible pixel of the whole picture) of the instance at
        `place`, from a small target pass.
        """
        if not scene.present and place == 0:
            return 0.0, low, high
        size = (_PROBE_PX, _PROBE_PX)
        T = square_region((low + high) / 2, 1.05 * float((high - low).max()), size)
        inside = share_inside(low, high, self.options.scene.picture_size)
        if len(scene.instances) == 1:
            return inside, low, high
        instances = [
            Instance(self.coarse.get(each.mesh, each.mesh), each.T_cam_obj)
            for each in scene.instances
        ]
        _, alone = self.renderer.targets([instances[place]], T @ scene.K, size)
        _, among = self.renderer.targets(instances, T @ scene.K, size)
        rows, columns = np.nonzero(among == place + 1)
        if len(rows) == 0:
            return 0.0, low, high
        back = np.linalg.inv(T)
        corners = ((columns.min(), rows.min()), (columns.max(), rows.max()))
        visible_low, visible_high = (moved(back, np.array(c, float)) for c in corners)
        share = len(rows) / max(1, int((alone == 1).sum()))
        return inside * share, visible_low, visible_high


def _coarse(thing: Thing) -> str:
    return f'{thing.name}, coarse'


def _fair(thing: Thing) -> str:
    return f'{thing.name}, fair'


def _box(thing: Thing, K: np.ndarray, T_cam_obj: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest pixel of the whole object's projection, in the whole picture."""
    outline_px = project(K, T_cam_obj, thing.outline_obj)
    return outline_px.min(axis=0), outline_px.max(axis=0)
