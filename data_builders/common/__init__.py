"""What the builders share: reading sources as they come, checking them, writing records."""
