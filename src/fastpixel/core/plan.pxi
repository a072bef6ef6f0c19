# The Plan: dialect tables compiled to arrays. Everything after it works on these arrays alone.
#
# A Plan is made once, at start or reload, from rows (duck-typed: fastpixel.dialect.Dialect, fastpixel.config.Source).
# All constant bytes lie in one blob; every name has its hash. Nothing here runs per request but the lookups at the top.

_KNOWN_NAMES = (
    "messageId", "timestamp", "originalTimestamp", "sentAt", "context", "client", "ip", "userAgent", "referrer", "writeKey",
)
_PERSONAL_NAMES = ("anonymousId", "userId", "previousId", "sessionId", "traits")
_PERSONAL_TYPES = ("identify", "alias", "group")
_IP_POLICIES = ("keep", "truncate", "drop")
_GPC_POLICIES = ("ignore", "anonymise", "drop")
_FIELD_TYPES = {"text": FIELD_TEXT, "time": FIELD_TIME, "map": FIELD_MAP}
KINDS = {kind.name[2:].lower(): kind.value for kind in _Kind}
REASONS = tuple(reason.name[2:].lower() for reason in _Reason)
_METHODS = {"GET": M_GET, "HEAD": M_HEAD, "POST": M_POST, "PUT": M_PUT, "OPTIONS": M_OPTIONS}


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


cdef Match plan_match(const PlanData* plan, Rec* rec, Request* request) noexcept nogil:
    # Exact paths first, then those with variables in the order of their rows. Paths are compared as raw bytes.
    cdef Match match
    cdef Segment path
    cdef int found, i
    match.route = NULL
    match.methods = match.protocol = 0
    rec.bases.at[IN_HEAD] = request.head
    rec.bases.at[IN_PLAN] = plan.blob
    if plan.alias_count:
        plan_alias(plan, rec, request)
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


cdef void plan_alias(const PlanData* plan, Rec* rec, Request* request) noexcept nogil:
    # A path below an alias is served as if it stood below the alias's target. The longest alias counts, and only once.
    cdef Cursor path = cur_span(&rec.bases, request.path)
    cdef const Alias* alias
    cdef int i
    for i in range(plan.alias_count):
        alias = &plan.aliases[i]
        if cur_left(&path) < alias.prefix.len or not span_is(
            &rec.bases, alias.prefix, <const char*>path.at, alias.prefix.len
        ):
            continue
        rec.alias.len = 0
        pk_raw(&rec.alias, span_ptr(&rec.bases, alias.target), alias.target.len)
        pk_raw(&rec.alias, path.at + alias.prefix.len, cur_left(&path) - alias.prefix.len)
        if rec.alias.failed:        # it is served as it came: 404
            rec.alias.failed = False
            return
        request.alias = rec.bases.at[IN_ALIAS] = rec.alias.data
        request.path = span_of(IN_ALIAS, 0, rec.alias.len)
        return


cdef void plan_add(Match* match, const Route* route, int method) noexcept nogil:
    if match.methods == 0:
        match.protocol = route.protocol
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

    `dialects`: fastpixel.dialect.Dialect rows; a route object that several of them have is served once, and recorded as
    the first one that the source lists. `sources`: fastpixel.config.Source rows; none: every non-empty key is accepted.
    `fields`: fastpixel.event.FIELDS. `options`: by dialect name, e.g. {"rudderstack": {"reply": "gif"}}. `privacy`,
    `visitor`: the sections of the configuration, None: its defaults, no cookie. `paths`: prefix -> the prefix that it
    stands for. ValueError or KeyError: a row that fastpixel.dialect.validate would have refused.
    """

    cdef PlanData data
    cdef Rec rec
    cdef bytearray blob
    cdef Owned* owned               # arrays, freed together in __dealloc__
    cdef readonly Replies replies
    cdef readonly tuple protocols
    cdef readonly tuple routes      # (dialect, route) rows by Route.index
    cdef readonly tuple dialects
    cdef readonly tuple sources
    cdef readonly dict options
    cdef dict allow                 # (dialect, methods bits) -> reply number of the 405
    cdef list below                 # (prefix, reply number of the 404 below it)
    cdef bytearray private          # cells of rate limits that no other worker shares

    def __cinit__(self):
        self.blob = bytearray()
        self.allow = {}
        self.rec.shapes = <Shape*>calloc(SHAPE_SETS * SHAPE_WAYS + 1, sizeof(Shape))
        if self.rec.shapes is NULL or not tree_init(&self.rec.tree) or not pk_room(&self.rec.scratch, REC_SCRATCH):
            raise MemoryError()

    def __dealloc__(self):
        cdef Owned* next
        free(self.rec.shapes)
        tree_free(&self.rec.tree)
        pk_free(&self.rec.scratch)
        pk_free(&self.rec.packed)
        pk_free(&self.rec.alias)
        jsn_free(&self.rec.json)
        while self.owned is not NULL:
            next = self.owned.next
            free(self.owned)
            self.owned = next

    def __init__(self, dialects, sources=(), *, fields, options=None, privacy=None, visitor=None, paths=None):
        self.dialects = tuple(dialects)
        self.sources = tuple(sources)
        self.options = options or {}
        self.protocols = tuple(dialect.name for dialect in self.dialects)
        self.routes = _unique_routes(self.dialects)
        if len(self.protocols) > 64:
            raise ValueError(f"{len(self.protocols)} dialects; at most 64 fit")
        self.replies = Replies()
        self._fields(fields)
        self._params()
        self._routes(self.options)
        self._paths()
        self._aliases(paths or {})
        self._sources(self.sources)
        self._privacy(&self.data.general, privacy)
        self._strictest()
        self._visitor(visitor)
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
        numeric = {f.name for f in fields if f.numeric}
        first = list(_KNOWN_NAMES[:N_CONTEXT + 1])
        names = first + [name for name in types if name not in first]
        if len(names) > 64:
            raise ValueError("more than 64 record fields")
        self._names(&self.data.fields, names)
        for i, name in enumerate(names):
            self.data.field_types[i] = types[name]
            if name in numeric:
                self.data.numeric |= 1ull << i
        for i, name in enumerate(_KNOWN_NAMES):
            self.data.known[i] = self._segment(name)
        for i, name in enumerate(_PERSONAL_NAMES):
            self.data.personal[i] = self._segment(name)
        for i, name in enumerate(self.protocols):
            self.data.protocols[i] = self._bytes(_member("protocol", name))
        return 0

    cdef int _params(self) except -1:
        cdef ParamsNames* out = &self.data.params
        cdef int i
        self._names(&out.special, [name for name, _ in _PARAMS_SPECIAL])
        for i, (_, target) in enumerate(_PARAMS_SPECIAL):
            out.targets[i] = self._path(target)
        for i, name in enumerate(_PARAMS_ERRORS, PRM_BAD_JSON):
            out.errors[i] = self._bytes(name.encode())
        out.properties = self._segment("properties")
        out.error = self._segment("paramsError")
        out.text = self._segment("paramsText")
        out.length = self._segment("paramsLength")
        out.sha256 = self._segment("paramsSha256")
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
        self.below = [
            (prefix.encode(), self.replies.add(dialect.not_found, {}))
            for dialect in self.dialects for prefix in dialect.prefixes
        ]
        return 0

    cdef int _route(self, Route* out, dialect, route) except -1:
        cdef int i
        cdef bint pixel = route.handler is None
        out.protocol = self.protocols.index(dialect.name)
        for i, other in enumerate(self.dialects):
            if any(row is route for row in other.routes):
                out.shared |= 1ull << i
        out.python = not pixel
        out.visitor = route.visitor
        out.personal = route.type in _PERSONAL_TYPES
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
        out.receipt_count = len(dialect.receipt) if pixel else 0
        out.receipt = <Segment*>self._array(len(dialect.receipt), sizeof(Segment))
        for i, name in enumerate(dialect.receipt):
            out.receipt[i] = self._segment(name)
        defaults = (*route.defaults, *dialect.defaults) if pixel else ()
        out.default_count = len(defaults)
        out.defaults = <Default*>self._array(len(defaults), sizeof(Default))
        for i, (path, value) in enumerate(defaults):
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
        out.key = next((i for i, row in enumerate(route.fields) if row.to == "writeKey"), -1)
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
        # Members of params go to several places, so no node is made at the row's target.
        out.target = self._path(row.to if row.kind != "params" else "")
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
        out.ignored = row.on_bad == "ignore" or row.kind == "params"
        out.aside = row.trusted or row.when is not None or not out.target.length
        out.is_timestamp = row.to == "timestamp"
        return 0

    cdef int _answers(self, Route* out, dialect, route, options) except -1:
        answer = dialect.answer(route, options)
        for accept, outcome in ((ACCEPT_IMAGE, answer.image), (ACCEPT_TEXT, answer.text), (ACCEPT_OTHER, answer.other)):
            out.replies[<int>accept][<int>OUT_STORED] = self.replies.add(outcome.stored, dialect.errors)
            out.replies[<int>accept][<int>OUT_REFUSED] = self.replies.add(outcome.refused, dialect.errors)
            out.replies[<int>accept][<int>OUT_UNAVAILABLE] = self.replies.add(outcome.unavailable, dialect.errors)
            out.replies[<int>accept][<int>OUT_LIMITED] = self.replies.add(outcome.limited, dialect.errors)
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
            for method in range(<int>M_PUT + 1):
                if (self.data.routes[i].methods >> method) & 1 and self.data.path_routes[number][method] < 0:
                    self.data.path_routes[number][method] = i
        return 0

    cdef int _aliases(self, paths) except -1:
        cdef int i
        self.data.aliases = <Alias*>self._array(len(paths), sizeof(Alias))
        self.data.alias_count = len(paths)
        for i, (prefix, target) in enumerate(sorted(paths.items(), key=lambda pair: -len(pair[0]))):
            self.data.aliases[i].prefix = self._bytes(prefix.encode())
            self.data.aliases[i].target = self._bytes(target.encode())
        return 0

    cdef int _sources(self, sources) except -1:
        cdef int i, cells = 0
        cdef Source* row
        self._names(&self.data.sources, [source.key for source in sources])
        self.data.source_rows = <Source*>self._array(len(sources), sizeof(Source))
        for i, source in enumerate(sources):
            row = &self.data.source_rows[i]
            row.number = i
            row.enabled = source.enabled
            row.trust_client_ip = source.trust_client_ip
            row.protocols = self._protocol_bits(source.protocols)
            row.packed = self._bytes(_member("source", source.name) if source.name else b"")
            self._privacy(row, source.privacy)
            if source.origins:
                self._names(&row.origins, list(source.origins))
            row.cell = -1
            if source.rate_limit > 0:
                row.cell = cells
                row.interval = <uint64_t>max(1e9 / source.rate_limit, 1.0)
                cells += 1
        self.private = bytearray(8 * cells)
        self.use_cells(self.private)
        return 0

    cdef int _privacy(self, Source* row, privacy) except -1:
        if privacy is not None:
            row.ip = _IP_POLICIES.index(privacy.ip)
            row.gpc = _GPC_POLICIES.index(privacy.gpc)
        return 0

    cdef int _strictest(self) except -1:
        cdef int i
        self.data.strictest = self.data.general
        for i in range(self.data.sources.count):
            rec_stricter(&self.data.strictest, &self.data.source_rows[i])
        return 0

    cdef int _visitor(self, visitor) except -1:
        self.data.visitor.on = visitor is not None and visitor.cookie
        if self.data.visitor.on:
            self.data.visitor.name = self._bytes(f"{visitor.name}=".encode())
            self.replies.set_cookie(visitor)
        return 0

    cdef int use_cells(self, cells) except -1:
        # The cells of rate limits, one for each source that has one; None: none is limited. The caller keeps them alive.
        cdef unsigned char[::1] view
        cdef Py_ssize_t need = len(self.private)
        if cells is None or need == 0:
            self.data.cells = NULL
            return 0
        view = memoryview(cells).cast("B")
        if view.shape[0] < need:
            raise ValueError(f"cells: {need} bytes are needed")
        self.data.cells = <uint64_t*>&view[0]
        return 0

    cdef uint64_t _protocol_bits(self, protocols):
        cdef uint64_t bits = 0
        for number, name in enumerate(self.protocols):
            if not protocols or "all" in protocols or name in protocols:
                bits |= 1ull << <int>number
        return bits

    cdef int allowed(self, int protocol, int methods) except -1:
        # The reply number of a 405 for a dialect's path that answers these methods.
        if (protocol, methods) not in self.allow:
            reply = self.dialects[protocol].not_allowed
            headers = (*reply.headers, ("Allow", _method_list(methods)))
            self.allow[protocol, methods] = self.replies._add(
                (reply.status, reply.content_type, reply.body, headers), {}
            )
        return self.allow[protocol, methods]

    cdef int not_found(self, const Request* request) except -1:
        # The reply number of a 404.
        path = _path_bytes(request)
        for prefix, reply in self.below:
            if path.startswith(prefix):
                return reply
        return self.replies.not_found

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
        # One request to one record at the end of `out`, or the Reason against it. All that is called but _digest and _hash
        # is `nogil`, so it makes no Python object; it is too short to let go of the GIL for it.
        cdef Py_ssize_t start = out.len
        cdef int reason
        rec_open(&self.rec, &self.data, route, request)
        if shape_take(&self.rec, out):
            if rate_admits(&self.data, self.rec.source, False):
                return NO_REASON
            out.len = start
            return R_RATE_LIMITED
        rec_clear(&self.rec)
        reason = rec_read(&self.rec)
        if reason == NO_REASON and request.method == M_HEAD:
            reason = R_HEAD
        if reason == NO_REASON and not rate_admits(&self.data, self.rec.source, False):
            reason = R_RATE_LIMITED
        if reason == NO_REASON:
            reason = rec_complete(&self.rec)
        if reason == NO_REASON and self.rec.dedupe:
            self._digest()
        if reason == NO_REASON and self.rec.secret.len:
            self._hash()
        if reason == NO_REASON:
            reason = rec_pack(&self.rec, request.body_len, out)
        if reason == NO_REASON:
            shape_keep(&self.rec, out, start)
        return reason

    cdef int _digest(self) except -1:
        # A repeat of a request gets the same messageId. SHA-256 is hashlib's: this is rare (a client that sets the
        # time itself), and with _hash the one place of the compiled tier that makes Python objects.
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

    cdef int _hash(self) except -1:
        # The SHA-256 of what must not be stored in clear: an access token, or text in which one could be. It is hashlib's,
        # and so above Plan, because it is rare. Until here zeros are in its place, never the secret.
        cdef Rec* rec = &self.rec
        cdef bytes digits = sha256(_span_bytes(rec, rec.secret)).hexdigest().encode()
        memcpy(rec.scratch.data + (rec.secret_at.at & SPAN_MASK), <const byte*>digits, PRM_HEX)
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
        if self.rec.route.key < 0:
            return b""
        node = self.rec.slots[self.rec.route.key]
        return _span_bytes(&self.rec, self.rec.tree.nodes[node].value) if rec_is_text(&self.rec, node) else b""


def _unique_routes(dialects):
    # (dialect, route) of every route object once, with the first dialect that has it.
    found = {}
    for dialect in dialects:
        for route in dialect.routes:
            found.setdefault(id(route), (dialect, route))
    return tuple(found.values())


cdef bytes _path_bytes(const Request* request):
    # After aliases, as raw bytes.
    cdef const byte* base = request.head if request.path.at >> SPAN_SHIFT == IN_HEAD else request.alias
    return (<const char*>base + (request.path.at & SPAN_MASK))[:request.path.len]


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
