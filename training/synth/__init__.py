"""Rendered pictures and their labels."""
