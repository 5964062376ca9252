"""Words that no message for a user may have."""

import re

# What belongs to the program's inside and means nothing to its users
INTERNALS = re.compile(
    r"Traceback|weights_only|pydantic|BaseModel|function-(before|after|wrap)|literal\[|"
    r"\bNoneType\b|object at 0x|\bKeyError\b|\bAttributeError\b|\bTypeError\b|\bIndexError\b"
)
