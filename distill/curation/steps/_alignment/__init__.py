"""What `alignment` is made of: how lyrics sound, what is heard, the path between, confidence."""
