"""Camera -> face mask -> quantiser per macroblock -> x264 -> RTP."""
