"""Makes foreign text safe to show: control codes, which a terminal would obey, appear as escapes."""


def printable(text: str) -> str:
    """Return `text` with control codes, line breaks and marks that turn the direction of writing as escapes."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def excerpt(data: bytes, most: int = 40) -> str:
    """Return the first `most` characters in quotes, printable; an ellipsis stands for the rest."""
    # A character has four bytes at most: only what is shown is decoded.
    text = printable(data[: 4 * most].decode("utf-8", "backslashreplace"))
    return f"'{text}'" if len(text) <= most else f"'{text[:most]}…'"


def counted(number: int, what: str) -> str:
    """Return a number of things, such as `1 line` or `2,000 lines`."""
    return f"{number:,} {what}{'s' * (number != 1)}"
