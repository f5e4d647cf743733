"""A study: every clip at every rate and share, measured, tabulated and compared with the paper."""
