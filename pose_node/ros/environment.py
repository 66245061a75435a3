"""Environment variables of processes that exchange pictures, and the folders of the package.

Fast DDS and the C library read these when a process starts, so whoever starts it must set them:
the launch files and the demo do. With Fast DDS's own settings a raw picture does not fit into the
shared-memory segment: best-effort pictures never arrive and reliable ones take ten times longer.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pose_node.core.errors import PoseNodeError

if TYPE_CHECKING:
    from collections.abc import Mapping

PACKAGE = 'pose_node'

# Fast DDS 3 (Kilted and later) reads the first name, Fast DDS 2 the second.
_PROFILE_VARIABLES = ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE')
_WITH_FAST_DDS_2 = ('humble', 'iron', 'jazzy')

# glibc: keep freed picture buffers instead of handing them back and faulting them in page by page.
_ALLOCATOR = {
    'MALLOC_MMAP_THRESHOLD_': '268435456',
    'MALLOC_TRIM_THRESHOLD_': '1073741824',
    'MALLOC_TOP_PAD_': '67108864',
}


def share_folder() -> Path:
    """Where launch, config and bundles are: the installed package's share folder or a checkout."""
    checkout = Path(__file__).resolve().parents[2]
    with_pip = Path(sys.prefix) / 'share' / PACKAGE
    if (checkout / 'package.xml').is_file():
        return checkout
    try:
        from ament_index_python.packages import get_package_share_directory

        return Path(get_package_share_directory(PACKAGE))
    except (ImportError, LookupError, OSError):  # no ROS, not installed, nothing sourced
        if with_pip.is_dir():
            return with_pip
        raise PoseNodeError(
            f'The files of {PACKAGE} are neither installed nor in {checkout}; '
            "source the workspace's install/setup.bash or run from a checkout."
        ) from None


def default_bundle() -> Path:
    """The bundle that the node uses when it is given none: the demo's drill."""
    return share_folder() / 'bundles' / 'drill'


def process_environment(
    base: Mapping[str, str] | None = None,
    *,
    dds_profile: bool = True,
    discovery_range: str | None = None,
    domain_id: int | None = None,
) -> dict[str, str]:
    """The environment for a process that sends or receives pictures.

    base: what it starts from; the caller's own environment when None.
    dds_profile: shared memory large enough for pictures, and an allocator that keeps it mapped.
        What `base` already sets stays.
    discovery_range: for instance 'LOCALHOST', when nobody else on the network shall be met.
    domain_id: ROS_DOMAIN_ID, when it shall be another than the caller's.
    """
    environment = dict(os.environ if base is None else base)
    if dds_profile:
        for name, value in dds_settings(environment).items():
            environment.setdefault(name, value)
    if discovery_range is not None:
        environment['ROS_AUTOMATIC_DISCOVERY_RANGE'] = discovery_range
    if domain_id is not None:
        environment['ROS_DOMAIN_ID'] = str(domain_id)
    return environment


def dds_settings(base: Mapping[str, str]) -> dict[str, str]:
    """The variables that `base` lacks for fast pictures; a DDS profile of the user's own stays."""
    wanted = dict(_ALLOCATOR)
    if not any(base.get(name) for name in _PROFILE_VARIABLES):
        name = _PROFILE_VARIABLES[base.get('ROS_DISTRO') in _WITH_FAST_DDS_2]
        wanted[name] = str(share_folder() / 'config' / 'fastdds.xml')
    return {name: value for name, value in wanted.items() if name not in base}


__all__ = ['PACKAGE', 'dds_settings', 'default_bundle', 'process_environment', 'share_folder']
