"""What people look at: charts on paper, pages for a browser. Imports ``analysis``, ``graph`` and ``order``."""
