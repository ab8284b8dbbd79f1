"""Drafters whose shape is data: one compiled program drafts every shape of its size."""
