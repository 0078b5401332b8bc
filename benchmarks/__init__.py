"""How fast the program is, in one run on one machine: ``make benchmark``."""
