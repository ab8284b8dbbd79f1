"""Tables and pictures of results, for people to read."""
