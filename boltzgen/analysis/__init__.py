"""Torsions, free-energy surfaces, plots and the report."""
