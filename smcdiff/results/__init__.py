"""What a run returns: the weighted posterior, its diagnosis, its export and its pictures."""
