"""The TPU back-end (Pallas, Mosaic)."""
