"""The GPU back-end (Pallas, Mosaic GPU)."""
