"""Training a flow: from energies alone, from data, or from both."""
