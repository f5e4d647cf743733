"""What semcall gains, measured and drawn."""
