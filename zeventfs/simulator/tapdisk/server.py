"""The sockets and files of a simulated tapdisk, and the loop that serves them.

One thread, one poll(2), and no timer while no guest does I/O: hundreds of these run beside each
other. As in tapdisk, orders are carried out one after the other, questions are answered meanwhile,
ten connections are served at most, and a message that doesn't come whole stalls everything for two
seconds. What takes long to import is not used: of socket, the part without enumerations is enough.
"""

import _socket
import errno
import os
import select
import time

from zeventfs.errors import Invalid
from zeventfs.simulator.tapdisk import tell_name
from zeventfs.simulator.tapdisk.misbehaviour import HELD, Behaviour, altered, understand
from zeventfs.simulator.tapdisk.model import Tapdisk, Vbd
from zeventfs.tapdisk import wire

__all__ = ["Server"]

_MOST_CONNECTIONS = 10
_BACKLOG = 32
_RECEIVE_S = 2.0
_SEND_S = 10.0
_LONG_S = 3600.0
_TICK_S = 1.0  # how often a guest's I/O shows in the counters
_LONGEST_LINE = 4096
_SIGSTOP = 19  # of all that Linux runs on but MIPS, Alpha and SPARC


class _Connection:
    """A connection, its request once that is there, and when the answer may go."""

    __slots__ = ("due", "request", "socket")

    def __init__(self, connection: _socket.socket) -> None:
        self.socket = connection
        self.request = b""
        self.due = 0.0


class Server:
    """A tapdisk in *directory*, with counters below *shared*; as context, its sockets and files."""

    def __init__(self, directory: str, shared: str, rate: float, sectors: int) -> None:
        self._pid = os.getpid()
        self._directory = directory
        self._shared = f"{shared}/{wire.shared_memory_name(self._pid)}"
        self.path = f"{directory}/{wire.socket_name(self._pid)}"
        self._tell_path = f"{directory}/{tell_name(self._pid)}"
        self._model = Tapdisk(self._pid, self._marked, rate, sectors)
        self._behaviours: dict[str, Behaviour] = {}
        self._connections: dict[int, _Connection] = {}
        self._waiting: list[_Connection] = []  # with their requests, as they came
        self._pages: dict[int, tuple[int, list[int]]] = {}  # minor -> descriptor, what it shows
        self._poll = select.poll()

    def _marked(self, minor: int) -> bool:
        return os.path.exists(f"{self._directory}/{wire.marker_name(minor)}")  # noqa: PTH110 - light

    def __enter__(self) -> "Server":  # noqa: PYI034 - typing is heavy
        os.makedirs(f"{self._directory}/tapdisk", exist_ok=True)  # noqa: PTH103 - light
        os.makedirs(self._shared, exist_ok=True)  # noqa: PTH103 - light
        self._control = _listen(self.path)
        self._teller = _listen(self._tell_path)
        self._poll.register(self._control.fileno(), select.POLLIN)
        self._poll.register(self._teller.fileno(), select.POLLIN)
        return self

    def __exit__(self, *_: object) -> None:
        for path in (self.path, self._tell_path):
            _remove(path)
        for connection in list(self._connections.values()):
            self._close(connection)
        self._control.close()
        self._teller.close()
        for minor in list(self._pages):
            self._drop_page(minor)
        try:  # noqa: SIM105 - contextlib is heavy
            os.rmdir(self._shared)  # noqa: PTH106 - light
        except OSError:  # somebody else has put something there
            pass

    def serve(self) -> int:
        """Serve until the last VBD is detached or an exit was told; return the exit status."""
        try:
            while not self._model.ended:
                for descriptor, _ in self._poll.poll(self._milliseconds()):
                    self._event(descriptor)
                self._work()
        except SystemExit as told:
            return int(told.code or 0)
        return 0

    def _milliseconds(self) -> int | None:
        now = time.monotonic()
        times = [connection.due for connection in self._waiting if connection.due > now]
        due = self._model.due(_TICK_S, now)
        if due is not None:
            times.append(due)
        return max(0, int((min(times) - now) * 1000) + 1) if times else None

    def _event(self, descriptor: int) -> None:
        if descriptor == self._control.fileno():
            self._accept()
        elif descriptor == self._teller.fileno():
            self._hear()
        elif connection := self._connections.get(descriptor):
            if connection.request:  # it is not to say more, so it has hung up
                self._close(connection)
            else:
                self._receive(connection)

    def _accept(self) -> None:
        connection = _Connection(_accepted(self._control, _RECEIVE_S))
        descriptor = connection.socket.fileno()
        self._connections[descriptor] = connection
        self._poll.register(descriptor, select.POLLIN)
        if len(self._connections) == _MOST_CONNECTIONS:
            self._poll.modify(self._control.fileno(), 0)

    def _receive(self, connection: _Connection) -> None:
        request = _read(connection.socket, wire.SIZE)
        if len(request) < wire.SIZE:
            self._close(connection)
            return
        connection.request = request
        self._waiting.append(connection)
        # Only its end is of interest now, which poll tells unasked.
        self._poll.modify(connection.socket.fileno(), 0)

    def _close(self, connection: _Connection) -> None:
        descriptor = connection.socket.fileno()
        if len(self._connections) == _MOST_CONNECTIONS:
            self._poll.modify(self._control.fileno(), select.POLLIN)
        del self._connections[descriptor]
        self._poll.unregister(descriptor)
        if connection in self._waiting:
            self._waiting.remove(connection)
        connection.socket.close()

    # What happens

    def _work(self) -> None:
        now = time.monotonic()
        self._model.run(now)
        busy = False
        for connection in self._waiting[:]:
            kind = wire.HEAD.unpack_from(connection.request)[0]
            question = kind in wire.QUESTIONS
            if (question or not busy) and not self._answer(connection, kind, now):
                busy = busy or not question
        self._show()

    def _answer(self, connection: _Connection, kind: int, now: float) -> bool:
        """Answer, if that can be done now; return whether there is no more to wait for."""
        name = wire.NAMES.get(kind, "")
        behaviour = self._behaviours.get(name) or self._behaviours.get("")
        if behaviour and behaviour.name == "slow" and not connection.due:
            connection.due = now + behaviour.number
        if connection.due > now:
            return False
        if behaviour and behaviour.name in HELD - {"slow"}:
            if behaviour.name == "silent":
                self._waiting.remove(connection)
                return True
            _act(behaviour)
        refused = behaviour is not None and behaviour.name == "refuse"
        reply = connection.request if refused else self._model.answer(connection.request, now)
        if reply is None:
            return False
        if behaviour and behaviour.name not in HELD:
            reply = altered(reply, behaviour)
        self._show()  # who has the answer may look at the counters
        _send(connection.socket, reply)
        self._close(connection)
        return True

    def held_back(self, request: str) -> None:
        """Do what was told to come before *request*: be slow or silent, exit, stop."""
        behaviour = self._behaviours.get(request)
        while behaviour and behaviour.name == "silent":
            time.sleep(_LONG_S)
        if behaviour and behaviour.name == "slow":
            time.sleep(behaviour.number)
        elif behaviour:
            _act(behaviour)

    # What is told

    def _hear(self) -> None:
        connection = _accepted(self._teller, _RECEIVE_S)
        line = b""
        while b"\n" not in line and len(line) < _LONGEST_LINE and (piece := _read(connection, 1)):
            line += piece
        try:
            said = self.told(understand(line.decode(errors="backslashreplace")))
        except Invalid as error:
            said = f"error: {error}\n"
        except SystemExit:
            _send(connection, b"ok\n")
            raise
        _send(connection, said.encode())
        connection.close()

    def told(self, line: Behaviour) -> str:
        """Do what *line* tells; return what to say to that."""
        now = time.monotonic()
        if line.name == "show":
            return self._standing()
        if line.name == "rate":
            self._model.change_rate(line.number, now)
        elif line.name == "io":
            self._model.change_io(int(line.number), now)
        elif line.name == "well":
            self._behaviours.clear()
            self._model.change_io(0, now)
        elif not line.request and line.name in {"exit", "stop"}:
            _act(line)
        else:
            self._behaviours[line.request] = line
        return "ok\n"

    def _standing(self) -> str:
        now = time.monotonic()
        self._model.run(now)
        said = f"pid={self._pid} vbds={len(self._model.vbds)}\n"
        for vbd in self._model.vbds.values():
            asked = vbd.requests
            said += (
                f"minor={vbd.minor} state={vbd.state:#x} new={len(asked.new)} "
                f"pending={len(asked.pending)} failed={len(asked.failed)} "
                f"completed={sum(asked.completed)} errors={sum(asked.errors)} "
                f"kicks_in={asked.kicks_in} kicks_out={asked.kicks_out}\n"
            )
        return said

    # The counters

    def _show(self) -> None:
        """Have the page of each VBD, if it is to have one, say how that stands."""
        for vbd in self._model.vbds.values():
            self._show_page(vbd)
        for minor in self._pages.keys() - self._model.vbds.keys():
            self._drop_page(minor)

    def _show_page(self, vbd: Vbd) -> None:
        if not vbd.serving:
            if vbd.minor in self._pages:
                self._drop_page(vbd.minor)
            return
        counters = vbd.requests.counters()
        descriptor, shown = self._pages.get(vbd.minor, (-1, []))
        if shown != counters:
            if descriptor < 0:
                path = self._page_path(vbd.minor)
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC)
            os.pwrite(descriptor, wire.encode_counters(counters), 0)
            self._pages[vbd.minor] = descriptor, counters

    def _drop_page(self, minor: int) -> None:
        os.close(self._pages.pop(minor)[0])
        _remove(self._page_path(minor))

    def _page_path(self, minor: int) -> str:
        return f"{self._shared}/vdi-{minor}"


def _act(behaviour: Behaviour) -> None:
    if behaviour.name == "exit":
        raise SystemExit(int(behaviour.number))
    os.kill(os.getpid(), _SIGSTOP)


def _listen(path: str) -> _socket.socket:
    """A listening socket at *path*, in place of one that a killed process of this pid left."""
    _remove(path)
    listening = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    listening.bind(path)
    listening.listen(_BACKLOG)
    return listening


def _accepted(listening: _socket.socket, limit_s: float) -> _socket.socket:
    # What socket.accept calls; typeshed doesn't know it.
    descriptor: int = listening._accept()[0]  # type: ignore[attr-defined]  # noqa: SLF001
    connection = _socket.socket(fileno=descriptor)
    connection.settimeout(limit_s)
    return connection


def _read(connection: _socket.socket, size: int) -> bytes:
    """The next *size* bytes, fewer if there are no more, or not in time."""
    read = b""
    try:
        while len(read) < size and (piece := connection.recv(size - len(read))):
            read += piece
    except OSError:
        pass
    return read


def _send(connection: _socket.socket, reply: bytes) -> None:
    """Send what its peer will take: one that has gone, or doesn't read, is no harm to others."""
    connection.settimeout(_SEND_S)
    try:  # noqa: SIM105 - contextlib is heavy
        connection.sendall(reply)
    except OSError:
        pass


def _remove(path: str) -> None:
    try:
        os.unlink(path)  # noqa: PTH108 - light
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
