"""zeventfs: what happens in a host's storage, as files."""

__version__ = "0.1.0"
