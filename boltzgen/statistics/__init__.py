"""What weighted samples say: weights, free energies, and how far to trust them."""
