"""
How fast mail may go: over the limits of mailers, tenants and domains, and in turn between tenants.

Mail that is over a limit rests in a queue of its own until its turn has come. ``keys`` says which limits a mail falls
under, ``bucket`` when the next turn is, ``turnstile`` takes mail out of the queues in turn; the count that all
processes share is the ledger's (``ledger.turns``).
"""
