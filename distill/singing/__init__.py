"""A trained singer: on disk, singing, and measured by its takes."""
