"""Where the daemon's log goes, one line a record: a terminal, syslog or a file.

Called once, before anything is logged; the root logger is the only one that is set up.
"""

import logging
import logging.handlers
import sys
from typing import Final

__all__ = ["begin"]

TIMED: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
SYSLOG: Final = "zeventfs[%(process)d]: %(levelname)s %(name)s: %(message)s"


class OneLine(logging.Formatter):
    """A record as one line: a traceback's lines follow the message, joined by " | "."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its newline."""
        return " | ".join(super().format(record).splitlines())


def begin(log: str) -> None:
    """Log to *log*: "stderr", "syslog", or the absolute path of a file, which is appended to.

    A file that was renamed or removed, as logrotate does, is opened anew. Raises OSError where
    the place can't be opened.
    """
    handler: logging.Handler
    if log == "stderr":
        handler = logging.StreamHandler(sys.stderr)
    elif log == "syslog":
        handler = logging.handlers.SysLogHandler(
            "/dev/log", facility=logging.handlers.SysLogHandler.LOG_DAEMON
        )
    else:
        handler = logging.handlers.WatchedFileHandler(log, encoding="utf-8", errors="replace")
    handler.setFormatter(OneLine(SYSLOG if log == "syslog" else TIMED))
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
