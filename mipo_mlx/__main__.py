"""`python -m mipo_mlx`: the command line."""

import runpy

runpy.run_module("mipo_mlx.cli", run_name="__main__")
