"""The language model: a base, its graft, and the student that learns to write songs."""
