"""Pure torch modules: layers only."""

__all__ = [
    "anogan",
    "autoencoder",
    "equivariant_cnn",
    "flow_vae",
    "folding",
    "framing",
    "layers",
    "mlp",
    "multipole_mlp",
    "polar_cnn",
    "projected",
    "residual_cnn",
    "strided_cnn",
    "structure",
    "tikhonet",
    "timm",
    "unet",
]
