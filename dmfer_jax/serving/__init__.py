"""The web page and its endpoint: what `python -m dmfer_jax.serve` answers with.

Needs the `serve` extra. Nothing else of this package imports this room.
"""
