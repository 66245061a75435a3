"""Objects that our own code models: each module writes one mesh."""
