"""One schedule a file; a file here registers itself and is then known everywhere."""
