"""Where things live that are made once: outside the checkout."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    """The folder named by POSE_NODE_CACHE, or the one of this user."""
    return Path(os.environ.get('POSE_NODE_CACHE', '~/.cache/pose_node')).expanduser()
