"""The parts of the probabilistic PnP layer (training/nets/pnp_layer.py), one idea a file."""
