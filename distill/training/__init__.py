"""The training loop, which knows no model, and what it leaves on disk."""
