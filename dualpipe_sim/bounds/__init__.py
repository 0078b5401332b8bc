"""What no order can beat: makespan, memory, the optimum. Imports ``costs``, ``model``, ``hardware``, ``order``."""
