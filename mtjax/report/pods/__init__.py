"""The page of rounds compiled for meshes that are not here."""
