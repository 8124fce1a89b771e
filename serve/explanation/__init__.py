"""From a finding to a checked text in plain words."""
