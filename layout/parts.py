"""The parts that a page is declared with: construct's, given the type Any once, because construct carries no types."""

from __future__ import annotations

from typing import Any

import construct

Struct: Any = construct.Struct
Array: Any = construct.Array
Bytes: Any = construct.Bytes
Int8ul: Any = construct.Int8ul
Int16ul: Any = construct.Int16ul
Int32ul: Any = construct.Int32ul
Int64ul: Any = construct.Int64ul
