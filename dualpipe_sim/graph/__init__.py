"""Where order, costs and links meet: the task graph and its timeline. Imports ``costs``, ``hardware``, ``order``."""
