# distutils: language = c
"""fastpixel's compiled core: a contents page. Read core/ in this order; `_core.pxd` is the map."""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memchr, memcmp, memcpy, memmove, memset, strlen
from posix.time cimport CLOCK_MONOTONIC, CLOCK_REALTIME, clock_gettime, timespec

import re
from base64 import urlsafe_b64encode
from hashlib import sha256
from ipaddress import ip_network
from urllib.parse import quote, unquote_to_bytes
from zlib import decompressobj
from zlib import error as ZlibError

from httptools import HttpParserError, HttpRequestParser

cdef extern from "Python.h" nogil:
    const byte* bytes_at "PyBytes_AS_STRING"(PyObject* data)
    Py_ssize_t bytes_len "PyBytes_GET_SIZE"(PyObject* data)

cdef extern from "sys/random.h" nogil:
    ssize_t getrandom(void* buffer, size_t length, unsigned int flags)

cdef extern from "arpa/inet.h" nogil:
    enum: AF_INET
    enum: AF_INET6
    enum: INET6_ADDRSTRLEN
    int inet_pton(int family, const char* text, void* address)
    const char* inet_ntop(int family, const void* address, char* text, unsigned int size)

_UPGRADE = re.compile(rb"\nupgrade:", re.IGNORECASE)
_METHOD_NAME = re.compile(rb"[A-Z-]{1,32}")
_HEADER_LIST = re.compile(rb"[A-Za-z0-9, _-]{1,1024}")

# Bytes and text
include "core/span.pxi"
include "core/utf8.pxi"
include "core/chars.pxi"
include "core/base64.pxi"
include "core/float.pxi"
include "core/hash.pxi"
include "core/block.pxi"
include "core/pack.pxi"
include "core/percent.pxi"
include "core/query.pxi"

# Values and the event
include "core/json.pxi"
include "core/jsonout.pxi"
include "core/kind.pxi"
include "core/uuid.pxi"
include "core/tree.pxi"
include "core/shape.pxi"
include "core/record.pxi"
include "core/params.pxi"
include "core/document.pxi"
include "core/rate.pxi"

# The tables, and what is answered
include "core/plan.pxi"
include "core/reply.pxi"

# A connection
include "core/head.pxi"
include "core/proxy.pxi"
include "core/body.pxi"
include "core/intake.pxi"
include "core/call.pxi"
include "core/reject.pxi"
include "core/connection.pxi"
include "core/carrier.pxi"
include "core/wire.pxi"
include "core/doors.pxi"
