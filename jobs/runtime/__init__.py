"""What jobs share: arguments, last line and exit code, progress, and submission to Ray."""
