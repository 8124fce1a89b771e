"""Decoding of untrusted image files in child processes, with limits on time and memory."""
