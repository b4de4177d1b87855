"""One loop for every system, and the run's folder."""
