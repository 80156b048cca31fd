"""Records in, uint8 batches out."""
