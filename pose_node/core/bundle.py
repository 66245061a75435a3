"""A trained model as a folder: bundle.json, ONNX networks and what belongs to them.

The folder carries its own contract, so the node is given its path and nothing else. A bundle may
come from anywhere: nothing in it runs code when it is read, every file has the size and the
SHA-256 that bundle.json states, no file lies outside, and none lies inside that is not listed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from .fields import BundleError
from .manifest import SCHEMA, LocatorSpec, Manifest, ObjectSpec, parse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .pose_spec import PoseSpec

MANIFEST_NAME = 'bundle.json'
_MANIFEST_BYTES = 1_000_000


@dataclass(frozen=True, eq=False)
class Bundle:
    """A folder whose manifest has been read and checked."""

    folder: Path  # where its files really are, links followed
    manifest: Manifest

    @classmethod
    def load(cls, path: str | Path, *, verify: bool = True) -> Bundle:
        """Read the bundle in folder `path` (or of the bundle.json at `path`) and verify its files.

        Raises BundleError, a sentence saying what is wrong, where, and what to do.
        """
        file = Path(path).expanduser()
        file = file if file.name == MANIFEST_NAME else file / MANIFEST_NAME
        if not file.is_file():
            raise BundleError(f'{file} does not exist; give the folder of a bundle.')
        # `colcon build --symlink-install` links every file of a folder: the bundle is where its
        # manifest really is, and it is there that no file may leave it.
        file = file.resolve()
        bundle = cls(file.parent, parse(_read_json(file), str(file)))
        if verify:
            bundle.verify()
        return bundle

    def verify(self) -> None:
        """Raise BundleError unless the folder holds exactly the files that the manifest lists."""
        for name in self.manifest.files:
            self.read(name)
        listed = {MANIFEST_NAME, *self.manifest.files}
        for entry in sorted(self.folder.iterdir()):
            # Hidden entries are editors' and file browsers' droppings; nothing here opens them.
            if entry.name not in listed and not entry.name.startswith('.'):
                self._fail(entry.name, 'is not listed in bundle.json', 'remove it from the folder')

    def read(self, name: str) -> bytes:
        """The bytes of one listed file, checked against the manifest as they are read."""
        spec = self.manifest.files.get(name)
        if spec is None:
            self._fail(name, 'is not listed in bundle.json', 'name a file of the bundle')
        file = self.folder / name
        if not file.is_file():
            self._fail(name, 'is missing', 'copy the whole folder again')
        if file.resolve().parent != self.folder:
            self._fail(
                name, f'is a link to {file.resolve()}, outside', 'put the file itself there'
            )
        size = file.stat().st_size
        if size != spec.bytes:
            self._fail(name, f'has {size} bytes instead of {spec.bytes}', 'copy the folder again')
        data = file.read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        if sha256 != spec.sha256:
            self._fail(
                name,
                f'has SHA-256 {sha256[:12]}... instead of {spec.sha256[:12]}...',
                'it was changed after the export: copy the folder again or export it again',
            )
        return data

    @property
    def name(self) -> str:
        """What the bundle calls itself."""
        return self.manifest.name

    @property
    def objects(self) -> tuple[ObjectSpec, ...]:
        """The objects it knows."""
        return self.manifest.objects

    @property
    def pose_network(self) -> PoseSpec:
        """The network that sees the pose in a crop."""
        return self.manifest.pose_network

    @property
    def locator(self) -> LocatorSpec | None:
        """The network that finds the crop, if it has one."""
        return self.manifest.locator

    def object(self, name: str) -> ObjectSpec:
        """The object called `name`."""
        for each in self.objects:
            if each.name == name:
                return each
        names = ', '.join(each.name for each in self.objects)
        raise BundleError(f'{self.folder}: no object is called {name!r}; it knows {names}.')

    def _fail(self, name: str, got: str, remedy: str) -> NoReturn:
        raise BundleError(f'{self.folder / name} {got}; {remedy}.')


def write_bundle(
    folder: str | Path, manifest: Mapping[str, Any], files: Mapping[str, bytes | Path]
) -> Bundle:
    """Write a bundle and return it, loaded and verified; an older one in `folder` is replaced.

    manifest: bundle.json without `schema` and `files` (both are filled in); arrays may be NumPy's.
    files: content, or the file to copy, by name. Raises BundleError and leaves `folder` as it was
    when the result could not be loaded.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    old = folder / MANIFEST_NAME
    if folder.is_dir() and any(folder.iterdir()) and not old.exists():
        raise BundleError(f'{folder} is no bundle and not empty; name another folder to write to.')
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix='.bundle-') as scratch:
        new = Path(scratch) / 'new'
        new.mkdir()
        listed = {}
        for name, content in files.items():
            data = content if isinstance(content, bytes) else Path(content).read_bytes()
            if Path(name).name != name:
                raise BundleError(f'{name!r} is no plain file name; a bundle has no subfolders.')
            (new / name).write_bytes(data)
            listed[name] = {'sha256': hashlib.sha256(data).hexdigest(), 'bytes': len(data)}
        text = _to_json({'schema': SCHEMA, **manifest, 'files': listed})
        parse(json.loads(text), str(old))  # so that an error names the place the caller knows
        (new / MANIFEST_NAME).write_text(text, encoding='utf-8')
        Bundle.load(new)
        if folder.is_dir():
            folder.rename(Path(scratch) / 'old')
        new.chmod(0o755)
        shutil.move(new, folder)
    return Bundle.load(folder)


def _read_json(file: Path) -> object:
    size = file.stat().st_size
    if size > _MANIFEST_BYTES:
        raise BundleError(
            f'{file} has {size} bytes; no manifest is longer than {_MANIFEST_BYTES}.'
        )

    def refuse(number: str) -> NoReturn:
        raise BundleError(f'{file} holds {number}; every number of a bundle must be finite.')

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        keys = [key for key, _ in pairs]
        for key in keys:
            if keys.count(key) > 1:
                raise BundleError(f'{file} gives {key!r} twice in one place; remove one of them.')
        return dict(pairs)

    try:
        text = file.read_bytes().decode('utf-8')
        return json.loads(text, parse_constant=refuse, object_pairs_hook=unique)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise BundleError(
            f'{file} is no JSON text ({error}); copy the folder again or export it again.'
        ) from None


def _to_json(content: Mapping[str, Any]) -> str:
    def plain(value: object) -> object:
        if isinstance(value, np.ndarray | np.generic):
            return value.tolist()
        raise BundleError(
            f'A manifest cannot hold {value!r}; give numbers, strings, lists, dicts.'
        )

    try:
        return json.dumps(content, indent=1, allow_nan=False, default=plain) + '\n'
    except ValueError as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(
            f'The manifest holds NaN or infinity ({error}); every number must be finite.'
        ) from None


__all__ = ['Bundle', 'BundleError', 'write_bundle']
