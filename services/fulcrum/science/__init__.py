"""Arrays in, arrays out: every formula of the product, and nothing about services."""
