"""Training of the face parser: a teacher on labelled heads, its labels on real pictures, the parser on both."""
