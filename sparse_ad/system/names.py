"""Names of files as people see them: on Linux a name is bytes, and those need not be UTF-8."""

import re

BYTE = re.compile("[\udc80-\udcff]")  # how Python holds a byte that is not UTF-8


CONTROL = re.compile("[\x00-\x1f\x7f]")


def file_name(name: object) -> str:
    r"""Returns the name of a file as one line: as `printable`, and a line break as \x0a."""
    return CONTROL.sub(lambda sign: f"\\x{ord(sign[0]):02x}", printable(name))


def printable(name: object) -> str:
    r"""Returns a name, path or message as text that can be written anywhere.

    Bytes that are not UTF-8 become escapes such as \xe4.
    """
    escaped = BYTE.sub(lambda byte: f"\\x{ord(byte[0]) - 0xDC00:02x}", str(name))
    return escaped.encode("utf-8", "backslashreplace").decode("utf-8")
