"""Data sets of the recipe, as blocks of numbers per position."""
