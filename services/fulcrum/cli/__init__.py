"""The `fulcrum` command: one module per subcommand, `output` for what they print."""
