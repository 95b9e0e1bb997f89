"""RPM packages: from a repository's signed metadata to a configured root with a native rpm database."""
