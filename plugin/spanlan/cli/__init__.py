"""The spanlan command."""
