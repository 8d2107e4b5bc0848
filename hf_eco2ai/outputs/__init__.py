"""4 show: our own surfaces. They know a Snapshot and nothing else."""
