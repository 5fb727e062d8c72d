"""Training a flow from energies alone."""
