"""What several folders use: checks of parameters, rows, files, optional packages."""
