"""The appearance of objects in a notebook: representations of a few lines, and HTML cards."""
