# Wires: clients' sockets that the core reads and writes itself, without a transport.
#
# How it works: one epoll descriptor holds all listening and connected sockets of a worker. The event loop watches that
# descriptor as any file; when it is readable, turn() accepts, reads and handles whatever is ready, in C, until nothing
# is or the turn has had its share. It works in steps, as the same code runs faster many times in a row than in turn with other
# code: first many sockets are read, one after the other into one buffer; then httptools judges all requests there in
# one go; then they are handled. What is not plain (Connection.whole_run) is handled as if it had come alone.
#
# A socket is reported on its edges only, so each is read until it has no more; one that has to wait (no room, or its
# client does not read) is armed again later. A socket joins the descriptor when a first read found that its client will
# send more: one whose first request says `Connection: close` never does.
#
# All protocol logic is Connection's. Not supported: TLS, which needs a transport (carrier.pxi).

cdef extern from "<sys/epoll.h>" nogil:
    enum:
        EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL, EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLET
    ctypedef union epoll_data_t:
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int poller, int operation, int fd, epoll_event* event)
    int epoll_wait(int poller, epoll_event* events, int count, int timeout)

cdef extern from "<sys/socket.h>" nogil:
    enum: SOCK_NONBLOCK, SOCK_CLOEXEC, MSG_NOSIGNAL, SHUT_WR
    ctypedef unsigned int socklen_t
    struct sockaddr:
        unsigned short sa_family
    struct sockaddr_storage:
        unsigned short ss_family
    int accept4(int fd, sockaddr* address, socklen_t* length, int flags)
    int setsockopt(int fd, int level, int name, const void* value, socklen_t length)
    int shutdown(int fd, int how)
    ssize_t recv(int fd, void* buffer, size_t length, int flags)
    ssize_t send(int fd, const void* data, size_t length, int flags)

cdef extern from "<netinet/in.h>" nogil:
    enum: IPPROTO_TCP
    struct sockaddr_in:
        int sin_addr                # only their addresses are taken
    struct sockaddr_in6:
        int sin6_addr

cdef extern from "<netinet/tcp.h>" nogil:
    enum: TCP_NODELAY

cdef extern from "<unistd.h>" nogil:
    int sys_close "close"(int fd)

cdef extern from "<errno.h>" nogil:
    int errno
    enum: EAGAIN, EEXIST, EMFILE, ENFILE, ENOBUFS, ENOMEM

cdef enum:
    EVENTS = 128                    # of one epoll_wait
    TURN_WAITS = 16                 # a turn ends after so many epoll_waits, or so many bytes: commits, timeouts and
    TURN_BYTES = 524288             # everything else of the loop get their turn whatever clients send
    ACCEPTS = 64                    # of one listener before others get their turn
    READ_BYTES = 65536
    BUFFER_BYTES = 262144           # of what is read before it is handled
    READS = 4                       # of one socket before others get their turn
    PIECES = 64                     # reads that are handled together
    RUNS = 128                      # requests in them that are judged in one go
    DROPS = 64                      # small reads of what is dropped at the end

cdef uint64_t LISTENER = 1ull << 32     # marks a listener's events


cdef struct Piece:                  # what one socket has given
    PyObject* wire
    const byte* at
    Py_ssize_t len
    Request* run                    # its requests, if it is plain
    int count                       # 0: it is not
    bint more                       # there may be more to read


@cython.final
@cython.auto_pickle(False)
cdef class _Wire(_Link):
    # One client's socket. Wires.table owns it until it is closed.

    cdef Wires wires
    cdef Connection connection
    cdef int fd                     # -1: closed
    cdef bint watched               # it is in the epoll descriptor
    cdef bint blocked               # the kernel has not taken all output: nothing is read until it has
    cdef bint eof                   # the client sends no more
    cdef bint lingering             # only the client's end is waited for

    cdef Py_ssize_t read(self, byte* buffer) except -1:
        # The bytes that came, at most READ_BYTES; 0: none, now or for ever.
        cdef ssize_t got
        if self.fd < 0 or self.eof or self.blocked or self.connection.stalled:
            return 0
        got = recv(self.fd, buffer, READ_BYTES, 0)
        if got > 0:
            return got
        if got == 0:
            self.on_eof()
        elif errno == EAGAIN:
            self.watch()
        else:
            self.close()
        return 0

    cdef int read_on(self) except -1:
        # What there is beyond a first read, without what others have to say; the end of the stream is part of it.
        cdef Py_ssize_t got
        cdef int i
        for i in range(READS):
            if self.wires.taken >= TURN_BYTES:
                break
            got = self.read(self.wires.buffer)
            if got == 0:
                return 0
            self.wires.taken += got
            self.connection.take(self.wires.buffer, got)
            self.flush()
        return self.arm()

    cdef int take(self, const Piece* piece) except -1:
        if piece.count:
            self.connection.take_run(piece.at, piece.len, piece.run, piece.count)
        else:
            self.connection.take(piece.at, piece.len)
        self.flush()
        return self.watch()

    cdef int on_eof(self) except -1:
        # A client may end its side and wait for the answers.
        self.eof = True
        self.connection.end()
        return self.flush()

    cdef int watch(self) except -1:
        # More may come, unless this was the last request.
        if self.watched or self.fd < 0 or (self.connection.state == CONN_DISCARD and not self.lingering):
            return 0
        return self.arm()

    cdef int arm(self) except -1:
        # Asks for edges; what is ready already is reported at once.
        cdef epoll_event event
        cdef int operation = EPOLL_CTL_MOD if self.watched else EPOLL_CTL_ADD
        if self.fd < 0:
            return 0
        event.events = <uint32_t>EPOLLIN | <uint32_t>EPOLLOUT | <uint32_t>EPOLLRDHUP | <uint32_t>EPOLLET
        event.data.u64 = <uint64_t>self.fd
        if epoll_ctl(self.wires.poller, operation, self.fd, &event) != 0:
            self.wires.intake.bump(C_CONNECTIONS_REFUSED)
            return self.close()         # the kernel has no memory for it; nothing would ever tell of this socket
        self.watched = True
        return 0

    cdef int flush(self) except -1:
        cdef Pack* out = &self.connection.out
        while out.len and not self.blocked and self.fd >= 0:
            self.write(out)
            self.connection.go_on()
        if out.len == 0 and self.connection.closing and self.fd >= 0:
            self.finish()
        return 0

    cdef int write(self, Pack* out) except -1:
        cdef ssize_t count = send(self.fd, out.data, <size_t>out.len, MSG_NOSIGNAL)
        if count < 0 and errno != EAGAIN:
            return self.close()
        self.connection.sent(count if count > 0 else 0)
        if out.len:
            self.blocked = True
            if not self.watched:
                self.arm()
        return 0

    cdef int finish(self) except -1:
        # The last answer is with the kernel.
        if self.connection.lingers and not self.eof:
            if not self.lingering:
                self.lingering = True
                shutdown(self.fd, SHUT_WR)
                self.arm()          # what comes is read and dropped, or it would destroy the answer after all
            return 0
        self.drop_rest()
        return self.close()

    cdef void drop_rest(self) noexcept nogil:
        # What came after the last request: unread, it would make the kernel reset the connection, answers included.
        cdef byte rest[4096]
        cdef int i
        for i in range(DROPS):
            if recv(self.fd, rest, sizeof(rest), 0) <= 0:
                return

    cdef int resume(self) except -1:
        # Bytes may have come while nothing was read.
        self.flush()
        return self.arm()

    cdef int expire(self, double header, double body, double idle, double linger) except -1:
        if self.connection.expire(header, body, idle, linger):
            return self.close()
        return self.flush()

    cdef int drain(self, bint patient) except -1:
        if not self.lingering and self.connection.is_idle(patient):
            return self.close()
        return 0

    cdef int close(self) except -1:
        if self.fd < 0:
            return 0
        sys_close(self.fd)
        self.wires.forget(self.fd)
        self.fd = -1
        self.wires.intake.leave(self.connection.ip)
        self.connection.lose()
        return 0


@cython.final
@cython.auto_pickle(False)
cdef class Wires:
    """All plain sockets of a worker. The event loop is to call turn() when fileno() is readable."""

    cdef Intake intake
    cdef int poller
    cdef byte* buffer               # what was just read; nothing keeps a pointer into it
    cdef Py_ssize_t used            # of the buffer
    cdef Py_ssize_t taken           # bytes in this turn
    cdef Piece pieces[PIECES]
    cdef int piece_count
    cdef Request runs[RUNS]
    cdef object error               # the first one of a turn
    cdef PyObject** table           # by file descriptor: a _Wire that is owned here, or NULL
    cdef int capacity
    cdef int count
    cdef list listeners
    cdef readonly bint starved      # no descriptor or memory for another connection: the listeners rest

    def __cinit__(self, Intake intake):
        self.intake = intake
        self.listeners = []
        self.buffer = <byte*>malloc(BUFFER_BYTES)
        self.poller = epoll_create1(EPOLL_CLOEXEC)
        if self.buffer is NULL or self.poller < 0:
            raise OSError(errno, "epoll_create1")

    def __dealloc__(self):
        if self.poller >= 0:
            sys_close(self.poller)
        free(self.buffer)
        free(self.table)

    def __len__(self):
        return self.count

    def fileno(self):
        """The epoll descriptor."""
        return self.poller

    def listen(self, int fd):
        """Accepts from this listening, non-blocking socket, TCP or unix, from now on; the caller keeps it open."""
        cdef int on = 1
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on))   # inherited by what it accepts; no-op on a unix one
        if self._hear(fd, EPOLL_CTL_ADD) != 0:
            raise OSError(errno, f"epoll_ctl on the listening socket {fd}")
        self.listeners.append(fd)

    def ignore(self):
        """Accepts no more."""
        for fd in self.listeners:
            self._hear(fd, EPOLL_CTL_DEL)      # fails while starved: then it is not there
        self.listeners.clear()

    cdef int _hear(self, int fd, int operation) noexcept:
        # 0, or errno says why not. Level-triggered: what ACCEPTS leaves waiting is reported again.
        cdef epoll_event event
        event.events = EPOLLIN
        event.data.u64 = <uint64_t>fd | LISTENER
        return epoll_ctl(self.poller, operation, fd, &event)

    def turn(self):
        """Does what is ready: accepts, reads, handles, sends; until nothing is, or it was enough for one turn."""
        cdef epoll_event events[EVENTS]
        cdef int count = 1, waits = 0, i
        self.error = None
        self.taken = 0
        while count and waits < TURN_WAITS and self.taken < TURN_BYTES:
            waits += 1
            count = max(epoll_wait(self.poller, events, EVENTS, 0), 0)
            for i in range(count):
                try:
                    self._ready(events[i].data.u64, events[i].events)
                except Exception as raised:     # edges are reported once: the other sockets must not miss theirs
                    self.error = self.error or raised
            self._serve()
        if self.error is not None:
            raise self.error

    cdef int _ready(self, uint64_t what, uint32_t events) except -1:
        cdef int fd = <int>(what & ~LISTENER)
        if what & LISTENER:
            return self._accept(fd)
        if self.table[fd] is NULL:      # closed a moment ago
            return 0
        return self._read(<_Wire>self.table[fd], events)

    cdef int _read(self, _Wire wire, uint32_t events) except -1:
        # It can be read or written again, or has failed; send and recv tell.
        cdef Py_ssize_t got = 0
        try:
            if wire.blocked and events & ~(<uint32_t>EPOLLIN | <uint32_t>EPOLLRDHUP):
                wire.blocked = False
                wire.flush()
            if self.taken >= TURN_BYTES:    # it is reported again
                return wire.arm()
            got = wire.read(self.buffer + self.used)
        except Exception as raised:
            self._blame(wire, raised)
        # The end of a stream has no edge of its own if it was there with the last bytes.
        return self._add_piece(wire, got, got == READ_BYTES or events & ~(<uint32_t>EPOLLIN | <uint32_t>EPOLLOUT))

    cdef int _add_piece(self, _Wire wire, Py_ssize_t got, bint more) except -1:
        cdef Piece* piece = &self.pieces[self.piece_count]
        if got == 0:
            return 0
        Py_INCREF(wire)
        piece.wire = <PyObject*>wire
        piece.at = self.buffer + self.used
        piece.len = got
        piece.more = more
        self.used += got
        self.taken += got
        self.piece_count += 1
        if self.piece_count == PIECES or self.used + READ_BYTES > BUFFER_BYTES:
            self._serve()
        return 0

    cdef int _serve(self) except -1:
        # Handles what was read.
        cdef int i, count = self.piece_count
        cdef _Wire wire
        try:
            self._judge()
        except Exception as raised:
            self.error = self.error or raised
            for i in range(count):
                self.pieces[i].count = 0
        for i in range(count):
            wire = <_Wire>self.pieces[i].wire
            try:
                wire.take(&self.pieces[i])
            except Exception as raised:
                self._blame(wire, raised)
        self.used = self.piece_count = 0
        for i in range(count):
            wire = <_Wire>self.pieces[i].wire
            Py_DECREF(wire)
            if self.pieces[i].more:
                try:
                    wire.read_on()
                except Exception as raised:
                    self._blame(wire, raised)
        return 0

    cdef int _judge(self) except -1:
        # Neighbours that are plain are one piece of text for httptools. A verdict against it is one against none of
        # them in particular: each is then judged alone.
        cdef int i, first = 0, runs = 0
        for i in range(self.piece_count):
            self._survey(&self.pieces[i], &runs)
            if self.pieces[i].count == 0:
                self._judge_run(first, i)
                first = i + 1
        return self._judge_run(first, self.piece_count)

    cdef int _survey(self, Piece* piece, int* runs) except -1:
        piece.run = &self.runs[runs[0]]
        piece.count = (<_Wire>piece.wire).connection.whole_run(piece.at, piece.len, piece.run, RUNS - runs[0])
        runs[0] += piece.count
        return 0

    cdef int _judge_run(self, int first, int end) except -1:
        cdef Py_ssize_t length = 0
        cdef int i, count = 0
        for i in range(first, end):
            length += self.pieces[i].len
            count += self.pieces[i].count
        if count and not self.intake.judge(self.intake.window.over(self.pieces[first].at, length), count):
            for i in range(first, end):
                self.pieces[i].count = 0
        return 0

    cdef int _blame(self, _Wire wire, error) except -1:
        # A defect costs the connection that shows it; the other ones go on, and turn() raises at its end.
        self.error = self.error or error
        return wire.close()

    cdef int _accept(self, int listener) except -1:
        cdef sockaddr_storage address
        cdef socklen_t length
        cdef int fd, i
        for i in range(ACCEPTS):
            length = sizeof(address)
            fd = accept4(listener, <sockaddr*>&address, &length, SOCK_NONBLOCK | SOCK_CLOEXEC)
            if fd >= 0:
                self._add(fd, &address)
            elif errno == EAGAIN:
                return 0
            elif errno == EMFILE or errno == ENFILE or errno == ENOBUFS or errno == ENOMEM:
                return self._starve()
        return 0                        # any other error is that of one connection (accept(2))

    cdef int _starve(self) except -1:
        # Out of descriptors or memory: asking again and again would be all that is done. expire() tries it again.
        for fd in self.listeners:
            self._hear(fd, EPOLL_CTL_DEL)
        self.starved = True
        return 0

    cdef int _recover(self) except -1:
        for fd in self.listeners:
            if self._hear(fd, EPOLL_CTL_ADD) != 0 and errno != EEXIST:
                return 0
        self.starved = False
        return 0

    cdef int _add(self, int fd, const sockaddr_storage* address) except -1:
        cdef char text[INET6_ADDRSTRLEN]
        cdef _Wire wire
        wir_address(address, text)
        if not self._room(fd) or not self.intake.admit(text):
            sys_close(fd)
            return 0
        try:
            wire = self._wire(fd, text)
        except BaseException:
            sys_close(fd)
            self.intake.leave(text)
            raise
        Py_INCREF(wire)
        self.table[fd] = <PyObject*>wire
        self.count += 1
        return self._read(wire, EPOLLIN)    # the request is often here already

    cdef _Wire _wire(self, int fd, bytes ip):
        cdef _Wire wire = _Wire.__new__(_Wire)
        wire.wires = self
        wire.fd = fd
        wire.connection = Connection.__new__(Connection, self.intake, ip.decode())
        wire.connection.carrier = wire
        return wire

    cdef bint _room(self, int fd) noexcept:
        # Makes the table long enough for the descriptor. False: there is no memory.
        cdef PyObject** table
        cdef int capacity = max(self.capacity, 1024)
        while capacity <= fd:
            capacity *= 2
        if capacity == self.capacity:
            return True
        table = <PyObject**>realloc(self.table, <size_t>capacity * sizeof(PyObject*))
        if table is NULL:
            return False
        memset(table + self.capacity, 0, <size_t>(capacity - self.capacity) * sizeof(PyObject*))
        self.table = table
        self.capacity = capacity
        return True

    cdef int forget(self, int fd) except -1:
        cdef _Wire wire = <_Wire>self.table[fd]
        self.table[fd] = NULL
        self.count -= 1
        Py_DECREF(wire)
        return 0

    cdef list _open(self):
        return [<_Wire>self.table[fd] for fd in range(self.capacity) if self.table[fd] is not NULL]

    def expire(self, double header, double body, double idle, double linger):
        """Closes connections that have done one thing for too long (limits in seconds)."""
        cdef _Wire wire
        for wire in self._open():
            wire.expire(header, body, idle, linger)
        if self.starved:
            self._recover()

    def drain(self, bint patient):
        """Closes connections that are between requests. `patient`: not those whose first one has not come yet."""
        cdef _Wire wire
        for wire in self._open():
            wire.drain(patient)

    def abort(self):
        """Closes all connections, whatever they do."""
        cdef _Wire wire
        for wire in self._open():
            wire.close()


cdef void wir_address(const sockaddr_storage* address, char* text) noexcept nogil:
    # The peer's address as text; empty on a unix socket.
    text[0] = 0
    if address.ss_family == AF_INET:
        inet_ntop(AF_INET, &(<sockaddr_in*>address).sin_addr, text, INET6_ADDRSTRLEN)
    elif address.ss_family == AF_INET6:
        inet_ntop(AF_INET6, &(<sockaddr_in6*>address).sin6_addr, text, INET6_ADDRSTRLEN)
