"""What all tests share."""

import os
import signal

# A shell that starts a job in the background makes it ignore SIGINT, and its children inherit that: the tests that
# press Ctrl-C would wait for ever. A handler is not inherited, so children get the default back.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Whoever runs the tests may have models of their own.
os.environ["SEMCALL_MODELS"] = os.path.join(os.path.dirname(__file__), "no-models")
