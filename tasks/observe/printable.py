"""Text for a person that somebody else wrote: what a terminal would obey is shown as what it is."""


def printable(text: str) -> str:
    """`text` with control codes, line breaks and marks that turn the direction of writing as escapes."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
