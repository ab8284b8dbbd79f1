"""Parameters and training states on disk."""
