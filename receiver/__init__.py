"""RTP -> decode -> restore -> window."""
