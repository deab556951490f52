"""Pages and tables about runs, files and this installation."""
