"""The networks: finding them, training them, judging them."""
