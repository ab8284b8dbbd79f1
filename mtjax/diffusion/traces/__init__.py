"""What traces are made of beside those of `mtjax.diffusion.denoising`, and what they show."""
