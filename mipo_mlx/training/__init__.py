from .. import backend

backend.start()  # modules of this folder import MLX, which needs a fast BLAS loaded before
