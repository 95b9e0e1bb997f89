"""How TOML documents are read: with line numbers, checked against a table of fields, merged with origins."""
