"""A conformance corpus for JSON, written along RFC 8259: every production of its grammar, and every limit it allows.

One row a document, named by what must become of it: `y` must be accepted, `n` must be rejected, `i` is left to the
implementation. A row says more than its letter: the value of an accepted document as msgpack stores it, or the reason
against it; of an `i` row that is what this project decided (protocols, "JSON"). A document is bytes, or text as UTF-8.
The letters are judged by the RFC alone, so an `i` row stands beside each decision: tests/core/test_json.py runs them.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Case(NamedTuple):
    name: str
    data: bytes
    reason: str | None = None
    value: Any = None


def y(name: str, document: str | bytes, value: Any) -> Case:
    return Case(f"y_{name}", octets(document), None, value)


def n(name: str, *documents: str | bytes, reason: str = "bad_json") -> list[Case]:
    """Several documents of one name are numbered."""
    names = [f"n_{name}"] if len(documents) == 1 else [f"n_{name}_{number}" for number in range(1, len(documents) + 1)]
    return [Case(one, octets(document), reason) for one, document in zip(names, documents, strict=True)]


def i(name: str, document: str | bytes, value: Any = None, *, reason: str | None = None) -> Case:
    return Case(f"i_{name}", octets(document), reason, value)


def octets(document: str | bytes) -> bytes:
    return document.encode() if isinstance(document, str) else document


def nested(depth: int, opening: str = "[", closing: str = "]", inner: str = "") -> str:
    return opening * depth + inner + closing * depth


def inside(depth: int, wrapped: Any, value: Any) -> Any:
    """The value of `nested`: `wrapped` puts one level around a value."""
    for _ in range(depth):
        value = wrapped(value)
    return value


# Section 2: tokens, and the four characters of white space around them.
GRAMMAR = [
    y("white_space_around_a_value", " \t\n\r1\r\n\t ", 1),
    y("white_space_around_every_token", '\n{ "a"\t:\r[ 1 , 2 ]\n,\t"b" : { } } ', {"a": [1, 2], "b": {}}),
    y("white_space_in_empty_brackets", "[ \t\r\n]", []),
    y("no_white_space", '{"a":[1,{"b":null}]}', {"a": [1, {"b": None}]}),
    y("a_lot_of_white_space", " " * 300 + "1" + "\n" * 300, 1),
    *n("nothing", b""),
    *n("white_space_only", " ", "\r\n", "\t" * 40),
    *n("vertical_tab", "\x0b1", "[1\x0b]"),
    *n("form_feed", "\x0c1", "[\x0c]"),
    *n("no_break_space", "\xa01", "[1,\xa02]"),
    *n("unicode_space", "\u20281", "\u2003[]", "\u0085{}", "\u200b1"),
    *n("nul", "\x00", "1\x00", "\x001", "[\x00]"),
    *n("comment", "/**/1", "//1", "1//", "#1", "[1/*,2*/]", "1\n#"),
    *n("trailing_value", "1 2", "1]", "[]]", "[]{}", "[][]", "{}}", "null,", "true false", '"a""b"', '"a"b', "{}x"),
    *n("trailing_comma_after_the_document", "1,", "[],", "{},"),
    *n("escape_outside_a_string", "\\u0031", "[\\n]", "\\n1", "\\"),
    *n("a_sign_that_is_no_token", "$", "@", "&", "(1)", "<1>", ";", "=", "!"),
]

# Section 3: a value is one of seven things; literals are lower case.
VALUES = [
    y("null", "null", None),
    y("true", "true", True),
    y("false", "false", False),
    y("literals_in_an_array", "[null,true,false]", [None, True, False]),
    y("a_number_alone", "7", 7),
    y("a_string_alone", '"a"', "a"),
    y("an_empty_string_alone", '""', ""),
    *n("literal_cut", "n", "nul", "tru", "fals", "[tru]", '{"a":nul'),
    *n("literal_too_long", "nulll", "truee", "falsey", "[nullnull]"),
    *n("literal_in_capitals", "NULL", "True", "FALSE", "nUll"),
    *n("literal_with_a_gap", "nu ll", "t rue", "fa\nlse"),
    *n("full_width_letters", "\uff54\uff52\uff55\uff45"),
    *n("nan", "NaN", "nan", "-NaN", "[NaN]", "+NaN"),
    *n("infinity", "Infinity", "-Infinity", "+Infinity", "Inf", "inf", "[Infinity]", "-inf"),
    *n("undefined", "undefined", "None", "nil", "void"),
    *n("a_bare_word", "a", "abc", "[a]", '{"a":b}'),
]

# Section 4: objects.
OBJECTS = [
    y("empty_object", "{}", {}),
    y("one_member", '{"a":1}', {"a": 1}),
    y("empty_name", '{"":""}', {"": ""}),
    y("name_with_escapes", '{"a\\u0062\\n":1}', {"ab\n": 1}),
    y("names_that_look_alike", '{"a":1,"A":2,"\xe4":3,"a\u0308":4}', {"a": 1, "A": 2, "\xe4": 3, "a\u0308": 4}),
    y("names_that_start_alike", '{"a\\u0000":1,"a":2}', {"a\x00": 1, "a": 2}),
    y("names_that_are_literals", '{"null":1,"true":2,"1":3}', {"null": 1, "true": 2, "1": 3}),
    y("sixteen_members", "{" + ",".join(f'"{k}":{k}' for k in range(16)) + "}", {str(k): k for k in range(16)}),
    y("objects_in_one_another", '{"a":{"b":{"c":{}}}}', {"a": {"b": {"c": {}}}}),
    y("names_of_prototypes", '{"constructor":1,"prototype":2}', {"constructor": 1, "prototype": 2}),
    y("almost_proto", '{"__proto":3,"__proto___":4,"_proto__":5}', {"__proto": 3, "__proto___": 4, "_proto__": 5}),
    y("proto_as_a_value", '["__proto__",{"a":"__proto__"}]', ["__proto__", {"a": "__proto__"}]),
    # "The names within an object SHOULD be unique": what comes of others is not said.
    i("repeated_name", '{"a":1,"a":2}', {"a": 2}),
    i("repeated_name_written_with_an_escape", '{"a":1,"b":2,"\\u0061":3}', {"b": 2, "a": 3}),
    i("repeated_name_that_held_more", '{"a":{"a":1,"a":[1]},"a":{"b":1,"b":{}}}', {"a": {"b": {}}}),
    i("repeated_long_name", '{"abcdefgh":1,"abcdefgi":2,"abcdefgh":3}', {"abcdefgi": 2, "abcdefgh": 3}),
    i("repeated_empty_name", '{"":1,"":2}', {"": 2}),
    i(
        "repeated_among_forty",
        "{" + ",".join(f'"{k % 20}":{k}' for k in range(40)) + "}",
        {str(k): k + 20 for k in range(20)},
    ),
    # Left out, because it would change the prototype of the object that JavaScript makes of it.
    i("proto", '{"__proto__":1}', {}),
    i("proto_between", '{"a":1,"__proto__":{"b":[1,{"c":2,"c":3}]},"d":4}', {"a": 1, "d": 4}),
    i("proto_written_with_an_escape", '{"\\u005f_proto__":1,"x":{"__proto__":null,"y":1}}', {"x": {"y": 1}}),
    i("proto_twice", '{"__proto__":1,"a":2,"__proto__":3}', {"a": 2}),
    *n("object_cut", "{", '{"a', '{"a"', '{"a":', '{"a":1', '{"a":1,', '{"a":1,"', '{"a":{"b":1}'),
    *n("object_closed_only", "}", "1}"),
    *n("object_closed_as_an_array", '{"a":1]', "{]"),
    *n("comma_before_the_first_member", '{,"a":1}', "{,}"),
    *n("comma_after_the_last_member", '{"a":1,}', '{"__proto__":1,}', '{"a":{"b":1,}}'),
    *n("two_commas_between_members", '{"a":1,,"b":2}'),
    *n("no_comma_between_members", '{"a":1 "b":2}', '{"a":"b""c":1}'),
    *n("no_colon", '{"a" 1}', '{"a","b"}', '{"a"=1}', '{"a";1}'),
    *n("two_colons", '{"a"::1}', '{"a":1:2}'),
    *n("no_value", '{"a":}', '{"__proto__":}', '{"a":,"b":1}'),
    *n("name_that_is_no_string", "{a:1}", "{1:1}", "{null:1}", '{["a"]:1}', "{{}:1}", "{:1}"),
    *n("set", "{1}", '{"a"}', "{null}"),
]

# Section 5: arrays.
ARRAYS = [
    y("empty_array", "[]", []),
    y("array_of_different_things", '[1,"a",null,[],{}]', [1, "a", None, [], {}]),
    y("arrays_in_one_another", "[[[[[1],2],3],4],5]", [[[[[1], 2], 3], 4], 5]),
    y("sixteen_values", "[" + "0," * 15 + "0]", [0] * 16),
    y("empty_things", '[[],{},"",[[]]]', [[], {}, "", [[]]]),
    *n("array_cut", "[", "[1", "[1,", "[[1]", '["a', "[[", "[{"),
    *n("array_closed_only", "]"),
    *n("array_closed_as_an_object", "[1}", "[}", "[{]}"),
    *n("comma_before_the_first_value", "[,1]", "[,]"),
    *n("comma_after_the_last_value", "[1,]", "[[],]", '["a",]'),
    *n("two_commas_between_values", "[1,,2]"),
    *n("no_comma_between_values", "[1 2]", '["a" "b"]', "[[][]]", "[1[]]"),
    *n("colon_in_an_array", "[1:2]", '["a":1]'),
]

# Section 6: numbers. `int`, `frac`, `exp`, and no leading zeros. Range and precision may be limited: whole numbers that
# no 64 bits hold, and doubles that overflow, keep their digits as text; more than 1,024 characters are refused.
DIGITS = "123456789012345678901234567890"
LARGEST = "1.7976931348623157e308"
NUMBERS = [
    y("zero", "0", 0),
    y("minus_zero", "-0", 0),
    y("minus_zero_with_a_fraction", "-0.0", -0.0),
    y("zero_with_an_exponent", "0e0", 0.0),
    y("minus_zero_with_an_exponent", "-0e-5", -0.0),
    y("one_digit", "[1,2,3,4,5,6,7,8,9]", [1, 2, 3, 4, 5, 6, 7, 8, 9]),
    y("zeros_after_the_first_digit", "1000", 1000),
    y("fraction", "1.0", 1.0),
    y("fraction_of_zero", "0.5", 0.5),
    y("fraction_of_zeros", "1.000", 1.0),
    y("small_exponent", "1e2", 100.0),
    y("capital_exponent", "1E2", 100.0),
    y("exponent_with_plus", "1e+2", 100.0),
    y("exponent_with_minus", "0.1e-2", 0.001),
    y("exponent_with_leading_zeros", "1e0002", 100.0),
    y("exponent_of_zero", "[1e0,1E+0,1e-0,1e00]", [1.0, 1.0, 1.0, 1.0]),
    y("fraction_and_exponent", "-12.5E+1", -125.0),
    y(
        "signs_of_msgpack",
        "[127,128,255,256,65535,65536,4294967295,4294967296]",
        [127, 128, 255, 256, 65535, 65536, 4294967295, 4294967296],
    ),
    y(
        "negative_signs_of_msgpack",
        "[-32,-33,-128,-129,-32768,-32769,-2147483648,-2147483649]",
        [-32, -33, -128, -129, -32768, -32769, -2147483648, -2147483649],
    ),
    y("integers_that_doubles_hold", "[9007199254740991,-9007199254740991]", [2**53 - 1, -(2**53) + 1]),
    y("integers_that_doubles_do_not_hold", "[9007199254740993,-9007199254740993]", [2**53 + 1, -(2**53) - 1]),
    y("largest_signed", "9223372036854775807", 2**63 - 1),
    i("2_to_the_63", "9223372036854775808", 2**63),
    i("smallest_signed", "-9223372036854775808", -(2**63)),
    i("below_the_smallest_signed", "-9223372036854775809", "-9223372036854775809"),
    i("largest_unsigned", "18446744073709551615", 2**64 - 1),
    i("2_to_the_64", "18446744073709551616", "18446744073709551616"),
    i("minus_largest_unsigned", "-18446744073709551615", "-18446744073709551615"),
    i("integer_of_30_digits", DIGITS, DIGITS),
    i("number_of_1000_characters", "1" * 1000, "1" * 1000),
    i("number_of_1024_characters", "1" * 1024, "1" * 1024),
    i("number_of_1025_characters", "1" * 1025, reason="bad_json"),
    i("minus_and_1023_digits", "-" + "1" * 1023, "-" + "1" * 1023),
    i("minus_and_1024_digits", "-" + "1" * 1024, reason="bad_json"),
    i("fraction_of_1024_characters", "0." + "3" * 1022, 1 / 3),
    i("fraction_of_1025_characters", "0." + "3" * 1023, reason="bad_json"),
    i("exponent_of_1024_characters", "1e" + "0" * 1022, 1.0),
    i("exponent_of_1025_characters", "1e" + "0" * 1023, reason="bad_json"),
    i("number_of_1025_characters_in_an_array", "[" + "9" * 1025 + "]", reason="bad_json"),
    i("two_numbers_of_1024_characters", "[" + "9" * 1024 + "," + "8" * 1024 + "]", ["9" * 1024, "8" * 1024]),
    i("number_of_1025_characters_in_a_member_left_out", '{"__proto__":' + "9" * 1025 + "}", reason="bad_json"),
    i("number_of_1025_digits_in_a_string", '"' + "9" * 1025 + '"', "9" * 1025),
    i("largest_double", LARGEST, 1.7976931348623157e308),
    i("largest_double_with_digits_to_spare", "1.797693134862315708e308", 1.7976931348623157e308),
    i("above_the_largest_double", "1.7976931348623159e308", "1.7976931348623159e308"),
    i("overflow", "1e400", "1e400"),
    i("negative_overflow", "-1.50E+400", "-1.50E+400"),
    i("overflow_of_any_size", "1e99999999999999999999", "1e99999999999999999999"),
    i("overflow_that_is_none", "0e99999999999999999999", 0.0),
    i("overflow_of_digits", "1" + "0" * 400 + ".0", "1" + "0" * 400 + ".0"),
    i("digits_that_the_exponent_takes_back", "1" + "0" * 400 + ".0e-400", 1.0),
    i("underflow", "1e-400", 0.0),
    i("negative_underflow", "-1e-400", -0.0),
    i("underflow_of_any_size", "1e-99999999999999999999", 0.0),
    i("underflow_of_digits", "0." + "0" * 1000 + "1", 0.0),
    i("smallest_double", "5e-324", 5e-324),
    i("half_the_smallest_double", "2.4703282292062327e-324", 0.0),
    i("largest_subnormal", "2.2250738585072011e-308", 2.2250738585072011e-308),
    i("double_half_way", "9007199254740993.0", 9007199254740992.0),
    i("double_of_30_digits", DIGITS + ".0", 123456789012345678901234567890.0),
    *n("sign_only", "-", "+", "[-]", "--", "+-"),
    *n("plus_sign", "+1", "+0.5", "[+1]"),
    *n("two_signs", "--1", "-+1", "+-1", "- 1"),
    *n("leading_zero", "01", "00", "-01", "-00", "012", "00.5", "01e1", "[01]"),
    *n("no_digit_before_the_point", ".5", "-.5", ".", "-."),
    *n("no_digit_after_the_point", "1.", "-1.", "1.e5", "0.", "[1.]"),
    *n("two_points", "1..2", "1.2.3", "1.2."),
    *n("exponent_cut", "1e", "1e+", "1e-", "0e", "1E+-2", "1.5e", "e5", "-e5", "[1e]"),
    *n("exponent_with_a_fraction", "1e1.5", "1e.5"),
    *n("two_exponents", "1e5e5"),
    *n("other_notations", "0x10", "0b1", "0o7", "1_000", "1,5", "1f", "1n", "1d", "10h", "1 000"),
    *n("other_digits", "\u0661", "\uff11", "1\u0660", "\xb2", "\u2212" + "1"),
    *n("letter_after_a_number", "1a", "1null", "-1x", "1.5f", "1e5x"),
]

# Section 7: strings. Control characters, '"' and '\' must be escaped; everything else may stand as it is.
HIGH, LOW = "\\ud83d", "\\ude00"
STRINGS = [
    y("short_escapes", r'"\"\\\/\b\f\n\r\t"', '"\\/\b\f\n\r\t'),
    y("slash_that_needs_no_escape", '"/\\/"', "//"),
    y("unicode_escapes_in_both_cases", r'"\u00e9\u00E9\u20AC\uFfFf"', "\xe9\xe9\u20ac\uffff"),
    y("escaped_nul", r'"a\u0000b"', "a\x00b"),
    y(
        "every_escaped_control_character",
        '"' + "".join(f"\\u{k:04x}" for k in range(32)) + '"',
        "".join(map(chr, range(32))),
    ),
    y("escaped_del_and_c1", r'"\u007f\u0080\u009f"', "\x7f\x80\x9f"),
    y("del", '"\x7f"', "\x7f"),
    y("c1_controls", '"\x80\x85\x9f"', "\x80\x85\x9f"),
    y("line_separators", '"\u2028\u2029"', "\u2028\u2029"),
    y("byte_order_mark_in_a_string", '"\ufeff\\ufeff"', "\ufeff\ufeff"),
    y("noncharacters", '"\ufdd0\ufffe\uffff\U0001ffff\U0010ffff"', "\ufdd0\ufffe\uffff\U0001ffff\U0010ffff"),
    y("replacement_character", '"\ufffd\\ufffd"', "\ufffd\ufffd"),
    y("one_two_three_four_bytes", '"a\xe9\u20ac\U0001f600"', "a\xe9\u20ac\U0001f600"),
    y("surrogate_pair", f'"{HIGH}{LOW}"', "\U0001f600"),
    y("surrogate_pairs_first_and_last", r'"\uD800\uDC00\uDBFF\uDFFF"', "\U00010000\U0010ffff"),
    y("surrogate_pair_in_a_name", f'{{"{HIGH}{LOW}":1}}', {"\U0001f600": 1}),
    y("escaped_backslash_before_u", r'"\\u0041\\\u0041"', "\\u0041\\A"),
    y("escaped_backslash_at_the_end", r'"a\\"', "a\\"),
    y("escaped_quote_at_the_end", r'"a\""', 'a"'),
    y("comment_in_a_string", '"/* a */ // b # c"', "/* a */ // b # c"),
    y("brackets_in_a_string", '"[{]},:"', "[{]},:"),
    y("string_of_31_bytes", '"' + "x" * 31 + '"', "x" * 31),
    y("string_of_32_bytes", '"' + "x" * 32 + '"', "x" * 32),
    y("string_of_256_bytes", '"' + "\xe9" * 128 + '"', "\xe9" * 128),
    # "the behavior of software that receives JSON texts containing such values is unpredictable"
    i("high_surrogate_alone", f'"{HIGH}"', "\ufffd"),
    i("low_surrogate_alone", f'"{LOW}"', "\ufffd"),
    i("surrogates_reversed", f'"{LOW}{HIGH}"', "\ufffd\ufffd"),
    i("high_surrogate_twice", f'"{HIGH}{HIGH}"', "\ufffd\ufffd"),
    i("low_surrogate_twice", f'"{HIGH}{LOW}{LOW}"', "\U0001f600\ufffd"),
    i("high_surrogate_before_a_pair", f'"{HIGH}{HIGH}{LOW}"', "\ufffd\U0001f600"),
    i("high_surrogate_before_text", f'"{HIGH}x\\n"', "\ufffdx\n"),
    i("high_surrogate_before_an_escape", f'"{HIGH}\\n{LOW}"', "\ufffd\n\ufffd"),
    i("high_surrogate_before_another_escape", f'"{HIGH}\\u0041"', "\ufffdA"),
    i("high_surrogate_before_a_raw_character", f'"{HIGH}\u20ac"', "\ufffd\u20ac"),
    i("surrogate_in_a_name", '{"\\ud800":1}', {"\ufffd": 1}),
    i("surrogates_that_make_names_equal", '{"\\ud800":1,"\\udfff":2}', {"\ufffd": 2}),
    *n("string_cut", '"', '"a', '{"a":"', '"a\\"', '["a]'),
    *n("escape_cut", '"\\', '"a\\', '"\\u', '"\\u0', '"\\u004', '"\\ud83d\\'),
    *n("unicode_escape_too_short", r'"\u"', r'"\u1"', r'"\u12"', r'"\u123"', r'"\ud83d\u12"', r'["\u00",1]'),
    *n(
        "unicode_escape_with_a_letter",
        r'"\u123g"',
        r'"\u 123"',
        r'"\u+123"',
        r'"\u-123"',
        r'"\u0x41"',
        '"\\u\uff10000"',
    ),
    *n("unicode_escape_of_python", r'"\U00000041"', r'"\u{41}"', r'"\x41"', r'"\N{DASH}"'),
    *n(
        "unknown_escape",
        r'"\a"',
        r'"\v"',
        r'"\0"',
        r'"\e"',
        r'"\ "',
        r'"\'"',
        r'"\`"',
        r'"\1"',
        '"\\\xe9"',
        '"\\\U0001f600"',
    ),
    *n("capital_escape", r'"\N"', r'"\T"', r'"\B"'),
    *n("escaped_line_end", '"a\\\nb"', '"a\\\r\nb"', '"\\\x00"'),
    *n("control_character", *[f'"a{chr(k)}b"' for k in range(32)]),
    *n("control_character_in_a_name", '{"a\nb":1}', '{"\x00":1}', '{"\t":1}'),
    *n("control_character_after_eight", '"12345678\t"', '["1234567\x1f"]'),
    *n("single_quotes", "'a'", "['a']", "{'a':1}", "'", "\"a'"),
    *n("other_quotes", "\u201ca\u201d", "`a`", '""a""', '"""a"""'),
]

# Section 8: UTF-8 and nothing else; a byte order mark may be ignored or be an error.
ENCODING = [
    y(
        "utf_8_at_its_borders",
        '"\x7f\x80\u07ff\u0800\ud7ff\ue000\uffff\U00010000\U0010ffff"',
        "\x7f\x80\u07ff\u0800\ud7ff\ue000\uffff\U00010000\U0010ffff",
    ),
    i("byte_order_mark", "\ufeff{}", reason="bad_json"),
    i("byte_order_mark_before_a_number", "\ufeff1", reason="bad_json"),
    *n("byte_order_mark_elsewhere", "[1]\ufeff", "[\ufeff]", " \ufeff1", "1\ufeff"),
    *n("byte_order_mark_only", "\ufeff"),
    *n("byte_order_mark_cut", b"\xef\xbb{}", reason="bad_encoding"),
    *n("utf_16_without_a_mark", "[1]".encode("utf-16-le"), "[1]".encode("utf-16-be"), "{}".encode("utf-32-le")),
    *n("utf_16", "[1]".encode("utf-16"), '["\xe9"]'.encode("utf-16-le"), "[1]".encode("utf-32"), reason="bad_encoding"),
    *n(
        "latin_1",
        "\xe9".encode("latin-1"),
        '"\xe9"'.encode("latin-1"),
        '{"\xe9":1}'.encode("latin-1"),
        reason="bad_encoding",
    ),
    *n(
        "byte_that_never_occurs", b'"\xfe"', b'"\xff"', b'"\xc0"', b'"\xc1a"', b'"\xf5"', b"\xff", reason="bad_encoding"
    ),
    *n(
        "continuation_alone",
        b'"\x80"',
        b'"\xbf"',
        b'"a\x80b"',
        b"[1]\x80",
        b'"\xe2\x82\xac\x80"',
        reason="bad_encoding",
    ),
    *n("sequence_cut_by_a_quote", b'"\xc3"', b'"\xe2\x82"', b'"\xf0\x9f\x98"', b'{"\xc3":1}', reason="bad_encoding"),
    *n("sequence_cut_by_the_end", b'"\xc3', b'"\xe2\x82', b'"\xf0\x9f\x98', b'"\xf0', reason="bad_encoding"),
    *n("sequence_cut_by_a_character", b'"\xe2\x82a"', b'"\xf0\x9f\xc3\xa9"', b'"\xc3\xc3\xa9"', reason="bad_encoding"),
    *n("overlong_slash", b'"\xc0\xaf"', b'"\xe0\x80\xaf"', b'"\xf0\x80\x80\xaf"', reason="bad_encoding"),
    *n("overlong_nul", b'"\xc0\x80"', b'"\xe0\x80\x80"', b'"\xf0\x80\x80\x80"', reason="bad_encoding"),
    *n("overlong_at_its_border", b'"\xc1\xbf"', b'"\xe0\x9f\xbf"', b'"\xf0\x8f\xbf\xbf"', reason="bad_encoding"),
    *n("overlong_quote", b"\xc0\xa2a\xc0\xa2", reason="bad_encoding"),
    *n("surrogate", b'"\xed\xa0\x80"', b'"\xed\xbf\xbf"', reason="bad_encoding"),
    *n("surrogate_pair_of_three_bytes_each", b'"\xed\xa0\xbd\xed\xb8\x80"', reason="bad_encoding"),
    *n(
        "above_the_last_character",
        b'"\xf4\x90\x80\x80"',
        b'"\xf5\x80\x80\x80"',
        b'"\xf7\xbf\xbf\xbf"',
        reason="bad_encoding",
    ),
    *n("five_and_six_bytes", b'"\xf8\x88\x80\x80\x80"', b'"\xfc\x84\x80\x80\x80\x80"', reason="bad_encoding"),
    *n("bad_byte_after_eight", b'"abcdefgh\xffabcdefgh"', b'"abcdefghabcdefg\xc3"', reason="bad_encoding"),
    *n("bad_byte_after_an_escape", b'"\\n\xff"', b'"\\\xff"', b'"\\u\xff"', reason="bad_encoding"),
    # What is not UTF-8 is no text that could be bad JSON, or too deep.
    *n("bad_byte_after_another_fault", b"{,\xff", b"01\xff", b"[" * 300 + b"\xff", reason="bad_encoding"),
]

# Section 9: "An implementation may set limits on the maximum depth of nesting."
DEEP = [
    i("200_arrays", nested(200), inside(199, lambda v: [v], [])),
    i("201_arrays", nested(201), reason="too_deep"),
    i("200_objects", nested(200, '{"a":', "}", "1"), inside(200, lambda v: {"a": v}, 1)),
    i("201_objects", nested(201, '{"a":', "}", "1"), reason="too_deep"),
    i("200_of_both", nested(100, '[{"a":', "}]", "1"), inside(100, lambda v: [{"a": v}], 1)),
    i("202_of_both", nested(101, '[{"a":', "}]", "1"), reason="too_deep"),
    i("201_arrays_in_a_member_left_out", '{"__proto__":' + nested(200) + "}", reason="too_deep"),
    i("200_arrays_beside_each_other", "[" + ",".join(["[]"] * 200) + "]", [[]] * 200),
    i("200_arrays_and_one_beside_them", nested(199, inner="[],[]"), inside(198, lambda v: [v], [[], []])),
    *n("200_arrays_cut", "[" * 200),
    *n("201_arrays_cut", "[" * 201, reason="too_deep"),
    *n("201_arrays_after_a_fault", "01" + nested(201)),
    *n("a_fault_after_201_arrays", "[" * 201 + "01", reason="too_deep"),
    *n("201_brackets_in_a_string_cut", '"' + "[" * 201),
]

CASES: list[Case] = [*GRAMMAR, *VALUES, *OBJECTS, *ARRAYS, *NUMBERS, *STRINGS, *ENCODING, *DEEP]
