"""The part of mtjax-evaluate that scores masked diffusion models."""
