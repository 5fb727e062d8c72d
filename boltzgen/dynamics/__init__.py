"""Molecular dynamics of many copies at once: Langevin, replica exchange, relaxation."""
