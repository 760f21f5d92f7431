"""`python -m mipo_mlx`: the command line."""

from .cli import main

main()
