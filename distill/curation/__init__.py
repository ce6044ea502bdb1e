"""From songs as they were found to songs to learn from: the runner of the steps, and its report."""
