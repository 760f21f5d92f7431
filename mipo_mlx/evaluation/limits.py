"""How much a cost may grow before it is worth a warning; the verdict, the report's signs and the study's drawing share these."""

PERPLEXITY = 0.15  # share
LENGTH = 0.15  # share, either way
PARROTING = 0.03  # points, as a share
SELF_BLEU = 2.0  # of 100
