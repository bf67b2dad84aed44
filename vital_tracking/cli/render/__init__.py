"""How the command line shows tables, files and times."""
