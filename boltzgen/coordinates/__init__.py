"""The bijection between whitened internal coordinates and Cartesian positions, with its log-determinant."""
