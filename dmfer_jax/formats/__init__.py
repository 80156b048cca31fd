"""Networks in formats of which other programs need to know nothing of this project."""
