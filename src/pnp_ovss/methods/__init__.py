"""How class maps come about: one file or folder a method."""
