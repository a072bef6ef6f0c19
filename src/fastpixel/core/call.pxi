# A Call: what a handler of the Python tier sees of a request, and how it adds events.
#
# How it works: the Intake has one Call and lends it to the handler for one request. The handler names a source, adds
# events and returns a Reply. What it adds is staged as finished records; when it has returned, all of them go to the
# batch at once, or none: one request is one atomic append. What is shared with pixels happens here and in document.pxi:
# sources, privacy, rate limits, completion.


cdef PlanData PLAN_BARE             # without fields


@cython.final
@cython.auto_pickle(False)
cdef class Call:
    """One request of the Python tier; valid only while its handler runs."""

    cdef Intake intake
    cdef Plan plan
    cdef Request* request
    cdef const Route* route
    cdef bint running
    cdef Pack stage                 # records
    cdef int count
    cdef int by_protocol[64]
    cdef const Source* admitted
    cdef int protocol
    cdef bint limited
    cdef set let_in                 # numbers of the sources whose limits let this request in
    cdef bint judged                # a key was given to source(), and
    cdef Source policy              # the strictest privacy rules of those keys
    cdef int reason
    cdef bint keep
    cdef int skipped                # events that privacy forbids
    cdef uint64_t skipped_pairs
    cdef bint issued
    cdef byte visitor[UUID_TEXT]
    cdef bytes raw_key
    cdef object context             # of the event before, as it was given,
    cdef Pack closed                # and as its record has it
    cdef public Py_ssize_t size     # bytes of the body, from which the limit on records is reckoned
    cdef public object otherwise    # a Reply instead of the route's, if the source is over its rate or nothing can be stored

    def __cinit__(self):
        self.let_in = set()

    def __dealloc__(self):
        pk_free(&self.stage)
        pk_free(&self.closed)

    cdef int begin(self, Intake intake, Request* request, const Route* route) except -1:
        self.intake = intake
        self.plan = intake.plan
        self.request = request
        self.route = route
        self.running = True
        self.stage.len = 0
        self.count = self.skipped = 0
        self.skipped_pairs = 0
        memset(self.by_protocol, 0, sizeof(self.by_protocol))
        self.admitted = NULL
        self.protocol = route.protocol
        self.limited = self.issued = self.judged = False
        self.let_in.clear()
        self.reason = NO_REASON
        self.keep = True
        self.raw_key = b""
        self.context = None
        self.size = request.body_len
        self.otherwise = None
        return 0

    cdef int end(self) except -1:
        # The handler has returned. The Rec is as a reject wants it: with this key and source.
        self.running = False
        rec_begin(&self.plan.rec, &self.plan.data, self.route, self.request)
        return self._enter()

    cdef tuple redacted(self, Intake intake, Request* request, const Route* route, redact):
        # What a reject may keep: target and body.
        self.begin(intake, request, route)
        try:
            return redact(self)
        finally:
            self.running = False

    cdef int verdict(self) noexcept:
        # The Reason against the whole request.
        if self.reason != NO_REASON:
            return self.reason
        if self.request.method == M_HEAD and self.count:
            return R_HEAD
        if self.limited:
            return R_RATE_LIMITED
        return R_PRIVACY if self.skipped and self.count == 0 else NO_REASON

    cdef int _check(self) except -1:
        if not self.running:
            raise RuntimeError("a Call is valid only while its handler runs")
        return 0

    # --- the request --------------------------------------------------------------------------------------------------

    @property
    def method(self):
        self._check()
        return _head_span_bytes(self.request, self.request.method_name).decode("latin-1")

    @property
    def path(self):
        """After aliases, not decoded."""
        self._check()
        return _path_bytes(self.request).decode("latin-1")

    @property
    def target(self):
        """As it was sent."""
        self._check()
        return _head_span_bytes(self.request, self.request.target)

    @property
    def query(self):
        self._check()
        return _head_span_bytes(self.request, self.request.query)

    @property
    def variables(self):
        """The path's `{name}` segments in order, decoded once."""
        cdef Rec* rec = &self.plan.rec
        cdef int i
        self._check()
        self._open()
        found = []
        for i, part in enumerate(self.plan.routes[self.route.index][1].path.split("/")[1:]):
            if part.startswith("{"):
                raw = path_segment(cur_span(&rec.bases, self.request.path), i)
                text = pct_text(rec, self.request.path.at >> SPAN_SHIFT, raw, True, False)
                found.append(_span_bytes(rec, text).decode())
        return tuple(found)

    @property
    def body(self):
        """As it was sent, without its chunks; not inflated."""
        self._check()
        return self.request.body[:self.request.body_len] if self.request.body_len else b""

    @property
    def ip(self):
        self._check()
        return self.request.ip[:self.request.ip_len].decode() if self.request.ip_len else ""

    @property
    def received_ns(self):
        self._check()
        return self.request.received.seconds * 1000000000 + self.request.received.nanos

    @property
    def received(self):
        """RFC 3339 with milliseconds and Z."""
        cdef byte text[TIME_TEXT]
        self._check()
        time_text(self.request.received, text)
        return text[:TIME_TEXT].decode()

    @property
    def max_body_bytes(self):
        return self.intake.max_body_bytes

    @property
    def replaying(self):
        return self.intake.replaying

    @property
    def options(self):
        """Of the route's dialect, as they were given to the Plan."""
        return self.plan.options.get(self.plan.protocols[self.route.protocol], {})

    def header(self, str name not None):
        """The first header of that lower-case name; "" if there is none. Bytes that are not UTF-8 become U+FFFD."""
        cdef Cursor source = cur_of(self.request.head, self.request.head_len), line
        cdef bytes wanted = name.encode()
        cdef const byte* colon
        self._check()
        head_line(&source, &line)
        while head_line(&source, &line) and cur_left(&line):
            colon = head_colon(&line)
            if colon - line.at == len(wanted) and head_same(line.at, wanted, len(wanted)):
                line = num_trim(cur_of(colon + 1, line.end - colon - 1))
                return line.at[:cur_left(&line)].decode("utf-8", "replace") if cur_left(&line) else ""
        return ""

    def pairs(self):
        """(reason, decoded pairs of the query in order)."""
        self._check()
        self._open()
        return self._pairs(IN_HEAD, cur_span(&self.plan.rec.bases, self.request.query))

    def form(self):
        """(reason, decoded pairs of the body, read as a form)."""
        self._check()
        if head_is_encoded(self.request):
            return REASONS[<int>R_BAD_ENCODING], []
        self._open()
        return self._pairs(IN_BODY, cur_of(self.request.body, self.request.body_len))

    cdef tuple _pairs(self, int buffer, Cursor source):
        cdef Rec* rec = &self.plan.rec
        cdef Pair pair
        found = []
        while qry_next(&source, &pair):
            if self.route.drop_bad and qry_is_bad(&pair):
                continue
            if len(found) == MAX_PAIRS:
                return REASONS[<int>R_TOO_MANY_PARAMS], []
            name = _span_bytes(rec, pct_text(rec, buffer, pair.name, True, True)).decode()
            found.append((name, _span_bytes(rec, pct_text(rec, buffer, pair.value, True, True)).decode()))
        return None, found

    def dotted(self):
        """(reason, msgpack map) of the query read as dot paths."""
        cdef Rec* rec = &self.plan.rec
        cdef Route route
        cdef Row row
        cdef Pack out
        cdef int reason
        self._check()
        memset(&out, 0, sizeof(out))
        memset(&row, 0, sizeof(row))
        route = self.route[0]
        row.kind = K_DOTPATH
        route.rows = &row
        route.count = 1
        route.rest = 0
        memset(&route.names, 0, sizeof(route.names))
        rec_begin(rec, &self.plan.data, &route, self.request)
        rec.plan = &PLAN_BARE       # the names are the client's; what they mean is the handler's to say
        reason = rec_pairs(rec, IN_HEAD, cur_span(&rec.bases, self.request.query))
        if reason == NO_REASON and tree_holes(&rec.tree, 0) > MAX_HOLES:
            reason = R_INDEX_TOO_LARGE
        self.skipped_pairs += rec.skipped
        try:
            if reason != NO_REASON:
                return REASONS[reason], b""
            tree_pack(&rec.tree, &rec.bases, 0, &out, NULL)
            return None, out.data[:out.len]
        finally:
            pk_free(&out)

    def json(self, data=None, int max_depth=200, Py_ssize_t max_values=JSN_BYTES):
        """(reason, msgpack) of one JSON document; default: the body. Its `__proto__` members are left out and counted."""
        cdef const unsigned char[::1] view
        cdef const byte* at = self.request.body
        cdef Py_ssize_t length = self.request.body_len
        cdef Rec* rec = &self.plan.rec
        cdef Pack out
        cdef int result
        self._check()
        memset(&out, 0, sizeof(out))
        if data is not None:
            view = data
            at = &view[0] if view.shape[0] else NULL
            length = view.shape[0]
        try:
            result = jsn_pack(&rec.json, at, length, &out, max_depth)
            if out.failed:
                raise MemoryError
            self.skipped_pairs += <uint64_t>rec.json.protos
            if result == JSN_OK and not out_has_at_most(cur_of(out.data, out.len), max_values):
                return REASONS[<int>R_TOO_LARGE], b""
            return _JSON_REASONS[result], out.data[:out.len] if out.len else b""
        finally:
            pk_free(&out)

    # --- events -------------------------------------------------------------------------------------------------------

    @property
    def key(self):
        """The last key that was given to source()."""
        return self.raw_key.decode()

    @property
    def config_source(self):
        """The source's row of the configuration; None: none is configured, or none fits."""
        return None if self.admitted is NULL else self.plan.sources[self.admitted.number]

    def source(self, str key not None):
        """The reason against the events of this key, or None: what is added from now on is its."""
        cdef int reason
        self._check()
        self.raw_key = key.encode("utf-8", "replace")
        self.admitted = NULL
        self.protocol = self.route.protocol
        self._open()
        self._enter()
        reason = rec_find_source(&self.plan.rec)
        self.admitted = self.plan.rec.source
        self.protocol = self.plan.rec.protocol
        if not self.judged:
            self.policy = rec_policy(&self.plan.rec)[0]
        self.judged = True
        rec_stricter(&self.policy, rec_policy(&self.plan.rec))
        return None if reason == NO_REASON else REASONS[reason]

    def forget(self):
        """What was added is not stored."""
        self.stage.len = 0
        self.count = self.skipped = 0
        memset(self.by_protocol, 0, sizeof(self.by_protocol))
        self.issued = False

    def refuse(self, str reason not None, reply, bint keep=True):
        """Nothing of the request is stored, for this reason; gives the reply back. `keep`: as a reject, within its caps."""
        self.reason = REASONS.index(reason)
        self.keep = keep
        return reply

    def add(self, event not None, str type=None, bint strict=False):
        """Stages one record; the reason against it, or None. What privacy forbids is counted, and left out.

        `event`: a msgpack map in canonical names (bytes, memoryview, msgspec.Raw), or a dict of canonical members: str is
        text, a dict is a map, None is absent, anything else the bytes of one msgpack value. `type`: default, the route's.
        `strict`: a listed field of the wrong type, or a time that is none, is `bad_field`, and not moved aside; then a
        `context` that is the same bytes object as that of the event before is not read again.
        """
        cdef Rec* rec = &self.plan.rec
        cdef Py_ssize_t start = self.stage.len
        cdef object context = None
        cdef int reason
        self._check()
        self._open()
        self._enter()
        self._type(type)
        if isinstance(event, dict):
            context = event.get("context") if strict and not self.request.gpc else None
            rec.closed = context is not None and context is self.context
            _put_dict(&rec.packed, event, "context" if rec.closed else None)
        else:
            _put_raw(&rec.packed, event)
        rec.bases.at[IN_PACKED] = rec.packed.data
        reason = doc_read(rec, cur_of(rec.packed.data, rec.packed.len))
        if rec.closed:
            self._reuse()
        if reason == NO_REASON and self.request.gpc:
            reason = rec_privacy(rec)
        if reason == R_PRIVACY:
            self.skipped += 1
            self.intake.bump(PAGE_REASONS + R_PRIVACY)
            return None
        if reason == NO_REASON:
            self._count()
            self._visit()
            reason = rec_complete(rec)
        if strict and rec.misfit and reason == NO_REASON:
            reason = R_BAD_FIELD
        if reason == NO_REASON:
            reason = rec_pack(rec, self.size, &self.stage)
        if reason == NO_REASON and self.stage.len > max(4 * self.size, <Py_ssize_t>MAX_RECORD):
            reason = R_TOO_LARGE
        self.skipped_pairs += rec.skipped
        if reason != NO_REASON:
            return REASONS[reason]
        if not rec.closed and isinstance(context, bytes):
            self._close(context, cur_of(self.stage.data + start, self.stage.len - start))
        self.count += 1
        self.by_protocol[rec.protocol & 63] += 1
        if rec.issued:
            self.issued = True
            memcpy(self.visitor, rec.visitor, UUID_TEXT)
        return None

    cdef int _close(self, context, Cursor record) except -1:
        # Keeps the context of a record that was just made, for events that are given the same one.
        cdef Item item
        cdef const byte* at
        cdef uint64_t left
        out_item(&record, &item)
        for left in range(item.num):
            out_item(&record, &item)
            at = record.at
            out_skip(&record)
            if item.num == 7 and memcmp(item.text, b"context", 7) == 0:
                self.closed.len = 0
                pk_raw(&self.closed, at, record.at - at)
                self.context = None if self.closed.failed else context
                self.closed.failed = False
                return 0
        return 0

    cdef int _reuse(self) except -1:
        cdef Rec* rec = &self.plan.rec
        rec.bases.at[IN_SHARED] = self.closed.data
        tree_append(
            &rec.tree, 0, &self.plan.data.known[N_CONTEXT], span_of(IN_SHARED, 0, self.closed.len), NODE_PACKED
        )
        return 0

    cdef int _open(self) except -1:
        rec_begin(&self.plan.rec, &self.plan.data, self.route, self.request)
        return 0

    cdef int _enter(self) except -1:
        # Key, source and protocol of this Call.
        cdef Rec* rec = &self.plan.rec
        cdef Py_ssize_t length = len(self.raw_key)
        if not rec_room(rec, length):
            raise MemoryError
        memcpy(rec.scratch.data + rec.scratch.len, <const byte*>self.raw_key, <size_t>length)
        rec.key = span_of(IN_SCRATCH, rec.scratch.len, length)
        rec.scratch.len += length
        rec.source = self.admitted
        rec.protocol = self.protocol
        return 0

    cdef int _type(self, str type) except -1:
        # After _enter: the record says them.
        cdef Rec* rec = &self.plan.rec
        cdef bytes text = (self.plan.routes[self.route.index][1].type if type is None else type).encode("utf-8", "replace")
        if not rec_room(rec, len(text)):
            raise MemoryError
        memcpy(rec.scratch.data + rec.scratch.len, <const byte*>text, <size_t>len(text))
        rec.type = span_of(IN_SCRATCH, rec.scratch.len, len(text))
        rec.scratch.len += len(text)
        if rec.key.len:
            tree_add(&rec.tree, &rec.bases, 0, &self.plan.data.known[N_WRITE_KEY], rec.key, NODE_LEAF)
        return 0

    cdef int _visit(self) except -1:
        # All events of a request are one visitor's.
        if self.issued:
            self.plan.rec.visited = True
            memcpy(self.plan.rec.visitor, self.visitor, UUID_TEXT)
        return 0

    cdef int _count(self) except -1:
        # Whether a source's rate lets the request in is asked once; all its events count.
        if self.limited or self.admitted is NULL or self.request.method == M_HEAD:
            return 0
        if rate_admits(&self.plan.data, self.admitted, self.admitted.number in self.let_in):
            self.let_in.add(self.admitted.number)
        else:
            self.limited = True
        return 0


_JSON_REASONS = (None, "bad_json", "bad_encoding", "too_deep")


cdef int _put_dict(Pack* out, dict members, str without=None) except -1:
    # A map of those that are not None, but for the one named.
    cdef Py_ssize_t count = -(without is not None)
    for value in members.values():
        count += value is not None
    pk_map(out, count)
    for name, value in members.items():
        if value is None or name is without:
            continue
        _put_text(out, name)
        if isinstance(value, str):
            _put_text(out, value)
        elif isinstance(value, dict):
            _put_dict(out, value)
        else:
            _put_raw(out, value)
    if out.failed:
        raise MemoryError
    return 0


cdef int _put_text(Pack* out, str text) except -1:
    cdef Py_ssize_t length
    cdef const char* at = PyUnicode_AsUTF8AndSize(text, &length)
    pk_str(out, <const byte*>at, length)
    return 0


cdef int _put_raw(Pack* out, value) except -1:
    cdef Py_buffer view
    PyObject_GetBuffer(value, &view, PyBUF_SIMPLE)
    pk_raw(out, view.buf, view.len)
    PyBuffer_Release(&view)
    return 0
