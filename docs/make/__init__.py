"""Makers of generated pages and pictures: python -m docs.make.<name>."""
