"""The embedded dataset: drawn faces with eight expressions, made from a seed."""
