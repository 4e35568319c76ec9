"""Signals as a program on a terminal has them, for the suite and for all that it starts.

What a script starts in its background ignores SIGINT and SIGQUIT, a whole suite in CI for one, and
what it starts in turn would ignore them too: no Ctrl-C would end a blocked reader.
"""

import signal

signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
