"""Tables of diffusion models beside others."""
