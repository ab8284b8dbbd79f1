"""Reports of the tasks that a model answers in writing."""
