"""What `python -m experiments.tune_tree` does with its flags."""
