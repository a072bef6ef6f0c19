# The event as a tree: maps, arrays and leaves, built from paths.
#
# How it works: nodes lie in one array and are found by (parent, name) through one hash table, which a generation number
# empties in no time. A node that a conflict removed stays in the table but is no member of its parent any more (`born`
# differs from the parent's `age`), so that a repeated key is still recognised. Nodes are never freed, only forgotten at
# the next request.
#
# Rules (protocols, "Dot paths"): a segment 0..999 under a key makes an array, holes are null; on a map it is an
# ordinary name; a name set on an array makes it a map; the later of two conflicting pairs wins.


cdef enum:
    TREE_KEPT = 65536               # nodes that a worker keeps room for: a power of two


cdef bint tree_init(Tree* tree) noexcept nogil:
    tree.cap = 128
    tree.mask = 255
    tree.nodes = <Node*>malloc(tree.cap * sizeof(Node))
    tree.slots = <uint64_t*>calloc(tree.mask + 1, sizeof(uint64_t))
    return tree.nodes is not NULL and tree.slots is not NULL


cdef void tree_free(Tree* tree) noexcept nogil:
    free(tree.nodes)
    free(tree.slots)
    tree.nodes = NULL
    tree.slots = NULL


cdef void tree_slim(Tree* tree) noexcept nogil:
    # Before a reset: gives back memory that only a very large document needed.
    cdef Node* nodes
    cdef uint64_t* slots
    if tree.cap <= TREE_KEPT:
        return
    nodes = <Node*>realloc(tree.nodes, TREE_KEPT * sizeof(Node))
    if nodes is NULL:
        return
    tree.nodes = nodes
    tree.cap = TREE_KEPT
    slots = <uint64_t*>realloc(tree.slots, 2 * TREE_KEPT * sizeof(uint64_t))
    if slots is not NULL:
        tree.slots = slots
        tree.mask = 2 * TREE_KEPT - 1


cdef void tree_reset(Tree* tree) noexcept nogil:
    tree.count = 0
    tree.arrays = 0
    tree.failed = False
    tree.generation += 1
    if tree.generation == 0:
        memset(tree.slots, 0, (tree.mask + 1) * sizeof(uint64_t))
        tree.generation = 1
    tree_root(tree)
    tree_root(tree)


cdef void tree_root(Tree* tree) noexcept nogil:
    cdef Node* node = &tree.nodes[tree.count]
    memset(node, 0, sizeof(Node))
    node.parent = node.first = node.last = node.next = node.previous = -1
    node.age = node.born = 1
    node.state = NODE_MAP
    tree.count += 1


cdef inline uint32_t tree_hash(const byte* at, Py_ssize_t length) noexcept nogil:
    return <uint32_t>(hsh_bytes(at, length) >> 32)


cdef inline uint32_t tree_slot_hash(int32_t parent, uint32_t name_hash) noexcept nogil:
    return name_hash ^ (<uint32_t>parent * 0x9E3779B1u)


cdef int32_t tree_find(const Tree* tree, const Bases* bases, int32_t parent, const Segment* name) noexcept nogil:
    # The node of that name under the parent, member or not; -1: none.
    cdef uint32_t at = tree_slot_hash(parent, name.hash)
    cdef uint64_t slot
    cdef const Node* node
    while True:
        slot = tree.slots[at & tree.mask]
        if <uint32_t>(slot >> 32) != tree.generation:
            return -1
        node = &tree.nodes[<uint32_t>slot]
        if node.parent == parent and node.hash == name.hash and node.name.len == name.name.len and blk_same(
            span_ptr(bases, node.name), span_ptr(bases, name.name), name.name.len
        ):
            return <int32_t><uint32_t>slot
        at += 1


cdef int32_t tree_new(Tree* tree, int32_t parent, const Segment* name) noexcept nogil:
    # A node in the table that is no member yet; -1: out of memory.
    cdef Node* node
    if not tree_room(tree):
        tree.failed = True
        return -1
    node = &tree.nodes[tree.count]
    memset(node, 0, sizeof(Node))
    node.name = name.name
    node.hash = name.hash
    node.index = name.index
    node.parent = parent
    node.first = node.last = node.next = node.previous = -1
    node.age = 1
    tree_insert(tree, tree.count)
    tree.count += 1
    return tree.count - 1


cdef void tree_insert(Tree* tree, int32_t index) noexcept nogil:
    cdef uint32_t at = tree_slot_hash(tree.nodes[index].parent, tree.nodes[index].hash)
    while <uint32_t>(tree.slots[at & tree.mask] >> 32) == tree.generation:
        at += 1
    tree.slots[at & tree.mask] = <uint64_t>tree.generation << 32 | <uint32_t>index


cdef bint tree_room(Tree* tree) noexcept nogil:
    # Keeps the table at most half full.
    cdef Node* nodes
    cdef uint64_t* slots
    cdef int32_t i
    if tree.count < tree.cap:
        return True
    nodes = <Node*>realloc(tree.nodes, 2 * tree.cap * sizeof(Node))
    if nodes is NULL:
        return False
    tree.nodes = nodes
    slots = <uint64_t*>calloc(2 * (tree.mask + 1), sizeof(uint64_t))
    if slots is NULL:
        return False
    free(tree.slots)
    tree.slots = slots
    tree.cap *= 2
    tree.mask = 2 * tree.mask + 1
    for i in range(2, tree.count):
        tree_insert(tree, i)
    return True


cdef inline bint tree_is_member(const Tree* tree, int32_t index) noexcept nogil:
    cdef const Node* node = &tree.nodes[index]
    return node.parent < 0 or node.born == tree.nodes[node.parent].age


cdef bint tree_is_live(const Tree* tree, int32_t index) noexcept nogil:
    # Whether it and everything above it are members.
    while index >= 0:
        if not tree_is_member(tree, index):
            return False
        index = tree.nodes[index].parent
    return True


cdef void tree_clear(Tree* tree, int32_t index, int state) noexcept nogil:
    # Forgets the members; the node is of that state from now on.
    cdef Node* node = &tree.nodes[index]
    node.age += 1
    node.first = node.last = -1
    node.count = 0
    node.state = <byte>state
    if state == NODE_ARRAY:
        tree.arrays += 1


cdef void tree_link(Tree* tree, int32_t index) noexcept nogil:
    # Makes the node a member of its parent: last, or in an array at its place.
    cdef Node* node = &tree.nodes[index]
    cdef Node* parent = &tree.nodes[node.parent]
    cdef int32_t before = parent.last
    if parent.state == NODE_ARRAY:
        while before >= 0 and tree.nodes[before].index > node.index:
            before = tree.nodes[before].previous
    node.previous = before
    node.next = parent.first if before < 0 else tree.nodes[before].next
    if node.next < 0:
        parent.last = index
    else:
        tree.nodes[node.next].previous = index
    if before < 0:
        parent.first = index
    else:
        tree.nodes[before].next = index
    parent.count += 1
    node.born = parent.age


cdef void tree_drop(Tree* tree, int32_t index) noexcept nogil:
    # Takes a member out of its parent.
    cdef Node* node = &tree.nodes[index]
    cdef Node* parent = &tree.nodes[node.parent]
    if node.previous < 0:
        parent.first = node.next
    else:
        tree.nodes[node.previous].next = node.next
    if node.next < 0:
        parent.last = node.previous
    else:
        tree.nodes[node.next].previous = node.previous
    parent.count -= 1
    node.born = 0


cdef int tree_enter(Tree* tree, int32_t index, int member) noexcept nogil:
    # Makes the node a container that can have the member (an index, NOT_INDEX or INDEX_TOO_LARGE).
    cdef Node* node = &tree.nodes[index]
    if node.state == NODE_MAP:
        return PUT_DONE
    if member == INDEX_TOO_LARGE:
        return PUT_INDEX
    if node.state != NODE_ARRAY:
        tree_clear(tree, index, NODE_MAP if member == NOT_INDEX else NODE_ARRAY)
    elif member == NOT_INDEX:
        node.state = NODE_MAP
    return PUT_DONE


cdef int tree_put(
    Tree* tree, const Bases* bases, int32_t start, const Segment* path, int length, Span value, int state, bint first
) noexcept nogil:
    # Sets the leaf at a path below `start`. Looks before it changes anything, because with `first` a repeated key must
    # not disturb what it would pass through. Leaves the leaf's index in tree.put.
    cdef int32_t known[MAX_SEGMENTS]
    cdef int32_t at = start, child
    cdef int found = 0, i
    while found < length:
        at = tree_find(tree, bases, at, &path[found])
        if at < 0:
            break
        known[found] = at
        found += 1
    if found == length and first and tree.nodes[at].used:
        return PUT_REPEATED
    at = start
    for i in range(length):
        if tree_enter(tree, at, path[i].index) == PUT_INDEX:
            return PUT_INDEX
        child = known[i] if i < found else tree_new(tree, at, &path[i])
        if child < 0:
            return PUT_FAILED
        if not tree_is_member(tree, child):
            tree_clear(tree, child, NODE_FREE)
            tree_link(tree, child)
        at = child
    tree_set(tree, at, value, state)
    tree.put = at
    return PUT_DONE


cdef inline void tree_set(Tree* tree, int32_t index, Span value, int state) noexcept nogil:
    if tree.nodes[index].count:
        tree_clear(tree, index, state)
    tree.nodes[index].state = <byte>state
    tree.nodes[index].value = value
    tree.nodes[index].used = True


# When all pairs are placed, the rest looks members up by going through them: it is a handful of names.

cdef int32_t tree_member(const Tree* tree, const Bases* bases, int32_t parent, const Segment* name) noexcept nogil:
    # The member of that name; -1: none.
    cdef int32_t index = tree.nodes[parent].first
    cdef const Node* node
    while index >= 0:
        node = &tree.nodes[index]
        if node.hash == name.hash and node.name.len == name.name.len and blk_same(
            span_ptr(bases, node.name), span_ptr(bases, name.name), name.name.len
        ):
            return index
        index = node.next
    return -1


cdef int32_t tree_map(Tree* tree, const Bases* bases, int32_t parent, const Segment* name) noexcept nogil:
    # The member of that name as a map; what it was before, if it was none, is forgotten. -1: out of memory.
    cdef int32_t index = tree_member(tree, bases, parent, name)
    if index < 0:
        index = tree_new(tree, parent, name)
        if index < 0:
            return -1
        tree_link(tree, index)
    tree_enter(tree, index, NOT_INDEX)
    return index


cdef int32_t tree_add(
    Tree* tree, const Bases* bases, int32_t parent, const Segment* name, Span value, int state
) noexcept nogil:
    # Sets a member of a map. Returns its node; -1: out of memory.
    cdef int32_t index = tree_member(tree, bases, parent, name)
    if index < 0:
        index = tree_new(tree, parent, name)
        if index < 0:
            return -1
        tree_link(tree, index)
    tree_set(tree, index, value, state)
    return index


cdef int32_t tree_append(Tree* tree, int32_t parent, const Segment* name, Span value, int state) noexcept nogil:
    # tree_add for a name that the map is known not to have: nothing is looked for.
    cdef int32_t index = tree_new(tree, parent, name)
    if index < 0:
        return -1
    tree_link(tree, index)
    tree_set(tree, index, value, state)
    return index


cdef int32_t tree_place(Tree* tree, const Bases* bases, const Path* path, Span value, int state) noexcept nogil:
    # Sets a leaf at a path from the event's root.
    cdef int32_t at = 0
    cdef int i
    for i in range(path.length - 1):
        at = tree_map(tree, bases, at, &path.at[i])
        if at < 0:
            return -1
    return tree_add(tree, bases, at, &path.at[path.length - 1], value, state)


cdef int32_t tree_take(Tree* tree, int32_t source, int32_t parent, const Segment* name) noexcept nogil:
    # A new member of `parent` that has what `source` had; `source` leaves its parent. -1: out of memory.
    cdef int32_t index = tree_new(tree, parent, name), child
    cdef Node* node
    if index < 0:
        return -1
    tree_drop(tree, source)
    tree_link(tree, index)
    node = &tree.nodes[index]
    node.state = tree.nodes[source].state
    node.value = tree.nodes[source].value
    node.first = tree.nodes[source].first
    node.last = tree.nodes[source].last
    node.count = tree.nodes[source].count
    child = node.first
    while child >= 0:
        tree.nodes[child].parent = index
        tree.nodes[child].born = node.age
        child = tree.nodes[child].next
    tree_clear(tree, source, NODE_FREE)
    return index


cdef int tree_holes(const Tree* tree, int32_t index) noexcept nogil:
    # Array holes below a node. Depth is bounded by the limit on segments.
    cdef const Node* node = &tree.nodes[index]
    cdef int32_t child = node.first
    cdef int holes = 0
    if node.state == NODE_ARRAY and node.last >= 0:
        holes = tree.nodes[node.last].index + 1 - <int>node.count
    while child >= 0:
        if tree.nodes[child].first >= 0:
            holes += tree_holes(tree, child)
        child = tree.nodes[child].next
    return holes


cdef void tree_pack(const Tree* tree, const Bases* bases, int32_t index, Pack* out, Leaves* leaves) noexcept nogil:
    # Writes a node as msgpack. `leaves`, if it is not NULL, is told where each leaf's value went.
    cdef const Node* node = &tree.nodes[index]
    cdef Py_ssize_t start = out.len
    if node.state == NODE_LEAF:
        pk_str(out, span_ptr(bases, node.value), node.value.len)
        tree_note(leaves, node, start, out.len)
    elif node.state == NODE_PACKED:
        pk_raw(out, span_ptr(bases, node.value), node.value.len)
        tree_note(leaves, node, start, out.len)
    elif node.state == NODE_ARRAY:
        tree_pack_array(tree, bases, node, out, leaves)
    else:
        pk_map(out, node.count)
        tree_pack_members(tree, bases, node, out, leaves)


cdef inline void tree_note(Leaves* leaves, const Node* node, Py_ssize_t start, Py_ssize_t end) noexcept nogil:
    # More than fit are counted.
    if leaves is NULL:
        return
    if leaves.count < SHAPE_STEPS:
        leaves.all[leaves.count].value = node.value
        leaves.all[leaves.count].start = start
        leaves.all[leaves.count].end = end
    leaves.count += 1


cdef void tree_pack_members(
    const Tree* tree, const Bases* bases, const Node* node, Pack* out, Leaves* leaves
) noexcept nogil:
    cdef int32_t child = node.first
    cdef const Node* member
    while child >= 0:
        member = &tree.nodes[child]
        pk_str(out, span_ptr(bases, member.name), member.name.len)
        tree_pack(tree, bases, child, out, leaves)
        child = member.next


cdef void tree_pack_array(
    const Tree* tree, const Bases* bases, const Node* node, Pack* out, Leaves* leaves
) noexcept nogil:
    cdef int32_t child = node.first
    cdef int index = 0
    pk_array(out, 0 if node.last < 0 else tree.nodes[node.last].index + 1)
    while child >= 0:
        while index < tree.nodes[child].index:
            pk_nil(out)
            index += 1
        tree_pack(tree, bases, child, out, leaves)
        index += 1
        child = tree.nodes[child].next
