"""Training of the restorers: pairs from the sender's own encoder, what is asked of the network, the rounds."""
