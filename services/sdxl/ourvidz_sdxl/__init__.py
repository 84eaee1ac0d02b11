"""The SDXL renderer: a server that makes images with a Stable Diffusion XL pipeline."""
