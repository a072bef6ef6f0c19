# The Intake: what the connections of one worker share. Plan, limits, counters, and the batch that fills.
#
# How it works: a stored event is appended to the filling Batch, and its answer waits in its connection. The server
# takes the batch, commits it, and says done(): only then are the answers rendered. Commit, then reply, is this file's
# one rule. What is refused is answered at once, unless an earlier answer of its connection still waits.
#
# An Intake knows no socket, no disk and no event loop: it is given `on_pending`, which it calls when an empty batch gets
# its first record or reject.


cdef class Call


cdef enum:
    SPARE_BATCHES = 2               # one is stored while the other fills
    USUAL_BATCH = 1048576           # bytes; the memory of larger batches is given back


@cython.final
cdef class _Window:
    # Bytes that httptools is to see, without a copy. It looks at them during the call only.

    cdef const byte* at
    cdef Py_ssize_t length

    cdef _Window over(self, const byte* at, Py_ssize_t length):
        self.at = at
        self.length = length
        return self

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        PyBuffer_FillInfo(buffer, self, <void*>self.at, self.length, True, flags)


@cython.final
cdef class Batch:
    """Records and rejects since the last commit, and the connections that wait for them."""

    cdef Pack event_pack
    cdef Pack reject_pack
    cdef list waiting
    cdef readonly unsigned long long number
    cdef readonly int event_count
    cdef readonly int reject_count
    cdef readonly long long min_received_ns
    cdef readonly long long max_received_ns
    cdef int by_protocol[64]
    cdef int views                  # memoryviews of it

    def __cinit__(self):
        self.waiting = []

    cdef int begin(self, unsigned long long number) except -1:
        # Empty, with the memory that an earlier batch needed: allocating it anew costs more than filling it.
        self.number = number
        self.event_count = self.reject_count = 0
        self.event_pack.len = self.reject_pack.len = 0
        self.event_pack.failed = self.reject_pack.failed = False
        memset(self.by_protocol, 0, sizeof(self.by_protocol))
        return 0

    def view(self):
        """`events` without a copy. Release it before the batch is done: its memory is used again."""
        return memoryview(self)

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.event_pack.data, self.event_pack.len, True, flags)
        self.views += 1

    def __releasebuffer__(self, Py_buffer* buffer):
        self.views -= 1

    def __dealloc__(self):
        pk_free(&self.event_pack)
        pk_free(&self.reject_pack)

    @property
    def events(self):
        """The records, concatenated msgpack maps."""
        return self.event_pack.data[:self.event_pack.len]

    @property
    def rejects(self):
        """The rejects, concatenated msgpack maps."""
        return self.reject_pack.data[:self.reject_pack.len]

    cdef bint is_empty(self) noexcept nogil:
        return self.event_count == 0 and self.reject_count == 0

    cdef Py_ssize_t size(self) noexcept nogil:
        return self.event_pack.len + self.reject_pack.len

    cdef void saw(self, Time received) noexcept nogil:
        cdef long long ns = received.seconds * 1000000000 + received.nanos
        if self.is_empty() or ns < self.min_received_ns:
            self.min_received_ns = ns
        if self.is_empty() or ns > self.max_received_ns:
            self.max_received_ns = ns


@cython.final
cdef class Intake:
    """Shared state of a worker's connections.

    `now`: gives ns since the epoch; default: the system's clock. `page`: writable memory of PAGE_WORDS 64-bit words for
    the counters; `cells`: of 8 bytes for each source with a rate limit, None: limits hold for this Intake alone. Limits
    are in bytes; `rejects_per_second` bounds those that cannot be retried. `replaying`: rejects come again, which rate
    limits have counted before.
    """

    cdef readonly Plan plan
    cdef Replies replies
    cdef Batch filling
    cdef list used                  # batches that are done, to be filled again
    cdef object now
    cdef public object on_pending
    cdef Proxies proxies
    cdef object memory              # keeps the page alive
    cdef uint64_t* counters
    cdef Py_ssize_t max_request_line
    cdef Py_ssize_t max_header_bytes
    cdef Py_ssize_t max_body_bytes
    cdef Py_ssize_t max_inflight_bytes
    cdef int64_t max_connections
    cdef int max_per_ip             # connections; 0: no limit
    cdef dict per_ip
    cdef int rejects_per_second
    cdef int64_t reject_second
    cdef int reject_count           # kept in that second
    cdef Py_ssize_t reserved        # bytes of bodies that are being read
    cdef Py_ssize_t committing      # bytes of batches that were taken and are not done
    cdef bint unstalling
    cdef object defect              # the first exception of a connection that was let through
    cdef list stalled               # connections that wait until there is room again
    cdef _Window window             # what a parser of ours is given to see
    cdef Pack spare                 # an output buffer that no connection has
    cdef object referee             # an HttpRequestParser that judges heads without a body
    cdef Call desk                  # the Python tier's view of the request being handled
    cdef object cells_memory        # keeps the rate limits' page alive
    cdef readonly bint replaying    # rejects are given to it again
    cdef int ended                  # messages that a parser of ours has seen end
    cdef readonly double tick       # seconds, monotonic; as of the last sweep
    cdef bint draining

    def __init__(
        self, Plan plan, *, now=None, page=None, trusted_proxies=(), max_request_line=16384, max_header_bytes=32768,
        max_body_bytes=4000 * 1024, max_inflight_bytes=64 * 1024 * 1024, max_connections=10000,
        max_connections_per_ip=0, rejects_per_second=20, on_pending=None, cells=None, replaying=False,
    ):
        self.plan = plan
        self.replies = plan.replies
        self.desk = Call()
        self.now = now
        self.replaying = replaying
        if replaying:
            plan.use_cells(None)
        elif cells is not None:
            self.cells_memory = memoryview(cells)
            plan.use_cells(self.cells_memory)
        self.on_pending = on_pending
        self.proxies = Proxies(trusted_proxies)
        self.max_request_line = max_request_line
        self.max_header_bytes = max_header_bytes
        self.max_body_bytes = max_body_bytes
        self.max_inflight_bytes = max_inflight_bytes
        self.max_connections = max_connections
        self.max_per_ip = max_connections_per_ip
        self.per_ip = {}
        self.rejects_per_second = rejects_per_second
        self.used = []
        self.filling = self._batch(1)
        self.stalled = []
        self.window = _Window()
        self.referee = HttpRequestParser(self)
        self._use_page(page if page is not None else bytearray(8 * <int>PAGE_WORDS))
        if page is None:                # of a shared page the supervisor sets it, before the worker starts
            self.counters[<int>C_REJECT_BUDGET] = 1 << 62
        self.counters[<int>C_STORABLE] = 1
        self.counters[<int>C_CONNECTIONS] = 0

    def __dealloc__(self):
        pk_free(&self.spare)

    cdef int _use_page(self, page) except -1:
        cdef unsigned char[::1] view = memoryview(page).cast("B")
        if view.shape[0] < 8 * PAGE_WORDS:
            raise ValueError(f"page: {8 * <int>PAGE_WORDS} bytes are needed")
        self.memory = view
        self.counters = <uint64_t*>&view[0]
        return 0

    def on_message_complete(self):
        # httptools' callback, of the referee and of the parsers for bodies.
        self.ended += 1

    def connection(self, str ip=""):
        """A new Connection of a peer with that address; empty: none, as on a unix socket."""
        return Connection(self, ip)

    cdef inline void bump(self, int counter, int64_t by=1) noexcept nogil:
        self.counters[counter] += <uint64_t>by

    def set_state(self, int state, long long now_ms):
        """Says to the shared page what the worker does: an index of fastpixel.metrics.STATES."""
        self.counters[<int>C_STATE] = <uint64_t>state
        self.counters[<int>C_HEARTBEAT_MS] = <uint64_t>now_ms

    def set_storable(self, bint storable):
        """Says to the shared page whether the next commit is expected to succeed."""
        self.counters[<int>C_STORABLE] = storable

    def beat(self, long long now_ms):
        """Says to the shared page that the loop turns (Unix time in milliseconds)."""
        self.counters[<int>C_HEARTBEAT_MS] = <uint64_t>now_ms
        self.counters[<int>C_INFLIGHT_BYTES] = <uint64_t>(self.reserved + self.committing + self.filling.size())

    cdef bint admit(self, bytes ip) except -1:
        # Whether one more connection of that address may be.
        if self.counters[<int>C_CONNECTIONS] >= <uint64_t>self.max_connections:
            self.bump(C_CONNECTIONS_REFUSED)
            return False
        if self.max_per_ip == 0 or not ip:      # on a unix socket the peer is a proxy, and has no address
            return True
        if self.per_ip.get(ip, 0) >= self.max_per_ip:
            self.bump(C_CONNECTIONS_REFUSED)
            return False
        self.per_ip[ip] = self.per_ip.get(ip, 0) + 1
        return True

    cdef int leave(self, bytes ip) except -1:
        if self.max_per_ip and ip:
            self.per_ip[ip] -= 1
            if self.per_ip[ip] == 0:
                del self.per_ip[ip]
        return 0

    def sweep(self, double tick):
        """Sets the coarse clock (seconds, monotonic) that timeouts are measured with."""
        self.tick = tick

    def drain(self):
        """From now on every answer says Connection: close."""
        self.draining = True

    @property
    def pending(self):
        """How many records and rejects the filling Batch has."""
        return self.filling.event_count + self.filling.reject_count

    def take(self):
        """The filling Batch, which is then replaced by an empty one; None if it is empty."""
        cdef Batch batch = self.filling
        if batch.is_empty():
            return None
        self.filling = self._batch(batch.number + 1)
        self.committing += batch.size()
        return batch

    cdef Batch _batch(self, unsigned long long number):
        cdef Batch batch = self.used.pop() if self.used else Batch.__new__(Batch)
        batch.begin(number)
        return batch

    def done(self, Batch batch, bint stored, long long nanos=0):
        """Releases the answers that wait for the batch: stored, or 503 with reason spool_full. `nanos`: of the commit."""
        cdef Connection connection
        error = None
        self.committing -= batch.size()
        self._measure(batch, stored, nanos)
        # Commit, then reply: nothing before this line has shown a client that its event is stored.
        for connection in batch.waiting:
            try:
                connection.release(batch.number, not stored)
            except Exception as raised:     # a defect costs the connection that shows it, and no other one
                error = error or raised
                connection.fail()
        batch.waiting = []
        if batch.views == 0 and batch.size() <= USUAL_BATCH and len(self.used) < SPARE_BATCHES:
            self.used.append(batch)
        self.unstall()
        error, self.defect = error or self.defect, None
        if error is not None:
            raise error

    cdef void _measure(self, Batch batch, bint stored, long long nanos) noexcept:
        cdef int i
        self.counters[<int>C_STORABLE] = stored
        if not stored:
            self.bump(C_COMMIT_FAILURES)
            self.bump(PAGE_REASONS + R_SPOOL_FULL, batch.event_count)
            return
        self.bump(C_COMMITS)
        self.bump(C_COMMIT_NANOS, nanos)
        self.bump(C_EVENT_BYTES, batch.event_pack.len)
        self.bump(C_REJECT_BYTES, batch.reject_pack.len)
        self.bump(C_REJECTS_KEPT, batch.reject_count)
        self.bump(PAGE_COMMIT_TIMES + bucket_of(nanos // 1000))
        self.bump(PAGE_BATCH_SIZES + bucket_of(batch.event_count))
        for i in range(64):
            self.bump(PAGE_PROTOCOLS + i, batch.by_protocol[i])

    cdef bint is_full(self) noexcept:
        # The high-water mark: above it no new request is begun.
        return self.reserved + self.committing + self.filling.size() > self.max_inflight_bytes

    cdef bint reserve(self, Py_ssize_t count) noexcept:
        # Room for a body; a single one always gets it. Large ones have half of it: else a few clients that announce
        # bodies and do not send them would leave no room for anybody's pixel until body_timeout.
        cdef Py_ssize_t limit = self.max_inflight_bytes if count <= SMALL_BODY else self.max_inflight_bytes // 2
        if self.reserved and self.reserved + self.committing + self.filling.size() + count > limit:
            return False
        self.reserved += count
        return True

    cdef int unreserve(self, Py_ssize_t count) except -1:
        self.reserved -= count
        self.unstall()
        return 0

    cdef int unstall(self) except -1:
        # Passes over those that wait until a pass lets nobody through. What it lets through may end here again. A defect
        # that one of them shows is done()'s to raise: whoever made the room has nothing to do with it.
        cdef Py_ssize_t before = len(self.stalled) + 1
        if self.unstalling:
            return 0
        self.unstalling = True
        try:
            while 0 < len(self.stalled) < before and not self.is_full():
                before = len(self.stalled)
                self.let_through()
        finally:
            self.unstalling = False
        return 0

    cdef int let_through(self) except -1:
        cdef Connection connection
        stalled, self.stalled = self.stalled, []
        for connection in stalled:
            connection.stalled = False
            try:
                connection.resume()
            except Exception as raised:
                self.defect = self.defect or raised
                connection.fail()
        return 0

    cdef Time clock(self):
        return clock_now() if self.now is None else time_of(self.now())

    cdef bint judge(self, data, int count) except -1:
        # httptools' verdict on heads without bodies: that they are `count` messages. One parser serves all connections:
        # it gets whole messages only, and is replaced when it is in a state that the next message would not expect.
        self.ended = 0
        try:
            self.referee.feed_data(data)
        except HttpParserError:
            self.ended = -1
        if self.ended != count:
            self.referee = HttpRequestParser(self)
        return self.ended == count

    # --- one request --------------------------------------------------------------------------------------------------

    cdef int handle(self, Connection connection, Request* request) except -1:
        # A whole request, syntax checked: to an answer.
        cdef Match match
        cdef char text[INET6_ADDRSTRLEN]
        cdef bint first = self.filling.is_empty()
        self.bump(C_REQUESTS)
        self.arrive(connection, request, text)
        match = plan_match(&self.plan.data, &self.plan.rec, request)
        if request.method == M_OPTIONS and request.headers[H_REQUEST_METHOD].len:
            return self.preflight(connection, request, match.methods)
        if match.route is NULL:
            return self.no_route(connection, request, match)
        try:
            if match.route.python:
                return self.call(connection, request, match.route)
            return self.event(connection, request, match.route)
        finally:                        # whatever was raised: what is in the batch has to be committed
            self.pend(first)

    cdef int arrive(self, Connection connection, Request* request, char* text) except -1:
        # When it came and from whom; `text` has room for an address.
        request.received = self.clock()
        self.replies.set_date(request.received.seconds)
        if connection.peer_trusted:
            request.ip_len = self.proxies.client(request, text)
            request.ip = <const byte*>text
        request.secure = connection.secure or (
            connection.peer_trusted and head_is(request, H_FORWARDED_PROTO, b"https")
        )
        if request.ip_len == 0:
            request.ip = connection.ip
            request.ip_len = len(connection.ip)
        return 0

    cdef int refused(self, Connection connection, Request* request, int reason) except -1:
        # What was refused before it was a whole request: counted, and kept if it was going to be an event.
        cdef Match match
        cdef char text[INET6_ADDRSTRLEN]
        cdef bint first = self.filling.is_empty()
        self.bump(PAGE_REASONS + reason)
        if request is NULL:
            self.replies.set_date(self.clock().seconds)
            return 0
        self.arrive(connection, request, text)
        match = plan_match(&self.plan.data, &self.plan.rec, request)
        if match.route is not NULL:
            rec_begin(&self.plan.rec, &self.plan.data, match.route, request)
            self.desk.judged = False
            self.reject(request, match.route, reason)
            self.pend(first)
        return 0

    cdef int pend(self, bint first) except -1:
        # The filling batch has got its first member.
        if first and not self.filling.is_empty() and self.on_pending is not None:
            self.on_pending()
        return 0

    cdef int no_route(self, Connection connection, Request* request, Match match) except -1:
        cdef int reply
        if match.methods:
            self.bump(C_METHOD_NOT_ALLOWED)
            reply = self.plan.allowed(match.protocol, match.methods)
        elif head_path_is(request, b"/robots.txt") and (request.method == M_GET or request.method == M_HEAD):
            reply = self.replies.robots
        elif head_path_is(request, b"/robots.txt"):
            self.bump(C_METHOD_NOT_ALLOWED)
            reply = self.replies.robots_only
        else:
            self.bump(C_NOT_FOUND)
            reply = self.plan.not_found(request)
        return connection.answer(request, reply, NO_REASON)

    cdef int event(self, Connection connection, Request* request, const Route* route) except -1:
        cdef Batch batch = self.filling
        cdef int accept = head_accepts(request)
        cdef int reason
        reason = self.plan.take(route, request, &batch.event_pack)
        self.bump(C_SKIPPED_PAIRS, self.plan.rec.skipped)
        if reason != NO_REASON:
            self.bump(PAGE_REASONS + reason)
            if request.method != M_HEAD:        # which was never going to be an event
                self.reject(request, route, reason)
            connection.answer(request, route.replies[accept][outcome_of(reason)], reason)
        else:
            batch.saw(request.received)
            batch.event_count += 1
            batch.by_protocol[self.plan.rec.protocol & 63] += 1
            connection.answer_stored(
                request, route.replies[accept], self.plan.rec.visitor if self.plan.rec.issued else NULL, batch
            )
        return 0

    cdef int call(self, Connection connection, Request* request, const Route* route) except -1:
        # The Python tier: a handler makes the answer, and adds what is to be stored.
        cdef Call call = self.desk
        cdef int reason
        dialect, row = self.plan.routes[route.index]
        call.begin(self, request, route)
        try:
            reply = row.handler(call)
        finally:
            call.end()
        self.bump(C_SKIPPED_PAIRS, call.skipped_pairs)
        reason = call.verdict()
        if reason == NO_REASON and call.count:
            self.store_call(connection, call, reply, dialect.errors)
        else:
            if reason != NO_REASON and reason != R_PRIVACY:     # that is counted for each event
                self.bump(PAGE_REASONS + reason)
                if call.keep and request.method != M_HEAD:      # which was never going to be an event
                    self.reject(request, route, reason)
            if reason == R_RATE_LIMITED:
                reply = row.limited if call.otherwise is None else call.otherwise
            if isinstance(reply.body, str):
                connection.answer(request, self.replies.add(reply, dialect.errors), reason)
            else:
                connection.answer_made(request, reply, dialect.errors, reason, None, 0, None)
        return 0

    cdef int store_call(self, Connection connection, Call call, reply, dict errors) except -1:
        cdef Batch batch = self.filling
        cdef const int* replies = call.route.replies[0]
        cdef int numbers[OUTCOMES]
        cdef int i
        if not pk_room(&batch.event_pack, call.stage.len):
            batch.event_pack.failed = False
            self.bump(PAGE_REASONS + R_SPOOL_FULL)
            if call.otherwise is not None:
                return connection.answer_made(call.request, call.otherwise, errors, R_SPOOL_FULL, None, 0, None)
            return connection.answer(call.request, replies[<int>OUT_UNAVAILABLE], R_SPOOL_FULL)
        batch.saw(call.request.received)
        pk_raw(&batch.event_pack, call.stage.data, call.stage.len)
        batch.event_count += call.count
        for i in range(64):
            batch.by_protocol[i] += call.by_protocol[i]
        if isinstance(reply.body, str) and call.otherwise is None:
            numbers[<int>OUT_STORED] = self.replies.add(reply, errors)
            numbers[<int>OUT_UNAVAILABLE] = replies[<int>OUT_UNAVAILABLE]
            return connection.answer_stored(call.request, numbers, call.visitor if call.issued else NULL, batch)
        return connection.answer_made(
            call.request, reply, errors, NO_REASON, batch, replies[<int>OUT_UNAVAILABLE], call.otherwise
        )

    cdef int preflight(self, Connection connection, Request* request, int methods) except -1:
        self.bump(C_PREFLIGHTS)
        return connection.answer_preflight(request, methods)

    # --- rejects ------------------------------------------------------------------------------------------------------

    cdef int reject(self, Request* request, const Route* route, int reason) except -1:
        # Keeps what was refused, within the caps; what is not kept is counted.
        cdef Batch batch = self.filling
        cdef Py_ssize_t before = batch.reject_pack.len
        cdef Source policy = self.policy_of(route)[0]
        cdef bint retryable = R_UNKNOWN_KEY <= reason <= R_ORIGIN_NOT_ALLOWED or reason == R_RATE_LIMITED
        if reason == R_PRIVACY or (request.gpc and policy.gpc == GPC_DROP):
            return 0
        if self.counters[<int>C_REJECT_BUDGET] == 0 or not (retryable or self._may_keep(request.received.seconds)):
            self.bump(C_REJECTS_NOT_KEPT)
            return 0
        batch.saw(request.received)
        rej_pack(self, &batch.reject_pack, request, route, reason, retryable, &policy)
        batch.reject_count += 1
        before = batch.reject_pack.len - before
        if <uint64_t>before >= self.counters[<int>C_REJECT_BUDGET]:
            self.counters[<int>C_REJECT_BUDGET] = 0
        else:
            self.counters[<int>C_REJECT_BUDGET] -= <uint64_t>before
        return 0

    cdef const Source* policy_of(self, const Route* route) noexcept:
        # Whose privacy rules hold for a reject: those of every source that the request has named, or of all that there
        # are if it was refused before its key was read.
        if route.python and self.desk.judged:
            return &self.desk.policy
        if not route.python and self.plan.rec.key.len:
            return rec_policy(&self.plan.rec)
        return &self.plan.data.strictest

    cdef bint _may_keep(self, int64_t second) noexcept:
        if second != self.reject_second:
            self.reject_second = second
            self.reject_count = 0
        self.reject_count += 1
        return self.reject_count <= self.rejects_per_second


cdef int outcome_of(int reason) noexcept nogil:
    # What a refused pixel is answered as; HEAD gets the head of a stored one.
    if reason == R_HEAD:
        return OUT_STORED
    return OUT_LIMITED if reason == R_RATE_LIMITED else OUT_REFUSED


cdef int bucket_of(long long value) noexcept nogil:
    # The least i with value < 2^i.
    cdef int bits = 0
    while value > 0 and bits < PAGE_BUCKETS - 1:
        value >>= 1
        bits += 1
    return bits


cdef bytes head_bytes(const Request* request, int header):
    cdef Cursor value = head_value(request, header)
    return (<const char*>value.at)[:cur_left(&value)]


cdef bint head_path_is(const Request* request, const char* path) noexcept nogil:
    return request.path.len == strlen(path) and memcmp(
        request.head + (request.path.at & SPAN_MASK), path, request.path.len
    ) == 0
