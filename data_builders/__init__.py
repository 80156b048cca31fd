"""TFDS dataset builders: they read files as their owners hand them out and write records."""
