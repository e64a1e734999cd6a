"""Data sets: an upload becomes one canonical file, the canonical file becomes images at a network's size."""
