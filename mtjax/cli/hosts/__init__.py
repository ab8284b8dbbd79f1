"""Launchers that run as a job of several processes."""
