"""What records say: cells, differences, costs, claims."""
