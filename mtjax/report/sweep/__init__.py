"""The table and the picture of a sweep."""
