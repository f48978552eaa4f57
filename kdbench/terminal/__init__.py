"""What is printed: tables, and a machine's check-up."""
