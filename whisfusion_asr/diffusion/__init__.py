"""Masked diffusion over token canvases: what a canvas is, how it is corrupted, and the loss. Pure tensor maths."""
