"""
One mail's way from a copy that arrived to its next state: read ``courier``, ``settling`` and ``closing`` first.

``copies`` is what arrives, ``verdicts`` what an attempt ends in. ``handover`` asks the mailers; ``fetching``,
``preparing`` and ``traced`` stand before it where they are needed, and ``guard`` and ``deadline`` around it.
"""
