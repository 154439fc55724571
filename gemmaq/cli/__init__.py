"""The command line. `console` prints, `app` turns errors into exit codes, each command has a module."""
