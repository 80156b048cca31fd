"""A user's own images in class folders."""
