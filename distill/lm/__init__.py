"""The language model: how a song is written in tokens, and the student that learns to write it."""
