# The Python doors of the stages above Plan, for tests, tools and benchmarks, and what must happen once at import.


cdef extern from *:
    """
    /* The compiler must take it that somebody reads the copy. */
    static inline void fp_copy_kept(unsigned char *to, const unsigned char *at, size_t n) {
        memcpy(to, at, n);
        __asm__ volatile("" : : "r"(to) : "memory");
    }
    """
    void copy_kept "fp_copy_kept"(byte* to, const byte* at, size_t n) noexcept nogil


COUNTERS = tuple(counter.name[2:].lower() for counter in _Counter if counter.value < COUNTER_COUNT)
PAGE_LAYOUT = {
    "words": <int>PAGE_WORDS, "reasons": <int>PAGE_REASONS, "protocols": <int>PAGE_PROTOCOLS,
    "commit_times": <int>PAGE_COMMIT_TIMES, "batch_sizes": <int>PAGE_BATCH_SIZES, "buckets": <int>PAGE_BUCKETS,
}


cdef class _Desk:
    # A Rec for the doors, over one input.
    cdef Rec rec
    cdef Route route
    cdef Request request
    cdef PlanData plan
    cdef bytes data

    def __cinit__(self, bytes data):
        self.data = data
        self.request.head = data
        if not tree_init(&self.rec.tree) or not pk_room(&self.rec.scratch, 4 * len(data) + 64):
            raise MemoryError()
        rec_begin(&self.rec, &self.plan, &self.route, &self.request)

    def __dealloc__(self):
        tree_free(&self.rec.tree)
        pk_free(&self.rec.scratch)
        pk_free(&self.rec.packed)
        jsn_free(&self.rec.json)

    cdef str text(self, Cursor raw, bint coded, bint plus):
        return _span_bytes(&self.rec, pct_text(&self.rec, IN_HEAD, raw, coded, plus)).decode()


def unquote(bytes data not None, *, bint plus=True):
    """Percent- and plus-decodes; bad escapes stay literal; invalid UTF-8 becomes U+FFFD as bytes.decode("replace")."""
    return _Desk(data).text(cur_of(data, len(data)), True, plus)


def pairs(bytes query not None, *, bint drop_bad=False):
    """Decoded parameters in order. `drop_bad` leaves out pairs with a bad escape or a raw ';'."""
    cdef _Desk desk = _Desk(query)
    cdef Cursor source = cur_of(query, len(query))
    cdef Pair pair
    found = []
    while qry_next(&source, &pair):
        if not (drop_bad and qry_is_bad(&pair)):
            found.append((desk.text(pair.name, True, True), desk.text(pair.value, True, True)))
    return found


def dotpath(bytes query not None, *, bint first=False, bint drop_bad=False):
    """(reason, msgpack map) of a query read as dot paths; `first`: the first of a repeated key wins, else the last."""
    cdef _Desk desk = _Desk(query)
    cdef Row row
    cdef Pack out
    cdef Cursor source = cur_of(query, len(query))
    cdef int reason
    memset(&out, 0, sizeof(out))
    memset(&row, 0, sizeof(row))
    row.kind = K_DOTPATH
    desk.route.rows = &row
    desk.route.first = first
    desk.route.drop_bad = drop_bad
    desk.route.count = 1
    with nogil:
        reason = rec_pairs(&desk.rec, IN_HEAD, source)
        if reason == NO_REASON and tree_holes(&desk.rec.tree, 0) > MAX_HOLES:
            reason = R_INDEX_TOO_LARGE
        if reason == NO_REASON:
            tree_pack(&desk.rec.tree, &desk.rec.bases, 0, &out, NULL)
    try:
        return (None, out.data[:out.len]) if reason == NO_REASON else (REASONS[reason], b"")
    finally:
        pk_free(&out)


def pack_params(bytes value not None):
    """(error, msgpack map) of a form-decoded `params` (UTF-8), as PitchTarget's pixel reads it; b"" if it is blank.

    Errors: bad_json, bad_encoding, too_deep, not_an_object, bad_base64. Names that it ignores are left out.
    """
    cdef _Desk desk = _Desk(value)
    cdef Rec* rec = &desk.rec
    cdef Py_ssize_t length = len(value)
    cdef Span text
    cdef int held
    with nogil:
        held = prm_read(rec, span_of(IN_HEAD, 0, length), &text)
    if rec.packed.failed or rec.scratch.failed:
        raise MemoryError
    if held == PRM_OBJECT or held == PRM_BLANK:
        return None, (<const char*>rec.packed.data)[:rec.packed.len] if rec.packed.len else b""
    return _PARAMS_ERRORS[held - PRM_BAD_JSON], b""


def parse_time(bytes text not None, str kind="iso8601"):
    """Reads a time as the kinds unix, unix_ms and iso8601 do. None: unusable, or outside the years 1 to 9999."""
    cdef Time time
    if not time_read(KINDS[kind], cur_of(text, len(text)), &time):
        return None
    return <object>time.seconds * 1000000000 + <object>time.nanos


@cython.binding(True)               # without arguments and binding Python 3.13 sees a `self`
def uuid7():
    """A new UUIDv7 in its canonical text form."""
    cdef byte text[UUID_TEXT]
    if not uuid_7(clock_now(), text):
        raise OSError("getrandom gave no random bytes")
    return text[:UUID_TEXT].decode()


# Timing without the interpreter, for benchmarks: what one turn of a loop in Python costs is more than what is measured.

def decode_ns(Plan plan not None, str method not None, bytes target not None, headers, long long times):
    """Nanoseconds that `times` decodings of one request take: from its query to its record in a reused buffer.

    Its head is parsed and its route found before. LookupError: no route answers it. ValueError: it is no HTTP, or is
    refused; the message names the reason.
    """
    cdef Request request
    cdef Match match
    cdef Pack out
    cdef int reason = NO_REASON
    cdef int64_t began
    cdef long long i
    cdef bytes head = _head(method, target, headers)
    if head_parse(<const byte*>head, len(head), &request) != HEAD_DONE:
        raise ValueError("bad_http")
    request.body_len = request.ip_len = 0
    request.body = request.ip = NULL
    request.received = clock_now()
    match = plan_match(&plan.data, &plan.rec, &request)
    if match.route is NULL:
        raise LookupError(f"no route answers {method} {target.decode('utf-8', 'replace')}")
    memset(&out, 0, sizeof(out))
    try:
        began = clock_ns()
        for i in range(times):
            out.len = 0
            reason = plan.take(match.route, &request, &out)
            if reason != NO_REASON:
                raise ValueError(REASONS[reason])
        return clock_ns() - began
    finally:
        pk_free(&out)


def copy_ns(bytes data not None, long long times):
    """Nanoseconds that `times` copies (memcpy) of the bytes take: the floor under everything that handles them."""
    cdef byte* to = <byte*>malloc(<size_t>len(data) + 1)
    cdef const byte* at = data
    cdef size_t length = <size_t>len(data)
    cdef int64_t began
    cdef long long i
    if to is NULL:
        raise MemoryError
    began = clock_ns()
    for i in range(times):
        copy_kept(to, at, length)
    began = clock_ns() - began
    free(to)
    return began
