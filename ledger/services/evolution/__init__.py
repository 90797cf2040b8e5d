"""How events change shape over the years: the catalogue of types, upcasting, copies of streams."""
