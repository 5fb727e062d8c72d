"""Systems with exactly known answers, and how far what comes out of the whole road is from them."""
