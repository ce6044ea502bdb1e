"""How a song is written in tokens, and read back: pure functions of values, no model."""
