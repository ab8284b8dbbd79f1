"""What is measured of diffusion, beside time."""
