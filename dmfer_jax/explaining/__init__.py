"""What can be seen of a trained network: maps over faces, attention, the embedding's geometry."""
