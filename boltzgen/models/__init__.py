"""Targets that are no molecules, whose answers are known: wells, rings, particles."""
