# Shapes: the requests of one site have the same names in the same order again and again, so the tree that the names
# make is kept and only the values are new.
#
# What the pairs of a query make of an empty tree depends on their names alone. So, when a query has been read the long
# way, its names and its tree are kept in a place chosen by route and number of '&'. The next query of that place is
# compared name by name while it is cut; if all match, the kept tree is copied and its leaves get the new values. Any
# difference, and everything that depends on more than names (a form body, path variables, a pair that is dropped),
# goes the long way. Everything after the pairs is the same code for both ways.


cdef Shape* shape_place(Rec* rec) noexcept nogil:
    # NULL: requests of this kind have no shape.
    cdef Cursor query = cur_span(&rec.bases, rec.request.query)
    cdef int count = 0
    if rec.route.variables or rec.request.method == M_POST:
        return NULL
    while cur_left(&query):
        count += blk_count(blk_is(blk_load(query.at, cur_left(&query)), c'&'))
        query.at += min(cur_left(&query), <Py_ssize_t>BLOCK)
    rec.marks = count
    return &rec.shapes[(rec.route.index * 7 + count) & (SHAPES - 1)]


cdef bint shape_read(Rec* rec, const Shape* shape) noexcept nogil:
    # Reads the query along the shape. False: it has another one, and nothing has been done.
    cdef Cursor source = cur_span(&rec.bases, rec.request.query)
    cdef Py_ssize_t scratch = rec.scratch.len
    cdef Span values[SHAPE_PAIRS]
    cdef Pair pair
    cdef int count = 0
    if shape.route != rec.route.index + 1 or shape.marks != rec.marks:
        return False
    while qry_next(&source, &pair):
        if count == shape.pairs or not shape_fits(shape, count, &pair, rec.route.drop_bad):
            rec.scratch.len = scratch
            return False
        if shape.leaf[count] >= 0:
            values[count] = pct_text(rec, IN_HEAD, pair.value, pair.value_flags & CC_CODED, True)
        count += 1
    if count != shape.pairs:
        rec.scratch.len = scratch
        return False
    shape_fill(rec, shape, values)
    return True


cdef inline bint shape_fits(const Shape* shape, int index, const Pair* pair, bint drop_bad) noexcept nogil:
    cdef Span name = shape.names[index]
    if name.len != <uint32_t>cur_left(&pair.name) or not blk_same(shape.text + name.at, pair.name.at, name.len):
        return False
    return not (drop_bad and qry_is_bad(pair))


cdef void shape_fill(Rec* rec, const Shape* shape, const Span* values) noexcept nogil:
    cdef int i
    memcpy(rec.tree.nodes, shape.nodes, <size_t>shape.node_count * sizeof(Node))
    rec.tree.count = shape.node_count
    rec.tree.arrays = shape.arrays
    rec.skipped = shape.skipped
    rec.bases.at[IN_SHAPE] = <const byte*>shape.text
    memcpy(rec.slots, shape.slots, <size_t>rec.route.count * sizeof(int32_t))
    for i in range(shape.pairs):
        if shape.leaf[i] >= 0:
            rec.tree.nodes[shape.leaf[i]].value = values[i]


cdef inline void shape_note(Rec* rec, const Pair* pair, int32_t node) noexcept nogil:
    # On the long way: which node the pair has set; -1: none.
    if rec.noted < SHAPE_PAIRS:
        rec.names[rec.noted] = span_of(IN_HEAD, pair.name.at - rec.bases.at[IN_HEAD], cur_left(&pair.name))
        rec.leaves[rec.noted] = node
    rec.noted += 1


cdef void shape_keep(Rec* rec, Shape* shape) noexcept nogil:
    # A shape that another one keeps pushing out would cost more than it saves: only the second attempt gets the place.
    cdef int i
    if rec.noted > SHAPE_PAIRS or rec.tree.count > SHAPE_NODES:
        return
    if shape.route and not shape.contested:
        shape.contested = True
        return
    shape.route = 0
    shape.used = 0
    shape.contested = False
    for i in range(rec.noted):
        if not shape_text(shape, &rec.bases, rec.names[i], &shape.names[i]):
            return
        shape.leaf[i] = <int16_t>rec.leaves[i]
        if shape.leaf[i] >= 0 and rec.tree.nodes[rec.leaves[i]].state != NODE_LEAF:
            shape.leaf[i] = -1
    if not shape_nodes(rec, shape):
        return
    shape.pairs = rec.noted
    shape.marks = rec.marks
    shape.arrays = rec.tree.arrays
    shape.skipped = rec.skipped
    memcpy(shape.slots, rec.slots, <size_t>rec.route.count * sizeof(int32_t))
    shape.route = rec.route.index + 1


cdef bint shape_nodes(Rec* rec, Shape* shape) noexcept nogil:
    # The tree, with names that do not lie in this request.
    cdef Node* node
    cdef Span name
    cdef int i
    for i in range(rec.tree.count):
        node = &shape.nodes[i]
        node[0] = rec.tree.nodes[i]
        if i < 2 or node.name.at >> SPAN_SHIFT == IN_PLAN:
            continue
        if not shape_text(shape, &rec.bases, node.name, &name):
            return False
        node.name = span_of(IN_SHAPE, name.at, name.len)
    shape.node_count = rec.tree.count
    return True


cdef bint shape_text(Shape* shape, const Bases* bases, Span text, Span* out) noexcept nogil:
    # Copies text into the shape; its place there. False: there is no room.
    if shape.used + text.len > SHAPE_TEXT:
        return False
    memcpy(shape.text + shape.used, span_ptr(bases, text), text.len)
    out.at = shape.used
    out.len = text.len
    shape.used += text.len
    return True
