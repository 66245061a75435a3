"""One file a step; each reads top to bottom."""
