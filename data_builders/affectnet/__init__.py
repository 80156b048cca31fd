"""AffectNet: 290,000 faces of the web with eight expressions, valence and arousal."""
