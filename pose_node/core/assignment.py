"""Pairs of rows and columns whose prices sum to the least (Kuhn, "The Hungarian method", 1955), by
shortest augmenting paths (Jonker and Volgenant, Computing 1987).

In plain numbers: a picture has a handful of things, and SciPy's takes longer to import than a node
may take to start.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def assigned(prices: np.ndarray) -> list[tuple[int, int]]:
    """Row and column of every pair, by rows; prices (M, N) are finite, min(M, N) pairs come."""
    if prices.shape[0] > prices.shape[1]:
        return sorted((i, j) for j, i in assigned(prices.T))
    rows = prices.tolist()
    count = prices.shape[1]
    row_of: list[int | None] = [None] * count  # the row that has the column
    of_row, of_column = [0.0] * len(rows), [0.0] * count  # what is taken off the prices
    for new in range(len(rows)):
        # Dijkstra's shortest path from the new row to a column that is free.
        distance, before = [math.inf] * count, [-1] * count
        done: list[int] = []
        row, column, so_far = new, -1, 0.0
        while True:
            for j in range(count):
                if j not in done:
                    through = so_far + rows[row][j] - of_row[row] - of_column[j]
                    if through < distance[j]:
                        distance[j], before[j] = through, column
            column = min((j for j in range(count) if j not in done), key=distance.__getitem__)
            so_far = distance[column]
            taken_by = row_of[column]
            if taken_by is None:
                break
            done.append(column)
            row = taken_by
        of_row[new] += so_far
        for j in done:
            owner = row_of[j]
            assert owner is not None
            of_row[owner] += so_far - distance[j]
            of_column[j] -= so_far - distance[j]
        while column >= 0:  # every row on the path moves on to the next column
            last = before[column]
            row_of[column] = new if last < 0 else row_of[last]
            column = last
    return sorted((i, j) for j, i in enumerate(row_of) if i is not None)
