"""The RAF-DB dataset, basic expressions, in each form in which people have it."""
