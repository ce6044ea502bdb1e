"""What the step `alignment` is made of: how lyrics sound, what is heard, the path between them, and
how sure it is."""
