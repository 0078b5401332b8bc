"""Tools for agents over the Model Context Protocol: what commands answer with ``--json``, within limits.

``tools`` says what each does and knows nothing of the protocol; ``server`` speaks it and is the only place that does.
"""
