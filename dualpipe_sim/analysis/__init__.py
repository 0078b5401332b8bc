"""What a timeline says; every function takes one. Imports ``graph``, ``costs``, ``model``, ``order``."""
