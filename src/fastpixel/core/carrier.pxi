# Carriers move bytes between the network and a Connection, and do nothing else. Here: what a Connection knows of any
# (_Link), and the one on a uvloop (or any asyncio) transport, for TLS. The other one is wire.pxi.


@cython.auto_pickle(False)
cdef class _Link:
    # What a Connection knows of the carrier under it.

    cdef int flush(self) except -1:
        # Sends what the connection has, and closes if that was the last.
        raise NotImplementedError

    cdef int resume(self) except -1:
        # The connection may go on reading.
        raise NotImplementedError


@cython.final
@cython.auto_pickle(False)
cdef class Carrier(_Link):
    """An asyncio protocol around one Connection. `carriers`: the worker's set of open ones."""

    cdef Intake intake
    cdef set carriers
    cdef Connection connection
    cdef object transport
    cdef bint writing_paused
    cdef bint reading_paused
    cdef bint ended
    cdef object __weakref__

    def __init__(self, Intake intake, set carriers):
        self.intake = intake
        self.carriers = carriers

    def connection_made(self, transport):
        peer = transport.get_extra_info("peername")
        ip = peer[0] if peer and isinstance(peer, tuple) else ""
        if not self.intake.admit(ip.encode()):
            transport.abort()
            return
        self.transport = transport
        self.connection = Connection(self.intake, ip)
        self.connection.secure = transport.get_extra_info("sslcontext") is not None
        self.connection.carrier = self
        self.carriers.add(self)

    def data_received(self, bytes data):
        if self.transport is not None:
            self.connection.feed(data)
            self.flush()

    def eof_received(self):
        # A client may end its side and wait for the answers: True keeps ours open.
        if self.transport is None or self.ended:
            return False
        self.connection.end()
        self.flush()
        return True

    def connection_lost(self, exc):
        if self.connection is not None:
            self.carriers.discard(self)
            self.intake.leave(self.connection.ip)
            self.connection.lose()
        self.transport = None

    def pause_writing(self):
        # The client does not read: nothing more is read from it.
        self.writing_paused = True
        self.pace()

    def resume_writing(self):
        self.writing_paused = False
        if self.transport is not None:
            self.connection.go_on()
            self.flush()

    cdef int flush(self) except -1:
        cdef bytes data
        if self.transport is None or self.ended:
            return 0
        data = self.connection.output()
        while data and self.transport is not None and not self.ended:
            self.transport.write(data)
            if self.writing_paused:
                break
            self.connection.go_on()
            data = self.connection.output()
        if self.transport is None or self.ended:
            return 0
        if self.connection.closing:
            self.close()
        else:
            self.pace()
        return 0

    cdef int resume(self) except -1:
        return self.flush()

    cdef int pace(self) except -1:
        cdef bint pause = self.writing_paused or self.connection.stalled
        if pause == self.reading_paused or self.transport is None or self.ended:
            return 0
        self.reading_paused = pause
        if pause:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()
        return 0

    cdef int close(self) except -1:
        self.ended = True
        if self.connection.lingers and self.transport.can_write_eof():
            self.transport.write_eof()
            if self.reading_paused:     # what comes is read and dropped, or it would destroy the answer after all
                self.transport.resume_reading()
        else:
            self.transport.close()
        return 0

    def expire(self, double header, double body, double idle, double linger):
        """Closes the connection if what it does lasts too long (seconds)."""
        if self.transport is None:
            return
        if self.connection.expire(header, body, idle, linger):
            self.transport.abort()
        else:
            self.flush()

    def drain(self, bint patient):
        """Closes the connection if it is between requests. `patient`: not if its first one has not come yet."""
        if self.transport is not None and not self.ended and self.connection.is_idle(patient):
            self.close()

    def abort(self):
        """Closes the connection whatever it does."""
        if self.transport is not None:
            self.transport.abort()
