"""Face masks: how good, how fast, how steady, for the shipped parser, BiSeNet and the cascade that they replaced."""
