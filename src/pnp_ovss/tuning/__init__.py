"""Settings chosen without a mask: CLIP says how well each mask shows its class, and a search maximises that."""
