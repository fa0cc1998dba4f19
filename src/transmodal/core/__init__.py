"""What every other part stands on: volumes, errors, settings, files and records."""
