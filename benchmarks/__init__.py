"""Measurements anybody can repeat with one command each."""
