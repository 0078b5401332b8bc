"""Engines: they play a task graph and return its timeline."""
