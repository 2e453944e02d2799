"""What callers ask for: handing mail in (``accepting``), and looking after it (the others)."""
