"""TensorRT: engines compiled once, kept by what they depend on, run by one thread."""
