"""Where the daemon's log goes, one line a record: a terminal, syslog or a file.

`begin` is called once, before anything is logged; the root logger is the only one that is set up.
"""

import logging
import logging.handlers
import queue
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, TextIO

__all__ = ["apart", "begin"]

TIMED: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
SYSLOG: Final = "zeventfs[%(process)d]: %(levelname)s %(name)s: %(message)s"
WAITING: Final = 1000  # records, before more are lost
LAST_WORDS_S: Final = 5.0


class OneLine(logging.Formatter):
    """A record as one line: a traceback's lines follow the message, joined by " | "."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its newline."""
        return " | ".join(super().format(record).splitlines())


class _Patient(logging.Handler):
    """Passes over what its place can't take: on a full disk a line is lost, and nothing else."""

    passed_over: type[Exception] = OSError

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        if not isinstance(sys.exc_info()[1], self.passed_over):
            super().handleError(record)


class _Stream(_Patient, logging.StreamHandler[TextIO]):
    pass


class _Syslog(_Patient, logging.handlers.SysLogHandler):
    pass


class _File(_Patient, logging.handlers.WatchedFileHandler):
    def emit(self, record: logging.LogRecord) -> None:
        """Also where the file can't be opened anew, which logging's own raises."""
        try:
            super().emit(record)
        except OSError:
            self.handleError(record)


class _Queued(_Patient, logging.handlers.QueueHandler):
    passed_over = queue.Full


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


@contextmanager
def apart() -> Iterator[None]:
    """Have a thread write what is logged: who logs never waits for the place it goes to.

    While that place hangs, WAITING records are kept for it, and what is more is lost. At the end it
    has some seconds to take the last of them.
    """
    root = logging.getLogger()
    handlers = root.handlers[:]
    records: queue.Queue[logging.LogRecord | None] = queue.Queue(WAITING)
    writer = threading.Thread(target=_write, args=(records, handlers), name="log", daemon=True)
    writer.start()
    root.handlers = [_Queued(records)]
    try:
        yield
    finally:
        with suppress(queue.Full):
            records.put(None, timeout=LAST_WORDS_S)
        writer.join(LAST_WORDS_S)
        if writer.is_alive():  # it holds a handler's lock, which logging.shutdown would wait for
            root.handlers = [logging.NullHandler()]
            logging._handlerList.clear()  # type: ignore[attr-defined]  # noqa: SLF001 - no other way
        else:
            root.handlers = handlers


def _write(
    records: "queue.Queue[logging.LogRecord | None]", handlers: Iterable[logging.Handler]
) -> None:
    while (record := records.get()) is not None:
        for handler in handlers:
            handler.handle(record)
