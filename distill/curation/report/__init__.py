"""What became of every song, as pages to look at and listen to."""
