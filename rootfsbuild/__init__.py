"""Build minimal, reproducible root filesystems from a distribution's own packages."""

__version__ = "0.1.0"
