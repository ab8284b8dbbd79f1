"""The acceptance rules, one file each."""
