"""Writes what a network computes as an ONNX graph, from what JAX traces of it.

The graph is made of the traced program, primitive by primitive, and not of the network's options:
so it cannot differ from the network, and an option that comes later needs no writer of its own.
"""
