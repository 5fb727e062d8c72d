"""Normalizing flow on circles (torsions) and lines (stiff coordinates)."""
