"""Turns that bring a mesh onto itself: candidates, how far each is from true, and which hold.

How far is the largest distance of a turned point to the surface, as in the Hausdorff distance by
which BOP finds symmetries (Hodan et al., "BOP Challenge 2020", sec. 2.3); beside it the largest
difference of paint, by which people tell a front from a back.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import trimesh
from scipy.spatial import ConvexHull, cKDTree

from pose_node.core.geometry import apply, exp_so3, make_pose
from pose_node.core.symmetry import Continuous, Symmetries

from .mesh import Mesh

ORDERS = (2, 3, 4, 5, 6)
_SAMPLES, _QUERIES = 20_000, 500
_NEAR = 3  # samples whose triangles are looked at
_SMOOTH = 24  # samples over which paint is averaged: a shifted print is no other print
_ANGLES = 2.0 * np.pi * np.arange(1, 12) / 23  # of a continuous turn; no multiple of any order
# BOP takes max(15 mm, 0.1 d), and people look at what passes. That much turns Linemod's eggbox
# upside down (0.097 d; its true half turn 0.064 d), and 15 mm make a small cube round.
LIMIT = 0.08  # of the diameter, for a turn by a fixed angle
LIMIT_ANY = 0.03  # of the diameter, for every angle: facets of a modelled cylinder pass
STANDS_OUT = 0.5  # of the worst angle's distance: else a slender thing would have every order
COLOR_LIMIT = 0.2
_LARGEST_GROUP = 60  # turns of an icosahedron
_APART = 0.05  # of the largest moment, between two that are not equal
_PARALLEL = np.cos(np.radians(4.0))


@dataclass(frozen=True)
class Fit:
    """How far a mesh is from itself after turns: the worst of them."""

    distance_m: float
    color: float  # 95th percentile over the surface, of differences of RGB in 0..1


class Surface:
    """A mesh as points (N, 3) with paint, and the distance to it."""

    def __init__(self, mesh: Mesh, rng: np.random.Generator) -> None:
        self.mesh = mesh
        self.triangles = mesh.vertices_m[mesh.faces]
        areas = trimesh.triangles.area(self.triangles)
        self.face = rng.choice(len(areas), _SAMPLES, p=areas / areas.sum())
        weights = rng.dirichlet(np.ones(3), _SAMPLES)
        self.points = np.einsum('nc,ncd->nd', weights, self.triangles[self.face])
        paint = np.einsum('nc,ncd->nd', weights, mesh.colors[mesh.faces[self.face]])
        self.tree = cKDTree(self.points)
        self.paint = paint[self.tree.query(self.points, _SMOOTH)[1]].mean(axis=1)
        self.center = mesh.bounds_m.mean(axis=0)
        hull = mesh.vertices_m[ConvexHull(mesh.vertices_m).vertices]
        self.corners = hull[:: 1 + len(hull) // _QUERIES]

    def fit(self, transforms: np.ndarray) -> Fit:
        """The worst over transforms (S, 4, 4)."""
        distance, color = 0.0, 0.0
        points = np.concatenate((self.points[:_QUERIES], self.corners))
        for T in transforms:
            turned = apply(T, points)
            near = self.tree.query(turned, _NEAR)[1]
            places = np.repeat(turned, _NEAR, axis=0)
            foot = trimesh.triangles.closest_point(self.triangles[self.face[near.ravel()]], places)
            lengths = np.linalg.norm(foot - places, axis=1).reshape(-1, _NEAR).min(axis=1)
            distance = max(distance, float(lengths.max()))
            paint = self.paint[near[:_QUERIES, 0]] - self.paint[:_QUERIES]
            other = np.linalg.norm(paint, axis=1)
            color = max(color, float(np.percentile(other, 95)) / np.sqrt(3.0))
        return Fit(distance, color)


@dataclass(frozen=True)
class Turn:
    """A turn by 1 / order of a circle about `axis` (3,), and its multiples; order 0: any angle."""

    axis: np.ndarray
    order: int
    fit: Fit
    shape: bool  # whether it brings the shape onto itself
    paint: bool  # whether the paint, too

    @property
    def holds(self) -> bool:
        """Whether nobody could see it."""
        return self.shape and self.paint


def find_turns(surface: Surface) -> list[Turn]:
    """The best turn about every candidate axis through the middle of the bounding box: the mesh's
    own axes and the principal axes of inertia of its surface.

    Of equal moments the axes are any: a bar's would cut its sides at any angle, and are left out.
    """
    moments, axes = np.linalg.eigh(np.cov(surface.points.T))
    gaps = np.abs(moments[:, None] - moments) + np.eye(3) * moments[-1]
    inertia = axes.T[gaps.min(axis=1) > _APART * moments[-1]]
    turns: list[Turn] = []
    for axis in (*np.eye(3), *inertia):
        turn = _best_about(axis, surface)
        beside = [i for i, t in enumerate(turns) if abs(float(t.axis @ axis)) > _PARALLEL]
        if not beside:
            turns.append(turn)
        elif _rank(turn) < _rank(turns[beside[0]]):
            turns[beside[0]] = turn
    return turns


def symmetries_of(turns: list[Turn], surface: Surface) -> Symmetries:
    """What those that hold mean together, as the recipes declare it: all elements of a finite
    group; beside a continuous axis one half turn across it, which gives the others.
    """
    held = [turn for turn in turns if turn.holds]
    round_about = [turn for turn in held if turn.order == 0]
    offset = surface.center.tolist()
    continuous = tuple(Continuous(tuple(t.axis.tolist()), tuple(offset)) for t in round_about)
    if len(round_about) > 1:
        return Symmetries(np.zeros((0, 4, 4)), continuous)
    if round_about:
        axis = round_about[0].axis
        across = [t for t in held if t.order == 2 and abs(float(t.axis @ axis)) < 0.05][:1]
        discrete = [_about(surface, t.axis, np.pi) for t in across]
        return Symmetries(np.array(discrete).reshape(-1, 4, 4), continuous)
    return Symmetries(_group(held, surface))


def _rank(turn: Turn) -> tuple[bool, bool, float]:
    return not turn.holds, not turn.shape, turn.fit.distance_m


def _about(surface: Surface, axis: np.ndarray, angle: float) -> np.ndarray:
    R = exp_so3(axis * angle)
    return make_pose(R, surface.center - R @ surface.center)


def _best_about(axis: np.ndarray, surface: Surface) -> Turn:
    """The largest order that holds; else the largest the shape has; else the nearest to one."""
    diameter_m = surface.mesh.diameter_m
    every = surface.fit(np.array([_about(surface, axis, angle) for angle in _ANGLES]))
    smooth = every.distance_m <= LIMIT_ANY * diameter_m
    found = [Turn(axis, 0, every, smooth, smooth and every.color <= COLOR_LIMIT)]
    for order in ORDERS[::-1]:
        angles = 2.0 * np.pi * np.arange(1, order) / order
        fit = surface.fit(np.array([_about(surface, axis, angle) for angle in angles]))
        near = fit.distance_m <= LIMIT * diameter_m
        shape = near and (smooth or fit.distance_m <= STANDS_OUT * every.distance_m)
        found.append(Turn(axis, order, fit, shape, shape and fit.color <= COLOR_LIMIT))
    for wanted in ('holds', 'shape'):
        chosen = [turn for turn in found if getattr(turn, wanted)]
        if chosen:
            return chosen[0]
    return min(found, key=lambda turn: turn.fit.distance_m)


def _group(turns: list[Turn], surface: Surface) -> np.ndarray:
    """(S, 4, 4) products of the turns, without the identity; only such as fit themselves."""
    makers = [_about(surface, t.axis, 2.0 * np.pi / t.order) for t in turns]
    elements = [np.eye(4)]
    for element in elements:  # it grows
        for maker in makers:
            new = maker @ element
            known = any(np.trace(new[:3, :3].T @ e[:3, :3]) > 2.98 for e in elements)
            if not known and len(elements) < _LARGEST_GROUP:
                elements.append(new)
    limit_m = LIMIT * surface.mesh.diameter_m
    fits = [surface.fit(each[None]) for each in elements[1:]]
    kept = [
        each
        for each, fit in zip(elements[1:], fits, strict=True)
        if fit.distance_m <= limit_m and fit.color <= COLOR_LIMIT
    ]
    return np.array(kept).reshape(-1, 4, 4)
