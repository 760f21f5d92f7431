"""mipo_mlx: personalize a local assistant from its owner's notes, with MIPO on MLX."""

__version__ = "0.1.0"
