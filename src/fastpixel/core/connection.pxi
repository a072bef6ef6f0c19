# One client's connection, without I/O: bytes in; answers out; records into the Intake's batch.
#
# How it works: it cuts each head at its blank line and each body where its framing ends, gives httptools exactly these
# bytes to judge (plain requests in a row at once), and hands each whole request to the Intake. Answers keep the order
# of the requests: one that depends on a batch waits in a queue, and so does everything behind it. A request that the
# network splits anywhere is the same request. After an error the connection answers, discards what still comes, and
# closes.
#
# What httptools leaves open is closed here (with head.pxi): versions, Host, bare LF, Upgrade and CONNECT (which would
# make it read a body as a request), bytes >= 0x80 in the target (which it refuses; they are percent-encoded for it),
# limits on what is sent, and bytes after `Connection: close`, which are dropped.

cdef enum:                          # ConnState
    CONN_HEAD                       # between requests, or in a head
    CONN_BODY
    CONN_DISCARD                    # the last answer is given; what comes is dropped

cdef enum:
    RUN = 16                        # plain requests that are judged in one go
    MAX_QUEUED = 1024               # answers of one connection that wait; above it its requests wait too
    MAX_OUTPUT = 262144             # bytes that a client has not read; above it its requests wait, too
    INLINE_ANSWERS = 4
    MIN_CUT = 4096                  # bytes of texts below which those of given answers may stay
    SPARE_BYTES = 65536             # of the output buffer that is kept for the next sender
    SMALL_BODY = 16384              # bytes; larger bodies have at most half of the room for bodies and batches
    PHASE_IDLE = 0
    PHASE_HEAD = 1
    PHASE_BODY = 2
    PHASE_ANSWERING = 3
    PHASE_CLOSING = 4


cdef class _Link


@cython.final
cdef class Connection:
    """The protocol of one connection, sans I/O.

    feed() takes bytes as they come; output() gives what is to be sent; `closing`: close once that is sent. `stalled`:
    stop reading until resume() is called by the Intake. `carrier`: whatever does the I/O; its flush() is called when
    there is output that no feed() asked for.
    """

    cdef Intake intake
    cdef readonly bytes ip
    cdef bint peer_trusted
    cdef bint secure                # TLS
    cdef public _Link carrier
    cdef int state
    cdef Pack input                 # bytes that wait for more
    cdef Py_ssize_t scanned         # of them, known to hold no blank line
    cdef Pack out
    cdef Pack side                  # texts of queued answers
    cdef Answer few[INLINE_ANSWERS]
    cdef Answer* queue
    cdef int queued
    cdef int queue_cap
    cdef uint64_t waits_for         # number of the last batch that lists this connection
    cdef Body* body                 # NULL: none is being read
    cdef object parser              # of the body being read
    cdef readonly bint closing
    cdef readonly bint lingers      # close only after the client has, or bytes it still sends would destroy the answer
    cdef public bint stalled
    cdef bint lost
    cdef double since               # Intake.tick when the phase began
    cdef int seen_phase
    cdef bint fresh                 # no request has come yet

    def __cinit__(self, Intake intake, str ip):
        self.intake = intake
        self.ip = ip.encode()
        self.peer_trusted = intake.proxies.trusts_text(ip)
        self.queue = self.few
        self.queue_cap = INLINE_ANSWERS
        self.since = intake.tick
        self.seen_phase = PHASE_HEAD
        self.fresh = True
        intake.bump(C_CONNECTIONS)
        intake.bump(C_CONNECTIONS_TOTAL)

    def __dealloc__(self):
        pk_free(&self.input)
        pk_free(&self.out)
        pk_free(&self.side)
        if self.queue is not self.few:
            free(self.queue)
        if self.body is not NULL:
            body_free(self.body)

    # --- bytes in -----------------------------------------------------------------------------------------------------

    cpdef feed(self, bytes data):
        """Takes the next bytes, in whatever pieces they come."""
        self.take(data, len(data))

    cdef int take(self, const byte* at, Py_ssize_t length) except -1:
        # feed() for bytes that are there during the call only.
        self.intake.bump(C_BYTES_IN, length)
        if self.state == CONN_DISCARD:
            return 0
        if self.input.len == 0:
            return self.keep(at, length)
        pk_raw(&self.input, at, length)
        self.work_input()
        return self.mark()

    cdef int keep(self, const byte* at, Py_ssize_t length) except -1:
        # Works on bytes that nothing waits before, and keeps what is left of them.
        cdef Py_ssize_t used = self.work(at, length)
        if self.state != CONN_DISCARD:
            pk_raw(&self.input, at + used, length - used)
        return self.mark()

    cpdef resume(self):
        """Goes on with requests that had to wait."""
        if self.input.len and self.state != CONN_DISCARD:
            self.work_input()
        self.mark()
        self.tell(True)

    cdef int work_input(self) except -1:
        # `input` may be freed while its own bytes are worked on if the connection ends in it; so it is moved aside.
        cdef Pack input = self.input
        cdef Py_ssize_t used
        memset(&self.input, 0, sizeof(Pack))
        try:
            used = self.work(input.data, input.len)
            if self.state == CONN_DISCARD or used == input.len:
                return 0
            memmove(input.data, input.data + used, <size_t>(input.len - used))
            input.len -= used
            self.input = input
            input.data = NULL
        finally:
            free(input.data)
        return 0

    cdef Py_ssize_t work(self, const byte* at, Py_ssize_t length) except -1:
        # Goes through whole requests; returns how many bytes it used.
        cdef Py_ssize_t used = 0, step
        while used < length and self.state != CONN_DISCARD:
            if self.state == CONN_BODY:
                step = self.on_body_bytes(at + used, length - used)
            elif self.must_wait():
                self.stall()
                break
            else:
                step = self.on_run(at + used, length - used) or self.on_head(at + used, length - used)
            if step == 0:
                break
            used += step
        return used

    cdef bint must_wait(self) noexcept:
        return self.is_crammed() or self.intake.is_full()

    cdef bint is_crammed(self) noexcept:
        # Answers of its own are in the way: release() or go_on() ends that.
        return self.queued >= MAX_QUEUED or self.out.len >= MAX_OUTPUT

    cdef int stall(self) except -1:
        if not self.stalled:
            self.stalled = True
            if not self.is_crammed():
                self.intake.stalled.append(self)
            self.intake.bump(C_PAUSED)
        return 0

    # --- heads --------------------------------------------------------------------------------------------------------

    cdef Py_ssize_t on_run(self, const byte* at, Py_ssize_t length) except -1:
        # The short way of what is nearly always sent: whole plain requests in a row, which httptools judges in one go.
        # Returns the bytes used. 0: nothing has been done, and on_head takes a closer look at the first request.
        cdef Request run[RUN]
        cdef Py_ssize_t used = 0
        cdef int count = 0
        if self.scanned:            # on_head knows how far it has looked
            return 0
        count = self.plain_run(at, length, run, RUN, &used)
        if count == 0 or not self.intake.judge(self.intake.window.over(at, used), count):
            return 0
        return self.handle_run(run, count)

    cdef int plain_run(self, const byte* at, Py_ssize_t length, Request* run, int room, Py_ssize_t* used) noexcept:
        # Reads plain requests as far as they go; how many they are, and in `used` how many bytes.
        cdef int count = 0
        used[0] = 0
        while used[0] < length and count < room and self.is_plain(at + used[0], length - used[0], &run[count]):
            used[0] += run[count].head_len
            count += 1
        return count

    cdef Py_ssize_t handle_run(self, Request* run, int count) except -1:
        # What was judged. Returns the bytes of those that were handled: what follows has to wait, or counts no more.
        cdef Py_ssize_t used = 0
        cdef int i
        for i in range(count):
            self.handle(&run[i])
            used += run[i].head_len
            if self.state == CONN_DISCARD or self.must_wait():
                break
        return used

    cdef bint is_ready(self) noexcept:
        # Whether the next byte begins a request that may be handled.
        return self.input.len == 0 and self.state == CONN_HEAD and not self.must_wait()

    cdef int whole_run(self, const byte* at, Py_ssize_t length, Request* run, int room) noexcept:
        # For carriers that have many connections' bytes judged in one go: how many plain requests these bytes are that
        # take_run() may handle; 0: they are for take().
        cdef Py_ssize_t used
        cdef int count
        if not self.is_ready():
            return 0
        count = self.plain_run(at, length, run, room, &used)
        return count if used == length else 0

    cdef int take_run(self, const byte* at, Py_ssize_t length, Request* run, int count) except -1:
        # take() for a whole_run() that was judged.
        cdef Py_ssize_t used
        if not self.is_ready():     # something has happened since
            return self.take(at, length)
        self.intake.bump(C_BYTES_IN, length)
        used = self.handle_run(run, count)
        return self.keep(at + used, length - used)

    cdef bint is_plain(self, const byte* at, Py_ssize_t length, Request* out) noexcept:
        # Whether a whole request stands there, without a body, after which httptools expects the next one.
        if head_parse(at, length, out) != HEAD_DONE or out.minor == 0 or out.close or not head_is_plain(out):
            return False
        if out.chunked or out.length or out.line_len - 2 > self.intake.max_request_line:
            return False
        return out.head_len - out.line_len <= self.intake.max_header_bytes

    cdef Py_ssize_t on_head(self, const byte* at, Py_ssize_t length) except -1:
        # Returns the bytes used; 0: more are needed.
        cdef Py_ssize_t blank = 0, head
        while length - blank >= 2 and at[blank] == c'\r' and at[blank + 1] == c'\n':
            blank += 2              # RFC 9112, 2.2: empty lines before a request
        head = head_end(at + blank, length - blank, self.scanned)
        if head == 0:
            self.scanned = max(length - blank - 3, <Py_ssize_t>0)
            if self.head_is_hopeless(at + blank, length - blank):
                return length
            return blank
        self.scanned = 0
        if self.head_is_too_large(at + blank, head):
            return length
        return blank + self.on_request(at + blank, head, length - blank)

    cdef bint head_is_hopeless(self, const byte* at, Py_ssize_t length) except -1:
        # An unfinished head that no further byte can mend is answered now.
        cdef Cursor source = cur_of(at, length), line
        cdef Request request
        if length == 0 or (length == 1 and at[0] == c'\r'):
            return False
        if not (65 <= at[0] <= 90) or head_bare_lf(at, length):
            self.refuse(self.intake.replies.bad_request, R_BAD_HTTP)
            return True
        if not head_line(&source, &line):
            if length > self.intake.max_request_line:
                self.refuse(self.intake.replies.line_too_long, R_TOO_LARGE)
                return True
            return False
        if self.head_is_too_large(at, length):
            return True
        memset(&request, 0, sizeof(Request))
        request.head = at
        if head_request_line(line, &request):
            return False
        self.refuse(self.intake.replies.bad_request, R_BAD_HTTP)
        return True

    cdef bint head_is_too_large(self, const byte* at, Py_ssize_t length) except -1:
        cdef const byte* end = <const byte*>memchr(at, c'\n', <size_t>length)
        cdef Py_ssize_t line = length if end is NULL else end - at + 1
        if line - 2 > self.intake.max_request_line:
            self.refuse(self.intake.replies.line_too_long, R_TOO_LARGE)
            return True
        if length - line > self.intake.max_header_bytes:
            self.refuse(self.intake.replies.head_too_large, R_TOO_LARGE)
            return True
        return False

    cdef Py_ssize_t on_request(self, const byte* at, Py_ssize_t head, Py_ssize_t length) except -1:
        # A whole head: judged, then answered, or its body begun. Returns the bytes used.
        cdef Request request
        if head_parse(at, head, &request) != HEAD_DONE:
            self.refuse(self.intake.replies.bad_request, R_BAD_HTTP)
            return length
        if request.has_length and request.length > <uint64_t>self.intake.max_body_bytes:
            self.refuse(self.intake.replies.too_large, R_TOO_LARGE, &request)
            return length
        if request.chunked or request.length:
            return head if self.begin_body(at, head, &request) else 0
        if not self.judge_one(at, head, &request):
            self.refuse(self.intake.replies.bad_request, R_BAD_HTTP)
            return length
        self.handle(&request)
        return head

    cdef int handle(self, Request* request) except -1:
        # The next request begins a new phase.
        self.fresh = False
        self.seen_phase = PHASE_IDLE
        return self.intake.handle(self, request)

    cdef bint judge_one(self, const byte* at, Py_ssize_t head, const Request* request) except -1:
        cdef bint good = self.intake.judge(head_for_parser(self.intake, at, head, request), 1)
        # In 1.0 llhttp reads `keep-alive` more strictly than head_connection does, so it may expect no next message.
        if good and (request.close or request.minor == 0):
            self.intake.referee = HttpRequestParser(self.intake)
        return good

    # --- bodies -------------------------------------------------------------------------------------------------------

    cdef bint begin_body(self, const byte* at, Py_ssize_t head, const Request* request) except -1:
        # False: there is no room for it now, and the head waits.
        cdef Py_ssize_t room = <Py_ssize_t>request.length if request.has_length else self.intake.max_body_bytes
        if not self.intake.reserve(room):
            self.stall()
            return False
        self.body = body_new(room)
        self.parser = HttpRequestParser(self)
        pk_raw(&self.body.head, at, head)
        self.body.left = <Py_ssize_t>request.length
        self.body.chunked = request.chunked
        self.state = CONN_BODY
        try:
            self.parser.feed_data(head_for_parser(self.intake, at, head, request))
        except HttpParserError:
            self.refuse(self.intake.replies.bad_request, R_BAD_HTTP)
            return True
        if request.expect and request.minor == 1:
            self.say_continue()
        return True

    cdef int say_continue(self) except -1:
        # RFC 9110, 10.1.1. Behind answers that wait it would come too early; the client then sends the body unasked.
        if self.queued == 0:
            pk_raw(self.sink(), b"HTTP/1.1 100 Continue\r\n\r\n", 25)
        return 0

    def on_body(self, bytes data):
        # httptools' callback: decoded bytes of a chunked body, or the bytes of any other.
        pk_raw(&self.body.data, <const byte*>data, len(data))

    def on_message_complete(self):
        # httptools' callback.
        self.body.complete = True

    cdef Py_ssize_t take_body(self, const byte* at, Py_ssize_t length) except -1:
        # The next bytes of the body; returns how many belong to it.
        cdef Py_ssize_t step
        if self.body.chunked:
            step = chunk_step(self.body, at, length)
        else:
            step = min(length, self.body.left)
            self.body.left -= step
        self.body.wire += step
        return step

    cdef Py_ssize_t on_body_bytes(self, const byte* at, Py_ssize_t length) except -1:
        # Returns the bytes used.
        cdef Py_ssize_t step = self.take_body(at, length)
        cdef bint ended = self.body.chunk == CHUNK_DONE if self.body.chunked else self.body.left == 0
        cdef Py_ssize_t over = max(self.body.wire - self.intake.max_body_bytes, <Py_ssize_t>0)
        # The parser sees every byte up to the limit before the limit is judged, so that it does not matter how the
        # network split them.
        try:
            self.parser.feed_data(self.intake.window.over(at, step - over))
        except HttpParserError:
            self.refuse(self.intake.replies.bad_request, R_BAD_HTTP)
            return length
        if over:
            self.refuse_body()
            return length
        # Two parsers saw the framing; a message that they do not end at the same byte is nobody's.
        if self.body.complete != ended:
            self.refuse(self.intake.replies.bad_request, R_BAD_HTTP)
            return length
        if ended:
            self.end_body()
        return step

    cdef int refuse_body(self) except -1:
        # A body that has grown too large; what came of it may be kept.
        cdef Request request
        head_parse(self.body.head.data, self.body.head.len, &request)
        request.body = self.body.data.data
        request.body_len = self.body.data.len
        return self.refuse(self.intake.replies.too_large, R_TOO_LARGE, &request)

    cdef int end_body(self) except -1:
        # The request is whole. The body leaves the connection first, so that nothing sees it half handled.
        cdef Body* body = self.body
        cdef Request request
        self.body = NULL
        self.parser = None
        self.state = CONN_HEAD
        try:
            head_parse(body.head.data, body.head.len, &request)
            request.body = body.data.data
            request.body_len = body.data.len
            self.handle(&request)
        finally:
            self.intake.unreserve(body.room)
            body_free(body)
        return 0

    cdef int drop_body(self) except -1:
        cdef Body* body = self.body
        if body is not NULL:
            self.body = NULL
            self.parser = None
            self.intake.unreserve(body.room)
            body_free(body)
        return 0

    # --- answers ------------------------------------------------------------------------------------------------------

    cdef int answer(self, const Request* request, int reply, int reason) except -1:
        # One that depends on no batch: at once, or behind those that wait.
        cdef Answer answer
        self.describe(&answer, request, reply, reason)
        return self.in_turn(&answer)

    cdef int give(self, const Answer* answer) except -1:
        # At once: nothing waits before it.
        self.emit(answer, False)
        self.side.len = 0
        if answer.flags & A_CLOSE:
            self.finish()
        return 0

    cdef int answer_stored(
        self, const Request* request, const int* replies, const byte* visitor, Batch batch
    ) except -1:
        # One that is true once the batch is on disk. `visitor`: the id that the client gets; NULL: none.
        cdef Answer answer
        self.describe(&answer, request, replies[<int>OUT_STORED], NO_REASON)
        if visitor is not NULL:
            answer.flags |= A_COOKIE | (A_SECURE if request.secure else 0)
            self.text(&answer, visitor, UUID_TEXT)
        return self.wait_for(&answer, replies[<int>OUT_UNAVAILABLE], batch)

    cdef int wait_for(self, Answer* answer, int unavailable, Batch batch) except -1:
        answer.unavailable = <int16_t>unavailable
        answer.flags |= A_DURABLE
        answer.batch = batch.number
        if self.waits_for != batch.number:
            self.waits_for = batch.number
            batch.waiting.append(self)
        return self.push(answer)

    cdef int answer_made(
        self, const Request* request, reply, dict errors, int reason, Batch batch, int unavailable, otherwise
    ) except -1:
        # One that a handler made for this request. `batch`: it is true once that is on disk; if that cannot be stored,
        # `otherwise` is the answer, or the reply of the number `unavailable`.
        cdef Answer answer
        cdef bytes raw
        self.describe(&answer, request, 0, reason)
        raw = reply_text(_parts(reply), errors, reason, self.origin_of(&answer), answer.flags, request.received.seconds)
        self.raw(&answer, raw)
        if batch is None:
            return self.in_turn(&answer)
        if otherwise is not None:
            raw = reply_text(
                _parts(otherwise), errors, R_SPOOL_FULL, self.origin_of(&answer), answer.flags, request.received.seconds
            )
            self.text(&answer, raw, len(raw))
        return self.wait_for(&answer, unavailable, batch)

    cdef int answer_preflight(self, const Request* request, int methods) except -1:
        cdef Answer answer
        self.describe(&answer, request, 0, NO_REASON)
        self.raw(&answer, reply_preflight(request, methods, self.origin_of(&answer), answer.flags))
        return self.in_turn(&answer)

    cdef int in_turn(self, Answer* answer) except -1:
        # At once, or behind those that wait.
        if self.queued == 0:
            return self.give(answer)
        answer.batch = self.queue[self.queued - 1].batch
        return self.push(answer)

    cdef int raw(self, Answer* answer, bytes text) except -1:
        answer.flags |= A_RAW
        answer.raw_len = <uint32_t>len(text)
        return self.text(answer, text, len(text))

    cdef bytes origin_of(self, const Answer* answer):
        return self.side.data[answer.text_at:answer.text_at + answer.origin_len] if answer.origin_len else b""

    cdef int describe(self, Answer* answer, const Request* request, int reply, int reason) except -1:
        cdef Cursor origin
        memset(answer, 0, sizeof(Answer))
        answer.reply = <int16_t>reply
        answer.reason = <int16_t>reason
        if request is NULL or request.close or request.upgrade or self.intake.draining:
            answer.flags |= A_CLOSE
        elif request.minor == 0:
            answer.flags |= A_KEEP
        if request is NULL:
            return 0
        if request.method == M_HEAD:
            answer.flags |= A_HEAD
        elif request.method == M_CONNECT:
            answer.flags |= A_CLOSE
        origin = head_value(request, H_ORIGIN)
        if reason == R_ORIGIN_NOT_ALLOWED:
            answer.flags |= A_NO_CORS
        elif reply_origin_ok(origin):
            self.text(answer, origin.at, cur_left(&origin))
            answer.origin_len = answer.text_len
        return 0

    cdef int text(self, Answer* answer, const byte* at, Py_ssize_t length) except -1:
        # Adds to the answer's texts, which lie one behind another.
        if answer.text_len == 0:
            answer.text_at = <uint32_t>self.side.len
        answer.text_len += <uint32_t>length
        pk_raw(&self.side, at, length)
        return 0

    cdef int push(self, Answer* answer) except -1:
        cdef Answer* queue
        if self.queued == self.queue_cap:
            queue = <Answer*>malloc(2 * self.queue_cap * sizeof(Answer))
            if queue is NULL:
                raise MemoryError()
            memcpy(queue, self.queue, self.queued * sizeof(Answer))
            if self.queue is not self.few:
                free(self.queue)
            self.queue = queue
            self.queue_cap *= 2
        self.queue[self.queued] = answer[0]
        self.queued += 1
        if answer.flags & A_CLOSE:
            self.discard()
        return 0

    cdef int release(self, uint64_t batch, bint failed) except -1:
        # The batch is done: its answers, and those behind them that waited only for their turn.
        cdef int count = 0
        while count < self.queued and self.queue[count].batch <= batch:
            self.emit(&self.queue[count], failed)
            count += 1
        self.queued -= count
        memmove(self.queue, self.queue + count, self.queued * sizeof(Answer))
        if self.queued == 0:
            self.rest()
            if self.state == CONN_DISCARD:
                self.closing = True
        elif self.side.len >= MIN_CUT:
            self.cut_side()
        self.go_on()
        self.mark()
        return self.tell(False)

    cdef int go_on(self) except -1:
        # Answers have gone: takes up requests that waited for that.
        if self.stalled and not self.is_crammed() and self not in self.intake.stalled:
            self.stalled = False
            self.resume()
        return 0

    cdef int tell(self, bint resume) except -1:
        # The carrier may close in this call and leave this connection, which must not end its life before it returns.
        cdef _Link carrier = self.carrier
        if carrier is None:
            return 0
        return carrier.resume() if resume else carrier.flush()

    cdef int emit(self, const Answer* answer, bint failed) except -1:
        cdef const byte* texts = self.side.data + answer.text_at
        cdef uint32_t used = answer.origin_len + answer.raw_len
        failed = failed and answer.flags & A_DURABLE
        if not answer.flags & A_RAW or (failed and used == answer.text_len):
            self.intake.replies.render(answer, texts, failed, self.sink())
        elif failed:
            pk_raw(self.sink(), texts + used, answer.text_len - used)
        else:
            pk_raw(self.sink(), texts + answer.origin_len, answer.raw_len)
        return 0

    cdef int rest(self) except -1:
        # Nothing waits: an idle connection keeps no buffers.
        pk_free(&self.side)
        if self.queue is not self.few:
            free(self.queue)
            self.queue = self.few
            self.queue_cap = INLINE_ANSWERS
        return 0

    cdef void cut_side(self) noexcept nogil:
        # A client that always has something waiting never comes to rest: the texts of what was answered go.
        cdef Answer* answer
        cdef uint32_t start = <uint32_t>self.side.len
        cdef int i
        for i in range(self.queued):
            if self.queue[i].text_len:
                start = self.queue[i].text_at
                break
        for i in range(self.queued):
            answer = &self.queue[i]
            answer.text_at = answer.text_at - start if answer.text_len else 0
        self.side.len -= start
        memmove(self.side.data, self.side.data + start, <size_t>self.side.len)

    cdef int refuse(self, int reply, int reason, Request* request=NULL) except -1:
        # The answer to what is no request, or too large a one; the last of its connection.
        cdef Answer answer
        self.intake.refused(self, request, reason)
        self.describe(&answer, request, reply, reason)
        answer.flags |= A_CLOSE
        self.lingers = True
        self.drop_body()
        return self.in_turn(&answer)

    cdef int finish(self) except -1:
        # The last answer is in the output.
        self.closing = True
        return self.discard()

    cdef int discard(self) except -1:
        self.state = CONN_DISCARD
        self.drop_body()
        return 0

    # --- bytes out, ends, time ----------------------------------------------------------------------------------------

    cpdef bytes output(self):
        """What is to be sent now; b"" if nothing is."""
        cdef bytes data
        if self.out.len == 0:
            return b""
        data = self.out.data[:self.out.len]
        self.sent(self.out.len)
        if self.carrier is None:        # which would say go_on() when it has sent them
            self.go_on()
        return data

    cdef Pack* sink(self) noexcept nogil:
        # Where answers are written. An idle connection has no buffer: it takes the one that the last sender gave back.
        if self.out.data is NULL:
            self.out = self.intake.spare
            memset(&self.intake.spare, 0, sizeof(Pack))
        return &self.out

    cdef void sent(self, Py_ssize_t count) noexcept nogil:
        # So many bytes of the output are gone.
        self.intake.bump(C_BYTES_OUT, count)
        self.out.len -= count
        if self.out.len:
            memmove(self.out.data, self.out.data + count, <size_t>self.out.len)
        elif self.intake.spare.data is NULL and self.out.cap <= SPARE_BYTES:
            self.intake.spare = self.out
            memset(&self.out, 0, sizeof(Pack))
        else:
            pk_free(&self.out)

    cpdef end(self):
        """The client sends no more. Requests that came whole are still answered."""
        self.discard()
        if self.queued == 0:
            self.closing = True

    cdef int fail(self) except -1:
        # After a defect nobody knows which request the next answer would be taken for: what waits is answered, then it
        # ends.
        self.end()
        return self.tell(False)

    cpdef bint is_idle(self, bint patient=False):
        """Between requests, with nothing to answer. `patient`: before the first one is not between requests."""
        if patient and self.fresh:
            return False
        return self.queued == 0 and self.input.len == 0 and self.state == CONN_HEAD and self.out.len == 0

    cpdef lose(self):
        """The connection is gone; what waits for it is forgotten."""
        if self.lost:
            return
        self.lost = True
        self.carrier = None
        self.discard()
        self.intake.bump(C_CONNECTIONS, -1)
        if self.stalled and self in self.intake.stalled:
            self.intake.stalled.remove(self)

    cdef int phase(self) noexcept:
        if self.closing or (self.state == CONN_DISCARD and self.queued == 0):
            return PHASE_CLOSING
        if self.stalled and self.out.len >= MAX_OUTPUT:
            return PHASE_IDLE       # the client does not read
        if self.queued or self.stalled:
            return PHASE_ANSWERING
        if self.state == CONN_BODY:
            return PHASE_BODY
        return PHASE_HEAD if self.input.len or self.fresh else PHASE_IDLE

    cdef int mark(self) noexcept:
        # A phase lasts from its first byte on, so that a trickle of bytes does not prolong it.
        cdef int phase = self.phase()
        if phase != self.seen_phase or phase == PHASE_IDLE:
            self.seen_phase = phase
            self.since = self.intake.tick
        return 0

    cpdef bint expire(self, double header, double body, double idle, double linger) except -1:
        """Ends what has lasted too long (limits in seconds). True: close the connection now."""
        cdef double lasted = self.intake.tick - self.since
        if self.seen_phase == PHASE_ANSWERING:
            return False
        if self.seen_phase == PHASE_CLOSING:
            return lasted > linger
        if self.seen_phase == PHASE_IDLE:
            return lasted > idle
        if lasted <= (header if self.seen_phase == PHASE_HEAD else body):
            return False
        self.intake.bump(C_TIMEOUTS)
        if self.input.len == 0 and self.body is NULL:
            return True
        self.refuse(self.intake.replies.timed_out, R_BAD_HTTP)
        self.mark()
        return False


cdef object head_for_parser(Intake intake, const byte* at, Py_ssize_t head, const Request* request):
    # The head as httptools is to see it: the target's bytes >= 0x80 percent-encoded, and what would make it stop reading
    # HTTP hidden: every Upgrade goes under a name that means nothing, CONNECT is an OPTIONS.
    cdef Py_ssize_t start, end
    if head_is_plain(request):
        return intake.window.over(at, head)
    whole = bytearray(_UPGRADE.sub(b"\nx-upgrd:", at[:head]))
    start = request.target.at & SPAN_MASK
    end = start + request.target.len
    if request.method == M_CONNECT:
        whole[:end] = b"OPTIONS *"
    elif request.non_ascii:
        whole[start:end] = b"".join(b"%%%02X" % c if c >= 0x80 else b"%c" % c for c in whole[start:end])
    return bytes(whole)


cdef tuple _parts(reply):
    return reply.status, reply.content_type, reply.body, reply.headers
