"""The workshop: from a mesh to a bundle, on rendered pictures alone."""
