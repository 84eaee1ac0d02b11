"""The miniature model family: the real classes of the real models, small enough for two processor cores."""
