"""Where the daemon's log goes, one line a record: a terminal, syslog or a file.

Called once, before anything is logged; the root logger is the only one that is set up.
"""

import logging
import logging.handlers
import sys
from typing import Final, TextIO

__all__ = ["begin"]

TIMED: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
SYSLOG: Final = "zeventfs[%(process)d]: %(levelname)s %(name)s: %(message)s"


class OneLine(logging.Formatter):
    """A record as one line: a traceback's lines follow the message, joined by " | "."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its newline."""
        return " | ".join(super().format(record).splitlines())


class _Patient(logging.Handler):
    """Passes over what its place can't take: on a full disk a line is lost, and nothing else."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


class _Stream(_Patient, logging.StreamHandler[TextIO]):
    pass


class _Syslog(_Patient, logging.handlers.SysLogHandler):
    pass


class _File(_Patient, logging.handlers.WatchedFileHandler):
    pass


def begin(log: str) -> None:
    """Log to *log*: "stderr", "syslog", or the absolute path of a file, which is appended to.

    A file that was renamed or removed, as logrotate does, is opened anew. Raises OSError where
    the place can't be opened.
    """
    handler: logging.Handler
    if log == "stderr":
        handler = _Stream(sys.stderr)
    elif log == "syslog":
        handler = _Syslog("/dev/log", facility=_Syslog.LOG_DAEMON)
    else:
        handler = _File(log, encoding="utf-8", errors="replace")
    handler.setFormatter(OneLine(SYSLOG if log == "syslog" else TIMED))
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
