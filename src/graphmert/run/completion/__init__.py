"""Complete a graph: rank both ends of held-out triples among all entities."""
