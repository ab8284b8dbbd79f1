"""Speeds of several systems: tables and a picture."""
