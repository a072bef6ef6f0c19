# The Plan: dialect tables compiled to arrays. Everything after it works on these arrays alone.
#
# A Plan is made once, at start or reload, from rows (duck-typed: fastpixel.dialect.Dialect, fastpixel.config.Source).
# All constant bytes lie in one blob; every name has its hash. Nothing here runs per request but the lookups at the top.

_KNOWN_NAMES = (
    "messageId", "timestamp", "originalTimestamp", "sentAt", "context", "client", "ip", "userAgent", "referrer",
)
_FIELD_TYPES = {"text": FIELD_TEXT, "time": FIELD_TIME, "map": FIELD_MAP}
KINDS = {kind.name[2:].lower(): kind.value for kind in _Kind}
REASONS = tuple(reason.name[2:].lower() for reason in _Reason)
_METHODS = {"GET": M_GET, "HEAD": M_HEAD, "POST": M_POST, "OPTIONS": M_OPTIONS}


cdef int names_find(const Names* names, const Bases* bases, const Segment* name) noexcept nogil:
    # The number of a name in a closed set, or -1.
    cdef uint32_t at = name.hash
    cdef const Segment* known
    cdef int index
    if names.count == 0:
        return -1
    while True:
        index = names.table[at & names.mask]
        if index < 0:
            return -1
        known = &names.all[index]
        if known.hash == name.hash and known.name.len == name.name.len and blk_same(
            span_ptr(bases, known.name), span_ptr(bases, name.name), name.name.len
        ):
            return index
        at += 1


cdef Match plan_match(const PlanData* plan, Rec* rec, const Request* request) noexcept nogil:
    # Exact paths first, then those with variables in the order of their rows. Paths are compared as raw bytes.
    cdef Match match
    cdef Segment path
    cdef int found, i
    match.route = NULL
    match.methods = 0
    rec.bases.at[IN_HEAD] = request.head
    rec.bases.at[IN_PLAN] = plan.blob
    path.name = request.path
    path.hash = tree_hash(span_ptr(&rec.bases, path.name), path.name.len)
    found = names_find(&plan.paths, &rec.bases, &path)
    if found >= 0:
        for i in range(4):
            if plan.path_routes[found][i] >= 0:
                plan_add(&match, &plan.routes[plan.path_routes[found][i]], request.method)
        return match
    for i in range(plan.route_count):
        if plan.routes[i].variables and path_fits(
            cur_span(&rec.bases, request.path), cur_span(&rec.bases, plan.routes[i].path)
        ):
            plan_add(&match, &plan.routes[i], request.method)
    return match


cdef void plan_add(Match* match, const Route* route, int method) noexcept nogil:
    match.methods |= route.methods
    if match.route is NULL and (route.methods >> method) & 1:
        match.route = route


cdef bint path_fits(Cursor path, Cursor pattern) noexcept nogil:
    # `{name}` in the pattern stands for one segment that is not empty.
    cdef int got
    while cur_left(&pattern):
        got = cur_next(&pattern)
        if got != c'{':
            if not cur_take(&path, got):
                return False
            continue
        while cur_next(&pattern) != c'}':
            pass
        if cur_left(&path) == 0 or cur_peek(&path) == c'/':
            return False
        while cur_left(&path) and cur_peek(&path) != c'/':
            path.at += 1
    return cur_left(&path) == 0


@cython.final
cdef class Plan:
    """Dialect tables, sources and options, compiled.

    `dialects`: fastpixel.dialect.Dialect rows. `sources`: fastpixel.config.Source rows; none: every non-empty key is
    accepted. `fields`: fastpixel.event.FIELDS. `options`: by dialect name, e.g. {"rudderstack": {"reply": "gif"}}.
    ValueError or KeyError: a row that fastpixel.dialect.validate would have refused.
    """

    cdef PlanData data
    cdef Rec rec
    cdef bytearray blob
    cdef Owned* owned               # arrays, freed together in __dealloc__
    cdef readonly Replies replies
    cdef readonly tuple protocols
    cdef readonly tuple routes      # (dialect, route) rows by Route.index
    cdef dict allow                 # methods bits -> reply number of the 405

    def __cinit__(self):
        self.blob = bytearray()
        self.allow = {}
        self.rec.shapes = <Shape*>calloc(SHAPE_SETS * SHAPE_WAYS + 1, sizeof(Shape))
        if self.rec.shapes is NULL or not tree_init(&self.rec.tree) or not pk_room(&self.rec.scratch, 4096):
            raise MemoryError()

    def __dealloc__(self):
        cdef Owned* next
        free(self.rec.shapes)
        tree_free(&self.rec.tree)
        pk_free(&self.rec.scratch)
        pk_free(&self.rec.packed)
        jsn_free(&self.rec.json)
        while self.owned is not NULL:
            next = self.owned.next
            free(self.owned)
            self.owned = next

    def __init__(self, dialects, sources=(), *, fields, options=None):
        self.protocols = tuple(dialect.name for dialect in dialects)
        self.routes = tuple((dialect, route) for dialect in dialects for route in dialect.routes)
        if len(self.protocols) > 64:
            raise ValueError(f"{len(self.protocols)} dialects; at most 64 fit")
        self.replies = Replies()
        self._fields(fields)
        self._routes(options or {})
        self._paths()
        self._sources(sources)
        self.data.blob = self._pin()

    cdef void* _array(self, Py_ssize_t count, size_t size) except NULL:
        # Zeroed; lives as long as the Plan.
        cdef Owned* owned = <Owned*>calloc(1, sizeof(Owned) + <size_t>count * size)
        if owned is NULL:
            raise MemoryError()
        owned.next = self.owned
        self.owned = owned
        return owned + 1

    cdef const byte* _pin(self) except NULL:
        cdef byte* blob = <byte*>self._array(len(self.blob), 1)
        cdef const byte[:] view = self.blob
        if view.shape[0]:
            memcpy(blob, &view[0], <size_t>view.shape[0])
        return blob

    cdef Span _bytes(self, bytes data):
        cdef Span span = span_of(IN_PLAN, len(self.blob), len(data))
        self.blob += data
        return span

    cdef Segment _segment(self, str text):
        cdef bytes data = text.encode()
        cdef Segment segment
        segment.name = self._bytes(data)
        segment.hash = tree_hash(<const byte*>data, len(data))
        segment.index = NOT_INDEX
        return segment

    cdef Path _path(self, str dotted):
        cdef Path path
        parts = dotted.split(".") if dotted else []
        if len(parts) > MAX_SEGMENTS - MAX_DEPTH - 4:
            raise ValueError(f"target {dotted!r} is deeper than {<int>(MAX_SEGMENTS - MAX_DEPTH - 4)} names")
        path.length = len(parts)
        path.at = <Segment*>self._array(len(parts), sizeof(Segment))
        for i, part in enumerate(parts):
            path.at[i] = self._segment(part)
        return path

    cdef int _names(self, Names* names, list texts) except -1:
        # Open addressing, at most half full.
        cdef uint32_t size = 4, at
        cdef int i
        if len(texts) > 32000:
            raise ValueError(f"{len(texts)} names in one table; at most 32000 fit")
        while size < 2 * len(texts):
            size *= 2
        names.count = len(texts)
        names.mask = size - 1
        names.all = <Segment*>self._array(len(texts), sizeof(Segment))
        names.table = <int16_t*>self._array(size, sizeof(int16_t))
        memset(names.table, 0xFF, size * sizeof(int16_t))
        for i in range(names.count):
            names.all[i] = self._segment(texts[i])
            at = names.all[i].hash
            while names.table[at & names.mask] >= 0:
                at += 1
            names.table[at & names.mask] = <int16_t>i
        return 0

    cdef int _fields(self, fields) except -1:
        # The fields that the core asks for come first, so that a field's number is its Known.
        cdef int i
        types = {f.name: FIELD_SERVER if f.server_owned else _FIELD_TYPES[f.type] for f in fields}
        first = list(_KNOWN_NAMES[:N_CONTEXT + 1])
        names = first + [name for name in types if name not in first]
        if len(names) > 64:
            raise ValueError("more than 64 record fields")
        self._names(&self.data.fields, names)
        for i, name in enumerate(names):
            self.data.field_types[i] = types[name]
        for i, name in enumerate(_KNOWN_NAMES):
            self.data.known[i] = self._segment(name)
        return 0

    cdef int _routes(self, options) except -1:
        cdef int i
        self.data.route_count = len(self.routes)
        self.data.routes = <Route*>self._array(len(self.routes), sizeof(Route))
        for i, (dialect, route) in enumerate(self.routes):
            self.data.routes[i].index = i
            self._route(&self.data.routes[i], dialect, route)
            self._rows(&self.data.routes[i], route)
            self._answers(&self.data.routes[i], dialect, route, options.get(dialect.name, {}))
        return 0

    cdef int _route(self, Route* out, dialect, route) except -1:
        cdef int i
        out.protocol = self.protocols.index(dialect.name)
        for method in route.method:
            out.methods |= 1 << <int>_METHODS[method]
            if method == "GET":
                out.methods |= 1 << <int>M_HEAD
        out.path = self._bytes(route.path.encode())
        out.variables = "{" in route.path
        out.head = self._bytes(_member("protocol", dialect.name) + _member("type", route.type))
        out.first = dialect.repeat == "first"
        out.drop_bad = dialect.bad_escape == "drop"
        out.skew = dialect.skew
        out.identity_count = len(route.identity)
        out.identity = <Segment*>self._array(len(route.identity), sizeof(Segment))
        for i, name in enumerate(route.identity):
            out.identity[i] = self._segment(name)
        out.receipt_count = len(dialect.receipt)
        out.receipt = <Segment*>self._array(len(dialect.receipt), sizeof(Segment))
        for i, name in enumerate(dialect.receipt):
            out.receipt[i] = self._segment(name)
        out.default_count = len(dialect.defaults)
        out.defaults = <Default*>self._array(len(dialect.defaults), sizeof(Default))
        for i, (path, value) in enumerate(dialect.defaults):
            out.defaults[i].target = self._path(path)
            out.defaults[i].packed = self._bytes(_packed(value))
        return 0

    cdef int _rows(self, Route* out, route) except -1:
        cdef int i
        names = [row.source for row in route.fields]
        if len(names) > MAX_ROWS or len(route.dedupe) > MAX_DEDUPE:
            raise ValueError(f"{route.path}: more than {<int>MAX_ROWS} fields or {<int>MAX_DEDUPE} in dedupe")
        # A path variable and '*' are rows, but no parameter has their name.
        self._names(&out.names, [n if n != "*" and not n.startswith("path.") else "" for n in names])
        out.count = len(names)
        out.rows = <Row*>self._array(len(names), sizeof(Row))
        out.rest = names.index("*") if "*" in names else -1
        out.key = next(i for i, row in enumerate(route.fields) if row.to == "writeKey")
        out.dedupe_count = len(route.dedupe)
        for i, name in enumerate(route.dedupe):
            out.dedupe[i] = names.index(name)
        for i, row in enumerate(route.fields):
            self._row(&out.rows[i], row, names)
            if row.source.startswith("path."):
                out.rows[i].variable = route.path.split("/")[1:].index("{" + row.source[5:] + "}")
        return 0

    cdef int _row(self, Row* out, row, list names) except -1:
        out.source = self._segment(row.source)
        out.target = self._path(row.to)
        out.otherwise = self._path(row.otherwise)
        out.kind = KINDS[row.kind]
        out.required = REASONS.index(row.required) if row.required else NO_REASON
        out.nonempty = REASONS.index(row.nonempty) if row.nonempty else NO_REASON
        out.max_chars = row.max_chars
        out.variable = -1
        out.gate = -1
        if row.when:
            name, _, value = row.when.partition("=")
            out.gate = names.index(name)
            out.gate_value = self._bytes(value.encode())
        if row.if_empty is not None:
            out.has_if_empty = True
            out.if_empty = self._bytes(row.if_empty.encode())
        out.unquote = row.unquote
        out.tidy = row.tidy
        out.trusted = row.trusted
        out.aside = row.trusted or row.when is not None or not row.to
        out.is_timestamp = row.to == "timestamp"
        return 0

    cdef int _answers(self, Route* out, dialect, route, options) except -1:
        answer = dialect.answer(route, options)
        for accept, outcome in ((ACCEPT_IMAGE, answer.image), (ACCEPT_TEXT, answer.text), (ACCEPT_OTHER, answer.other)):
            out.replies[<int>accept][<int>OUT_STORED] = self.replies.add(outcome.stored, dialect.errors)
            out.replies[<int>accept][<int>OUT_REFUSED] = self.replies.add(outcome.refused, dialect.errors)
            out.replies[<int>accept][<int>OUT_UNAVAILABLE] = self.replies.add(outcome.unavailable, dialect.errors)
        return 0

    cdef int _paths(self) except -1:
        # Routes of one path may differ by method; the first row of a method wins.
        cdef int i, method, number
        paths = list(dict.fromkeys(route.path for _, route in self.routes if "{" not in route.path))
        if len(paths) > 256:
            raise ValueError("more than 256 routes without variables")
        self._names(&self.data.paths, paths)
        memset(self.data.path_routes, 0xFF, sizeof(self.data.path_routes))
        for i, (_, route) in enumerate(self.routes):
            if route.path not in paths:
                continue
            number = paths.index(route.path)
            for method in range(4):
                if (self.data.routes[i].methods >> method) & 1 and self.data.path_routes[number][method] < 0:
                    self.data.path_routes[number][method] = i
        return 0

    cdef int _sources(self, sources) except -1:
        cdef int i
        self._names(&self.data.sources, [source.key for source in sources])
        self.data.source_rows = <Source*>self._array(len(sources), sizeof(Source))
        for i, source in enumerate(sources):
            self.data.source_rows[i].enabled = source.enabled
            self.data.source_rows[i].trust_client_ip = source.trust_client_ip
            self.data.source_rows[i].protocols = self._protocol_bits(source.protocols)
            self.data.source_rows[i].packed = self._bytes(_member("source", source.name) if source.name else b"")
        return 0

    cdef uint64_t _protocol_bits(self, protocols):
        cdef uint64_t bits = 0
        for number, name in enumerate(self.protocols):
            if not protocols or "all" in protocols or name in protocols:
                bits |= 1ull << <int>number
        return bits

    cdef int allowed(self, int methods) except -1:
        # The reply number of a 405 for a path that answers these methods.
        if methods not in self.allow:
            self.allow[methods] = self.replies.add_text(
                405, "method not allowed\n", (("Allow", _method_list(methods)),)
            )
        return self.allow[methods]

    @property
    def shaped(self):
        """How many records a kept shape has written, without going the long way."""
        return self.rec.shaped

    def record(self, str method, bytes target, headers=(), bytes body=b"", ip=None, now=None):
        """(reason, record) that this request would have: reason None and msgpack bytes, or a reason and None.

        `headers`: pairs of bytes. `now`: ns since the epoch, default: the clock. LookupError: no route answers it.
        """
        cdef Request request
        cdef Match match
        cdef Pack out
        cdef int reason
        head = _head(method, target, headers)
        ip_bytes = (ip or "").encode()
        if head_parse(<const byte*><bytes>head, len(head), &request) != HEAD_DONE:
            return "bad_http", None
        request.body = body
        request.body_len = len(body)
        request.ip = ip_bytes
        request.ip_len = len(ip_bytes)
        request.received = clock_now() if now is None else time_of(now)
        match = plan_match(&self.data, &self.rec, &request)
        if match.route is NULL:
            raise LookupError(f"no route answers {method} {target.decode('utf-8', 'replace')}")
        memset(&out, 0, sizeof(out))
        try:
            reason = self.take(match.route, &request, &out)
            if reason == NO_REASON:
                return None, out.data[:out.len]
            return REASONS[reason], None
        finally:
            pk_free(&out)

    cdef int take(self, const Route* route, const Request* request, Pack* out) except -2:
        # One request to one record at the end of `out`, or the Reason against it. All that is called but _digest is
        # `nogil`, so it makes no Python object; it is too short to let go of the GIL for it.
        cdef Py_ssize_t start = out.len
        cdef int reason
        rec_open(&self.rec, &self.data, route, request)
        if shape_take(&self.rec, out):
            return NO_REASON
        rec_clear(&self.rec)
        reason = rec_read(&self.rec)
        if reason == NO_REASON and request.method == M_HEAD:
            reason = R_HEAD
        if reason == NO_REASON:
            reason = rec_complete(&self.rec)
        if reason == NO_REASON and self.rec.dedupe:
            self._digest()
        if reason == NO_REASON:
            reason = rec_pack(&self.rec, out)
        if reason == NO_REASON:
            shape_keep(&self.rec, out, start)
        return reason

    cdef int _digest(self) except -1:
        # A repeat of a request gets the same messageId. SHA-256 is hashlib's: this is rare (a client that sets the
        # time itself), and the one place of the compiled tier that makes Python objects.
        cdef Rec* rec = &self.rec
        cdef const Route* route = rec.route
        cdef bytes digest
        cdef int i
        parts = [self._row_value(route.dedupe[0]), _span_bytes(rec, route.path)]
        parts += [self._row_value(route.dedupe[i]) for i in range(1, route.dedupe_count)]
        for name, value in sorted(self._rest_members()):
            parts += (name, value)
        digest = sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).digest()
        if not rec_room(rec, UUID_TEXT + 16):
            raise MemoryError()
        memcpy(rec.scratch.data + rec.scratch.len + UUID_TEXT, <const byte*>digest, 16)
        uuid_text(rec.scratch.data + rec.scratch.len + UUID_TEXT, 8, rec.scratch.data + rec.scratch.len)
        rec_set_message_id(rec, span_of(IN_SCRATCH, rec.scratch.len, UUID_TEXT))
        rec.scratch.len += UUID_TEXT
        return 0

    cdef bytes _row_value(self, int row):
        cdef int32_t node = self.rec.slots[row]
        return _span_bytes(&self.rec, self.rec.tree.nodes[node].value) if node >= 0 else b""

    cdef list _rest_members(self):
        # Name and text of what the '*' row took.
        cdef const Row* row = &self.rec.route.rows[self.rec.route.rest]
        cdef int32_t node = 0
        cdef int i
        members = []
        for i in range(row.target.length):
            node = tree_member(&self.rec.tree, &self.rec.bases, node, &row.target.at[i])
            if node < 0:
                return members
        node = self.rec.tree.nodes[node].first
        while node >= 0:
            members.append((_span_bytes(&self.rec, self.rec.tree.nodes[node].name),
                            _span_bytes(&self.rec, self.rec.tree.nodes[node].value)))
            node = self.rec.tree.nodes[node].next
        return members

    cdef bytes key(self):
        # The writeKey of the request just taken, if it gave one, even if it was refused before its key was read.
        cdef int32_t node
        if self.rec.key.len:
            return _span_bytes(&self.rec, self.rec.key)
        node = self.rec.slots[self.rec.route.key]
        return _span_bytes(&self.rec, self.rec.tree.nodes[node].value) if rec_is_text(&self.rec, node) else b""


cdef bytes _span_bytes(const Rec* rec, Span span):
    return (<const char*>span_ptr(&rec.bases, span))[:span.len]


def _packed(value):
    cdef Pack pack
    memset(&pack, 0, sizeof(pack))
    if isinstance(value, bool):
        pk_bool(&pack, value)
    else:
        data = value.encode()
        pk_str(&pack, <const byte*><bytes>data, len(data))
    try:
        return pack.data[:pack.len]
    finally:
        pk_free(&pack)


def _member(name, value):
    return _packed(name) + _packed(value)


def _method_list(methods):
    return ", ".join(name for name, bit in _METHODS.items() if (methods >> bit) & 1)


def _head(method, target, headers):
    lines = [method.encode() + b" " + target + b" HTTP/1.1"]
    lines += [name + b": " + value for name, value in headers]
    if not any(name.lower() == b"host" for name, _ in headers):
        lines.append(b"Host: localhost")
    return b"\r\n".join(lines) + b"\r\n\r\n"
