"""The world outside: command line, work folders, files, downloads, environment, signals."""
