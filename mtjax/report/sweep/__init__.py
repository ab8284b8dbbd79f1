"""The table, the picture and the page of a sweep."""
