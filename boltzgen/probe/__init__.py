"""The coverage probe: structures from outside a flow, and what they say that it has lost."""
