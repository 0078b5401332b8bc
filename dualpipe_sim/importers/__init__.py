"""What others have written down, as a part of a configuration: a file for each format."""
