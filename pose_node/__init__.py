"""Camera pictures in, object poses out: core (arrays), runtime (networks), ros (the node), cli."""
