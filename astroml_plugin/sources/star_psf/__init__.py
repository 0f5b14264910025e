"""The PSF of an image from its own stars: found, chosen, fitted, and judged by stars that were left out."""
